"""Whether a model fits a device's memory, told from its files before anything is built.

The estimates are for a process that holds the model and answers one call, at its peak.  They follow
from what was measured on x86 (`tests/packager/build/test_fits.py` compares them): how many bytes a
weight takes in a file, and how often an engine holds it while it loads.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.build.planning import wanted_variants
from edgepack.build.preflight import left_out
from edgepack.model.fetch import ModelInfo, read_config
from edgepack.recipe.recipe import Recipe
from edgepack.recipe.target import Target, VariantSpec
from edgepack.tasks import find
from edgepack_runtime.errors import InputError

_BYTES = {"float32": 4.0, "float16": 2.0, "int8": 1.0, "int4": 0.5}
_SCALES = {"onnxruntime": 4 / 32, "openvino": 4 / 128}  # bytes of a decoder's scales for a weight
_MEASURED = ("CPUExecutionProvider", "CPU")
_BASE = {"onnxruntime": 80, "openvino": 110}  # MB of Python, numpy and the engine
_HELD = {"onnxruntime": 2.9, "openvino": 1.9}  # how often weights lie in memory at the peak
_HELD_DECODER = {"onnxruntime": 2.1, "openvino": 2.5}
_SHARE = 0.75  # of a device's memory; the system and other programs have the rest
_CONTEXT = 4096  # tokens of a dialogue, at most
_MB = 1e6


@dataclass(frozen=True)
class Size:
    """What the files of a model say of its size."""

    parameters: int
    """Numbers in its files of weights."""
    tied: int
    """Numbers of an embedding that is the head as well."""
    cache: int
    """Bytes of keys and values of a whole context in float32; 0 if it does not write."""


@dataclass(frozen=True)
class Fit:
    """One variant on one kind of device."""

    variant: str
    """Its name."""
    memory_mb: int
    """Megabytes that it needs; 0 if that is not known, as on anything but a CPU."""
    smallest_gb: int
    """The least memory of such a device that is enough; 0 if none is, or none is known."""
    why_not: str = ""
    """Why it cannot be built; empty if it can."""


def size_of(model: ModelInfo) -> Size:
    """Count the weights of a model by the headers of its files.

    Raises:
        InputError: they are in another form than safetensors.

    """
    folder = model.base.path if model.base else model.source.path
    shapes = dict(_shapes(folder))
    if not shapes:
        raise InputError(f"{folder.name} has no safetensors; save it with save_pretrained first")
    config = read_config(folder)
    parameters = sum(shapes.values())
    if not find(model.task).DECODES:
        return Size(parameters, 0, 0)
    hidden = int(config.get("hidden_size") or config.get("d_model") or config.get("n_embd") or 0)
    tied = hidden * int(config.get("vocab_size", 0)) if config.get("tie_word_embeddings") else 0
    return Size(parameters, tied, _cache(config, hidden))


def fits(recipe: Recipe, model: ModelInfo, target: Target) -> list[Fit]:
    """Return what each variant of a target would need."""
    size = size_of(model)
    specs = wanted_variants(recipe, target)
    reasons = left_out(model, specs)
    found = []
    for spec in specs:
        need = memory_mb(size, spec, decodes=find(model.task).DECODES)
        enough = (gb for gb in target.memory_gb if 0 < need < _SHARE * gb * 1000)
        found.append(Fit(spec.name, need, min(enough, default=0), reasons.get(spec.name, "")))
    return found


def memory_mb(size: Size, spec: VariantSpec, *, decodes: bool) -> int:
    """Return the megabytes that a variant takes at its peak; 0 if nothing like it was measured."""
    if spec.provider not in _MEASURED:
        return 0
    numbers, each = size.parameters, _BYTES[spec.precision]
    if decodes:
        each += _SCALES[spec.engine] if spec.precision in ("int8", "int4") else 0
        # ONNX Runtime's kernels for small weights read a head of their own.
        numbers += size.tied if spec.engine == "onnxruntime" else 0
    held = (_HELD_DECODER if decodes else _HELD)[spec.engine]
    return round(_BASE[spec.engine] + (numbers * each * held + size.cache) / _MB)


def _cache(config: dict[str, Any], hidden: int) -> int:
    layers = int(config.get("num_hidden_layers") or config.get("n_layer") or 0)
    heads = int(config.get("num_attention_heads") or config.get("n_head") or 1)
    shared = int(config.get("num_key_value_heads") or heads)
    width = int(config.get("head_dim") or hidden // heads)
    context = int(config.get("max_position_embeddings") or config.get("n_positions") or _CONTEXT)
    return 2 * layers * shared * width * min(context, _CONTEXT) * 4


def _shapes(folder: Path) -> Iterator[tuple[str, int]]:
    """Yield (tensor, numbers) of the files of weights."""
    for path in sorted(folder.glob("*.safetensors")):
        try:
            with path.open("rb") as stream:
                (length,) = struct.unpack("<Q", stream.read(8))
                header = json.loads(stream.read(length))
            for name, row in header.items():
                if name != "__metadata__":
                    yield name, _product(row["shape"])
        except (ValueError, KeyError, TypeError, struct.error) as exc:
            raise InputError(f"{path.name} is damaged or cut short; download it again") from exc


def _product(shape: Sequence[int]) -> int:
    found = 1
    for size in shape:
        found *= int(size)
    return found
