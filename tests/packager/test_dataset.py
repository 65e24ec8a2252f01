"""Reading labelled data: every format gives the same rows, every fault is one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgepack.dataset import Columns, read_examples
from edgepack_runtime import InputError

ROWS = [("turn on the light", "on"), ('say "off"', "off")]


def _write(path: Path) -> Path:
    if path.suffix == ".jsonl":
        path.write_text("".join(json.dumps({"text": t, "label": c}) + "\n" for t, c in ROWS))
    elif path.suffix == ".tsv":
        path.write_text("text\tlabel\n" + "".join(f"{t}\t{c}\n" for t, c in ROWS))
    elif path.suffix == ".csv":
        path.write_text('label,text\non,turn on the light\noff,"say ""off"""\n')
    else:
        import pyarrow as pa
        from pyarrow import parquet

        texts, labels = zip(*ROWS, strict=True)
        parquet.write_table(pa.table({"text": texts, "label": labels}), path)
    return path


@pytest.mark.parametrize("name", ["d.jsonl", "d.tsv", "d.csv", "d.parquet"])
def test_every_format_gives_the_same_rows(name: str, tmp_path: Path) -> None:
    """JSONL, TSV, CSV and Parquet of one table are read alike."""
    found = read_examples(str(_write(tmp_path / name)), "text-classification")
    assert [(example.text, example.label) for example in found] == ROWS


def test_conll_gives_sentences(tmp_path: Path) -> None:
    """One token a line, an empty line between sentences, comments left out."""
    path = tmp_path / "d.conll"
    path.write_text("# a comment\nAnna\tB-PER\nsleeps\tO\n\n\nOslo\tB-LOC\n")
    found = read_examples(str(path), "token-classification")
    assert [example.words for example in found] == [("Anna", "sleeps"), ("Oslo",)]
    assert [example.tags for example in found] == [("B-PER", "O"), ("B-LOC",)]
    assert [example.line for example in found] == [2, 6]


def test_columns_are_guessed_and_can_be_named(tmp_path: Path) -> None:
    """`utterance` and `intent` are understood; others are named."""
    path = tmp_path / "d.jsonl"
    path.write_text('{"utterance": "hi", "intent": "greet", "id": 3}\n')
    assert read_examples(str(path), "text-classification")[0].label == "greet"
    named = read_examples(str(path), "text-classification", Columns("intent", "", "utterance"))
    assert (named[0].text, named[0].label) == ("greet", "hi")


def test_several_labels_numbers_and_pairs(tmp_path: Path) -> None:
    """A list is several labels, a float a score, sentence2 the second text."""
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a", "labels": ["x", "y"]}\n{"sentence1": "a", "sentence2": "b", '
                    '"score": 0.5}\n')  # fmt: skip
    several, pair = read_examples(str(path), "text-classification")
    assert several.label == ("x", "y")
    assert (pair.text, pair.pair, pair.label) == ("a", "b", 0.5)


@pytest.mark.parametrize(
    ("name", "content", "task", "message"),
    [
        ("d.tsv", "a\tb\n1\t2\n", "text-classification", "no column for the text; it has a, b"),
        ("d.jsonl", "", "text-classification", "holds no rows"),
        ("d.jsonl", '{"text": 3}', "text-classification", "line 1: the text is not text but 3"),
        ("d.jsonl", "[1]", "text-classification", "line 1: expected a JSON object"),
        ("d.jsonl", "{", "text-classification", "line 1: not valid JSON"),
        ("d.jsonl", '{"text": "\\ud800"}', "text-classification", "not valid Unicode"),
        ("d.csv", "text,label\na\n", "text-classification", "line 2: not as many cells"),
        ("d.conll", "Anna\n", "token-classification", "line 1: expected a token and its tag"),
        ("d.jsonl", '{"tokens": ["a"], "tags": []}', "token-classification", "1 words but 0 tags"),
        ("d.jsonl", '{"text": "a"}', "token-classification", "no column for the words"),
        ("d.xls", "a", "text-classification", "unknown format '.xls'"),
        ("d.parquet", "no", "text-classification", "not valid Parquet"),
    ],
)
def test_a_fault_names_file_line_and_remedy(
    name: str, content: str, task: str, message: str, tmp_path: Path
) -> None:
    """Each is an InputError that begins with the file."""
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(InputError, match=message) as caught:
        read_examples(str(path), task)
    assert str(caught.value).startswith(str(path))


def test_a_hub_data_set_without_network_says_so() -> None:
    """A `datasets:` id that is not here is one clear error."""
    with pytest.raises(InputError, match="A local file works without network"):
        read_examples("datasets:nobody/nothing-at-all:test", "text-classification")


def test_scores_of_a_table_are_numbers_and_classes_are_not(tmp_path: Path) -> None:
    """A column of 3.8 and 5 is scores; one of 0 and 1 is names of classes."""
    scores, classes = tmp_path / "scores.csv", tmp_path / "classes.csv"
    scores.write_text("text,label\na,3.8\nb,5\n")
    classes.write_text("text,label\na,0\nb,1\n")
    found = [read_examples(str(path), "text-classification") for path in (scores, classes)]
    assert [example.label for example in found[0]] == [3.8, 5.0]
    assert [example.label for example in found[1]] == ["0", "1"]
