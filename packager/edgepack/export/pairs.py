"""Models that read one text and write another: exported by Optimum, and joined into two graphs.

Optimum makes three graphs, or two with a branch in which each weight is read twice.  Here the
encoder also makes the keys and values that the decoder looks back at, which never change, and the
decoder is the one that continues: with no positions yet, it starts.  So each weight is there once.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from edgepack.recipe.target import VariantSpec
from edgepack_runtime.errors import InputError

FAMILIES = ("bart", "blenderbot", "m2m_100", "marian", "mbart", "mt5", "pegasus", "t5")
FILES: dict[str, tuple[str, ...]] = {"encoder": ("encoder.onnx",), "decoder": ("decoder.onnx",)}
_SEEN = ".encoder."  # in the names of keys and values that the encoder makes
_TASK = "text2text-generation-with-past"
_CPU = "CPUExecutionProvider"


def why_not(model_type: str, spec: VariantSpec | None = None) -> str:
    """Say why a family has no such graphs, or none for a variant; empty if it has them."""
    if model_type not in FAMILIES:
        name = model_type or "a model without a type"
        return f"text to text is built for {', '.join(FAMILIES)} so far, not for {name}"
    if spec and (spec.provider != _CPU or spec.precision not in ("float32", "int8")):
        return (
            "text to text is built for CPUs in float32 and int8 so far, not for "
            f"{spec.provider} in {spec.precision}"
        )
    return ""


def export(folder: Path, out: Path, opset: int) -> None:
    """Write `encoder.onnx` and `decoder.onnx` in float32.

    Raises:
        InputError: Optimum cannot export the model, or its graph has another form.

    """
    from optimum.exporters.onnx import main_export

    from edgepack.export import graph

    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        try:
            main_export(
                folder,
                made,
                task=_TASK,
                opset=opset,
                library_name="transformers",
                do_validation=False,
                local_files_only=True,
                no_post_process=True,
            )
        except (ValueError, KeyError) as exc:
            raise InputError(f"Optimum cannot export {folder.name} to ONNX: {exc}") from exc
        encoder, first, decoder = (
            graph.load(made / f"{part}.onnx")
            for part in ("encoder_model", "decoder_model", "decoder_with_past_model")
        )
        _add_seen(encoder, first)
        graph.save(encoder, out / FILES["encoder"][0], apart=True)
        graph.save(decoder, out / FILES["decoder"][0], apart=True)


def _add_seen(encoder: Any, first: Any) -> None:
    """Let the encoder give the keys and values that the decoder looks back at.

    They are named as the decoder's inputs.
    """
    import numpy as np
    from onnx import compose, numpy_helper
    from onnx.utils import Extractor

    makers = {output: node for node in first.graph.node for output in node.output}
    seen = [item for item in first.graph.output if _SEEN in item.name]
    for item in seen:
        node = makers[item.name]
        while node.op_type != "Reshape":  # of [1, tokens, heads × width]
            node = makers.get(node.input[0])
            if node is None:
                raise InputError(f"{item.name} is made in a way that is not built yet")
        sizes = [dim.dim_value for dim in item.type.tensor_type.shape.dim]
        shape = np.array([0, -1, sizes[1], sizes[3]], dtype=np.int64)
        node.input[1] = f"{item.name}.shape"  # it was counted from the decoder's own tokens
        first.graph.initializer.append(numpy_helper.from_array(shape, node.input[1]))
    names = [item.name for item in seen]
    part = Extractor(first).extract_model(["encoder_hidden_states"], names)
    part = compose.add_prefix(part, "seen.")
    for node in part.graph.node:
        for at, name in enumerate(node.input):
            if name == "seen.encoder_hidden_states":
                node.input[at] = "last_hidden_state"
        for at, name in enumerate(node.output):
            node.output[at] = _as_input(name)
    for item in part.graph.output:
        item.name = _as_input(item.name)
    encoder.graph.node.extend(part.graph.node)
    encoder.graph.initializer.extend(part.graph.initializer)
    del encoder.graph.output[:]
    encoder.graph.output.extend(part.graph.output)


def _as_input(name: str) -> str:
    return name.replace("seen.present.", "past_key_values.")
