"""Fine-tuning: the model learns its data, or says why it cannot."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from lessons import INTENTS, TASK, new_folder, plain_schedule

from edgepack.compress import finetune
from edgepack.data.rows import read_examples
from edgepack.model.torch_model import load_torch, open_torch
from edgepack.tasks import evaluate
from edgepack_runtime import InputError

Get = Callable[..., Path]


def test_fine_tuning_learns(teacher: Path, train: Path) -> None:
    """The teacher knows its training data, and its labels are those of the data."""
    opened = open_torch(teacher, TASK)
    assert sorted(opened.task.labels) == sorted(INTENTS)
    assert evaluate(opened, read_examples(str(train), TASK)).value > 0.95


def test_one_class_only_is_refused(model: Get, tmp_path: Path) -> None:
    """There is nothing to learn from one label."""
    data = tmp_path / "one.tsv"
    data.write_text("text\tlabel\nhello\ta\nyou\ta\n")
    with pytest.raises(InputError, match="only one class: a"):
        finetune.finetune(
            finetune.Settings(TASK), {"model": model("bert-intent"), "data": data}, tmp_path
        )


def test_a_loss_that_is_no_number_stops_the_training(
    model: Get, train: Path, tmp_path: Path
) -> None:
    """The message says at which step, and what to lower."""
    folder = tmp_path / "broken"
    shutil.copytree(model("bert-intent"), folder)
    broken = load_torch(folder, TASK)
    broken.classifier.weight.data[:] = float("nan")
    broken.save_pretrained(folder)
    with pytest.raises(InputError, match="not a number at step 0; lower learning_rate"):
        finetune.finetune(
            finetune.Settings(TASK, plain_schedule()),
            {"model": folder, "data": train},
            new_folder(tmp_path / "out"),
        )
