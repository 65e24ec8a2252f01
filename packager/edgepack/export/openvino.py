"""OpenVINO IR: exported by Optimum, quantized by NNCF, written the same way every time."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from edgepack.export import FOUR_BITS, Choice, draft, ir, known, lora, sensitivity
from edgepack.export.decoder import read_windows, stateful
from edgepack.export.families import register_families
from edgepack.export.naming import layer_of
from edgepack.export.previous_scales import keep_scales
from edgepack.export.search import Trial, parameters, quantize_best
from edgepack.export.traits import copy_traits, probe_padding, sees_padding, write_traits
from edgepack.model.opened import calibration_feeds
from edgepack.recipe.target import VariantSpec
from edgepack.stages.cache import Source, Stage
from edgepack.tasks import find
from edgepack_runtime.errors import InputError

REFERENCE = "onnxruntime"
FILES = ir.FILES
_EXPORT_TOOLS = ("edgepack", "torch", "transformers", "optimum", "optimum-intel", "openvino")
_TOOLS = ("edgepack", "openvino", "nncf")
_NPU = "NPU"
_BUCKETS = (16, 32, 64, 128, 256)  # an NPU takes only fixed shapes, and compiles each one
_SMALL_MODEL = 64 << 20  # bytes of weights; below this, a second, static plan is worth its memory


@dataclass(frozen=True)
class ExportSettings:
    """How to export a model."""

    task: str
    """The task by Optimum's name."""
    decodes: bool = False
    """Whether the model writes token by token."""


@dataclass(frozen=True)
class VariantSettings:
    """How to make a variant."""

    precision: str
    """The precision, as in a target file."""
    scheme: str
    """The quantization scheme, as in a target file."""
    choice: Choice = Choice()
    """How to quantize, in addition to that."""
    previous: str = ""
    """The variant of the previous release whose scales are retained; empty for none."""


def why_not(model_type: str, task: str, spec: VariantSpec | None = None) -> str:
    """Say why a family has no form for this engine, or for a variant; empty if it has one."""
    if find(task).PAIRS:
        return "models that read one text and write another run on ONNX Runtime so far"
    if find(task).DECODES:
        return stateful.why_not(model_type, spec)
    if spec and spec.precision == "int4":
        return FOUR_BITS
    return known.why_not_openvino(model_type, task)


def export_stage(model: Source | Stage, task: str) -> Stage:
    """Return the stage that exports the float32 IR."""
    settings = ExportSettings(find(task).OPTIMUM, decodes=find(task).DECODES)
    return Stage("export to OpenVINO", export, settings, {"model": model}, _EXPORT_TOOLS)


def variant_stage(spec: VariantSpec, inputs: Mapping[str, Stage | Source], choice: Choice) -> Stage:
    """Return the stage that makes one variant from `inputs`: export, tokenizer, texts."""
    chosen = choice if spec.precision == "int8" else Choice()
    if spec.precision == "int4":
        chosen = Choice(choice.kept)
    previous = spec.name if "previous" in inputs else ""
    settings = VariantSettings(spec.precision, spec.scheme, chosen, previous)
    if spec.precision in ("float32", "float16"):
        label = f"convert to {spec.precision} OpenVINO"
        needed = {name: inputs[name] for name in ("export", "adapters") if name in inputs}
        return Stage(label, make_variant, settings, needed, _TOOLS)
    if spec.scheme not in ("static", "weights"):
        raise InputError(f"variant {spec.name}: OpenVINO has no scheme {spec.scheme!r}")
    return Stage("quantize OpenVINO with NNCF", make_variant, settings, dict(inputs), _TOOLS)


def device_options(folder: Path, max_length: int, provider: str) -> dict[str, Any]:
    """Return static plans for short texts if the model is small, and for all texts on an NPU.

    Measured on MiniLM (22 M parameters, int8, one thread, 8 to 16 tokens): 1.6 ms against 3.4 ms
    with dynamic shapes, for 44 MB more memory for each plan; on BERT-base (110 M) the gain is 8 %
    for 220 MB.
    """
    if stateful.is_stateful(folder):
        return stateful.options(folder)
    if not ir.reads_text(folder):
        if provider == _NPU:
            raise InputError("an NPU takes only fixed shapes, which are built for texts so far")
        return {}
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


def ranking_stage(inputs: Mapping[str, Stage | Source]) -> Stage:
    """Return the stage that ranks the layers of the reference by what int8 costs them."""
    return sensitivity.stage(inputs)


def graphs(folder: Path) -> dict[str, tuple[str, ...]]:
    """Return the files of each graph."""
    return draft.with_draft(folder, {"model": FILES}, graphs)


def export(settings: ExportSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Export with Optimum Intel.

    Raises:
        InputError: Optimum has no OpenVINO form for this architecture.

    """
    if settings.decodes:
        stateful.export(inputs["model"], out)
        write_traits(out, sees_padding=False)
        return
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
    ir.save(ir.core().read_model(work / FILES[0]), out)
    for path in work.iterdir():
        path.unlink()
    work.rmdir()
    exact = {"INFERENCE_PRECISION_HINT": "f32"}
    compiled = ir.core().compile_model(out / FILES[0], "CPU", exact)
    if "input_ids" not in ir.input_names(compiled):
        write_traits(out, sees_padding=False)
        return
    probe_padding(inputs["model"], partial(_run, compiled), out)


def _run(compiled: Any, feeds: Mapping[str, Any]) -> Any:
    """Return the first output for the inputs that the graph takes."""
    return compiled({name: feeds[name] for name in ir.input_names(compiled)})[compiled.output(0)]


def make_variant(settings: VariantSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the IR of one variant."""
    copy_traits(inputs["export"], out)
    if stateful.is_stateful(inputs["export"]):
        windows = read_windows(inputs) if settings.precision == "int4" else []
        wanted = lora.shapes(inputs["adapters"]) if "adapters" in inputs else {}
        how = stateful.Settings(settings.precision, settings.choice.kept, wanted)
        stateful.make_variant(how, inputs["export"], windows, out)
        if wanted:
            lora.copy(inputs["adapters"], out)
    elif settings.precision == "int8":
        quantize = partial(_quantize, inputs, settings.choice.kept)
        quantize_best(quantize, "openvino", settings.choice.trials, inputs, out)
        if settings.previous:
            keep_scales("openvino", settings.previous, ir.keep_scales, inputs, out)
    else:
        model = ir.core().read_model(inputs["export"] / FILES[0])
        ir.save(model, out, half=settings.precision == "float16")


def _quantize(inputs: Mapping[str, Path], kept: Sequence[str], trial: Trial, out: Path) -> None:
    """Post-training quantization: symmetric weights per channel, asymmetric activations."""
    import logging

    import nncf

    model = ir.core().read_model(inputs["export"] / FILES[0])
    nncf.set_log_level(logging.ERROR)
    names = ir.input_names(model)
    feeds = [{name: feed[name] for name in names} for feed in calibration_feeds(inputs)]
    products = [node for node in model.get_ops() if node.get_type_name() == "MatMul"]
    names = [node.get_friendly_name() for node in products]
    left = [name for name in names if layer_of(name) in kept]
    quantized = nncf.quantize(
        model,
        nncf.Dataset(feeds),
        model_type=nncf.ModelType.TRANSFORMER,
        subset_size=len(feeds),
        advanced_parameters=parameters(trial, tied=ir.has_tied_weights(model)),
        ignored_scope=nncf.IgnoredScope(names=left),
    )
    ir.gather_before_scale(quantized)
    ir.save(quantized, out)
