"""Files of data as rows, {column: value}, whatever their format, encoding and delimiter.

What a file does not say about itself is guessed if a guess is safe, and can be given.
"""

from __future__ import annotations

import codecs
import csv
import io
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from edgepack.host import hub_is_off, lacks_extra, not_fetched
from edgepack_runtime.errors import InputError

Row = Mapping[str, Any]
Rows = Iterator[tuple[int, Row]]
PLAIN = (".txt", ".text", "")
TABLES = (".csv", ".tsv")
_CONLL = (".conll", ".iob", ".iob2", ".bio")
_DELIMITERS = (",", ";", "\t", "|")
_LOOKED_AT = 20  # rows, to find the delimiter
_BEGINNING = 1000  # characters
# UTF-32 little-endian begins like UTF-16, so it is checked first.
_MARKS = {
    codecs.BOM_UTF8: "utf-8-sig",
    codecs.BOM_UTF32_LE: "utf-32",
    codecs.BOM_UTF32_BE: "utf-32",
    codecs.BOM_UTF16_LE: "utf-16",
    codecs.BOM_UTF16_BE: "utf-16",
}


@dataclass(frozen=True)
class Layout:
    """How a file is written."""

    encoding: str = ""
    """Its encoding; empty to follow its byte order mark, else UTF-8."""
    delimiter: str = ""
    """The delimiter between the cells of a table; empty to detect it."""
    tagged: bool = False
    """Plain text files hold one token and its tag on each line, like CoNLL files."""


def read_file(path: Path, layout: Layout) -> Rows:
    """Yield (line, row) of a file; for a JSON array, the item's number instead of the line.

    Raises:
        InputError: there is no such file, its format is unknown, or it is not valid.

    """
    if not path.is_file():
        raise InputError(f"no data file at {path}; give a file, or datasets:NAME[:SPLIT]")
    reader = _reader(path, layout)
    try:
        yield from reader(path, layout)
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    except csv.Error as exc:
        raise InputError(f"{path} is not a valid table: {exc}") from exc


def _reader(path: Path, layout: Layout) -> Callable[[Path, Layout], Rows]:
    kinds: dict[tuple[str, ...], Callable[[Path, Layout], Rows]] = {
        (".jsonl", ".ndjson"): _json_lines,
        (".json",): _json,
        TABLES: _table,
        (".parquet",): _parquet,
        _CONLL: _conll,
        PLAIN: _conll if layout.tagged else _lines,
    }
    for suffixes, reader in kinds.items():
        if path.suffix.lower() in suffixes:
            return reader
    known = ", ".join(suffix for suffixes in kinds for suffix in suffixes if suffix)
    raise InputError(f"{path}: unknown format {path.suffix!r}; known: {known}")


def _open(path: Path, layout: Layout) -> io.StringIO:
    """Decode a whole file; line ends are not changed."""
    content = path.read_bytes()
    marked = next((name for mark, name in _MARKS.items() if content.startswith(mark)), "")
    encoding = marked or layout.encoding or "utf-8"
    try:
        text = content.decode(encoding)
    except LookupError as exc:
        raise InputError(f"{path}: unknown encoding {encoding!r}") from exc
    except UnicodeDecodeError as exc:
        line = content.count(b"\n", 0, exc.start) + 1
        raise InputError(
            f"{path}, line {line}: not valid {encoding.upper()} (byte 0x{content[exc.start]:02x}). "
            + _name_it("latin-1")
        ) from exc
    if "\0" in text[:_BEGINNING]:
        raise InputError(
            f"{path}, line 1: has zero bytes, like UTF-16 without a mark. " + _name_it("utf-16-le")
        )
    return io.StringIO(text, newline="")


def _name_it(encoding: str) -> str:
    return (
        f'Save it as UTF-8, or name its encoding: [data] encoding = "{encoding}" in the recipe, '
        f"--encoding {encoding} on the command line"
    )


def _numbered(path: Path, layout: Layout) -> Iterator[tuple[int, str]]:
    """Yield the lines of a file with their numbers and without line ends."""
    with io.StringIO(_open(path, layout).getvalue(), newline=None) as stream:
        for number, line in enumerate(stream, 1):
            yield number, line.rstrip("\n")


def _json_lines(path: Path, layout: Layout) -> Rows:
    for number, line in _numbered(path, layout):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as exc:
            raise InputError(f"{path}, line {number}: not valid JSON: {exc}") from exc
        if not isinstance(row, dict):
            raise InputError(f"{path}, line {number}: expected a JSON object")
        yield number, _flat(row)


def _json(path: Path, layout: Layout) -> Rows:
    """Read an array of objects, or one object on each line."""
    text = _open(path, layout).getvalue()
    if not text.lstrip().startswith("["):
        yield from _json_lines(path, layout)
        return
    try:
        rows = json.loads(text)
    except ValueError as exc:
        raise InputError(f"{path} is not valid JSON: {exc}") from exc
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise InputError(f"{path}, item {number}: expected a JSON object")
        yield number, _flat(row)


def _flat(row: Mapping[str, Any], before: str = "") -> dict[str, Any]:
    """Name nested values by their path: {"data": {"text": …}} has a column `data.text`."""
    flat: dict[str, Any] = {}
    for name, value in row.items():
        if isinstance(value, dict):
            flat |= _flat(value, f"{before}{name}.")
        else:
            flat[f"{before}{name}"] = value
    return flat


def _table(path: Path, layout: Layout) -> Rows:
    stream = _open(path, layout)
    delimiter = layout.delimiter or _delimiter(stream.getvalue(), path.suffix.lower())
    if len(delimiter) != 1:
        raise InputError(f"the delimiter must be one character, not {delimiter!r}")
    table = csv.DictReader(stream, strict=True, **_dialect(delimiter))
    for row in table:
        if None in row or None in row.values():
            raise InputError(
                f"{path}, line {table.line_num}: its number of cells differs from the header's"
            )
        yield table.line_num - sum(cell.count("\n") for cell in row.values()), row


def _dialect(delimiter: str) -> dict[str, Any]:
    """Return csv's settings; in a file with tabs, a quotation mark is an ordinary character."""
    quoting = csv.QUOTE_NONE if delimiter == "\t" else csv.QUOTE_MINIMAL
    return {"delimiter": delimiter, "quoting": quoting}


def _delimiter(text: str, suffix: str) -> str:
    """Find a delimiter that gives the first rows equal numbers of cells, at least two each.

    The usual one is tried first.
    """
    usual = "\t" if suffix == ".tsv" else ","
    for delimiter in (usual, *(other for other in _DELIMITERS if other != usual)):
        table = csv.reader(io.StringIO(text, newline=""), strict=True, **_dialect(delimiter))
        try:
            counts = {len(row) for row in islice(table, _LOOKED_AT) if row}
        except csv.Error:
            continue
        if len(counts) == 1 and counts != {1}:
            return delimiter
    return usual


def looks_like_data(columns: Sequence[str]) -> bool:
    """Tell whether a header looks like a row of data: long cells, numbers, empty cells."""
    return any(len(name.split()) > 2 or not name.strip(" -.0123456789") for name in columns)


def _parquet(path: Path, layout: Layout) -> Rows:  # noqa: ARG001 (Parquet has no such options)
    try:
        import pyarrow as pa
        from pyarrow import parquet
    except ImportError as exc:
        raise lacks_extra(str(path), "data") from exc
    try:
        rows = parquet.read_table(path).to_pylist()
    except pa.ArrowException as exc:
        raise InputError(f"{path} is not valid Parquet: {exc}") from exc
    yield from ((number, _flat(row)) for number, row in enumerate(rows, 1))


def _lines(path: Path, layout: Layout) -> Rows:
    for number, line in _numbered(path, layout):
        if line.strip():
            yield number, {"text": line}


def _conll(path: Path, layout: Layout) -> Rows:
    """Read sentences with one token on each line, its tag last, separated by empty lines."""
    words: list[str] = []
    tags: list[str] = []
    start = number = 0
    for number, line in _numbered(path, layout):
        cells = line.split("\t" if "\t" in line else None)
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


def read_hub(source: str) -> Rows:
    """Load `datasets:NAME[@REVISION][:SPLIT]` with that library; class numbers become names.

    Raises:
        InputError: there is no such data set or split, or access to the hub is forbidden.
        HostError: the library is not installed, or the disk is full.
        LinkError: the hub cannot be reached.

    """
    try:
        from datasets import load_dataset
        from datasets.exceptions import DatasetNotFoundError
    except ImportError as exc:
        raise lacks_extra(source, "data") from exc

    name, _, split = source.removeprefix("datasets:").partition(":")
    name, _, revision = name.partition("@")
    try:
        found = load_dataset(name, split=split or "train", revision=revision or None)
    except (DatasetNotFoundError, FileNotFoundError, ValueError) as exc:
        raise _not_there(source, exc) from exc
    except OSError as exc:
        raise (_not_there if hub_is_off() else not_fetched)(source, exc) from exc
    names = {}
    for column, feature in found.features.items():
        inner = getattr(feature, "feature", feature)
        if hasattr(inner, "names"):
            names[column] = list(inner.names)
    for number, row in enumerate(found, 1):
        named = {column: _named(row[column], known) for column, known in names.items()}
        yield number, _flat({**row, **named})


def _not_there(source: str, exc: Exception) -> InputError:
    reason = str(exc).partition("\n")[0]
    return InputError(f"{source}: {reason}. A local file works without a network")


def _named(value: Any, names: Sequence[str]) -> Any:
    """Replace class numbers with names, and numbers below 0, which hide labels, with None."""
    if isinstance(value, list):
        return [_named(item, names) for item in value]
    return None if value is None or value < 0 else names[value]
