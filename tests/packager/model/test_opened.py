"""What one stage hands to the next: each reader gives what the stage before it wrote."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny

from edgepack.model import opened
from edgepack.model.describe import Settings, describe
from edgepack.model.opened import Candidate
from edgepack_runtime import TrustError
from edgepack_runtime.bundle.description import Task

Get = Callable[[str], Path]
TASK = "text-classification"
TEXTS = {
    "calibration": ["turn on the lights", ["book a table", "for six"]],
    "evaluation": [["turn on", "the lights"]],
    "golden": ["turn on the lights", "book a table"],
    "generated": False,
}


@pytest.fixture(scope="module")
def tokenizer(model: Get, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return what the describe stage writes of a tiny classifier."""
    out = tmp_path_factory.mktemp("described")
    describe(Settings(TASK), {"model": model("bert-intent")}, out)
    return out


@pytest.fixture
def texts(tmp_path: Path) -> Path:
    """Return a folder as the collect stage leaves it."""
    (tmp_path / "texts.json").write_text(json.dumps(TEXTS))
    return tmp_path


def test_the_task_is_read_as_it_was_described(tokenizer: Path) -> None:
    """Its labels are those of the model."""
    task = opened.read_task(tokenizer)
    assert isinstance(task, Task)
    assert (task.name, task.labels) == (TASK, ("lights", "weather", "booking", "other"))


def test_a_task_that_was_changed_is_refused(tokenizer: Path, tmp_path: Path) -> None:
    """A key that no task has is an error, not a guess."""
    said = json.loads((tokenizer / "task.json").read_text())
    (tmp_path / "task.json").write_text(json.dumps({**said, "colour": "red"}))
    with pytest.raises(TrustError, match="unknown key 'colour'"):
        opened.read_task(tmp_path)


def test_the_encoder_gives_the_tokens_of_transformers(tokenizer: Path, model: Get) -> None:
    """Every text, whatever script it is in, has the ids that the model was trained on."""
    from transformers import AutoTokenizer

    theirs = AutoTokenizer.from_pretrained(model("bert-intent"))
    ours = opened.read_encoder(tokenizer)
    assert ours.spec == opened.read_task(tokenizer).text
    for text in tiny.SENTENCES:
        assert ours.encode(text).first.ids == theirs(text, truncation=True)["input_ids"]


def test_inputs_hold_what_the_task_takes(tokenizer: Path, tmp_path: Path) -> None:
    """An encoder for a task of texts, nothing for a task without."""
    assert opened.read_inputs(tokenizer).text is not None
    said = json.loads((tokenizer / "task.json").read_text())
    (tmp_path / "task.json").write_text(json.dumps({**said, "text": None}))
    assert opened.read_inputs(tmp_path).text is None


def test_outputs_are_compared_by_the_described_task(tokenizer: Path) -> None:
    """A classifier's logits decide; half of these decide alike."""
    wanted = [np.array([1.0, 0.0, 0.0, 0.0])] * 2
    got = [wanted[0], np.array([0.0, 1.0, 0.0, 0.0])]
    found = opened.likeness(tokenizer, wanted, got)
    assert (found.cosine, found.mean_cosine, found.agreement) == (0.0, 0.5, 0.5)


def test_texts_are_texts_and_pairs(texts: Path) -> None:
    """A pair is a tuple."""
    assert opened.read_items(texts, "calibration") == [
        "turn on the lights",
        ("book a table", "for six"),
    ]
    assert opened.read_items(texts, "evaluation") == [("turn on", "the lights")]
    assert opened.read_items(texts, "golden") == ["turn on the lights", "book a table"]


@pytest.mark.parametrize("generated", [True, False])
def test_texts_that_were_made_up_are_told(texts: Path, *, generated: bool) -> None:
    """As the collect stage noted it."""
    (texts / "texts.json").write_text(json.dumps({**TEXTS, "generated": generated}))
    assert opened.are_generated(texts) is generated


def test_calibration_feeds_are_single_rows_without_padding(tokenizer: Path, texts: Path) -> None:
    """A text and a pair, each in its own length; of a pair the second text has type 1."""
    names = ("input_ids", "attention_mask", "token_type_ids")
    described = opened.read_encoder(tokenizer)
    found = list(opened.calibration_feeds({"tokenizer": tokenizer, "texts": texts}))
    items = [("turn on the lights", None), ("book a table", "for six")]
    for feeds, item in zip(found, items, strict=True):
        row = described.encode(*item).first
        wanted = (row.ids, [1] * len(row.ids), row.type_ids)
        assert [feeds[name].tolist() for name in names] == [[list(one)] for one in wanted]
        assert {feeds[name].dtype for name in names} == {np.dtype("int64")}
    assert set(found[1]["token_type_ids"][0].tolist()) == {0, 1}


def test_files_are_named_by_their_place(tmp_path: Path) -> None:
    """Those inside folders too, in order, with slashes; folders are no files."""
    for name in ("b.json", "a/c.bin", "a/d/e.txt"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(name)
    (tmp_path / "empty").mkdir()
    found = opened.files_of(tmp_path)
    assert list(found) == ["a/c.bin", "a/d/e.txt", "b.json"]
    assert all(path.read_text() == name for name, path in found.items())


def test_moved_files_replace_those_of_their_name(tmp_path: Path) -> None:
    """Others of the target stay, and nothing is left where they were."""
    folder, target = tmp_path / "from", tmp_path / "to"
    for path, content in {
        folder / "a": "new",
        folder / "in/b": "new",
        target / "a": "old",
        target / "in/c": "old",
    }.items():
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    opened.move_files(folder, target)
    assert {name: path.read_text() for name, path in opened.files_of(target).items()} == {
        "a": "new",
        "in/b": "new",
        "in/c": "old",
    }
    assert opened.files_of(folder) == {}


def test_a_candidate_runs_in_the_code_of_devices(tokenizer: Path, tmp_path: Path) -> None:
    """The null engine's graph of four outputs: the sum of a text's ids decides."""
    (tmp_path / "null.json").write_text('{"rank": 2, "size": 4}')
    candidate = Candidate("null", "float32", {"model": ["null.json"]})
    found = opened.open_model(tokenizer, tmp_path, candidate)
    ids = opened.read_encoder(tokenizer).encode("turn on the lights").first.ids
    assert found("turn on the lights")[0]["label"] == found.task.labels[sum(ids) % 4]
    (graph,) = found.variant.graphs
    assert (graph.name, graph.files) == ("model", ("null.json",))
    assert (graph.inputs, graph.outputs) == (("input_ids", "attention_mask"), ("output",))
