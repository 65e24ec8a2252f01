"""Labelled data as examples, whatever the format of its file (`formats.py`).

Column names are guessed from the usual names, and can be given.  Rows without a text or a label are
left out, with a warning.  Every fault names the file, the line and the remedy.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from edgepack.data.formats import TABLES, Layout, Row, Rows, looks_like_data, read_file, read_hub
from edgepack_runtime import tasks
from edgepack_runtime.errors import InputError

_log = logging.getLogger(__name__)
_MOST_LEFT_OUT = 0.2  # more than this share of rows is a fault of the file
_GUESSES = {
    "text": ("text", "sentence", "utterance", "query", "sentence1", "sentence_A", "premise",
             "question", "content", "review", "tweet"),
    "pair": ("text_pair", "pair", "sentence2", "sentence_B", "hypothesis", "context", "document",
             "passage"),
    "label": ("label", "labels", "intent", "category", "class", "target", "sentiment", "score",
              "similarity_score", "relevance", "answers.text", "answers", "answer"),
    "words": ("tokens", "words"),
    "tags": ("tags", "ner_tags", "labels", "slots"),
}  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """The names of the columns, and how files are written; empty fields are detected."""

    text: str = ""
    """The column of texts."""
    pair: str = ""
    """The column of second texts."""
    label: str = ""
    """The column of labels."""
    encoding: str = ""
    """The encoding of files that are not UTF-8 and have no byte order mark."""
    delimiter: str = ""
    """The delimiter of tables."""


@dataclass(frozen=True)
class Example:
    """One row."""

    text: str
    """The text; for token classification, its words joined by spaces."""
    line: int
    """Its line in the file, from 1."""
    pair: str | None = None
    """A second text; None for none."""
    label: str | float | tuple[str, ...] | None = None
    """A name, a tuple of names (several labels), a number, or None."""
    words: tuple[str, ...] = ()
    """The words, for token classification."""
    tags: tuple[str, ...] = ()
    """The tags of the words, one for each."""


def read_examples(
    source: str, task: str, columns: Columns | None = None, *, labelled: bool = True
) -> list[Example]:
    """Read every row of a file, or of `datasets:NAME[@REVISION][:SPLIT]`.

    Args:
        source: the file, or the id.
        task: the task by the runtime's name, which says whether rows are words with tags; empty for
            texts.
        columns: the names of the columns, if they are not the usual ones.
        labelled: also read labels; a row without a label is left out if others have one.

    Raises:
        InputError: there is no such file, it is not valid, a column is missing, there are no rows,
            or too many rows have no text or no label.

    """
    columns = columns or Columns()
    if Path(source).is_dir():
        return _folders(Path(source))
    tagged = bool(task) and tasks.find(task).PER_TOKEN
    wanted = _wanted(columns, tagged=tagged, labelled=labelled)
    found: list[Example] = []
    empty: list[int] = []
    names: tuple[str, ...] | None = None
    picked: Mapping[str, str] = {}
    make = _tagged if tagged else _plain
    for line, row in read_rows(source, Layout(columns.encoding, columns.delimiter, tagged)):
        if names is None:
            _check_columns(row, wanted, source)
        if names != tuple(row):
            names, picked = tuple(row), _pick(row, wanted)
        if _is_blank(row.get(picked.get("words" if tagged else "text", ""))):
            empty.append(line)
        else:
            found.append(make(row, picked, line, source))
    if not found and not empty:
        raise InputError(f"{source} has no rows")
    _leave_out(empty, len(found) + len(empty), "text", source)
    return _with_numbers(_with_labels(found, source), source)


def _folders(source: Path) -> list[Example]:
    """Read a folder that has a folder of files for each class; files beside these have no class.

    Raises:
        InputError: there are no files.

    """
    files = sorted(path for path in source.rglob("*") if path.is_file())
    shown = [path for path in files if not any(part.startswith(".") for part in path.parts)]
    if not shown:
        raise InputError(f"{source} has no files; give each class a folder of them")
    return [
        Example(str(path), number, label=path.parent.name if path.parent != source else None)
        for number, path in enumerate(shown, 1)
    ]


def _with_labels(examples: list[Example], source: str) -> list[Example]:
    """Leave out the rows without a label, unless no row has one."""
    bare = [e.line for e in examples if e.label is None and not e.tags]
    if len(bare) == len(examples):
        return examples
    _leave_out(bare, len(examples), "label", source)
    return [e for e in examples if e.label is not None or e.tags]


def _leave_out(lines: Sequence[int], count: int, what: str, source: str) -> None:
    """Warn about rows that are left out, of `count` in total; refuse a file with many of them."""
    if not lines:
        return
    said = f"{source}, line {lines[0]}: no {what}, as in {len(lines)} of {count} rows"
    if len(lines) > _MOST_LEFT_OUT * count:
        more = "; texts without labels go into data.unlabelled" if what == "label" else ""
        raise InputError(f"{said}. Fill them in or remove them, or name another column{more}")
    _log.warning("%s; they are left out", said)


def _with_numbers(examples: list[Example], source: str) -> list[Example]:
    """Turn labels into numbers if all are numbers and not all are whole: scores, not classes.

    Whole floats, which conversions of tables can make from classes, become names of classes.
    """
    labels = [example.label for example in examples]
    numbers = [_number(label) for label in labels]
    if any(number is None for number in numbers):
        score = next((e for e in examples if isinstance(e.label, float)), None)
        name = next(
            (e for e in examples if isinstance(e.label, str) and _number(e.label) is None), None
        )
        if score and name:
            raise InputError(
                f"{source}, line {score.line}: the label is a number, {score.label!r}, but a name, "
                f"{name.label!r}, at line {name.line}; labels are all names or all numbers"
            )
        return examples
    if all(number is not None and number.is_integer() for number in numbers):
        whole = [
            str(int(n)) if isinstance(e.label, float) and n is not None else e.label
            for e, n in zip(examples, numbers, strict=True)
        ]
        return [replace(e, label=label) for e, label in zip(examples, whole, strict=True)]
    return [replace(e, label=n) for e, n in zip(examples, numbers, strict=True)]


def _number(label: object) -> float | None:
    try:
        return float(label) if isinstance(label, (str, float)) else None
    except ValueError:
        return None


def read_rows(source: str, layout: Layout | None = None) -> Rows:
    """Yield (line, {column: value}) of a file of any known format, or of a `datasets:` id."""
    if source.startswith("datasets:"):
        yield from read_hub(source)
    else:
        yield from read_file(Path(source), layout or Layout())


def _wanted(columns: Columns, *, tagged: bool, labelled: bool) -> dict[str, str]:
    """Return {role: name of its column; empty to guess it}."""
    wanted = {"words": columns.text} if tagged else {"text": columns.text, "pair": columns.pair}
    return wanted | ({"tags" if tagged else "label": columns.label} if labelled else {})


def _pick(row: Row, wanted: Mapping[str, str]) -> dict[str, str]:
    """Decide which column is which: the named one, else the first of the usual names."""
    found = {role: name or _guess(role, row) for role, name in wanted.items()}
    return {role: name for role, name in found.items() if name in row}


def _guess(role: str, row: Row) -> str:
    """Return the usual name that a row has; a top-level name before that of a nested value."""
    nested = {name.rpartition(".")[2]: name for name in row if "." in name}
    own = [guess for guess in _GUESSES[role] if guess in row]
    return next(iter(own + [nested[guess] for guess in _GUESSES[role] if guess in nested]), "")


def _check_columns(row: Row, wanted: Mapping[str, str], source: str) -> None:
    """Refuse a first row that lacks a named or needed column."""
    has = f"it has {', '.join(map(str, row))}"
    if Path(source).suffix.lower() in TABLES and looks_like_data(list(row)):
        has += "; the first row looks like data: add a header above it, such as text and label"
    elif Path(source).suffix.lower() in TABLES and len(row) == 1:
        has += "; if these are several columns, name the delimiter between them (delimiter)"
    picked = _pick(row, wanted)
    for role, name in wanted.items():
        if name and role not in picked:
            raise InputError(f"{source}: no column {name!r}; {has}")
        if role in ("text", "words", "tags") and role not in picked:
            option = "label" if role == "tags" else "text"
            raise InputError(
                f"{source}: no column for the {role}; {has}. Name it: data.{option} in the recipe, "
                f"--{option}-column on the command line"
            )


def _is_blank(value: object) -> bool:
    """Tell whether a cell is empty: missing, no words, only blanks, or not-a-number."""
    if isinstance(value, str):
        return not value.strip()
    return value is None or value == [] or value != value  # noqa: PLR0124 (true for not-a-number)


def _plain(row: Row, picked: Mapping[str, str], line: int, source: str) -> Example:
    text = row[picked["text"]]
    pair = row[picked["pair"]] if "pair" in picked else None
    for role, value in (("text", text), ("pair", pair)):
        if not isinstance(value, str) and not (role == "pair" and value is None):
            raise InputError(f"{source}, line {line}: the {role} is not text but {value!r}")
        if value is not None:
            _valid(value, source, line)
    label = _label(row.get(picked.get("label", "")), source, line)
    return Example(text=text, line=line, pair=pair, label=label)


def _valid(text: str, source: str, line: int) -> None:
    try:
        text.encode()
    except UnicodeEncodeError as exc:  # a lone surrogate, which JSON can hold
        raise InputError(f"{source}, line {line}: the text is not valid Unicode") from exc


def _label(value: object, source: str, line: int) -> str | float | tuple[str, ...] | None:
    if isinstance(value, list):
        return tuple(str(item) for item in value)
    if _is_blank(value):
        return None
    if isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value) if isinstance(value, (bool, int)) else value
    raise InputError(f"{source}, line {line}: a label must be a name or a number, not {value!r}")


def _tagged(row: Row, picked: Mapping[str, str], line: int, source: str) -> Example:
    words, tags = row[picked["words"]], row.get(picked.get("tags", ""))
    for role, value in (("words", words), ("tags", [] if tags is None else tags)):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f"{source}, line {line}: the {role} are not a list of strings")
    if tags is not None and len(words) != len(tags):
        raise InputError(
            f"{source}, line {line}: {len(words)} words but {len(tags)} tags; each needs one"
        )
    return Example(text=" ".join(words), line=line, words=tuple(words), tags=tuple(tags or ()))
