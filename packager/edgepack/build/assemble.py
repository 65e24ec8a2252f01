"""Put a bundle together from what the stages made: its files, and what it says of itself."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from edgepack.build import gate
from edgepack.build.plan import Plan, VariantPlan
from edgepack.bundle.pack import Content
from edgepack.export import find
from edgepack.judge.golden import read_assessment
from edgepack.model.opened import are_generated, read_task
from edgepack.stages.workers import Folders
from edgepack_runtime.bundle.manifest import FORMAT, Manifest, Task, Tolerance, Variant

_LIKENESS = ("agreement", "cosine", "least_cosine")  # to the float model
# What loading takes at the least: the weights twice, while an engine packs them, and the engine.
_COPIES = 2
_ENGINE_BYTES = 40 << 20


def content_of(plan: Plan, folders: Folders) -> Content:
    """Return the files of a bundle, by the names that they have in it."""
    tokenizer = folders[plan.tokenizer.key]
    files = {name: tokenizer / name for name in ("tokenizer.json", "config.json")}
    files["golden.json"] = folders[plan.golden.key] / "golden.json"
    for variant in plan.variants:
        for name in find(variant.spec.engine).FILES:
            files[f"{variant.spec.name}/{name}"] = folders[variant.make.key] / name
        for name in ("config.json", "tokenizer.json"):  # so that Optimum opens a variant as it is
            files[f"{variant.spec.name}/{name}"] = tokenizer / name
    return Content(files)


def manifest_of(plan: Plan, folders: Folders, content: Content) -> Manifest:
    """Return what a bundle says of itself."""
    task = read_task(folders[plan.tokenizer.key])
    kept = {variant.spec.name: list(variant.kept) for variant in plan.variants if variant.kept}
    return Manifest(
        format=FORMAT,
        name=plan.model.name,
        version=plan.recipe.version,
        release=plan.recipe.release,
        target=plan.target.name,
        arch=plan.target.arch,
        task=task,
        variants=tuple(_variant(v, folders, task) for v in plan.variants),
        files=content.entries(),
        golden="golden.json",
        requires=plan.target.requires,
        kit=plan.kit,
        provenance={
            "model": plan.model.source.key,
            "plan": plan.key,
            "compared_on": "generated" if are_generated(folders[plan.texts.key]) else "given",
            **({"left_in_float": kept} if kept else {}),
            **({"left_out": dict(plan.left_out)} if plan.left_out else {}),
        },
    )


def _variant(variant: VariantPlan, folders: Folders, task: Task) -> Variant:
    spec, exporter = variant.spec, find(variant.spec.engine)
    found = read_assessment(folders[variant.assess.key])
    quality = gate.figures(variant, folders)
    made = folders[variant.make.key]
    options = exporter.device_options(made, task.text.max_length, spec.provider)
    weights = sum((made / name).stat().st_size for name in exporter.FILES)
    least = (_COPIES * weights + _ENGINE_BYTES) >> 20
    return Variant(
        name=spec.name,
        engine=spec.engine,
        provider=spec.provider,
        precision=spec.precision,
        scheme=spec.scheme,
        files=tuple(f"{spec.name}/{name}" for name in exporter.FILES),
        requires=replace(spec.requires, memory_mb=max(spec.requires.memory_mb, least)),
        tolerance=Tolerance(found["tolerance_cosine"], found["tolerance_agreement"]),
        options=_merged(options, spec.options),
        measured={**{name: found[name] for name in _LIKENESS}, **quality},
    )


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Join options, tables inside them too; the target's win."""
    tables = {key: {**value, **theirs[key]} for key, value in ours.items()
              if isinstance(value, dict) and key in theirs}  # fmt: skip
    return {**ours, **theirs, **tables}
