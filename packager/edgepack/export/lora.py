"""LoRA adapters beside a language model: read, and given to the graphs as inputs.

A product x·W of the graph becomes x·W + (x·A)·B, where A [in, rank] and B [rank, out] are inputs.
Without an adapter their rank is 0.  So weights stay as they are quantized, any number of adapters
share them, and a call chooses one.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.stages.cache import Source, Stage
from edgepack_runtime.bundle.adapters import FIRST, FOLDER, SECOND
from edgepack_runtime.errors import InputError

Factors = dict[str, tuple[Any, Any]]
"""{product: (A float32 [in, rank], B float32 [rank, out])}."""
_TOOLS = ("edgepack", "torch", "transformers", "peft")
_NAME = "adapter."  # of an input of the stage, before the adapter's name
_JOINED = 3  # products at most that the graph joins: queries, keys and values
_SMALL = 1e-6  # of the largest singular value; float32 rounds there


@dataclass(frozen=True)
class Settings:
    """For which engine to read the adapters."""

    engine: str
    """Whose names the products have."""


def stage(engine: str, model: Source | Stage, adapters: Mapping[str, Source]) -> Stage:
    """Return the stage that reads adapters for an engine."""
    inputs = {"model": model, **{f"{_NAME}{name}": source for name, source in adapters.items()}}
    return Stage("read the adapters", read, Settings(engine), inputs, _TOOLS)


def read(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write `NAME.npz` for each adapter.

    Raises:
        InputError: an adapter is not one of LoRA, changes more than products, or does not fit.

    """
    import numpy as np

    makers: dict[str, Callable[[Any], Factors]] = {"onnxruntime": _onnx, "openvino": _modules}
    for key, folder in inputs.items():
        if key.startswith(_NAME):
            found = makers[settings.engine](_load(inputs["model"], folder))
            arrays: dict[str, Any] = {}
            for product, pair in sorted(found.items()):
                arrays |= {product + FIRST: pair[0], product + SECOND: pair[1]}
            np.savez(out / f"{key.removeprefix(_NAME)}.npz", **arrays)


def _load(model: Path, folder: Path) -> Any:
    """Load a model with an adapter by PEFT.

    Raises:
        InputError: see `read`.

    """
    import torch
    from peft import PeftConfig, PeftModel
    from transformers import AutoModelForCausalLM

    try:
        config = PeftConfig.from_pretrained(str(folder))
        base = AutoModelForCausalLM.from_pretrained(
            model, dtype=torch.float32, local_files_only=True
        )
        found = PeftModel.from_pretrained(base, folder)
    except (ValueError, RuntimeError, KeyError, TypeError, OSError) as exc:
        reason = str(exc).partition("\n")[0]
        raise InputError(f"{folder}: the adapter does not fit the model: {reason}") from exc
    if why := _why_not(config):
        raise InputError(f"{folder}: {why}; merge it into the model instead (model.source)")
    return found


def _why_not(config: Any) -> str:
    """Say why an adapter cannot be chosen by call; empty if it can."""
    kind = str(getattr(config.peft_type, "value", config.peft_type))
    if kind != "LORA":
        return f"an adapter of kind {kind} is not LoRA"
    if getattr(config, "use_dora", False):
        return "DoRA also scales the weights of its products"
    if config.bias != "none":
        return "it also changes biases"
    return (
        "it also has whole weights of its own (modules_to_save)" if config.modules_to_save else ""
    )


def _layers(model: Any) -> Iterator[tuple[str, Any]]:
    """Yield the modules that an adapter changes, by the names that the model has for them."""
    for name, module in model.get_base_model().named_modules():
        if hasattr(module, "get_delta_weight"):
            if type(module.get_base_layer()).__name__ not in ("Linear", "Conv1D"):
                raise InputError(f"the adapter changes {name}, which is not a product")
            yield name, module


def _modules(model: Any) -> Factors:
    """Return factors by torch's module, from the adapter's own."""
    found = {}
    for name, module in _layers(model):
        first = module.lora_A["default"].weight.detach().numpy().T
        second = module.lora_B["default"].weight.detach().numpy().T
        found[name] = (first.copy(), second * module.scaling["default"])
    return found


def _onnx(model: Any) -> Factors:
    """Return factors by the product of the decoder's graph.

    The graph joins products, and pads and moves the numbers of heads.  So the model's weights are
    replaced by what the adapter adds to them, written as the model is, and split again.
    """
    import torch
    from onnx import numpy_helper

    from edgepack.export.decoder.families import read as read_family
    from edgepack.export.decoder.write import write

    changed = dict(_layers(model))
    if "lm_head" in changed:
        raise InputError("the adapter changes lm_head, which takes no adapters yet")
    most = _JOINED * max(module.r["default"] for module in changed.values())
    with torch.no_grad():
        added = {name: module.get_delta_weight("default") for name, module in changed.items()}
        plain = model.unload()
        for name, module in plain.named_modules():
            if type(module).__name__ in ("Linear", "Conv1D"):
                module.weight.copy_(added[name]) if name in added else module.weight.zero_()
        graph = write(read_family(plain)).graph
    weights = {tensor.name: tensor for tensor in graph.initializer}
    found = {}
    for node in graph.node:
        if node.op_type == "MatMul" and node.input[1] in weights:
            weight = numpy_helper.to_array(weights[node.input[1]])
            if weight.any():
                product = node.input[1].removesuffix(".weight")
                found[product] = split(weight, most)
    return found


def split(weight: Any, most: int) -> tuple[Any, Any]:
    """Split a matrix [in, out] of a rank of at most `most` into A [in, rank] and B [rank, out]."""
    import numpy as np

    exact = weight.astype(np.float64)
    most = min(most, *exact.shape)
    draws = np.random.default_rng(0).standard_normal((exact.shape[1], most))
    basis, _ = np.linalg.qr(exact @ draws)
    left, sizes, right = np.linalg.svd(basis.T @ exact, full_matrices=False)
    rank = int((sizes > sizes[0] * _SMALL).sum())
    roots = np.sqrt(sizes[:rank])
    first, second = basis @ left[:, :rank] * roots, roots[:, None] * right[:rank]
    return first.astype(np.float32), second.astype(np.float32)


def shapes(folder: Path) -> dict[str, tuple[int, int]]:
    """Return {product: (in, out)} of all products that some adapter of a folder changes."""
    import numpy as np

    found: dict[str, tuple[int, int]] = {}
    for path in sorted(folder.glob("*.npz")):
        with np.load(path) as arrays:
            for name in arrays.files:
                if name.endswith(FIRST):
                    product = name.removesuffix(FIRST)
                    found[product] = (len(arrays[name]), arrays[product + SECOND].shape[1])
    return found


def copy(adapters: Path, out: Path) -> None:
    """Put the files of adapters into the folder of a variant."""
    (out / FOLDER).mkdir()
    for path in sorted(adapters.glob("*.npz")):
        os.link(path, out / FOLDER / path.name)  # both lie in the stage cache


def files(folder: Path) -> dict[str, str]:
    """Return {adapter: its file} of a variant, as paths relative to its folder."""
    return {path.stem: f"{FOLDER}/{path.name}" for path in sorted((folder / FOLDER).glob("*.npz"))}


def add_to_onnx(model: Any, wanted: Mapping[str, tuple[int, int]]) -> None:
    """Give the products of an ONNX graph the inputs of adapters."""
    from onnx import TensorProto, helper

    made, left = [], dict(wanted)
    for node in model.graph.node:
        made.append(node)
        product = node.input[1].partition(".weight")[0] if len(node.input) > 1 else ""
        if node.op_type not in ("MatMul", "MatMulNBits") or product not in left:
            continue
        size, count = left.pop(product)
        names, result = (product + FIRST, product + SECOND), node.output[0]
        node.output[0] = f"{result}.base"
        rank = f"rank of {product}"
        for name, shape in zip(names, ([size, rank], [rank, count]), strict=True):
            model.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
        inner = f"{product}.lora"
        made += [
            helper.make_node("MatMul", [node.input[0], names[0]], [inner], inner),
            helper.make_node("MatMul", [inner, names[1]], [f"{inner}.out"], f"{inner}.out"),
            helper.make_node("Add", [node.output[0], f"{inner}.out"], [result], f"{inner}.sum"),
        ]
    _check_all(left)
    del model.graph.node[:]
    model.graph.node.extend(made)


def add_to_openvino(model: Any, wanted: Mapping[str, tuple[int, int]]) -> None:
    """Give the products of an OpenVINO graph the inputs of adapters."""
    import numpy as np
    import openvino.opset13 as ops

    from edgepack.export.naming import layer_of

    left, inputs = dict(wanted), []
    for node in model.get_ordered_ops():
        product = layer_of(node.get_friendly_name())
        if node.get_type_name() != "MatMul" or product not in left:
            continue
        size, count = left.pop(product)
        pair = []
        for name, shape in ((product + FIRST, [size, -1]), (product + SECOND, [-1, count])):
            pair.append(ops.parameter(shape, np.float32, name=name))
            pair[-1].output(0).get_tensor().set_names({name})
        readers = list(node.output(0).get_target_inputs())
        inner = ops.matmul(node.input_value(0), pair[0], transpose_a=False, transpose_b=False)
        outer = ops.matmul(inner, pair[1], transpose_a=False, transpose_b=False)
        total = ops.add(node.output(0), outer)
        for reader in readers:
            reader.replace_source_output(total.output(0))
        inputs += pair
    _check_all(left)
    model.add_parameters(inputs)
    model.validate_nodes_and_infer_types()


def _check_all(left: Mapping[str, tuple[int, int]]) -> None:
    if left:
        raise InputError(f"the adapters change {min(left)}, which the graph does not have")
