"""Changes to an ONNX graph that are the same for every architecture.

Invariant: `save` writes the same bytes for the same graph, equal weights are stored once, and ONNX
Runtime 1.20 (the oldest that a device may have) can read the file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from edgepack.export.naming import layer_of
from edgepack.export.previous_scales import on_old_scale
from edgepack_runtime.errors import InputError

DATA = ".data"
_LEAST_APART = 1024  # bytes of a weight that lies in the file beside the graph
_ALIGNED = 64
_IR_VERSION = 10  # the newest that ONNX Runtime 1.20 reads
_MOST_BYTES = (2 << 30) - (16 << 20)  # protobuf's limit, less room for all but the weights


def load(path: Path) -> Any:
    """Read a model with its weights."""
    import onnx

    return onnx.load(str(path))


def save(model: Any, path: Path, *, apart: bool = False) -> None:
    """Write a model, whole or not at all: with equal weights once and without doc strings.

    Args:
        model: the model; with `apart`, it loses its weights.
        path: the file.
        apart: write the weights to a file beside it, which a device maps and need not copy.

    Raises:
        InputError: there are more weights than one file holds.

    """
    share_equal_weights(model)
    if apart:
        _move_weights(model, path.with_suffix(DATA))
    size = sum(len(tensor.raw_data) for tensor in model.graph.initializer)
    if size > _MOST_BYTES:
        raise InputError(
            f"the graph holds {size / 1e9:.1f} GB of weights, but ONNX holds 2 GB in one file; "
            "distil or prune the model first"
        )
    model.ir_version = min(model.ir_version, _IR_VERSION)
    model.doc_string = ""
    for node in model.graph.node:
        node.doc_string = ""
    for tensor in model.graph.initializer:
        if not tensor.external_data:
            tensor.ClearField("data_location")  # formerly external data is written like the rest
    work = path.with_suffix(".tmp")
    work.write_bytes(model.SerializeToString(deterministic=True))
    work.replace(path)


def _move_weights(model: Any, path: Path) -> None:
    """Write the weights to a file, and where they lie into the model."""
    from onnx import TensorProto

    work = path.with_suffix(".tmp")
    with work.open("wb") as stream:
        for tensor in model.graph.initializer:
            if len(tensor.raw_data) < _LEAST_APART:
                continue
            stream.write(bytes(-stream.tell() % _ALIGNED))
            place = {"location": path.name, "offset": stream.tell(), "length": len(tensor.raw_data)}
            stream.write(tensor.raw_data)
            tensor.ClearField("raw_data")
            tensor.ClearField("external_data")
            tensor.data_location = TensorProto.EXTERNAL
            for key, value in place.items():
                tensor.external_data.add(key=key, value=str(value))
    work.replace(path)


def files(folder: Path, name: str) -> tuple[str, ...]:
    """Name the files of a graph: its own, and that of its weights if they lie beside it."""
    beside = Path(name).with_suffix(DATA)
    return (name, str(beside)) if (folder / beside).is_file() else (name,)


def weights_outside(model: Any, folder: Path) -> Any:
    """Return a model whose weights are in a file of `folder`, where a library can read them.

    NNCF copies, serializes and walks the whole graph more than ten times.  With the weights inside,
    that takes 20 s longer for BERT-base.
    """
    import onnx

    path = folder / "graph.onnx"
    onnx.save_model(model, path, save_as_external_data=True, location="weights.bin")
    return onnx.load(path, load_external_data=False)


def share_equal_weights(model: Any) -> int:
    """Store initializers of equal type, shape and content once; return the bytes saved."""
    _bypass_identities(model)
    kept: dict[tuple[int, tuple[int, ...], str], str] = {}
    renamed: dict[str, str] = {}
    saved = 0
    for tensor in model.graph.initializer:
        content = tensor.raw_data or tensor.SerializeToString(deterministic=True)
        if len(content) < 64:
            continue
        identity = (tensor.data_type, tuple(tensor.dims), hashlib.sha256(content).hexdigest())
        if identity in kept:
            renamed[tensor.name] = kept[identity]
            saved += len(content)
        else:
            kept[identity] = tensor.name
    rest = [tensor for tensor in model.graph.initializer if tensor.name not in renamed]
    if renamed:
        del model.graph.initializer[:]
        model.graph.initializer.extend(rest)
        for node in model.graph.node:
            node.input[:] = [renamed.get(name, name) for name in node.input]
    return saved


def _bypass_identities(model: Any) -> None:
    """Read a weight directly where the exporter put an Identity for its second use."""
    weights = {tensor.name for tensor in model.graph.initializer}
    outputs = {item.name for item in model.graph.output}
    renamed: dict[str, str] = {}
    nodes = []
    for node in model.graph.node:
        if (
            node.op_type == "Identity"
            and node.input[0] in weights
            and node.output[0] not in outputs
        ):
            renamed[node.output[0]] = node.input[0]
        else:
            nodes.append(node)
    for node in nodes:
        node.input[:] = [renamed.get(name, name) for name in node.input]
    del model.graph.node[:]
    model.graph.node.extend(nodes)


def has_tied_weights(model: Any) -> bool:
    """Tell whether two matrix products share a weight, as the layers of ALBERT do."""
    weights = {tensor.name for tensor in model.graph.initializer}
    used = [n.input[1] for n in model.graph.node if n.op_type == "MatMul" and n.input[1] in weights]
    return len(set(used)) < len(used)


def nodes_of(model: Any, layers: Sequence[str]) -> list[str]:
    """Name the matrix products of the given torch modules, including fused attention.

    A fused attention has lost its name; it is found by the module around the product that reads its
    result.
    """
    found = []
    readers = {name: node for node in model.graph.node for name in node.input}
    for node in model.graph.node:
        if node.op_type == "MatMul" and layer_of(node.name) in layers:
            found.append(node.name)
        elif node.op_type == "Attention" and node.output[0] in readers:
            after = layer_of(readers[node.output[0]].name)
            around = after[: after.find("attention") + len("attention")]
            if any(layer.startswith(f"{around}.") and layer != after for layer in layers):
                found.append(node.name)
    return found


def halve_int8_weights(model: Any) -> Any:
    """Reduce quantized weights from eight bits to seven: half the value, twice the scale.

    Two products of a u8 and a weight of at most 64 fit into 16 bits, so the AVX2 instruction that
    adds them (VPMADDUBSW) cannot saturate.  Names are those of ONNX Runtime's quantizer.
    """
    import numpy as np
    from onnx import numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    for name, tensor in tensors.items():
        if not name.endswith("_quantized"):
            continue
        scale = tensors[name.removesuffix("_quantized") + "_scale"]
        halved = np.rint(numpy_helper.to_array(tensor).astype(np.float32) / 2).astype(np.int8)
        doubled = numpy_helper.to_array(scale) * np.float32(2)
        tensor.CopyFrom(numpy_helper.from_array(halved, name))
        scale.CopyFrom(numpy_helper.from_array(doubled, scale.name))
    return model


def keep_scales(old: Path, new: Path, out: Path) -> int:
    """Write the graph in `new` with its int8 weights on the scales of `old` (`previous_scales`)."""
    import numpy as np
    from onnx import numpy_helper

    model = load(new / "model.onnx")
    before = {tensor.name: tensor for tensor in load(old / "model.onnx").graph.initializer}
    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    count = 0
    for name, (scale, axis) in _scales(model).items():
        pair = (name, scale)
        known = all(key in tensors and key in before for key in pair)
        if not known or any(tensors[key].dims != before[key].dims for key in pair):
            continue
        new_values, new_scale, old_values, old_scale = (
            numpy_helper.to_array(group[key]) for group in (tensors, before) for key in pair
        )
        shape = new_scale.shape
        if axis is not None and len(shape) == 1:
            spread = np.ones(new_values.ndim, int)
            spread[axis] = shape[0]
            new_scale, old_scale = new_scale.reshape(spread), old_scale.reshape(spread)
        values, kept = on_old_scale(new_values, new_scale, old_values, old_scale)
        tensors[name].CopyFrom(numpy_helper.from_array(values, name))
        tensors[scale].CopyFrom(numpy_helper.from_array(kept.reshape(shape), scale))
        count += 1
    save(model, out / "model.onnx", apart=(new / "model.onnx").with_suffix(DATA).is_file())
    return count


def _scales(model: Any) -> dict[str, tuple[str, int | None]]:
    """Return {int8 weights: (their scales, axis or None)} of a graph, if they are symmetric."""
    from onnx import TensorProto, numpy_helper

    tensors = {tensor.name: tensor for tensor in model.graph.initializer}
    found: dict[str, tuple[str, int | None]] = {}
    for name, tensor in tensors.items():
        if tensor.data_type != TensorProto.INT8 or len(tensor.dims) < 2:
            continue
        stem = name.removesuffix("_quantized").removesuffix("_int8")
        if f"{stem}_scale" in tensors and stem != name:
            found[name] = (f"{stem}_scale", None)
    for node in model.graph.node:
        if node.op_type == "DequantizeLinear" and node.input[0] in tensors:
            axis = next((item.i for item in node.attribute if item.name == "axis"), 1)
            found[node.input[0]] = (node.input[1], axis)
    zeros = {
        name: tensors.get(f"{pair[0].removesuffix('_scale')}_zero_point")
        for name, pair in found.items()
    }
    return {
        name: pair
        for name, pair in found.items()
        if zeros[name] is None or not numpy_helper.to_array(zeros[name]).any()
    }
