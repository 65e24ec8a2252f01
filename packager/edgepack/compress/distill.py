"""Knowledge distillation: a small student learns the decisions of its teacher.

* soft labels: Kullback-Leibler divergence at a temperature (Hinton et al. 2015, arXiv
  1503.02531), squared error for regression, cosine for embeddings;
* hard labels, where the data has them;
* `transfer`: `hidden` copies the last hidden states (DistilBERT's way), `relation` the
  relations between tokens by queries, keys and values (MiniLMv2, arXiv 2012.15828), for
  which teacher and student may differ in width.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.compress import holdout, layers, losses, training
from edgepack.compress.augment import read_origins, read_rows
from edgepack.compress.batches import Labels, Rows, pack, pack_labels
from edgepack.compress.folder import load, save
from edgepack.compress.job import Job
from edgepack.compress.launch import first_process, launch
from edgepack.compress.schedule import Schedule
from edgepack.compress.teach import Lesson, Probe
from edgepack.compress.tensors import max_length_of
from edgepack.data.labels import check_labels
from edgepack.data.rows import Columns, Example
from edgepack.model.describe import pooling_of
from edgepack_runtime import tasks
from edgepack_runtime.errors import InputError

TOOLS = training.TOOLS
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")


@dataclass(frozen=True)
class Settings:
    """How the student learns."""

    task: str
    """Of teacher and student."""
    schedule: Schedule = field(default_factory=Schedule)
    """How to train."""
    layers: int = 0
    """Of the student, taken evenly spread from the model that it starts from; 0 keeps all."""
    temperature: float = 2.0
    """Of the soft labels."""
    hard: float = 0.1
    """The weight of the hard labels, from 0 to 1."""
    transfer: str = "none"
    """One of `teach.TRANSFERS`."""
    transfer_weight: float = 1.0
    """The weight of what is transferred; decisions have weight 1."""
    dropout: float = 0.0
    """Of the student while it learns."""
    freeze_embeddings: bool = False
    """Leave the token vectors as the teacher has them.  Steps are cheaper, and words that the data
    lacks keep their meaning."""
    max_length: int = 128
    """Tokens of a row."""
    columns: Columns = Columns()
    """Where the data holds texts and labels."""


def distill(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the student.

    Args:
        settings: see there.
        inputs: `model` (what the student starts from), `rows` (of `augment`), `lesson` (of
            `teach`).
        out: the folder to fill.

    Raises:
        InputError: labels that the teacher does not know, or what `training.fit` refuses.

    """
    launch(__name__, settings, inputs, out)


def work(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Do it in this process, which may be one of several."""
    from transformers import set_seed

    set_seed(settings.schedule.seed)
    declared = _dropouts(inputs["model"])
    model, tokenizer = load(
        inputs["model"], settings.task, **dict.fromkeys(declared, settings.dropout)
    )
    shallow(model, settings.layers)
    model.get_input_embeddings().weight.requires_grad_(not settings.freeze_embeddings)
    examples = read_rows(inputs["rows"])
    labelled = [e for e in examples if e.label is not None or e.tags]
    if tasks.find(settings.task).DECIDES and model.config.num_labels > 1:
        check_labels(labelled, list(model.config.label2id), "training data")
    pooling = pooling_of(inputs["model"])[0] or "mean"
    student = _Student(settings, model, tokenizer, Lesson(inputs["lesson"]), pooling)
    lengths = student.take(examples)
    learn, held = _divide(settings, examples, read_origins(inputs["rows"]))
    job = Job(model, lengths, learn, student.collate, student.loss, held, student=True)
    record = training.fit(job, settings.schedule, out)
    if first_process():
        record.write(out, "distill")
        for name, rate in declared.items():  # that of the training is no trait of the model
            setattr(model.config, name, rate)
        save(model, tokenizer, out, source=inputs["model"])


def shallow(model: Any, wanted: int) -> None:
    """Leave so many layers, evenly spread; all if it is 0.

    Raises:
        InputError: the model has fewer.

    """
    if not wanted:
        return
    depth = len(layers.layer_list(model))
    if wanted > depth:
        raise InputError(f"distill.layers is {wanted}; the model has {depth}")
    layers.keep_layers(model, layers.spread(wanted, depth))


def _divide(
    settings: Settings, examples: Sequence[Example], origins: Sequence[int]
) -> tuple[list[int], list[int]]:
    """Return the rows to learn from and those held out, whose copies nobody learns from."""
    if not settings.schedule.holds_out:
        return list(range(len(examples))), []
    own = [i for i, origin in enumerate(origins) if i == origin]
    held = [own[i] for i in holdout.split([examples[i] for i in own], settings.schedule.seed)]
    apart = set(held)
    return [i for i, origin in enumerate(origins) if origin not in apart], held


def _dropouts(folder: Path) -> dict[str, float]:
    """Return the dropout rates that a model's config declares."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return {name: getattr(config, name) for name in _DROPOUTS if hasattr(config, name)}


class _Student:
    """Turns examples into rows and batches, and batches into the loss."""

    _rows: Rows
    _labels: Labels | None = None

    def __init__(
        self, settings: Settings, model: Any, tokenizer: Any, lesson: Lesson, pooling: str
    ) -> None:
        self._pooling = pooling
        self._settings = settings
        self._config = model.config
        self._tokenizer = tokenizer
        self._lesson = lesson
        self._longest = min(settings.max_length, max_length_of(model, tokenizer))
        self._probe: Probe | None = None

    def take(self, examples: Sequence[Example]) -> list[int]:
        """Tokenize the examples; return the tokens of each."""
        self._rows, words = pack(self._tokenizer, examples, self._longest)
        if tasks.find(self._settings.task).DECIDES:
            self._labels = pack_labels(examples, self._rows, words, self._config)
        lengths: list[int] = self._rows.lengths.tolist()
        return lengths

    def collate(self, picked: Sequence[int]) -> dict[str, Any]:
        """Pad a batch and join what the teacher said of it."""
        import torch

        made = self._rows.pad(picked)
        width = made["input_ids"].shape[1]
        per_token = tasks.find(self._settings.task).PER_TOKEN
        left = self._rows.left
        soft = self._lesson.outputs(picked, width if per_token else 1, left=left)
        aligned = self._lesson.tokens[picked] == self._rows.lengths[picked]
        made["soft"], made["aligned"] = torch.from_numpy(soft), torch.from_numpy(aligned)
        if self._labels is not None:
            made["labels"] = self._labels.pick(picked, left=left)
            made["labelled"] = torch.from_numpy(self._labels.known[picked])
        if self._settings.transfer != "none":
            made["inner"] = torch.from_numpy(self._lesson.inner(picked, width, left=left))
        return made

    def loss(self, model: Any, batch: dict[str, Any]) -> Any:
        """Return the mean loss over the rows."""
        if self._probe is None:
            self._probe = Probe(model, self._settings.transfer, self._pooling)
        extra = {k: batch.pop(k, None) for k in ("soft", "labels", "labelled", "aligned", "inner")}
        output, inner = (x if x is None else x.float() for x in self._probe(batch))
        mask = batch["attention_mask"] * extra["aligned"].unsqueeze(1)
        loss = self._decisions(output, extra, mask)
        if inner is not None and bool(extra["aligned"].any()):
            transfer = losses.hidden if self._settings.transfer == "hidden" else losses.relation
            loss = loss + self._settings.transfer_weight * transfer(inner, extra["inner"], mask)
        return loss

    def _decisions(self, output: Any, extra: Mapping[str, Any], mask: Any) -> Any:
        """Mix soft and hard labels."""
        settings = self._settings
        if output.dim() == 2:
            soft = losses.soft(
                output, extra["soft"][:, 0], self._kind(), settings.temperature
            ).mean()
        else:
            each = losses.soft(output, extra["soft"], self._kind(), settings.temperature)
            soft = (each * mask).sum() / mask.sum().clamp(min=1)
        if extra["labels"] is None or settings.hard == 0:
            return soft
        hard = losses.hard(output, extra["labels"], self._kind(), extra["labelled"])
        return (1 - settings.hard) * soft + settings.hard * hard

    def _kind(self) -> str:
        if not tasks.find(self._settings.task).DECIDES:
            return "embedding"
        declared = str(self._config.problem_type or "")
        return "regression" if self._config.num_labels == 1 else declared
