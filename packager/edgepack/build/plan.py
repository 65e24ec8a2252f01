"""Recipe × target with nothing left to decide: which stages make which variants."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgepack.build.forms import Form, Needed, data_sources, make_forms
from edgepack.data import texts as data
from edgepack.export import Choice, find
from edgepack.export.previous_scales import names_variant
from edgepack.judge import golden, quality
from edgepack.judge import sensitivity as rank
from edgepack.model import describe
from edgepack.model.fetch import ModelInfo
from edgepack.recipe.recipe import Budget, Recipe
from edgepack.recipe.target import Target, VariantSpec, all_targets
from edgepack.stages.cache import Stage, file_source
from edgepack_runtime.bundle.manifest import Requires, canonical_json, safe_name
from edgepack_runtime.errors import InputError


@dataclass(frozen=True)
class VariantPlan:
    """One variant: what the target asked for, the stage that makes it, those that judge it.

    kept: layers that the gate's repair left in float; quality: None without evaluation data.
    """

    spec: VariantSpec
    make: Stage
    assess: Stage
    quality: Stage | None = None
    kept: tuple[str, ...] = ()

    def stages(self) -> list[Stage]:
        """Return its last stages."""
        return [stage for stage in (self.make, self.assess, self.quality) if stage is not None]


@dataclass(frozen=True)
class Plan:
    """The stages of one bundle.  Its key is the build's identity.

    forms: the torch model after each step, the teacher first; qualities: the stages that judge
    them, by form. sensitivity: the stage that ranks layers by what int8 costs them.
    kit: {wheel: sha256} of what is carried to the device beside the bundle.
    left_out: {variant: why it cannot be made}.
    """

    recipe: Recipe
    model: ModelInfo
    target: Target
    tokenizer: Stage
    texts: Stage
    export: Stage
    golden: Stage
    variants: tuple[VariantPlan, ...]
    sensitivity: Stage
    forms: tuple[Form, ...]
    qualities: Mapping[str, Stage] = field(default_factory=dict)
    kit: Mapping[str, str] = field(default_factory=dict)
    left_out: Mapping[str, str] = field(default_factory=dict)

    def stages(self) -> Iterator[Stage]:
        """Yield every stage, each after those that it needs."""
        seen: set[str] = set()
        yield from self._common(seen)
        for variant in self.variants:
            for last in variant.stages():
                yield from _with_inputs(last, seen)

    def optional(self) -> set[str]:
        """Return the keys of the stages without which a bundle still has other variants."""
        return {stage.key for stage in self.stages()} - {s.key for s in self._common(set())}

    def _common(self, seen: set[str]) -> Iterator[Stage]:
        """Yield the stages that every variant is compared with."""
        first = (self.tokenizer, self.texts, self.export, self.golden)
        for stage in (*first, *self.qualities.values()):
            yield from _with_inputs(stage, seen)

    def without(self, reasons: Mapping[str, str]) -> Plan:
        """Return the plan without some variants, by name, each with the reason.

        Raises:
            InputError: no variant is left.

        """
        left_out = {**self.left_out, **reasons}
        variants = tuple(v for v in self.variants if v.spec.name not in left_out)
        if not variants:
            told = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise InputError(f"no variant of {self.target.name} can be made: {told}")
        return replace(self, variants=variants, left_out=left_out)

    def ranking(self) -> Iterator[Stage]:
        """Yield the stages that rank layers, which only a repair needs."""
        yield from _with_inputs(self.sensitivity, set())

    @property
    def staged(self) -> bool:
        """Tell whether there is more to tell of than a plain conversion."""
        return len(self.forms) > 1 or bool(self.qualities) or self.recipe.budget != Budget()

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
            "requires": asdict(self.target.requires),
            "model": self.model.source.key,
            "golden": self.golden.key,
            "variants": [
                {
                    **asdict(v.spec),
                    "make": v.make.key,
                    "assess": v.assess.key,
                    **({"kept": list(v.kept)} if v.kept else {}),
                }
                for v in self.variants
            ],
            **({"kit": dict(self.kit)} if self.kit else {}),
            **({"left_out": dict(self.left_out)} if self.left_out else {}),
            "stages": [{"label": stage.label, "key": stage.key} for stage in self.stages()],
        }


def make_plan(
    recipe: Recipe,
    model: ModelInfo,
    target: Target,
    *,
    kept: Mapping[str, tuple[str, ...]] | None = None,
    kit: Mapping[str, str] | None = None,
) -> Plan:
    """Resolve a recipe for one target.

    Args:
        recipe: what is wanted.
        model: what was fetched for it.
        target: the device.
        kept: layers to leave in float, by variant.
        kit: {wheel: sha256} of the wheels that are packed with the bundle.

    Raises:
        InputError: the target asks for something that no exporter makes.

    """
    for what, value in (("name", model.name), ("version", recipe.version)):
        if not safe_name(value):
            raise InputError(
                f"{what} {value!r} is not usable: letters, digits, '.', '_' and '-', "
                "at most 128 of them"
            )
    sources = data_sources(recipe)
    forms = make_forms(recipe, model, sources)
    final = forms[-1].model
    tokenizer = Stage(
        "read tokenizer and task", describe.describe,
        describe.Settings(model.task, recipe.max_length), {"model": final}, describe.TOOLS,
    )  # fmt: skip
    texts = _texts(recipe, model.task, tokenizer, sources.get("data"))
    common: dict[str, Needed] = {"tokenizer": tokenizer, "texts": texts}
    export = find("onnxruntime").export_stage(final, model.task)
    reference = Stage(
        "golden outputs", golden.make_golden, golden.NoSettings(),
        {**common, "export": export}, golden.TOOLS,
    )  # fmt: skip
    sensitivity = Stage(
        "rank layers by sensitivity", rank.rank, rank.NoSettings(),
        {**common, "export": export}, rank.TOOLS,
    )  # fmt: skip
    evaluation = sources.get("evaluation")
    maker = _Maker(recipe, model, final, common, reference, evaluation, kept or {})
    variants = tuple(maker.variant(spec) for spec in _wanted(recipe, target))
    return Plan(
        recipe, model, target, tokenizer, texts, export, reference, variants, sensitivity,
        forms, _qualities(recipe, model, forms, evaluation), kit or {},
    )  # fmt: skip


def _qualities(
    recipe: Recipe, model: ModelInfo, forms: tuple[Form, ...], evaluation: Needed | None
) -> dict[str, Stage]:
    """Return the stages that judge the torch forms, if there is evaluation data."""
    if evaluation is None:
        return {}
    settings = quality.TorchSettings(model.task, recipe.data.columns, recipe.max_length)
    return {
        form.name: Stage(
            f"evaluate {form.name}", quality.judge_torch, settings,
            {"model": form.model, "evaluation": evaluation}, quality.TOOLS,
        )
        for form in forms
    }  # fmt: skip


def _texts(recipe: Recipe, task: str, tokenizer: Stage, train: Needed | None) -> Stage:
    inputs: dict[str, Needed] = {"tokenizer": tokenizer}
    columns = recipe.data.columns
    if recipe.calibration is not None:
        path = recipe.calibration
        if not path.is_file():
            raise InputError(f"no calibration file at {path}")
        inputs["data"] = file_source(path)
        columns, task = recipe.calibration_columns, ""
    elif train is not None:
        inputs["data"] = train
    settings = data.Settings(task, columns, samples=recipe.samples)
    label = "read calibration texts" if "data" in inputs else "generate calibration texts"
    return Stage(label, data.collect, settings, inputs, data.TOOLS)


@dataclass(frozen=True)
class _Maker:
    """Makes the plan of one variant from what all of them share."""

    recipe: Recipe
    info: ModelInfo
    model: Needed
    common: Mapping[str, Needed]
    reference: Stage
    evaluation: Needed | None
    kept: Mapping[str, tuple[str, ...]]

    def variant(self, spec: VariantSpec) -> VariantPlan:
        """Plan one variant."""
        exporter = find(spec.engine)
        kept = self.kept.get(spec.name, ())
        export = exporter.export_stage(self.model, self.info.task)
        choice = Choice(kept, self.recipe.search)
        inputs = {**self.common, "export": export, **self._previous(spec)}
        make = exporter.variant_stage(spec, inputs, choice)
        assess = Stage(
            f"compare {spec.name} with float", golden.assess,
            golden.AssessSettings(spec.engine, spec.precision),
            {**self.common, "variant": make, "golden": self.reference}, golden.TOOLS,
        )  # fmt: skip
        return VariantPlan(spec, make, assess, self._quality(spec, make), kept)

    def _previous(self, spec: VariantSpec) -> dict[str, Needed]:
        """Return the bundle whose scales a variant keeps, if the recipe names one that has it."""
        bundle = self.recipe.previous
        if bundle is None or spec.precision != "int8" or not names_variant(bundle, spec.name):
            return {}
        return {"previous": file_source(bundle)}

    def _quality(self, spec: VariantSpec, make: Stage) -> Stage | None:
        if self.evaluation is None:
            return None
        settings = quality.JudgeSettings(spec.engine, spec.precision, self.recipe.data.columns)
        inputs = {
            "tokenizer": self.common["tokenizer"], "variant": make, "evaluation": self.evaluation
        }  # fmt: skip
        return Stage(f"evaluate {spec.name}", quality.judge, settings, inputs, quality.TOOLS)


def _wanted(recipe: Recipe, target: Target) -> list[VariantSpec]:
    """Return the target's variants, or its engines in float32."""
    if recipe.precision == "target":
        return _named(recipe, target)
    wanted: dict[str, VariantSpec] = {}
    for spec in target.variants:
        kind = spec.provider.removesuffix("ExecutionProvider").lower()
        prefix = spec.engine if kind == "cpu" else kind
        name = f"{prefix}-float32"
        options = {} if kind == "cpu" else spec.options
        wanted.setdefault(
            name,
            replace(
                spec, name=name, precision="float32", scheme="none", options=options,
                requires=Requires() if kind == "cpu" else spec.requires,
                why="float32, as the model was trained",
            ),
        )  # fmt: skip
    return list(wanted.values())


def _named(recipe: Recipe, target: Target) -> list[VariantSpec]:
    """Return the variants that the recipe names, all if it names none of this target."""
    own = {spec.name for spec in target.variants}
    if foreign := sorted(set(recipe.variants) - own):  # another target of the build may have it
        foreign = sorted(
            set(foreign) - {spec.name for other in all_targets() for spec in other.variants}
        )
    if foreign:
        raise InputError(
            f"build.variants: no target has a variant {foreign[0]!r}; {target.name} has "
            f"{', '.join(spec.name for spec in target.variants)}"
        )
    picked = [spec for spec in target.variants if spec.name in recipe.variants]
    return picked or list(target.variants)


def _with_inputs(stage: Stage, seen: set[str]) -> Iterator[Stage]:
    if stage.key in seen:
        return
    seen.add(stage.key)
    for needed in stage.inputs.values():
        if isinstance(needed, Stage):
            yield from _with_inputs(needed, seen)
    yield stage
