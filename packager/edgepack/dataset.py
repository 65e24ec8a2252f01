"""Read labelled data: JSONL, CSV, TSV, Parquet, CoNLL, plain text, or a `datasets` id.

Column names are guessed from what the field usually calls them, and can be named.  Every
fault names the file, the line and the remedy.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgepack_runtime.errors import InputError

Row = Mapping[str, Any]
Rows = Iterator[tuple[int, Row]]
_GUESSES = {
    "text": ("text", "sentence", "utterance", "query", "sentence1", "sentence_A", "premise",
             "question", "content", "review", "tweet"),
    "pair": ("text_pair", "pair", "sentence2", "sentence_B", "hypothesis"),
    "label": ("label", "labels", "intent", "category", "class", "target", "sentiment", "score",
              "similarity_score"),
    "words": ("tokens", "words"),
    "tags": ("tags", "ner_tags", "labels", "slots"),
}  # fmt: skip
PLAIN = (".txt", ".text", "")
_CONLL = (".conll", ".iob", ".iob2", ".bio")


@dataclass(frozen=True)
class Columns:
    """What the columns are called; an empty name is guessed."""

    text: str = ""
    pair: str = ""
    label: str = ""


@dataclass(frozen=True)
class Example:
    """One row.

    text: the text; for token classification its words joined by spaces.
    pair: a second text, None for none.
    label: a name, a tuple of names (several labels), a number, or None.
    words, tags: of token classification, of equal length.
    line: where it stands in its file, from 1.
    """

    text: str
    line: int
    pair: str | None = None
    label: str | float | tuple[str, ...] | None = None
    words: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


def read_examples(source: str, task: str, columns: Columns | None = None) -> list[Example]:
    """Read every row of a file, or of `datasets:NAME[@REVISION][:SPLIT]`.

    Args:
        source: the file, or the id.
        task: as the runtime names it; token classification needs words and tags.
        columns: what they are called where the usual names do not say.

    Raises:
        InputError: no such file, not in its format, a missing column, or no rows.

    """
    columns = columns or Columns()
    make = _tagged if task == "token-classification" else _plain
    found: list[Example] = []
    names: tuple[str, ...] | None = None
    picked: Mapping[str, str] = {}
    for line, row in read_rows(source):
        if names != tuple(row):
            names, picked = tuple(row), _pick(row, columns, task, source)
        found.append(make(row, picked, line, source))
    if not found:
        raise InputError(f"{source} holds no rows")
    return _with_numbers(found)


def _with_numbers(examples: list[Example]) -> list[Example]:
    """Turn labels into numbers where all are numbers and not all are whole: scores, not classes.

    Whole floats, as tables of classes have them after a detour, become names of classes.
    """
    labels = [example.label for example in examples]
    numbers = [_number(label) for label in labels]
    if any(number is None for number in numbers):
        return examples
    if all(number is not None and number.is_integer() for number in numbers):
        whole = [str(int(n)) if isinstance(e.label, float) and n is not None else e.label
                 for e, n in zip(examples, numbers, strict=True)]  # fmt: skip
        return [replace(e, label=label) for e, label in zip(examples, whole, strict=True)]
    return [replace(e, label=n) for e, n in zip(examples, numbers, strict=True)]


def _number(label: object) -> float | None:
    try:
        return float(label) if isinstance(label, (str, float)) else None
    except ValueError:
        return None


def read_rows(source: str) -> Rows:
    """Yield (line, {column: value}) of a file of any known format."""
    if source.startswith("datasets:"):
        yield from _hub_rows(source)
        return
    path = Path(source)
    if not path.is_file():
        raise InputError(f"no data file at {path}; give a file, or datasets:NAME[:SPLIT]")
    reader = _reader(path)
    try:
        yield from reader(path)
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    except (ValueError, csv.Error) as exc:
        raise InputError(f"{path} is not valid UTF-8 {path.suffix.lstrip('.')}: {exc}") from exc


def _reader(path: Path) -> Callable[[Path], Rows]:
    kinds: dict[tuple[str, ...], Callable[[Path], Rows]] = {
        (".jsonl", ".ndjson"): _json_rows, (".csv", ".tsv"): _table_rows,
        (".parquet",): _parquet_rows, _CONLL: _conll_rows, PLAIN: _line_rows,
    }  # fmt: skip
    for suffixes, reader in kinds.items():
        if path.suffix.lower() in suffixes:
            return reader
    known = ", ".join(suffix for suffixes in kinds for suffix in suffixes if suffix)
    raise InputError(f"{path}: unknown format {path.suffix!r}; known: {known}")


def _json_rows(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line)
            except ValueError as exc:
                raise InputError(f"{path}, line {number}: not valid JSON: {exc}") from exc
            if not isinstance(row, dict):
                raise InputError(f"{path}, line {number}: expected a JSON object")
            yield number, row


def _table_rows(path: Path) -> Rows:
    tabs = path.suffix.lower() == ".tsv"  # in which a quotation mark is only a character
    with path.open(encoding="utf-8-sig", newline="") as stream:
        table = csv.DictReader(
            stream,
            delimiter="\t" if tabs else ",",
            quoting=csv.QUOTE_NONE if tabs else csv.QUOTE_MINIMAL,
            strict=True,
        )
        for number, row in enumerate(table, 2):
            if None in row or None in row.values():
                raise InputError(f"{path}, line {number}: not as many cells as the header has")
            yield number, row


def _parquet_rows(path: Path) -> Rows:
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as exc:
        raise InputError(f"{path}: needs the extra `data`: pip install edgepack[data]") from exc
    try:
        yield from enumerate(parquet.read_table(path).to_pylist(), 1)
    except pa.ArrowException as exc:
        raise InputError(f"{path} is not valid Parquet: {exc}") from exc


def _line_rows(path: Path) -> Rows:
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            if line.strip():
                yield number, {"text": line.rstrip("\r\n")}


def _conll_rows(path: Path) -> Rows:
    """Read sentences of one token a line, its tag last, an empty line between sentences."""
    words: list[str] = []
    tags: list[str] = []
    start = number = 0
    with path.open(encoding="utf-8-sig") as stream:
        for number, line in enumerate(stream, 1):
            cells = line.rstrip("\r\n").split("\t" if "\t" in line else None)
            if line.startswith(("# ", "-DOCSTART-")):
                continue
            if line.strip() and len(cells) < 2:
                raise InputError(f"{path}, line {number}: expected a token and its tag")
            if line.strip():
                start = start or number
                words.append(cells[0])
                tags.append(cells[-1].strip())
            elif words:
                yield start, {"tokens": words, "tags": tags}
                words, tags, start = [], [], 0
    if words:
        yield start or number, {"tokens": words, "tags": tags}


def _hub_rows(source: str) -> Rows:
    """Load a data set through the `datasets` library; class numbers become names."""
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetNotFoundError
    except ImportError as exc:
        raise InputError(f"{source}: needs the extra `data`: pip install edgepack[data]") from exc

    name, _, split = source.removeprefix("datasets:").partition(":")
    name, _, revision = name.partition("@")
    try:
        found = load_dataset(name, split=split or "train", revision=revision or None)
    except (DatasetNotFoundError, FileNotFoundError, ConnectionError, ValueError, OSError) as exc:
        reason = str(exc).partition("\n")[0]
        raise InputError(f"{source}: {reason}. A local file works without network") from exc
    names = {}
    for column, feature in found.features.items():
        inner = getattr(feature, "feature", feature)
        if hasattr(inner, "names"):
            names[column] = list(inner.names)
    for number, row in enumerate(found, 1):
        named = {column: _named(row[column], known) for column, known in names.items()}
        yield number, {**row, **named}


def _named(value: Any, names: Sequence[str]) -> Any:
    """Replace class numbers by names; below 0, as hidden labels are, by None."""
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return None if value is None or value < 0 else names[value]


def _pick(row: Row, columns: Columns, task: str, source: str) -> Mapping[str, str]:
    """Decide which column is which: the named one, else the first of the usual names."""
    tagged = task == "token-classification"
    wanted = {
        "words" if tagged else "text": columns.text,
        "tags" if tagged else "label": columns.label,
        **({} if tagged else {"pair": columns.pair}),
    }
    picked = {}
    for role, name in wanted.items():
        if name and name not in row:
            raise InputError(f"{source}: no column {name!r}; it has {', '.join(map(str, row))}")
        guess = next((guess for guess in _GUESSES[role] if guess in row), "")
        if name or guess:
            picked[role] = name or guess
    needed = ("words", "tags") if tagged else ("text",)
    for role in needed:
        if role not in picked:
            raise InputError(
                f"{source}: no column for the {role}; it has {', '.join(map(str, row))}. "
                f"Name it: data.{'label' if role == 'tags' else 'text'} in the recipe, "
                f"--{'label' if role == 'tags' else 'text'}-column on the command line"
            )
    return picked


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
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, (int, float)):
        return str(value) if isinstance(value, (bool, int)) else value
    raise InputError(f"{source}, line {line}: a label must be a name or a number, not {value!r}")


def _tagged(row: Row, picked: Mapping[str, str], line: int, source: str) -> Example:
    words, tags = (row[picked[role]] for role in ("words", "tags"))
    for role, value in (("words", words), ("tags", tags)):
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InputError(f"{source}, line {line}: the {role} are not a list of texts")
    if len(words) != len(tags):
        raise InputError(
            f"{source}, line {line}: {len(words)} words but {len(tags)} tags; each needs one"
        )
    return Example(text=" ".join(words), line=line, words=tuple(words), tags=tuple(tags))
