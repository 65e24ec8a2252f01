"""Resolve a recipe for a target: which stages make and judge which variants."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from edgepack.build.forms import (
    Form,
    Needed,
    data_source,
    data_sources,
    find_adapters,
    make_draft,
    make_forms,
)
from edgepack.build.plan import Plan, VariantPlan
from edgepack.data import images, sounds
from edgepack.data import texts as data
from edgepack.export import Choice, draft, find, lora
from edgepack.export.previous_scales import names_variant
from edgepack.judge import golden, quality
from edgepack.model import describe
from edgepack.model.fetch import ModelInfo
from edgepack.recipe.recipe import Recipe
from edgepack.recipe.target import Target, VariantSpec, all_targets
from edgepack.stages.cache import Source, Stage, file_source
from edgepack.tasks import find as find_task
from edgepack_runtime.bundle.manifest import Requires
from edgepack_runtime.bundle.names import safe_name
from edgepack_runtime.errors import InputError


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
        recipe: what was asked for.
        model: the model that was fetched.
        target: the device.
        kept: layers to leave in float, by variant.
        kit: {wheel: sha256} of the wheels that are packed with the bundle.

    Raises:
        InputError: the target asks for something that no exporter can make.

    """
    _check_names(recipe, model)
    sources = data_sources(recipe)
    evaluation = sources.get("evaluation")
    forms = make_forms(recipe, model, sources)
    wanted = wanted_variants(recipe, target)
    reference = find(wanted[0].engine).REFERENCE
    shared = _shared(recipe, model, forms[-1].model, sources.get("data"), reference)
    small = make_draft(recipe, model, forms, sources)
    adapters = find_adapters(recipe, model)
    final = forms[-1].model
    maker = _Maker(recipe, model, final, shared, evaluation, kept or {}, small, adapters)
    return Plan(
        recipe=recipe,
        model=model,
        target=target,
        tokenizer=shared.tokenizer,
        texts=shared.texts,
        export=shared.export,
        golden=shared.golden,
        reference=reference,
        sensitivity=shared.sensitivity,
        variants=tuple(maker.variant(spec) for spec in wanted),
        forms=forms,
        qualities=_qualities(recipe, model, forms, evaluation),
        kit=kit or {},
    )


def _check_names(recipe: Recipe, model: ModelInfo) -> None:
    """Refuse a name or a version that cannot be part of a file's name."""
    for what, value in (("name", model.name), ("version", recipe.version)):
        if not safe_name(value):
            raise InputError(
                f"{what} {value!r} is not usable: it may have letters, digits, '.', '_' and '-', "
                "at most 128 characters"
            )


@dataclass(frozen=True)
class _Shared:
    """The stages that all variants share."""

    tokenizer: Stage
    texts: Stage
    export: Stage
    golden: Stage
    sensitivity: Stage | None

    @property
    def inputs(self) -> dict[str, Needed]:
        """Return what a stage needs to tokenize texts."""
        return {"tokenizer": self.tokenizer, "texts": self.texts}


def _shared(
    recipe: Recipe, model: ModelInfo, final: Needed, train: Needed | None, reference: str
) -> _Shared:
    settings = describe.Settings(model.task, recipe.max_length)
    label = "read tokenizer and task"
    tokenizer = Stage(label, describe.describe, settings, {"model": final}, describe.TOOLS)
    texts = _texts(recipe, model.task, tokenizer, train)
    export = find(reference).export_stage(final, model.task)
    inputs = {"tokenizer": tokenizer, "texts": texts, "export": export}
    return _Shared(
        tokenizer=tokenizer,
        texts=texts,
        export=export,
        golden=Stage(
            "golden outputs",
            golden.make_golden,
            golden.GoldenSettings(reference),
            inputs,
            golden.TOOLS,
        ),
        # Layers of models with two graphs are not ranked yet.
        sensitivity=(
            None if find_task(model.task).PAIRS else find(reference).ranking_stage(inputs)
        ),
    )


def _qualities(
    recipe: Recipe, model: ModelInfo, forms: tuple[Form, ...], evaluation: Needed | None
) -> dict[str, Stage]:
    """Return the stages that judge the torch forms, if there is evaluation data."""
    if evaluation is None:
        return {}
    settings = quality.TorchSettings(model.task, recipe.data.columns, recipe.max_length)
    return {
        form.name: Stage(
            f"evaluate {form.name}",
            quality.judge_torch,
            settings,
            {"model": form.model, "evaluation": evaluation},
            quality.TOOLS,
        )
        for form in forms
    }


def _texts(recipe: Recipe, task: str, tokenizer: Stage, train: Needed | None) -> Stage:
    if find_task(task).READS != "text":
        return _files(recipe, task, train)
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


def _files(recipe: Recipe, task: str, train: Needed | None) -> Stage:
    """Return the stage that collects the images or sounds of a build."""
    given = None
    if recipe.calibration is not None:
        given = data_source("calibration.file", recipe.calibration)
    inputs = {"data": item} if (item := given or train) else {}
    how = (recipe.data.columns, recipe.samples)
    made = "read" if inputs else "generate"
    if find_task(task).READS == "audio":
        hear = sounds.Settings(*how)
        return Stage(f"{made} calibration sounds", sounds.collect, hear, inputs, sounds.TOOLS)
    see = images.Settings(*how)
    return Stage(f"{made} calibration images", images.collect, see, inputs, images.TOOLS)


@dataclass(frozen=True)
class _Maker:
    """Makes the plan of one variant from the shared stages."""

    recipe: Recipe
    info: ModelInfo
    model: Needed
    shared: _Shared
    evaluation: Needed | None
    kept: Mapping[str, tuple[str, ...]]
    draft: Needed | None
    adapters: Mapping[str, Source]

    def variant(self, spec: VariantSpec) -> VariantPlan:
        """Plan one variant."""
        exporter = find(spec.engine)
        kept = self.kept.get(spec.name, ())
        export = exporter.export_stage(self.model, self.info.task)
        choice = Choice(kept, self.recipe.search)
        inputs = {**self.shared.inputs, "export": export, **self._previous(spec)}
        if find_task(self.info.task).READS != "text":
            inputs["images"] = self.shared.texts
        if self.adapters:
            inputs["adapters"] = lora.stage(spec.engine, self.model, self.adapters)
        make = exporter.variant_stage(spec, inputs, choice)
        if self.draft:
            make = self._with_draft(spec, make, self.draft)
        assess = Stage(
            f"compare {spec.name} with float",
            golden.assess,
            golden.AssessSettings(spec.engine, spec.precision),
            {**self.shared.inputs, "variant": make, "golden": self.shared.golden},
            golden.TOOLS,
        )
        return VariantPlan(spec, make, assess, self._quality(spec, make), kept)

    def _with_draft(self, spec: VariantSpec, make: Stage, small: Needed) -> Stage:
        """Add a draft to a variant, made like the variant."""
        exporter, task = find(spec.engine), self.info.task
        inputs = {**self.shared.inputs, "export": exporter.export_stage(small, task)}
        label = "read the draft's tokenizer"
        settings = describe.Settings(task, self.recipe.max_length)
        tokens = Stage(label, describe.describe, settings, {"model": small}, describe.TOOLS)
        made = exporter.variant_stage(spec, inputs, Choice())
        return draft.stage(make, made, (self.shared.tokenizer, tokens))

    def _previous(self, spec: VariantSpec) -> dict[str, Needed]:
        """Return the bundle whose scales a variant retains, if the recipe names one with it."""
        bundle = self.recipe.previous
        if bundle is None or spec.precision != "int8" or not names_variant(bundle, spec.name):
            return {}
        return {"previous": file_source(bundle)}

    def _quality(self, spec: VariantSpec, make: Stage) -> Stage | None:
        if self.evaluation is None:
            return None
        settings = quality.JudgeSettings(spec.engine, spec.precision, self.recipe.data.columns)
        inputs = {
            "tokenizer": self.shared.tokenizer,
            "variant": make,
            "evaluation": self.evaluation,
        }
        return Stage(f"evaluate {spec.name}", quality.judge, settings, inputs, quality.TOOLS)


_PRECISIONS = {
    "float32": ("none", "float32, as the model was trained"),
    "int4": ("weights", "weights in four bits, for language models"),
}  # scheme and reason


def wanted_variants(recipe: Recipe, target: Target) -> list[VariantSpec]:
    """Return the variants that the recipe names; all if it names none of this target's."""
    specs = _specs(recipe, target)
    own = {spec.name for spec in specs}
    if foreign := set(recipe.variants) - own:  # another target of the build may have it
        foreign -= {spec.name for other in all_targets() for spec in _specs(recipe, other)}
    if foreign:
        raise InputError(
            f"build.variants: no target has a variant {min(foreign)!r}; {target.name} has "
            f"{', '.join(spec.name for spec in specs)}"
        )
    return [spec for spec in specs if spec.name in recipe.variants] or specs


def _specs(recipe: Recipe, target: Target) -> list[VariantSpec]:
    """Return the target's variants, or one in another precision for each engine and accelerator."""
    if recipe.precision == "target":
        return list(target.variants)
    scheme, why = _PRECISIONS[recipe.precision]
    wanted: dict[str, VariantSpec] = {}
    for spec in target.variants:
        kind = spec.provider.removesuffix("ExecutionProvider").lower()
        prefix = spec.engine if kind == "cpu" else kind
        name = f"{prefix}-{recipe.precision}"
        options = {} if kind == "cpu" else spec.options
        wanted.setdefault(
            name,
            replace(
                spec,
                name=name,
                precision=recipe.precision,
                scheme=scheme,
                options=options,
                requires=Requires() if kind == "cpu" else spec.requires,
                why=why,
            ),
        )
    return list(wanted.values())
