"""Rows that lack a text or a label: left out and told, or refused."""

from __future__ import annotations

import json
import logging
from pathlib import Path

import pytest

from edgepack.data.rows import Columns, read_examples
from edgepack_runtime import InputError

TASK = "text-classification"


def _read(path: Path, **columns: str) -> list[tuple[str, object]]:
    return [(e.text, e.label) for e in read_examples(str(path), TASK, Columns(**columns))]


GAPS = [("a", ""), ("", "x"), *[(f"text {i}", "xy"[i % 2]) for i in range(10)]]


@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.parquet"])
def test_rows_without_text_or_label_are_left_out(
    name: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """They become no class '' and are not learned from; a line says how many, and where."""
    path = tmp_path / name
    cells = [{"text": text or None, "label": label or None} for text, label in GAPS]
    if name == "d.csv":
        path.write_text("text,label\n" + "".join(f"{t},{c}\n" for t, c in GAPS))
    elif name == "d.jsonl":
        path.write_text("".join(json.dumps(row) + "\n" for row in cells))
    else:
        import pyarrow as pa
        from pyarrow import parquet

        parquet.write_table(pa.Table.from_pylist(cells), path)
    caplog.set_level(logging.WARNING)  # exporters raise the level of whatever handlers there are
    assert _read(path) == GAPS[2:]
    first = 2 if name == "d.csv" else 1
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert said == [
        f"{path}, line {first + 1}: no text, as in 1 of 12 rows; they are left out",
        f"{path}, line {first}: no label, as in 1 of 11 rows; they are left out",
    ]


def test_a_file_of_many_gaps_is_refused(tmp_path: Path) -> None:
    """When more than a fifth of the rows lack something, the file or a column is wrong."""
    path = tmp_path / "d.csv"
    for what, row in (("text", ",x"), ("label", "a,")):
        path.write_text("text,label\n" + "b,y\n" * 3 + f"{row}\n")
        with pytest.raises(InputError, match=f"line 5: no {what}, as in 1 of 4 rows. Fill them in"):
            _read(path)


def test_rows_without_any_label_are_texts(tmp_path: Path) -> None:
    """Unlabelled data is whole, and where labels are not asked for they may be missing."""
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a", "label": null}\n{"text": "b"}\n')
    assert _read(path) == [("a", None), ("b", None)]
    path.write_text('{"text": "a", "label": "x"}\n{"text": "b"}\n')
    found = read_examples(str(path), TASK, labelled=False)
    assert [(e.text, e.label) for e in found] == [("a", None), ("b", None)]


def test_words_without_tags_are_left_out(tmp_path: Path) -> None:
    """As rows without a label are; an empty list of labels is an answer, not a gap."""
    path = tmp_path / "d.jsonl"
    rows: list[dict[str, object]] = [{"tokens": ["a"], "tags": ["O"]}] * 5
    rows += [{"tokens": ["b"], "tags": None}, {"tokens": [], "tags": []}]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    found = read_examples(str(path), "token-classification")
    assert [e.words for e in found] == [("a",)] * 5
    path.write_text('{"text": "a", "label": ["x"]}\n{"text": "b", "label": []}\n')
    assert _read(path) == [("a", ("x",)), ("b", ())]


def test_labels_that_are_not_a_number_are_gaps(tmp_path: Path) -> None:
    """A table that went through floats has not-a-number where nothing stood."""
    import pyarrow as pa
    from pyarrow import parquet

    labels = [1.0, 2.0, 1.0, 2.0, float("nan")]
    table = pa.table({"text": [f"text {i}" for i in range(5)], "label": labels})
    parquet.write_table(table, tmp_path / "d.parquet")
    assert [label for _, label in _read(tmp_path / "d.parquet")] == ["1", "2", "1", "2"]
