"""Recipe × target with nothing left to decide: which stages make which variants."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

from edgepack import data, describe, golden
from edgepack.cache import Source, Stage, hash_folder
from edgepack.export import find
from edgepack.fetch import ModelInfo
from edgepack.recipe import Recipe
from edgepack.target import Target, VariantSpec
from edgepack_runtime.errors import InputError
from edgepack_runtime.manifest import canonical_json, safe_name


@dataclass(frozen=True)
class VariantPlan:
    """One variant: what the target asked for, the stage that makes it, the one that judges it."""

    spec: VariantSpec
    make: Stage
    assess: Stage


@dataclass(frozen=True)
class Plan:
    """The stages of one bundle.  Its key is the build's identity."""

    recipe: Recipe
    model: ModelInfo
    target: Target
    tokenizer: Stage
    texts: Stage
    export: Stage
    golden: Stage
    variants: tuple[VariantPlan, ...]

    def stages(self) -> Iterator[Stage]:
        """Yield every stage, each after those that it needs."""
        seen: set[str] = set()
        last = [stage for variant in self.variants for stage in (variant.make, variant.assess)]
        for stage in (self.tokenizer, self.texts, self.export, self.golden, *last):
            yield from _with_inputs(stage, seen)

    @property
    def key(self) -> str:
        """Hash everything that the bundle's bytes depend on."""
        return hashlib.sha256(canonical_json(self.as_json())).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON values, the same on every machine."""
        return {
            "name": self.model.name,
            "version": self.recipe.version,
            "release": self.recipe.release,
            "task": self.model.task,
            "target": self.target.name,
            "arch": self.target.arch,
            "model": self.model.source.key,
            "golden": self.golden.key,
            "variants": [
                {**asdict(v.spec), "make": v.make.key, "assess": v.assess.key}
                for v in self.variants
            ],
            "stages": [{"label": stage.label, "key": stage.key} for stage in self.stages()],
        }


def make_plan(recipe: Recipe, model: ModelInfo, target: Target) -> Plan:
    """Resolve a recipe for one target.

    Raises:
        InputError: the target asks for something that no exporter makes.

    """
    for what, value in (("name", model.name), ("version", recipe.version)):
        if not safe_name(value):
            raise InputError(
                f"{what} {value!r} is not usable: letters, digits, '.', '_' and '-', "
                "at most 128 of them"
            )
    settings = describe.Settings(model.task, recipe.max_length)
    tokenizer = Stage(
        "read tokenizer and task",
        describe.describe,
        settings,
        {"model": model.source},
        describe.TOOLS,
    )
    texts = _texts(recipe, tokenizer)
    common: dict[str, Stage | Source] = {"tokenizer": tokenizer, "texts": texts}
    export = find("onnxruntime").export_stage(model.source, model.task)
    reference = Stage(
        "golden outputs", golden.make_golden, golden.NoSettings(),
        {**common, "export": export}, golden.TOOLS,
    )  # fmt: skip
    variants = tuple(_variant(spec, model, common, reference) for spec in _wanted(recipe, target))
    return Plan(recipe, model, target, tokenizer, texts, export, reference, variants)


def _texts(recipe: Recipe, tokenizer: Stage) -> Stage:
    inputs: dict[str, Stage | Source] = {"tokenizer": tokenizer}
    settings = data.Settings(column=recipe.column, samples=recipe.samples)
    if recipe.calibration is None:
        return Stage("generate calibration texts", data.collect, settings, inputs, data.TOOLS)
    path = recipe.calibration
    if not path.is_file():
        raise InputError(f"no calibration file at {path}")
    inputs["data"] = Source(path, hash_folder(path.parent, [path]))
    return Stage("read calibration texts", data.collect, settings, inputs, data.TOOLS)


def _variant(
    spec: VariantSpec, model: ModelInfo, common: Mapping[str, Stage | Source], reference: Stage
) -> VariantPlan:
    exporter = find(spec.engine)
    export = exporter.export_stage(model.source, model.task)
    make = exporter.variant_stage(spec, {**common, "export": export})
    assess = Stage(
        f"compare {spec.name} with float", golden.assess,
        golden.AssessSettings(spec.engine, spec.precision),
        {**common, "variant": make, "golden": reference}, golden.TOOLS,
    )  # fmt: skip
    return VariantPlan(spec, make, assess)


def _wanted(recipe: Recipe, target: Target) -> list[VariantSpec]:
    """Return the target's variants, or its engines in float32."""
    if recipe.precision == "target":
        return list(target.variants)
    wanted: dict[str, VariantSpec] = {}
    for spec in target.variants:
        kind = spec.provider.removesuffix("ExecutionProvider").lower()
        prefix = spec.engine if kind == "cpu" else kind
        name = f"{prefix}-float32"
        options = {} if kind == "cpu" else spec.options
        wanted.setdefault(
            name,
            replace(
                spec, name=name, precision="float32", scheme="none", isa_any=(), options=options,
                why="float32, as the model was trained",
            ),
        )  # fmt: skip
    return list(wanted.values())


def _with_inputs(stage: Stage, seen: set[str]) -> Iterator[Stage]:
    if stage.key in seen:
        return
    seen.add(stage.key)
    for needed in stage.inputs.values():
        if isinstance(needed, Stage):
            yield from _with_inputs(needed, seen)
    yield stage
