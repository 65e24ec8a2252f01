"""Fine-tune a pretrained encoder on labelled data: where a recipe brings no teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.compress import training
from edgepack.compress.examples import (
    label_of,
    max_length_of,
    pad,
    pad_labels,
    read_training,
    tokenize,
)
from edgepack.compress.folder import load, save, spaced
from edgepack.dataset import Columns, Example
from edgepack.evaluate import labels_of
from edgepack_runtime.errors import InputError

TOOLS = training.TOOLS


@dataclass(frozen=True)
class Settings:
    """task: what to learn; max_length: tokens of a text, longer ones are cut."""

    task: str
    schedule: training.Schedule = field(default_factory=training.Schedule)
    columns: Columns = Columns()
    max_length: int = 128


def finetune(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the fine-tuned model; its labels are those of the data, in order of their names.

    Raises:
        InputError: no labels, one class only, or what `training.fit` refuses.

    """
    training.launch(__name__, settings, inputs, out)


def work(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Do it in this process, which may be one of several."""
    from transformers import set_seed

    set_seed(settings.schedule.seed)
    examples = read_training(inputs, settings.task, settings.columns)
    model, tokenizer = load(
        inputs["model"], settings.task, **_head(examples), ignore_mismatched_sizes=True
    )
    if settings.task == "token-classification":
        tokenizer = spaced(tokenizer, inputs["model"])
    longest = min(settings.max_length, max_length_of(model, tokenizer))
    rows = [_row(model, tokenizer, example, longest) for example in examples]

    def collate(batch: list[Mapping[str, Any]]) -> dict[str, Any]:
        inputs = pad(tokenizer, batch)
        width = inputs["input_ids"].shape[1]
        return {**inputs, "labels": pad_labels([row["labels"] for row in batch], width)}

    job = training.Job(model, rows, collate, lambda m, batch: m(**batch).loss)
    training.fit(job, settings.schedule, out)
    if training.first_process():
        save(model, tokenizer, out)


def _row(model: Any, tokenizer: Any, example: Example, longest: int) -> dict[str, Any]:
    row = tokenize(tokenizer, example, longest)
    labels = label_of(example, row, model.config)
    return {**row, "labels": labels, "length": len(row["input_ids"])}


def _head(examples: Sequence[Example]) -> dict[str, Any]:
    """Return what the classification head must know: labels and kind of problem."""
    missing = [e.line for e in examples if e.label is None and not e.tags]
    if missing:
        raise InputError(f"line {missing[0]}: no label, which fine-tuning needs")
    if isinstance(examples[0].label, float):
        return {"num_labels": 1, "problem_type": "regression"}
    names = sorted({name for example in examples for name in labels_of(example)})
    if len(names) < 2:
        raise InputError(
            f"the training data has one class only: {', '.join(names)}; two are needed to learn"
        )
    head: dict[str, Any] = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "num_labels": len(names),
    }
    several = isinstance(examples[0].label, tuple)
    head["problem_type"] = f"{'multi' if several else 'single'}_label_classification"
    return head
