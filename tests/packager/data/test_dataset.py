"""Reading labelled data: every format gives the same rows, every fault is one clear error."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from edgepack.data.rows import Columns, read_examples
from edgepack_runtime import InputError

ROWS = [("turn on the light", "on"), ('say "off"', "off")]
TASK = "text-classification"


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
    path.write_text(
        '{"text": "a", "labels": ["x", "y"]}\n{"sentence1": "a", "sentence2": "b", "score": 0.5}\n'
    )
    several, pair = read_examples(str(path), "text-classification")
    assert several.label == ("x", "y")
    assert (pair.text, pair.pair, pair.label) == ("a", "b", 0.5)


@pytest.mark.parametrize(
    ("name", "content", "task", "message"),
    [
        ("d.tsv", "a\tb\n1\t2\n", "text-classification", "no column for the text; it has a, b"),
        ("d.jsonl", "", "text-classification", "has no rows"),
        ("d.jsonl", '{"text": 3}', "text-classification", "line 1: the text is not text but 3"),
        ("d.jsonl", "[1]", "text-classification", "line 1: expected a JSON object"),
        ("d.jsonl", "{", "text-classification", "line 1: not valid JSON"),
        ("d.jsonl", '{"text": "\\ud800"}', "text-classification", "not valid Unicode"),
        ("d.csv", "text,label\na\n", "text-classification", "line 2: its number of cells"),
        ("d.conll", "Anna\n", "token-classification", "line 1: expected a token and its tag"),
        ("d.jsonl", '{"tokens": ["a"], "tags": []}', "token-classification", "1 words but 0 tags"),
        ("d.jsonl", '{"text": "a"}', "token-classification", "no column for the words"),
        ("d.json", "[1]", TASK, "item 1: expected a JSON object"),
        ("d.json", '[{"text": "a"}', TASK, "is not valid JSON"),
        ("d.tsv", "turn on the light\ton\nstop\toff\n", TASK, "the first row looks like data"),
        ("d.csv", "lights,1\nsun,2\n", TASK, "looks like data: add a header above it"),
        ("d.csv", "a:b\n1:2\n", TASK, "name the delimiter between them"),
        ("d.jsonl", '{"data": {"body": "x"}, "id": 1}', TASK, "it has data.body, id"),
        ("d.txt", "Anna\n", "token-classification", "line 1: expected a token and its tag"),
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
    with pytest.raises(InputError, match="A local file works without a network"):
        read_examples("datasets:nobody/nothing-at-all:test", "text-classification")


def test_scores_of_a_table_are_numbers_and_classes_are_not(tmp_path: Path) -> None:
    """A column of 3.8 and 5 is scores; one of 0 and 1 is names of classes."""
    scores, classes = tmp_path / "scores.csv", tmp_path / "classes.csv"
    scores.write_text("text,label\na,3.8\nb,5\n")
    classes.write_text("text,label\na,0\nb,1\n")
    found = [read_examples(str(path), "text-classification") for path in (scores, classes)]
    assert [example.label for example in found[0]] == [3.8, 5.0]
    assert [example.label for example in found[1]] == ["0", "1"]


def _read(path: Path, **columns: str) -> list[tuple[str, object]]:
    return [(e.text, e.label) for e in read_examples(str(path), TASK, Columns(**columns))]


@pytest.mark.parametrize("suffix", [".csv", ".tsv"])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
def test_the_delimiter_of_a_table_is_found(delimiter: str, suffix: str, tmp_path: Path) -> None:
    """Whatever the suffix says, and whatever else stands in the texts."""
    path = tmp_path / f"d{suffix}"
    rows = [("well: turn it on", "on"), ("say off", "off"), ("a, b; c | d", "abc")]
    quote = "" if delimiter == "\t" else '"'
    lines = [f"{quote}{text}{quote}{delimiter}{label}" for text, label in rows]
    path.write_text("\n".join([f"text{delimiter}label", *lines]) + "\n")
    assert _read(path) == rows


def test_a_delimiter_can_be_named(tmp_path: Path) -> None:
    """Where none of the usual ones is meant, or another one would fit too."""
    path = tmp_path / "d.csv"
    path.write_text("text:label,x\na:b,c\n")
    assert read_examples(str(path), TASK, Columns("text", delimiter=":"))[0].text == "a"
    with pytest.raises(InputError, match=r"the delimiter must be one character, not '::'"):
        _read(path, delimiter="::")


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-32"])
@pytest.mark.parametrize("name", ["d.csv", "d.jsonl", "d.json", "d.txt", "d.conll"])
def test_a_byte_order_mark_says_the_encoding(name: str, encoding: str, tmp_path: Path) -> None:
    """Every text format is read in the encoding that its first bytes name."""
    path, tagged = tmp_path / name, name.endswith(".conll")
    content = {
        "d.csv": "text\ncafé\n",
        "d.jsonl": '{"text": "café"}\n',
        "d.json": '[{"text": "café"}]',
        "d.txt": "café\r\n",
        "d.conll": "café\tO\n",
    }
    path.write_bytes(content[name].encode(encoding))
    task = "token-classification" if tagged else TASK
    assert [example.text for example in read_examples(str(path), task)] == ["café"]


def test_another_encoding_is_named_in_the_recipe(tmp_path: Path) -> None:
    """The error names the line, the byte and the option; with the option the text is right."""
    path = tmp_path / "d.tsv"
    path.write_bytes("text\tlabel\ntea\ta\ncafé\tb\n".encode("latin-1"))
    wanted = r"d.tsv, line 3: not valid UTF-8 \(byte 0xe9\).*encoding = \"latin-1\" in the recipe"
    with pytest.raises(InputError, match=wanted):
        _read(path)
    assert _read(path, encoding="latin-1") == [("tea", "a"), ("café", "b")]
    with pytest.raises(InputError, match="unknown encoding 'latin-one'"):
        _read(path, encoding="latin-one")
    path.write_bytes("text\tlabel\ntea\ta\n".encode("utf-16-le"))
    with pytest.raises(InputError, match=r"line 1: has zero bytes, like UTF-16 without a mark"):
        _read(path)
    assert _read(path, encoding="utf-16-le") == [("tea", "a")]


def test_json_is_an_array_or_an_object_a_line(tmp_path: Path) -> None:
    """Both are found under the suffix .json."""
    path = tmp_path / "d.json"
    rows = [{"text": text, "label": label} for text, label in ROWS]
    for content in (json.dumps(rows, indent=1), "\n".join(map(json.dumps, rows))):
        path.write_text(content)
        assert _read(path) == ROWS


def test_nested_columns_are_named_by_their_path(tmp_path: Path) -> None:
    """`data.text` is a column, and is guessed like one; a column of its own goes first."""
    path = tmp_path / "d.jsonl"
    row: dict[str, object] = {
        "data": {"text": "hi", "body": "ho"},
        "ann": {"first": {"label": "greet"}},
    }
    path.write_text(json.dumps(row) + "\n")
    assert _read(path) == [("hi", "greet")]
    assert _read(path, text="data.body") == [("ho", "greet")]
    path.write_text(json.dumps({**row, "sentence": "own"}) + "\n")
    assert _read(path) == [("own", "greet")]
    import pyarrow as pa
    from pyarrow import parquet

    parquet.write_table(pa.Table.from_pylist([row]), tmp_path / "d.parquet")
    assert _read(tmp_path / "d.parquet") == [("hi", "greet")]


def test_conll_in_a_text_file_is_read_as_such(tmp_path: Path) -> None:
    """For token classification a .txt holds tokens and tags; for anything else it holds lines."""
    path = tmp_path / "d.txt"
    path.write_text("-DOCSTART- -X- O O\n\nAnna NNP B-NP B-PER\nsleeps VB I-VP O\n")
    found = read_examples(str(path), "token-classification")
    assert [(e.words, e.tags) for e in found] == [(("Anna", "sleeps"), ("B-PER", "O"))]
    assert len(read_examples(str(path), TASK)) == 3


def test_numbers_among_names_are_one_clear_error(tmp_path: Path) -> None:
    """A file whose labels are scores here and names there says nothing that can be learned."""
    path = tmp_path / "d.jsonl"
    path.write_text('{"text": "a", "label": "greet"}\n{"text": "b", "label": 0.5}\n')
    with pytest.raises(
        InputError, match=r"line 2: the label is a number, 0.5, but a name, 'greet'"
    ):
        _read(path)


def test_quotation_marks_hold_lines_together_but_not_between_tabs(tmp_path: Path) -> None:
    """Of commas a quoted cell may have several lines, and counts from its first; of tabs none."""
    commas, tabs = tmp_path / "d.csv", tmp_path / "d.tsv"
    commas.write_text('text,label\n"two\nlines",a\nb,y\n"one\n\nmore",c\n')
    found = read_examples(str(commas), TASK)
    assert [(e.text, e.line) for e in found] == [("two\nlines", 2), ("b", 4), ("one\n\nmore", 5)]
    tabs.write_text('text\tlabel\n"hello\ta\n"bye"\tb\n')
    assert _read(tabs) == [('"hello', "a"), ('"bye"', "b")]
