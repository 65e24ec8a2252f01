"""Structured pruning: layers, attention heads and feed-forward neurons, physically removed.

Importance is the first-order Taylor term of the loss, Σ (weight × gradient)², on the data
(Molchanov et al. 2019, arXiv 1906.10771).  Without labels, the model's own decisions are used.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.compress import layers, windows
from edgepack.compress.batches import batches
from edgepack.compress.folder import load, save
from edgepack.compress.tensors import Batch, read_training, task_loss
from edgepack.data.labels import check_labels
from edgepack.data.rows import Columns
from edgepack.tasks import find
from edgepack_runtime import tasks
from edgepack_runtime.errors import InputError

TOOLS = ("edgepack", "torch", "transformers")
_ROWS = 512
_BATCH = 16
_WINDOW, _WINDOWS = 256, 64  # tokens that a language model reads at once, and how often


@dataclass(frozen=True)
class Settings:
    """What remains after pruning; 0 removes nothing."""

    task: str
    layers: int = 0
    """How many layers remain."""
    heads: int = 0
    """How many attention heads remain in each layer."""
    feed_forward: int = 0
    """How many feed-forward neurons remain in each layer."""
    columns: Columns = Columns()
    seed: int = 0


def prune(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the model without its least important parts.

    Raises:
        InputError: a size is larger than the model's, or the architecture cannot be cut.

    """
    model, tokenizer = load(inputs["model"], settings.task)
    _check(model, settings)
    examples = read_training(inputs, settings.task, settings.columns, most=_ROWS)
    labelled = [example for example in examples if example.tags or example.label is not None]
    if tasks.find(settings.task).DECIDES and model.config.num_labels > 1:
        check_labels(labelled, list(model.config.label2id), "training data")
    scores = _importance(model, settings, _batches(model, tokenizer, examples, settings))
    if settings.layers:
        kept = sorted(_best([sum(map(sum, s.values())) for s in scores], settings.layers))
        layers.keep_layers(model, kept)
        scores = [scores[i] for i in kept]
    if settings.feed_forward:
        chosen = [_best(s["neurons"], settings.feed_forward) for s in scores]
        layers.keep_neurons(model, chosen)
    if settings.heads:
        _keep_heads(model, [s["heads"] for s in scores], settings.heads)
    save(model, tokenizer, out, source=inputs["model"])


def _check(model: Any, settings: Settings) -> None:
    family = layers.family_of(model)
    limits = {
        "layers": getattr(model.config, family.depth),
        "heads": model.config.num_attention_heads,
        "feed_forward": getattr(model.config, family.width),
    }
    for name, most in limits.items():
        if getattr(settings, name) > most:
            raise InputError(
                f"prune.{name} = {getattr(settings, name)} is more than the model's {most}"
            )
    group = layers.sizes_of(model.config.to_dict())["group"]
    if settings.heads % group:
        raise InputError(layers.parted_heads(settings.heads, group))
    if settings.heads and model.config.pruned_heads:
        raise InputError("prune.heads: heads of this model were pruned before")


def _keep_heads(model: Any, scores: Sequence[Sequence[float]], count: int) -> None:
    """Remove all but the best heads of each layer; a decoder's go in groups."""
    group = layers.sizes_of(model.config.to_dict())["group"]
    if hasattr(layers.layer_list(model)[0], "self_attn"):
        sums = [[sum(s[i : i + group]) for i in range(0, len(s), group)] for s in scores]
        layers.keep_groups(model, [_best(s, count // group) for s in sums])
        return
    model.prune_heads(
        {i: sorted(set(range(len(s))) - set(_best(s, count))) for i, s in enumerate(scores)}
    )


def _batches(
    model: Any, tokenizer: Any, examples: Sequence[Any], settings: Settings
) -> Iterator[Batch]:
    if find(settings.task).DECODES:
        rows = windows.pack(model, tokenizer, examples, _WINDOW)
        return windows.batches(rows, _BATCH // 4, _WINDOWS)
    return batches(model, tokenizer, examples, _BATCH)


def _importance(
    model: Any, settings: Settings, given: Iterable[Batch]
) -> list[dict[str, list[float]]]:
    """Return the scores of each layer: one for each head and each feed-forward neuron."""
    import torch

    torch.manual_seed(settings.seed)
    model.eval()
    family = layers.family_of(model)
    zero = torch.zeros(())
    found = [{"heads": zero, "neurons": zero} for _ in layers.layer_list(model)]
    for batch in given:
        model.zero_grad()
        task_loss(model, batch).backward()
        for total, layer in zip(found, layers.layer_list(model), strict=True):
            total["neurons"] = total["neurons"] + _neurons(layer, family)
            total["heads"] = total["heads"] + _heads(layer, family, model.config)
    return [{name: scores.tolist() for name, scores in total.items()} for total in found]


def _taylor(module: Any) -> Any:
    return (module.weight * module.weight.grad).detach()


def _neurons(layer: Any, family: layers.Family) -> Any:
    total = _taylor(layer.get_submodule(family.narrow)).sum(dim=0)
    for widen in map(layer.get_submodule, family.wideners):
        total = total + _taylor(widen).sum(dim=1)
    return total**2


def _heads(layer: Any, family: layers.Family, config: Any) -> Any:
    heads = config.num_attention_heads
    total = _taylor(layer.get_submodule(family.attention_out)).sum(dim=0)
    for name in (family.query, family.key, family.value):
        each = _taylor(layer.get_submodule(name)).sum(dim=1).reshape(-1, len(total) // heads)
        # Heads may share keys and values.
        total = total + each.repeat_interleave(heads // len(each), dim=0).flatten()
    return total.reshape(heads, -1).sum(dim=1) ** 2


def _best(scores: Sequence[float], count: int) -> list[int]:
    return sorted(range(len(scores)), key=lambda i: (-scores[i], i))[:count]
