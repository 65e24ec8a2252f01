"""Language models: from a model of transformers to the graph that a device runs.

`families` reads a model into the `parts` that all decoders have, `write` writes these as a graph in
ONNX Runtime's own operators, and `nbits` makes its weights small.  `stateful` does the same with
the exporters of Optimum for OpenVINO.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack.export.decoder.families import read
from edgepack.export.decoder.known import unknown_family
from edgepack.model.opened import read_encoder, read_items
from edgepack.recipe.target import VariantSpec
from edgepack_runtime.errors import InputError

_MADE = {
    "CPUExecutionProvider": ("float32", "int8", "int4"),
    "CUDAExecutionProvider": ("float16", "int4"),
}
_WINDOW, _WINDOWS = 256, 128  # tokens of calibration that a decoder reads at once; how often


def why_not(model_type: str, spec: VariantSpec | None = None) -> str:
    """Say why a family has no decoder graph, or none for a variant; empty if it has one."""
    if why := unknown_family(model_type):
        return why
    if spec and spec.precision not in _MADE.get(spec.provider, ()):
        return (
            "text generation is built for CPUs in float32, int8 and int4, and for CUDA in float16 "
            f"and int4, not for {spec.provider} in {spec.precision}"
        )
    return ""


def export(folder: Path, out: Path) -> None:
    """Write the float32 graph of a causal language model as `model.onnx`.

    Raises:
        InputError: it has traits that the graph does not support.

    """
    import torch
    from transformers import AutoModelForCausalLM

    from edgepack.export import graph
    from edgepack.export.decoder.write import write

    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        ).eval()
    except (ValueError, KeyError, OSError) as exc:
        raise InputError(f"{folder}: transformers cannot load this model: {exc}") from exc
    with torch.no_grad():
        graph.save(write(read(model)), out / "model.onnx", apart=True)


def read_windows(inputs: Mapping[str, Path]) -> list[list[int]]:
    """Return the calibration texts as tokens, in windows; `inputs`: tokenizer, texts."""
    texts = [str(item) for item in read_items(inputs["texts"], "calibration")]
    ids = read_encoder(inputs["tokenizer"]).ids("\n".join(texts))
    windows = [ids[start : start + _WINDOW] for start in range(0, len(ids), _WINDOW)]
    return windows[:_WINDOWS]


def is_decoder(model: Any) -> bool:
    """Tell whether a graph was written by this package."""
    return any(node.op_type == "GroupQueryAttention" for node in model.graph.node)
