"""Report what cannot work within seconds, from small files alone, before anything is exported."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from edgepack.export import find as find_exporter
from edgepack.export.known import known_families
from edgepack.model import marian, pictures
from edgepack.model.fetch import ModelInfo, read_config
from edgepack.recipe.recipe import Recipe, fetch_model
from edgepack.recipe.target import Target, VariantSpec
from edgepack.tasks import find
from edgepack_runtime.errors import InputError

_TOKENIZERS = (
    "tokenizer.json",
    "vocab.txt",
    "vocab.json",
    "merges.txt",
    "spiece.model",
    "tokenizer.model",
    "sentencepiece.bpe.model",
    "spm.model",
    "source.spm",
)
_MOST_HEADER = 100 << 20  # bytes; safetensors' own limit


def refuse(recipe: Recipe, model: ModelInfo, targets: Iterable[Target]) -> None:
    """Refuse a model if no bundle can be made from it for any of these targets.

    Raises:
        InputError: every reason, with the remedy.

    """
    first = dict.fromkeys(target.variants[0].engine for target in targets)
    references = dict.fromkeys(find_exporter(engine).REFERENCE for engine in first)
    if reasons := list(_reasons(recipe, model, references)):
        raise InputError(f"{model.source.path.name}: {'; '.join(reasons)}")


def left_out(model: ModelInfo, variants: Iterable[VariantSpec]) -> dict[str, str]:
    """Return {variant: why} for the variants that no exporter can make for this model."""
    reasons = {v.name: _why_not(v.engine, model, v) for v in variants}
    return {name: reason for name, reason in reasons.items() if reason}


def _why_not(engine: str, model: ModelInfo, spec: VariantSpec | None = None) -> str:
    return find_exporter(engine).why_not(model.model_type, model.task, spec)


def check_model(recipe: Recipe, targets: Sequence[Target], *, offline: bool) -> dict[str, Any]:
    """Return what would be built from a model, as JSON values.

    `targets` holds {variant: why it cannot be made, empty if it can} for each target.

    Raises:
        InputError: no bundle can be made from it.

    """
    model = fetch_model(recipe, offline=offline)
    refuse(recipe, model, targets)
    reasons = {target.name: left_out(model, target.variants) for target in targets}
    return {
        "name": model.name,
        "model_type": model.model_type,
        "task": model.task,
        "targets": {
            target.name: {v.name: reasons[target.name].get(v.name, "") for v in target.variants}
            for target in targets
        },
    }


def _reasons(recipe: Recipe, model: ModelInfo, references: Iterable[str]) -> Iterator[str]:
    folder = model.base.path if model.base else model.source.path
    config = read_config(folder)
    family = known_families().get(model.model_type)
    if "auto_map" in config and family is None:
        yield (
            "it needs its own code (auto_map), which edgepack does not run; use a model of an "
            "architecture that transformers has"
        )
        return
    for engine in references:
        if reason := _why_not(engine, model):
            yield f"{reason}; docs/families.md lists what builds"
    files = (model.source.path, folder)
    if find(model.task).READS != "text":
        if not (folder / pictures.FILE).is_file():
            yield f"it has no {pictures.FILE}; save the model's processor next to it"
    elif not any((place / name).is_file() for name in _TOKENIZERS for place in files):
        yield "it has no tokenizer (tokenizer.json); save the model's tokenizer next to it"
    elif (
        family
        and not family.fast
        and model.model_type != marian.FAMILY
        and not any((place / "tokenizer.json").is_file() for place in files)
    ):
        yield "its tokenizer has no fast form (tokenizer.json), which the device needs"
    if model.base is None and recipe.compression.finetune is None:
        yield from _untrained(model, config)
    for path in sorted(folder.glob("*.safetensors")):
        yield from _damaged(path)


def _untrained(model: ModelInfo, config: dict[str, Any]) -> Iterator[str]:
    """Report a classifier without a trained head: it would answer at random and look fine."""
    head = find(model.task).HEAD
    names = [str(name) for name in config.get("architectures") or []]
    if head and names and not any(name.endswith(head) for name in names):
        yield (
            f"it has no head trained for {model.task} (it is a {', '.join(names)}); "
            "fine-tune it first ([finetune] in a recipe), or name another --task"
        )


def _damaged(path: Path) -> Iterator[str]:
    """Report a safetensors file that does not match its header."""
    try:
        with path.open("rb") as stream:
            (length,) = struct.unpack("<Q", stream.read(8))
            header: dict[str, Any] = json.loads(stream.read(min(length, _MOST_HEADER)))
        ends = [row["data_offsets"][1] for name, row in header.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0) == path.stat().st_size
    except (ValueError, KeyError, TypeError, AttributeError, struct.error):
        whole = False
    if not whole:
        yield f"{path.name} is damaged or cut short; download it again"
