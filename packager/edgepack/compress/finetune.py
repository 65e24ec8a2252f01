"""Fine-tune a pretrained encoder on labelled data, if a recipe has no trained teacher."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgepack.compress import holdout, linear, losses, training
from edgepack.compress.batches import Labels, pack, pack_labels
from edgepack.compress.folder import load, save, spaced
from edgepack.compress.job import Job
from edgepack.compress.launch import first_process, launch
from edgepack.compress.schedule import Schedule
from edgepack.compress.tensors import max_length_of, read_training
from edgepack.data.labels import labels_of
from edgepack.data.rows import Columns, Example
from edgepack_runtime import tasks
from edgepack_runtime.errors import InputError

TOOLS = training.TOOLS


@dataclass(frozen=True)
class Settings:
    """How to fine-tune."""

    task: str
    """The task to learn."""
    schedule: Schedule = field(default_factory=Schedule)
    columns: Columns = Columns()
    max_length: int = 128
    """Tokens of a text; longer texts are cut."""


def finetune(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the fine-tuned model; its labels are those of the data, sorted by name.

    Raises:
        InputError: there are no labels or only one class, or `training.fit` refuses.

    """
    launch(__name__, settings, inputs, out)


def work(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Fine-tune in this process, which may be one of several."""
    from transformers import set_seed

    set_seed(settings.schedule.seed)
    examples = read_training(inputs, settings.task, settings.columns)
    model, tokenizer = load(
        inputs["model"], settings.task, **head_of(examples), ignore_mismatched_sizes=True
    )
    if tasks.find(settings.task).PER_TOKEN:
        tokenizer = spaced(tokenizer, inputs["model"])
    longest = min(settings.max_length, max_length_of(model, tokenizer))
    rows, words = pack(tokenizer, examples, longest)
    labels = pack_labels(examples, rows, words, model.config)
    assert labels is not None  # noqa: S101 (`head_of` refuses rows without one)
    known: Labels = labels
    held = holdout.split(examples, settings.schedule.seed) if settings.schedule.holds_out else []
    learn = sorted(set(range(len(examples))) - set(held))

    def collate(picked: Sequence[int]) -> dict[str, Any]:
        return {**rows.pad(picked), "labels": known.pick(picked, left=rows.left)}

    figure = _figure_of(settings.task, model.config)
    judge = None
    if held and figure != "loss":
        judge = holdout.judge(tokenizer, settings.task, [examples[i] for i in held], longest)
    probe = None
    if held and figure == "accuracy" and first_process():
        probe = linear.probe(model, rows, [e.label for e in examples], learn, held)
    job = Job(
        model,
        rows.lengths.tolist(),
        learn,
        collate,
        _loss,
        held,
        judge,
        figure,
    )
    record = training.fit(job, settings.schedule, out)
    if first_process():
        replace(record, probe=probe).write(out, "finetune")
        save(model, tokenizer, out)


def _loss(model: Any, batch: dict[str, Any]) -> Any:
    """Return the task's own loss, in float32 whatever precision the model uses."""
    import torch

    labels = batch.pop("labels")
    config = getattr(model, "module", model).config  # several processes wrap the model
    everyone = torch.ones(len(labels), dtype=torch.bool, device=labels.device)
    return losses.hard(model(**batch)[0].float(), labels, str(config.problem_type), everyone)


def _figure_of(task: str, config: Any) -> str:
    """Return the figure for held-out rows, by the name in `evaluate`; the loss for scores."""
    if tasks.find(task).PER_TOKEN:
        return "entity_f1"
    kinds = {"single_label_classification": "accuracy", "multi_label_classification": "micro_f1"}
    return kinds.get(config.problem_type, "loss")


def head_of(examples: Sequence[Example]) -> dict[str, Any]:
    """Return the settings of the classification head: labels and kind of problem.

    Raises:
        InputError: a row has no label, or all rows have the same.

    """
    missing = [e.line for e in examples if e.label is None and not e.tags]
    if missing:
        raise InputError(f"line {missing[0]}: no label, but fine-tuning needs one")
    if isinstance(examples[0].label, float):
        return {"num_labels": 1, "problem_type": "regression"}
    names = sorted({name for example in examples for name in labels_of(example)})
    if len(names) < 2:
        raise InputError(
            f"the training data has only one class: {', '.join(names)}; learning needs two"
        )
    head: dict[str, Any] = {
        "id2label": dict(enumerate(names)),
        "label2id": {name: i for i, name in enumerate(names)},
        "num_labels": len(names),
    }
    several = isinstance(examples[0].label, tuple)
    head["problem_type"] = f"{'multi' if several else 'single'}_label_classification"
    return head
