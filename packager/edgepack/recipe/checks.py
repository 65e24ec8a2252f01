"""Refuse sizes and labels that cannot fit, before an hour of training."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from typing import TYPE_CHECKING, Any

from edgepack.compress import layers
from edgepack.compress.finetune import head_of
from edgepack.data.labels import check_labels
from edgepack.data.rows import Columns, Example, read_examples
from edgepack.stages.cache import Source
from edgepack.tasks import find
from edgepack_runtime import tasks
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack.recipe.compression import Compression


def check_task(steps: Compression, task: str) -> None:
    """Refuse steps that are not built for a task.

    Raises:
        InputError: such a step is asked for.

    """
    asked = [
        name
        for name in ("finetune", "vocabulary", "prune", "distill", "augment", "size")
        if getattr(steps, name)
    ]
    if not find(task).LEARNS and asked:
        name = "compress" if asked[0] == "size" else asked[0]
        raise InputError(
            f"{name}: models for {task} are quantized, but not trained, pruned or distilled yet. "
            "Leave it out"
        )
    if not find(task).DECODES:
        return
    if steps.augment:
        raise InputError(
            "distill.augment: texts with wrong words teach a language model to write "
            "them. Leave it out"
        )
    if steps.distill and steps.distill.transfer == "relation":
        raise InputError("distill.transfer: 'relation' is for encoders; use 'hidden' or 'none'")


def check_sizes(steps: Compression, config: Mapping[str, Any]) -> None:
    """Refuse sizes that are larger than those in a model's `config.json`.

    Raises:
        InputError: a size is too large (the first one is named), or the model's layers cannot be
            cut.

    """
    wanted: dict[str, int] = {}
    if steps.prune:
        cut = steps.prune
        wanted = {"layers": cut.layers, "heads": cut.heads, "feed_forward": cut.feed_forward}
    depth = steps.distill.layers if steps.distill else 0
    if not any((*wanted.values(), depth)):
        return
    kind = str(config.get("model_type", ""))
    if kind not in layers.FAMILIES:
        raise InputError(layers.cannot_cut(kind))
    there = layers.sizes_of(config)
    if wanted.get("heads", 0) % there["group"]:
        raise InputError(layers.parted_heads(wanted["heads"], there["group"]))
    for name, count in wanted.items():
        if count > there[name]:
            raise InputError(f"prune.{name} = {count} is more than the model's {there[name]}")
    left = wanted.get("layers") or there["layers"]
    if depth > left:
        raise InputError(f"distill.layers is {depth}; the model has {left}")


def check_depth(layers_wanted: int, config: Mapping[str, Any], table: str) -> None:
    """Refuse a number of layers that is larger than a model's, or a model that cannot be cut.

    Raises:
        InputError: it is one of these.

    """
    kind = str(config.get("model_type", ""))
    if kind not in layers.FAMILIES:
        raise InputError(f"{table}.layers: {layers.cannot_cut(kind)}")
    depth = layers.sizes_of(config)["layers"]
    if layers_wanted > depth:
        raise InputError(f"{table}.layers is {layers_wanted}; the model has {depth}")


def check_data(
    steps: Compression,
    task: str,
    config: Mapping[str, Any],
    data: Mapping[str, Any],
    columns: Columns,
) -> None:
    """Refuse labels of training and evaluation rows that a later stage would refuse.

    Args:
        steps: the steps of the compression.
        task: the task by the runtime's name.
        config: the config of the model.
        data: sources by role; sources that are not files yet are left to the stages.
        columns: the names of the columns.

    Raises:
        InputError: there is only one class, a row has no label, or the model will not know a label.

    """
    if not tasks.find(task).DECIDES or not find(task).LEARNS:
        return
    found = {
        role: _examples(source.path.as_posix(), source.key, task, columns)
        for role, source in data.items()
        if role != "unlabelled" and isinstance(source, Source) and source.path.is_file()
    }
    train = found.get("data", ())
    if steps.finetune and not train:
        return
    head = head_of(train) if steps.finetune else {"id2label": config.get("id2label") or {}}
    known = list(head.get("id2label", {}).values())
    evaluated = found.get("evaluation", ())
    if not known:
        _same_kind(train, evaluated)
        return
    if steps.distill or steps.prune:
        labelled = [e for e in train if e.label is not None or e.tags]
        check_labels(labelled, known, "training data")
    check_labels(evaluated, known, "evaluation data")


@cache
def _examples(path: str, _key: str, task: str, columns: Columns) -> tuple[Example, ...]:
    """Read a file once for all targets of a build; the key is the digest of its content."""
    return tuple(read_examples(path, task, columns))


def _same_kind(train: tuple[Example, ...], evaluated: tuple[Example, ...]) -> None:
    """Refuse names as evaluation labels if the training data has scores."""
    wrong = [e.line for e in evaluated if not isinstance(e.label, float)]
    if train and isinstance(train[0].label, float) and wrong:
        raise InputError(
            f"evaluation data, line {wrong[0]}: the label is not a number, but those of the "
            "training data are"
        )
