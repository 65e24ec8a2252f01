"""Decoders for OpenVINO: Optimum's stateful export, with the logits of wanted rows.

The graph holds keys and values inside.  The runtime moves them into blocks of its own before it
compiles the graph, because OpenVINO cannot read a graph that was written with such blocks.

Inputs: Optimum's, and `rows` int64 [k], the positions among those of `input_ids` whose logits are
asked for.  Output: `logits` float32 [k, vocabulary].
"""

from __future__ import annotations

import re
import tempfile
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.export import ir, lora
from edgepack.export.decoder.known import unknown_family
from edgepack.export.naming import decoder_layer, layer_of
from edgepack.recipe.target import VariantSpec
from edgepack_runtime.errors import InputError

NOT_HERE = {"gemma2": "Optimum leaves out how it caps attention"}
_TASK = "text-generation-with-past"
_GROUP = 128  # int4 weights that share a scale, and activations
_ROWS = re.compile(rb'element_type="i[48]" shape="[\d, ]*, ?(\d+)"')  # of weights, or groups


def why_not(model_type: str, spec: VariantSpec | None = None) -> str:
    """Say why a family has no decoder for OpenVINO, or none for a variant; empty if it has one."""
    if model_type in NOT_HERE:
        return f"{model_type} has no decoder for OpenVINO: {NOT_HERE[model_type]}"
    if why := unknown_family(model_type):
        return why
    if spec and (spec.provider != "CPU" or spec.precision not in ("float32", "int8", "int4")):
        return (
            "OpenVINO writes text on CPUs in float32, int8 and int4 so far, not on "
            f"{spec.provider} in {spec.precision}"
        )
    return ""


def export(folder: Path, out: Path) -> None:
    """Write the float32 graph of a causal language model.

    Raises:
        InputError: Optimum cannot export the model.

    """
    from optimum.exporters.openvino import main_export

    with tempfile.TemporaryDirectory() as name:
        made = Path(name)
        try:
            main_export(
                folder,
                made,
                task=_TASK,
                library_name="transformers",
                convert_tokenizer=False,
                local_files_only=True,
                stateful=True,
            )
        except (ValueError, KeyError) as exc:
            raise InputError(f"Optimum cannot export {folder.name} to OpenVINO: {exc}") from exc
        ir.save(ir.core().read_model(made / ir.FILES[0]), out)


@dataclass(frozen=True)
class Settings:
    """How to make one variant."""

    precision: str
    """float32, int8 or int4."""
    kept: Collection[str] = ()
    """Layers, as `decoder_layer` names them, that stay in float."""
    adapted: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    """What adapters change, as `lora.shapes` returns it."""


def make_variant(
    settings: Settings, source: Path, windows: Sequence[Sequence[int]], out: Path
) -> None:
    """Write the graph of one variant.

    Args:
        settings: see there.
        source: the folder of the export.
        windows: token ids, by which int4 weights are rounded.
        out: the folder of the variant.

    """
    model = ir.core().read_model(source / ir.FILES[0])
    if settings.precision != "float32":
        model = _compress(model, settings, windows)
    lora.add_to_openvino(model, settings.adapted)
    _take_rows(model)
    ir.save(model, out)


def is_stateful(folder: Path) -> bool:
    """Tell whether a folder has a graph that holds keys and values."""
    return b'type="ReadValue"' in (folder / ir.FILES[0]).read_bytes()


def options(folder: Path) -> dict[str, Any]:
    """Return the options to load a graph: activations share a scale in groups as weights do.

    In groups larger than those of the weights, or than a whole row, OpenVINO has other kernels for
    a few positions, which round differently.
    """
    found = _ROWS.findall((folder / ir.FILES[0]).read_bytes())
    least = min([_GROUP, *map(int, found)])
    return {"stateful": True, "activation_group": 1 << least.bit_length() - 1}


def _compress(model: Any, settings: Settings, windows: Sequence[Sequence[int]]) -> Any:
    """Return a graph with smaller weights: int8 by output, int4 in groups; see NNCF."""
    import logging

    import nncf
    from nncf.quantization.advanced_parameters import (
        AdvancedCompressionParameters,
        GroupSizeFallbackMode,
    )

    nncf.set_log_level(logging.ERROR)
    names = [op.get_friendly_name() for op in model.get_ops() if op.get_type_name() == "MatMul"]
    left = [name for name in names if decoder_layer(layer_of(name)) in set(settings.kept)]
    scope = nncf.IgnoredScope(names=left)
    if settings.precision == "int8":
        mode = nncf.CompressWeightsMode.INT8_SYM
        return nncf.compress_weights(model, mode=mode, ignored_scope=scope)
    feeds = [_feeds(model, ids) for ids in windows]
    return nncf.compress_weights(
        model,
        mode=nncf.CompressWeightsMode.INT4_SYM,
        group_size=_GROUP,
        dataset=nncf.Dataset(feeds),
        subset_size=len(feeds),
        scale_estimation=True,
        backup_mode=nncf.BackupMode.INT8_SYM,
        ignored_scope=scope,
        advanced_parameters=AdvancedCompressionParameters(
            group_size_fallback_mode=GroupSizeFallbackMode.ADJUST
        ),
    )


def _feeds(model: Any, ids: Sequence[int]) -> dict[str, Any]:
    import numpy as np

    row = np.array([ids], dtype=np.int64)
    found = {
        "input_ids": row,
        "attention_mask": np.ones_like(row),
        "position_ids": np.arange(len(ids), dtype=np.int64)[None],
        "beam_idx": np.zeros(1, dtype=np.int32),
    }
    taken = {name for item in model.inputs for name in item.get_names()}
    return {name: array for name, array in found.items() if name in taken}


def _take_rows(model: Any) -> None:
    """Have the head read only the wanted rows; the others' logits cost time and memory."""
    import numpy as np
    import openvino.opset13 as ops

    head = _head(model)
    hidden = head.input_value(0)
    width = hidden.get_partial_shape()[2].get_length()
    rows = ops.parameter([-1], np.int64, name="rows")
    rows.output(0).get_tensor().set_names({"rows"})
    flat = ops.reshape(hidden, ops.constant([-1, width], np.int64), special_zero=False)
    wanted = ops.gather(flat, rows, ops.constant(0, np.int64))
    head.input(0).replace_source_output(wanted.output(0))
    model.add_parameters([rows])
    model.validate_nodes_and_infer_types()
    result = _logits(model)
    logits = result.input_value(0)
    count = logits.get_partial_shape()[-1].get_length()
    flat = ops.reshape(logits, ops.constant([-1, count], np.int64), special_zero=False)
    result.input(0).replace_source_output(flat.output(0))
    flat.output(0).get_tensor().set_names({"logits"})
    model.validate_nodes_and_infer_types()


def _logits(model: Any) -> Any:
    return next(item for item in model.get_results() if "logits" in item.output(0).get_names())


def _head(model: Any) -> Any:
    """Return the product that makes the logits."""
    node = _logits(model)
    while node.get_type_name() != "MatMul":
        node = node.input_value(0).get_node()
    return node
