"""Changes to an OpenVINO graph that are the same for every architecture, and its files (IR).

Invariant: `save` writes the same bytes for the same graph.
"""

from __future__ import annotations

import hashlib
import re
from functools import cache
from pathlib import Path
from typing import Any

from edgepack.export.embeddings import LARGE_TABLE
from edgepack.export.known import MADE
from edgepack.export.previous_scales import on_old_scale
from edgepack_runtime.errors import InputError

FILES = ("openvino_model.xml", "openvino_model.bin")


@cache
def core() -> Any:
    """Return the one core of this process; a second one loads and unloads every plug-in again."""
    import openvino as ov

    return ov.Core()


def input_names(model: Any) -> list[str]:
    """Name the inputs of a graph.

    Raises:
        InputError: the runtime does not make one of them.

    """
    names = [item.get_any_name() for item in model.inputs]
    if unknown := sorted(set(names) - MADE):
        raise InputError(
            f"the OpenVINO graph needs an input that the runtime does not make: {unknown[0]}"
        )
    return names


def reads_text(folder: Path) -> bool:
    """Tell whether the graph in a folder takes tokens."""
    return b'names="input_ids"' in (folder / FILES[0]).read_bytes()


def has_tied_weights(model: Any) -> bool:
    """Tell whether two matrix products have weights of equal content."""
    seen = set()
    products = [node for node in model.get_ops() if node.get_type_name() == "MatMul"]
    for node in products:
        weight = node.input_value(1).get_node()
        if weight.get_type_name() != "Constant":
            continue
        digest = hashlib.sha256(weight.data.tobytes()).digest()
        if digest in seen:
            return True
        seen.add(digest)
    return False


def gather_before_scale(model: Any) -> None:
    """Change `Gather(int8 table × scale)` of embeddings to `Gather(int8) × Gather(scale)`.

    Otherwise OpenVINO converts the whole table to float when it compiles: four times the memory,
    and a slower start.
    """
    import openvino.opset13 as ops

    for node in model.get_ordered_ops():
        table = _int8_table(node)
        if table is None:
            continue
        weights, scale = table
        ids, axis = (node.input(i).get_source_output() for i in (1, 2))
        rows = ops.convert(ops.gather(weights, ids, axis), "f32")
        product = ops.multiply(rows, ops.gather(scale, ids, axis))
        product.set_friendly_name(node.get_friendly_name())
        for reader in node.output(0).get_target_inputs():
            reader.replace_source_output(product.output(0))
    model.validate_nodes_and_infer_types()


def _int8_table(node: Any) -> tuple[Any, Any] | None:
    """Return the int8 constant and its scales [rows, 1] that a Gather reads; None otherwise."""
    if node.get_type_name() != "Gather":
        return None
    product = node.input_value(0).get_node()
    if product.get_type_name() != "Multiply":
        return None
    convert = product.input_value(0).get_node()
    if convert.get_type_name() != "Convert":
        return None
    weights, scale = convert.input_value(0), product.input_value(1)
    if weights.get_node().get_type_name() != "Constant":
        return None
    shape = list(weights.get_shape())
    large = len(shape) == 2 and shape[0] * shape[1] >= LARGE_TABLE
    return (weights, scale) if large and list(scale.get_shape()) == [shape[0], 1] else None


def keep_scales(old: Path, new: Path, out: Path) -> int:
    """Write the IR in `new` with its int8 weights on the scales of `old`; see `previous_scales`.

    Graphs of the same architecture match node by node; for other graphs, no scale is retained.
    """
    import openvino as ov

    model = core().read_model(new / FILES[0])
    ours, theirs = (_weights(item) for item in (model, core().read_model(old / FILES[0])))
    if len(ours) != len(theirs):
        return 0
    count = 0
    for mine, other in zip(ours, theirs, strict=True):
        if any(a.data.shape != b.data.shape for a, b in zip(mine, other, strict=True)):
            continue
        arrays = on_old_scale(mine[0].data, mine[1].data, other[0].data, other[1].data)
        for node, array in zip(mine, arrays, strict=True):
            made = ov.op.Constant(array)
            made.set_friendly_name(node.get_friendly_name())
            for reader in node.output(0).get_target_inputs():
                reader.replace_source_output(made.output(0))
        count += 1
    save(model, out)
    return count


def _weights(model: Any) -> list[tuple[Any, Any]]:
    """Return (int8 constant, constant of its scales) of a graph, in the order of its nodes."""
    found = []
    for node in model.get_ordered_ops():
        if node.get_type_name() != "Multiply":
            continue
        sides = [node.input_value(i).get_node() for i in (0, 1)]
        if sides[0].get_type_name() != "Convert":
            continue
        pair = [_constant(side) for side in (sides[0].input_value(0).get_node(), sides[1])]
        if None not in pair and pair[0].get_element_type().to_string() == "i8":
            found.append((pair[0], pair[1]))
    return found


def _constant(node: Any) -> Any:
    """Return a constant, or the one whose rows a Gather takes; None for anything else."""
    if node.get_type_name() == "Gather":
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def save(model: Any, out: Path, *, half: bool = False) -> None:
    """Write the IR, with weights in float16 if `half`, and with names that depend only on it.

    OpenVINO numbers the nodes it makes with one counter for each process; such names are replaced
    by the layer's position in the file.  Notes on how the model was made are dropped.
    """
    import openvino as ov

    path = out / FILES[0]
    _name_inputs_and_outputs_alone(model)
    ov.save_model(model, path, compress_to_fp16=half)
    text = path.read_text()
    notes = r"\s*<rt_info>(?:(?!<rt_info>).)*</rt_info>(?=\s*</net>)"  # layers have their own
    text = re.sub(notes, "", text, flags=re.DOTALL)
    text = re.sub(r'(<layer id="(\d+)" name=")[A-Za-z]+_\d+(?:/[^"]*)?(")', r"\1layer_\2\3", text)
    path.write_text(text)


def _name_inputs_and_outputs_alone(model: Any) -> None:
    """Remove the exporter's numbers from all tensors between inputs and outputs.

    If a compiler finds that a first reshape does nothing, the input gets the number of the reshape
    as a second name, and may be asked for by that name.  NNCF needs the names that a branch reads.
    """
    readers = [*model.get_results(), *(n for n in model.get_ops() if n.get_type_name() == "If")]
    named = {value.get_node().get_friendly_name() for n in readers for value in n.input_values()}
    for node in model.get_ops():
        between = node.get_type_name() not in ("Parameter", "Result")
        if between and node.get_friendly_name() not in named:
            for output in node.outputs():
                output.get_tensor().set_names(set())
