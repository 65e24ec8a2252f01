"""OpenVINO IR: exported by Optimum, quantized by NNCF, written the same way every time."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from edgepack.export import Choice
from edgepack.export.families import register_families
from edgepack.export.naming import layer_of
from edgepack.export.previous_scales import keep_scales, on_old_scale
from edgepack.export.search import Trial, parameters, quantize_best
from edgepack.export.traits import copy_traits, probe_padding, sees_padding
from edgepack.model.opened import calibration_feeds
from edgepack.recipe.target import VariantSpec
from edgepack.stages.cache import Source, Stage
from edgepack.tasks import find
from edgepack_runtime.errors import InputError
from edgepack_runtime.inputs.text import INPUTS

FILES = ("openvino_model.xml", "openvino_model.bin")
_EXPORT_TOOLS = ("edgepack", "torch", "transformers", "optimum", "optimum-intel", "openvino")
_TOOLS = ("edgepack", "openvino", "nncf")
_NPU = "NPU"
_BUCKETS = (16, 32, 64, 128, 256)  # an NPU takes fixed shapes only, and compiles each
_LARGE_TABLE = 100_000  # elements; as in graph.py
_SMALL_MODEL = 64 << 20  # bytes of weights below which a second, static plan pays


@dataclass(frozen=True)
class ExportSettings:
    """task: as Optimum names it."""

    task: str


@dataclass(frozen=True)
class VariantSettings:
    """precision and scheme as in a target file; choice: how to quantize beyond that.

    previous: the variant of the previous release whose scales are kept; empty for none.
    """

    precision: str
    scheme: str
    choice: Choice = Choice()
    previous: str = ""


def export_stage(model: Source | Stage, task: str) -> Stage:
    """Return the stage that exports the float32 IR."""
    settings = ExportSettings(find(task).OPTIMUM)
    return Stage("export to OpenVINO", export, settings, {"model": model}, _EXPORT_TOOLS)


def variant_stage(spec: VariantSpec, inputs: Mapping[str, Stage | Source], choice: Choice) -> Stage:
    """Return the stage that makes one variant from `inputs`: export, tokenizer, texts."""
    chosen = choice if spec.precision == "int8" else Choice()
    previous = spec.name if "previous" in inputs else ""
    settings = VariantSettings(spec.precision, spec.scheme, chosen, previous)
    if spec.precision != "int8":
        label = f"convert to {spec.precision} OpenVINO"
        return Stage(label, make_variant, settings, {"export": inputs["export"]}, _TOOLS)
    if spec.scheme != "static":
        raise InputError(f"variant {spec.name}: OpenVINO has no int8 scheme {spec.scheme!r}")
    return Stage("quantize OpenVINO with NNCF", make_variant, settings, dict(inputs), _TOOLS)


def device_options(folder: Path, max_length: int, provider: str) -> dict[str, Any]:
    """Return static plans for short texts where the model is small, for all texts on an NPU.

    Measured on MiniLM (22 M parameters, int8, one thread, 8 to 16 tokens): 1.6 ms against
    3.4 ms with dynamic shapes, for 44 MB more memory a plan; on BERT-base (110 M) it is 8 %
    for 220 MB.
    """
    if sees_padding(folder):
        if provider == _NPU:
            raise InputError("an NPU pads every text, which changes the answers of this model")
        return {"max_tokens": max_length, "exact_width": True}
    if provider == _NPU:
        sizes = [size for size in _BUCKETS if size < max_length]
        return {"static_only": True, "static_tokens": [*sizes, max_length]}
    small = (folder / FILES[1]).stat().st_size < _SMALL_MODEL
    static = {"static_tokens": [16, 32]} if small else {}
    return {"pad_multiple": 8, "max_tokens": max_length, **static}


def export(settings: ExportSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Export with Optimum Intel.

    Raises:
        InputError: Optimum knows no OpenVINO form of this architecture.

    """
    from optimum.exporters.openvino import main_export

    register_families()
    work = out / "work"
    try:
        main_export(
            inputs["model"],
            work,
            task=settings.task,
            library_name="transformers",
            convert_tokenizer=False,
            local_files_only=True,
        )
    except (ValueError, KeyError) as exc:
        raise InputError(
            f"Optimum cannot export {inputs['model'].name} to OpenVINO: {exc}"
        ) from exc
    _save(_core().read_model(work / FILES[0]), out)
    for path in work.iterdir():
        path.unlink()
    work.rmdir()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = _core().compile_model(out / FILES[0], "CPU", exact)
    probe_padding(inputs["model"], partial(_run, compiled), out)


@cache
def _core() -> Any:
    """Return the one core of this process; a second one loads and unloads every plug-in again."""
    import openvino as ov

    return ov.Core()


def _run(compiled: Any, feeds: Mapping[str, Any]) -> Any:
    """Return the first output for the inputs that the graph takes."""
    return compiled({name: feeds[name] for name in _names(compiled)})[compiled.output(0)]


def _names(model: Any) -> list[str]:
    """Name the inputs of a graph.

    Raises:
        InputError: the runtime makes no such input.

    """
    names = [item.get_any_name() for item in model.inputs]
    if unknown := sorted(set(names) - set(INPUTS)):
        raise InputError(f"the OpenVINO graph wants an input that texts do not give: {unknown[0]}")
    return names


def make_variant(settings: VariantSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the IR of one variant."""
    copy_traits(inputs["export"], out)
    if settings.precision == "int8":
        quantize = partial(_quantize, inputs, settings.choice.kept)
        quantize_best(quantize, "openvino", settings.choice.trials, inputs, out)
        if settings.previous:
            keep_scales("openvino", settings.previous, _keep_scales, inputs, out)
    else:
        model = _core().read_model(inputs["export"] / FILES[0])
        _save(model, out, half=settings.precision == "float16")


def _quantize(inputs: Mapping[str, Path], kept: Sequence[str], trial: Trial, out: Path) -> None:
    """Post-training quantization: symmetric weights per channel, asymmetric activations."""
    import logging

    import nncf

    model = _core().read_model(inputs["export"] / FILES[0])
    nncf.set_log_level(logging.ERROR)
    names = _names(model)
    feeds = [{name: feed[name] for name in names} for feed in calibration_feeds(inputs)]
    products = [node for node in model.get_ops() if node.get_type_name() == "MatMul"]
    names = [node.get_friendly_name() for node in products]
    left = [name for name in names if layer_of(name) in kept]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(feeds),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(feeds),
        advanced_parameters=parameters(trial, tied=_has_tied_weights(model)),
        ignored_scope=nncf.IgnoredScope(names=left),
    )
    _gather_before_scale(quantized)
    _save(quantized, out)


def _has_tied_weights(model: Any) -> bool:
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


def _gather_before_scale(model: Any) -> None:
    """Make `Gather(int8 table × scale)` of embeddings `Gather(int8) × Gather(scale)`.

    Otherwise OpenVINO unfolds the whole table to float when it compiles: four times the
    memory, and a slower start.
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
    """Return the int8 constant and its scales [rows, 1] that a Gather reads, if it does."""
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
    large = len(shape) == 2 and shape[0] * shape[1] >= _LARGE_TABLE
    return (weights, scale) if large and list(scale.get_shape()) == [shape[0], 1] else None


def _keep_scales(old: Path, new: Path, out: Path) -> int:
    """Write the IR in `new` with its int8 weights on the scales of `old`; see `keep`.

    The graphs of one architecture are alike, node by node; others have nothing to keep.
    """
    import openvino as ov

    model = _core().read_model(new / FILES[0])
    ours, theirs = (_weights(item) for item in (model, _core().read_model(old / FILES[0])))
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
    _save(model, out)
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


def _name_inputs_and_outputs_alone(model: Any) -> None:
    """Take the exporter's numbers off all tensors between.

    Where a compiler finds that a first reshape does nothing, the input gets the number of the
    reshape as a second name, and may be asked for by that.  NNCF wants names where a branch reads.
    """
    readers = [*model.get_results(), *(n for n in model.get_ops() if n.get_type_name() == "If")]
    named = {value.get_node().get_friendly_name() for n in readers for value in n.input_values()}
    for node in model.get_ops():
        between = node.get_type_name() not in ("Parameter", "Result")
        if between and node.get_friendly_name() not in named:
            for output in node.outputs():
                output.get_tensor().set_names(set())


def _save(model: Any, out: Path, *, half: bool = False) -> None:
    """Write the IR, its weights in float16 if `half`, with names that depend on nothing else.

    OpenVINO numbers the nodes it makes with one counter per process; those names are
    replaced by the layer's place in the file.  Notes on how the model was made are dropped.
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
