"""Put a bundle together from what the stages made: its files and its manifest."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from edgepack.build.made import Made, MadeVariant
from edgepack.bundle.pack import Content
from edgepack.export import find
from edgepack.judge.golden import FOLDER
from edgepack.model.opened import are_generated, read_task
from edgepack_runtime.bundle.description import Task
from edgepack_runtime.bundle.manifest import FORMAT, Graph, Manifest, Tolerance, Variant

_COMMON = ("tokenizer.json", "preprocessor_config.json", "config.json")
_LIKENESS = ("agreement", "cosine", "least_cosine")  # with the float model
# The minimum that loading takes: the weights twice, while an engine packs them, and the engine.
_COPIES = 2
_ENGINE_BYTES = 40 << 20


def content_of(made: Made) -> Content:
    """Return the files of a bundle, by their names in it."""
    common = {
        path.name: path for path in sorted(made.tokenizer.glob("*.json")) if path.name in _COMMON
    }
    files = {**common, "golden.json": made.golden / "golden.json"}
    files |= {f"{FOLDER}/{path.name}": path for path in sorted((made.golden / FOLDER).glob("*"))}
    for (
        variant
    ) in made.variants:  # with the common files, so that Optimum can open the folder as it is
        for name, path in {**variant.files, **common}.items():
            files[f"{variant.spec.name}/{name}"] = path
    return Content(files)


def manifest_of(made: Made, content: Content) -> Manifest:
    """Return the manifest of a bundle."""
    plan, task = made.plan, read_task(made.tokenizer)
    kept = {variant.spec.name: list(variant.kept) for variant in plan.variants if variant.kept}
    return Manifest(
        format=FORMAT,
        name=plan.model.name,
        version=plan.recipe.version,
        release=plan.recipe.release,
        target=plan.target.name,
        arch=plan.target.arch,
        task=task,
        variants=tuple(_variant(variant, task) for variant in made.variants),
        files=content.entries(),
        golden="golden.json",
        requires=plan.target.requires,
        kit=plan.kit,
        provenance={
            "model": plan.model.source.key,
            "plan": plan.key,
            "compared_on": "generated" if are_generated(made.texts) else "given",
            **({"left_in_float": kept} if kept else {}),
            **({"left_out": dict(plan.left_out)} if plan.left_out else {}),
        },
    )


def _variant(variant: MadeVariant, task: Task) -> Variant:
    spec, found = variant.spec, variant.assessment
    exporter = find(spec.engine)
    longest = task.text.max_length if task.text else 0
    options = exporter.device_options(variant.folder, longest, spec.provider)
    least = (_COPIES * variant.size + _ENGINE_BYTES) >> 20
    figures = variant.quality.figures if variant.quality else {}
    return Variant(
        name=spec.name,
        engine=spec.engine,
        provider=spec.provider,
        precision=spec.precision,
        scheme=spec.scheme,
        graphs=tuple(_graphs(variant)),
        requires=replace(spec.requires, memory_mb=max(spec.requires.memory_mb, least)),
        tolerance=Tolerance(found["tolerance_cosine"], found["tolerance_agreement"]),
        options=_merged(options, spec.options),
        measured={**{name: found[name] for name in _LIKENESS}, **figures},
        adapters={name: f"{spec.name}/{path}" for name, path in variant.adapters.items()},
    )


def _graphs(variant: MadeVariant) -> Iterator[Graph]:
    for name, paths in variant.graphs.items():
        found = variant.assessment["graphs"][name]
        files = tuple(f"{variant.spec.name}/{path}" for path in paths)
        yield Graph(name, files, tuple(found["inputs"]), tuple(found["outputs"]))


def _merged(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> dict[str, Any]:
    """Merge options, including the tables inside them; the target's options win."""
    tables = {
        key: {**value, **theirs[key]}
        for key, value in ours.items()
        if isinstance(value, dict) and key in theirs
    }
    return {**ours, **theirs, **tables}
