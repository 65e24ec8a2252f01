"""A training that is told no number: what it chooses, and that a kill changes nothing."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgepack.compress import augment, distill, finetune, teach, training
from edgepack.compress.schedule import Schedule
from edgepack.data.rows import read_examples
from edgepack.model.torch_model import open_torch
from edgepack.stages import progress
from edgepack.tasks import evaluate

Get = Callable[..., Path]
TASK = "text-classification"


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 160 labelled rows, no two alike."""
    path = tmp_path_factory.mktemp("data") / "train.tsv"
    rows = [f"{text} {i}\t{label}" for i in range(40) for label, text in tiny.INTENTS.items()]
    path.write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="module")
def base(model: Get, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model with weights to learn from."""
    return tiny.redraw(model("bert-intent"), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def fitted(base: Path, train: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a teacher that was fine-tuned without a number."""
    out = tmp_path_factory.mktemp("fitted")
    finetune.finetune(finetune.Settings(TASK), {"model": base, "data": train}, out)
    return out


def _weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_fine_tuning_without_a_number_learns_and_tells_what_it_chose(
    fitted: Path, train: Path
) -> None:
    """The model knows its data; the record has rate, length, and a held-out figure by epoch."""
    told = json.loads((fitted / "training.json").read_text())
    assert evaluate(open_torch(fitted, TASK), read_examples(str(train), TASK)).value > 0.95
    assert (told["rows"], told["held_out"], told["figure"]) == (144, 16, "accuracy")
    assert told["history"][-1]["held_out"] > 0.9
    early = told["stopped"] == "no gain on held-out rows"
    assert early == (told["history"][-1]["epoch"] < told["epochs"])
    assert told["learning_rate"] == 1e-3
    assert 0 <= told["probe"] <= 1


class PowerCutError(Exception):
    """Stands for a kill: nothing cleans up after it."""


@pytest.fixture
def cut() -> Iterator[Callable[[float], None]]:
    """Return a function that has the next training die when so much of it is done."""
    tokens = []

    def at(share: float) -> None:
        def show(done: int, total: int) -> None:
            if done >= total * share:
                raise PowerCutError

        tokens.append(progress._steps.set(show))

    yield at
    for token in reversed(tokens):
        progress._steps.reset(token)


def test_a_killed_training_without_numbers_resumes_to_the_same_weights(
    base: Path, fitted: Path, train: Path, tmp_path: Path, cut: Callable[[float], None]
) -> None:
    """The rate is tried again, the epochs go on, and it stops where an unbroken one stops."""
    settings, inputs = finetune.Settings(TASK), {"model": base, "data": train}
    told = json.loads((fitted / "training.json").read_text())
    cut(0.6 * told["history"][-1]["epoch"] / told["epochs"])
    with pytest.raises(PowerCutError):
        finetune.finetune(settings, inputs, tmp_path)
    assert list((tmp_path / "checkpoints").glob("checkpoint-*"))
    cut(2.0)
    finetune.finetune(settings, inputs, tmp_path)
    assert _weights(tmp_path) == _weights(fitted)
    assert (tmp_path / "training.json").read_bytes() == (fitted / "training.json").read_bytes()


def test_a_training_killed_at_its_end_does_not_go_on(
    base: Path, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped early and killed before it wrote its result: no step more, the same best weights."""
    import shutil

    schedule = Schedule(epochs=40.0, learning_rate=5e-3, patience=4)
    settings, inputs = finetune.Settings(TASK, schedule), {"model": base, "data": train}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    finetune.finetune(settings, inputs, whole)
    told = json.loads((whole / "training.json").read_text())
    assert told["stopped"] == "no gain on held-out rows"
    assert told["history"][-1]["epoch"] < 40

    def die(*_: Any, **__: Any) -> None:
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        patch.setattr(training, "history_of", die)
        with pytest.raises(PowerCutError):
            finetune.finetune(settings, inputs, broken)
    monkeypatch.setattr("transformers.Trainer.train", die)
    finetune.finetune(settings, inputs, broken)
    assert _weights(broken) == _weights(whole)
    assert (broken / "training.json").read_bytes() == (whole / "training.json").read_bytes()


def test_a_student_without_a_number_agrees_with_its_teacher(
    fitted: Path, train: Path, tmp_path: Path
) -> None:
    """Copies, rate and length are chosen; no copy of a held-out row is learned from."""
    rows, lesson, out = tmp_path / "rows", tmp_path / "lesson", tmp_path / "student"
    for folder in (rows, lesson, out):
        folder.mkdir()
    augment.augment(augment.Settings(TASK, copies=None), {"data": train}, rows)
    origins = augment.read_origins(rows)
    assert len(origins) == 160 * 13
    examples = augment.read_rows(rows)
    learn, held = distill._divide(distill.Settings(TASK), examples, origins)
    assert {origins[i] for i in learn}.isdisjoint(held)
    assert {origins[i] for i in learn} | set(held) == set(range(160))
    teach.teach(teach.Settings(TASK), {"teacher": fitted, "rows": rows}, lesson)
    settings = distill.Settings(TASK, Schedule(max_minutes=0.0008), layers=1)
    distill.distill(settings, {"model": fitted, "rows": rows, "lesson": lesson}, out)
    assert evaluate(open_torch(out, TASK), read_examples(str(train), TASK)).value > 0.9
    assert json.loads((out / "training.json").read_text())["figure"] == "loss"
