"""Knowledge distillation: a small student learns the decisions of its teacher.

* soft labels: Kullback-Leibler divergence at a temperature (Hinton et al. 2015, arXiv
  1503.02531), squared error for regression, cosine for embeddings;
* hard labels, where the data has them;
* `transfer`: `hidden` copies the last hidden states (DistilBERT's way), `relation` the
  relations between tokens by queries, keys and values (MiniLMv2, arXiv 2012.15828), for
  which teacher and student may differ in width.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.compress import layers, training
from edgepack.compress.augment import read_rows
from edgepack.compress.examples import (
    label_of,
    max_length_of,
    pad,
    pad_labels,
    tokenize,
)
from edgepack.compress.folder import load, save
from edgepack.compress.teach import Lesson, Probe
from edgepack.dataset import Columns, Example, read_examples
from edgepack.describe import pooling_of
from edgepack.evaluate import TORCH_BATCH, check_labels, evaluate
from edgepack_runtime.errors import InputError

TOOLS = training.TOOLS
_RELATION_HEADS = 12
_DROPOUTS = ("hidden_dropout_prob", "attention_probs_dropout_prob", "dropout", "attention_dropout")


@dataclass(frozen=True)
class Settings:
    """How the student learns.

    layers: of the student, taken from the model it starts from, evenly spread; 0 keeps all.
    temperature: of the soft labels; hard: weight of the hard labels, from 0 to 1.
    transfer: one of `teach.TRANSFERS`; transfer_weight: beside the decisions.
    dropout: of the student while it learns.
    freeze_embeddings: leave the token vectors as the teacher has them.  Steps are cheaper, and
        words that the data lacks keep their meaning.
    """

    task: str
    schedule: training.Schedule = field(default_factory=training.Schedule)
    layers: int = 0
    temperature: float = 2.0
    hard: float = 0.1
    transfer: str = "none"
    transfer_weight: float = 1.0
    dropout: float = 0.0
    freeze_embeddings: bool = False
    max_length: int = 128
    columns: Columns = Columns()


def distill(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the student.

    Args:
        settings: see there.
        inputs: `model` (what the student starts from), `rows` (of `augment`), `lesson` (of
            `teach`), `evaluation` (for early stopping, may be missing).
        out: the folder to fill.

    Raises:
        InputError: labels that the teacher does not know, or what `training.fit` refuses.

    """
    training.launch(__name__, settings, inputs, out)


def work(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Do it in this process, which may be one of several."""
    from transformers import set_seed

    set_seed(settings.schedule.seed)
    declared = _dropouts(inputs["model"])
    model, tokenizer = load(
        inputs["model"], settings.task, **dict.fromkeys(declared, settings.dropout)
    )
    if settings.layers:
        depth = len(layers.layer_list(model))
        if settings.layers > depth:
            raise InputError(f"distill.layers is {settings.layers}; the model has {depth}")
        layers.keep_layers(model, layers.spread(settings.layers, depth))
    model.get_input_embeddings().weight.requires_grad_(not settings.freeze_embeddings)
    examples = read_rows(inputs["rows"])
    labelled = [e for e in examples if e.label is not None or e.tags]
    if settings.task.endswith("classification") and model.config.num_labels > 1:
        check_labels(labelled, list(model.config.label2id), "training data")
    lesson = Lesson(inputs["lesson"])
    student = _Student(settings, model, tokenizer, lesson, pooling_of(inputs["model"])[0] or "mean")
    rows = [student.row(example, i) for i, example in enumerate(examples)]
    job = training.Job(model, rows, student.collate, student.loss, _judge(settings, inputs))
    training.fit(job, settings.schedule, out)
    if training.first_process():
        for name, rate in declared.items():  # that of the training is no trait of the model
            setattr(model.config, name, rate)
        save(model, tokenizer, out, source=inputs["model"])


def _dropouts(folder: Path) -> dict[str, float]:
    """Return the dropout rates that a model's config declares."""
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, local_files_only=True)
    return {name: getattr(config, name) for name in _DROPOUTS if hasattr(config, name)}


def _judge(settings: Settings, inputs: Mapping[str, Path]) -> Callable[[Any], float] | None:
    """Return what measures the student after each epoch, if early stopping wants it."""
    if "evaluation" not in inputs or not settings.schedule.patience:
        return None
    from edgepack.torch_model import wrap_torch

    examples = read_examples(str(inputs["evaluation"]), settings.task, settings.columns)
    source = inputs["model"]

    def judge(model: Any) -> float:
        return evaluate(
            wrap_torch(model, source, settings.task), examples, batch_size=TORCH_BATCH
        ).value

    return judge


class _Student:
    """Turns examples into rows and batches, and batches into the loss."""

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

    def row(self, example: Example, number: int) -> dict[str, Any]:
        """Return the tokens of an example, its label and its number in the lesson."""
        row = tokenize(self._tokenizer, example, self._longest)
        head = self._settings.task.endswith("classification")
        labels = label_of(example, row, self._config) if head else None
        return {**row, "labels": labels, "number": number, "length": len(row["input_ids"])}

    def collate(self, batch: list[Mapping[str, Any]]) -> dict[str, Any]:
        """Pad a batch and join what the teacher said of it."""
        import torch

        inputs = pad(self._tokenizer, batch)
        width = inputs["input_ids"].shape[1]
        per_token = self._settings.task == "token-classification"
        outputs = [self._lesson.outputs(row["number"]) for row in batch]
        made = {**inputs, "soft": _stack(outputs, width if per_token else 1)}
        has = torch.tensor([row["labels"] is not None for row in batch])
        known = next((row["labels"] for row in batch if row["labels"] is not None), None)
        if known is not None:
            blank = _blank(known)
            labels = [blank if r["labels"] is None else r["labels"] for r in batch]
            made["labels"] = pad_labels(labels, width)
        made["labelled"] = has
        same = [self._lesson.tokens(row["number"]) == row["length"] for row in batch]
        made["aligned"] = torch.tensor(same)
        if self._settings.transfer != "none":
            states = [
                self._lesson.inner(row["number"]) if fit else None
                for row, fit in zip(batch, same, strict=True)
            ]
            made["inner"] = _stack(states, width)
        return made

    def loss(self, model: Any, batch: dict[str, Any]) -> Any:
        """Return the mean loss over the rows."""
        if self._probe is None:
            self._probe = Probe(model, self._settings.transfer, self._pooling)
        extra = {k: batch.pop(k, None) for k in ("soft", "labels", "labelled", "aligned", "inner")}
        output, inner = self._probe(batch)
        mask = batch["attention_mask"] * extra["aligned"].unsqueeze(1)
        loss = self._decisions(output, extra, mask)
        if inner is not None and bool(extra["aligned"].any()):
            transfer = _hidden if self._settings.transfer == "hidden" else _relation
            loss = loss + self._settings.transfer_weight * transfer(inner, extra["inner"], mask)
        return loss

    def _decisions(self, output: Any, extra: Mapping[str, Any], mask: Any) -> Any:
        """Mix soft and hard labels."""
        settings = self._settings
        if output.dim() == 2:
            soft = _soft(output, extra["soft"][:, 0], self._kind(), settings.temperature).mean()
        else:
            each = _soft(output, extra["soft"], self._kind(), settings.temperature)
            soft = (each * mask).sum() / mask.sum().clamp(min=1)
        if extra["labels"] is None or settings.hard == 0:
            return soft
        hard = _hard(output, extra["labels"], self._kind(), extra["labelled"])
        return (1 - settings.hard) * soft + settings.hard * hard

    def _kind(self) -> str:
        if not self._settings.task.endswith("classification"):
            return "embedding"
        declared = str(self._config.problem_type or "")
        return "regression" if self._config.num_labels == 1 else declared


def _blank(known: Any) -> Any:
    """Return a label that stands for none beside labels like `known`."""
    from edgepack.compress.examples import IGNORED

    if isinstance(known, list):
        return [IGNORED] if isinstance(known[0], int) else [0.0] * len(known)
    return float("nan") if isinstance(known, float) else IGNORED


def _stack(arrays: list[Any], length: int) -> Any:
    """Stack arrays [tokens, width] into a tensor [rows, length, width]; None gives zeros."""
    import torch

    width = next((array.shape[1] for array in arrays if array is not None), 1)
    stacked = torch.zeros(len(arrays), length, width)
    for i, array in enumerate(arrays):
        if array is not None:
            kept = array[:length]
            stacked[i, : len(kept)] = torch.from_numpy(kept)
    return stacked


def _soft(output: Any, wanted: Any, kind: str, temperature: float) -> Any:
    """Return how far each output is from the teacher's: [rows] or [rows, tokens]."""
    from torch.nn import functional

    if kind == "embedding":
        return 1 - functional.cosine_similarity(output, wanted, dim=-1)
    if kind == "regression":
        return ((output - wanted) ** 2).mean(dim=-1)
    if kind == "multi_label_classification":
        target = (wanted / temperature).sigmoid()
        each = functional.binary_cross_entropy_with_logits(
            output / temperature, target, reduction="none"
        )
        return each.mean(dim=-1) * temperature**2
    found, target = ((x / temperature).log_softmax(dim=-1) for x in (output, wanted))
    each = functional.kl_div(found, target, reduction="none", log_target=True)
    return each.sum(dim=-1) * temperature**2


def _hard(output: Any, labels: Any, kind: str, labelled: Any) -> Any:
    """Return the task's own loss over the rows that have a label."""
    from torch.nn import functional

    if not bool(labelled.any()):
        return output.sum() * 0.0
    if kind == "regression":
        return ((output[labelled, 0] - labels[labelled]) ** 2).mean()
    if kind == "multi_label_classification":
        return functional.binary_cross_entropy_with_logits(output[labelled], labels[labelled])
    return functional.cross_entropy(output.flatten(0, -2), labels.flatten())


def _hidden(found: Any, wanted: Any, mask: Any) -> Any:
    if found.shape[-1] != wanted.shape[-1]:
        raise InputError(
            f"transfer = 'hidden' needs teacher and student of one width, not {wanted.shape[-1]} "
            f"and {found.shape[-1]}; use 'relation'"
        )
    each = ((found - wanted) ** 2).mean(dim=-1)
    return (each * mask).sum() / mask.sum().clamp(min=1)


def _relation(found: Any, wanted: Any, mask: Any) -> Any:
    """Compare how tokens relate by queries, by keys and by values, head by head."""
    total: Any = 0.0
    for mine, theirs in zip(found.chunk(3, dim=-1), wanted.chunk(3, dim=-1), strict=True):
        widths = (mine.shape[-1], theirs.shape[-1])
        heads = next(h for h in range(_RELATION_HEADS, 0, -1) if not any(w % h for w in widths))
        target, guess = _relations(theirs, mask, heads), _relations(mine, mask, heads)
        each = (target.exp() * (target - guess)).sum(dim=-1).mean(dim=1)
        total = total + (each * mask).sum() / mask.sum().clamp(min=1)
    return total / 3


def _relations(states: Any, mask: Any, heads: int) -> Any:
    """Return log-softmax of scaled products of tokens: [rows, heads, tokens, tokens]."""
    rows, tokens, width = states.shape
    split = states.reshape(rows, tokens, heads, -1).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) / (width / heads) ** 0.5
    return scores.masked_fill(mask[:, None, None, :] == 0, -1e4).log_softmax(dim=-1)
