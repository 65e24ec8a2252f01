"""The build, on one page: model in, one bundle per target out.

    fetch → [adapt → fine-tune → trim vocabulary → prune → distil] → describe → texts → export
    → optimise and quantize → golden → compare → gate → pack → measure

Every stage is looked up in the stage cache first.  So an interrupted build continues where it
stopped, and two targets share every stage up to where they differ.  Stages that do not wait for
each other run side by side (`workers.py`).
"""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NoReturn

from edgepack.build import gate, sbom, stage_table
from edgepack.build.assemble import content_of, manifest_of
from edgepack.build.lint import lint
from edgepack.build.made import Made, made_of
from edgepack.build.measure import measure
from edgepack.build.plan import Plan
from edgepack.build.planning import make_plan
from edgepack.build.preflight import left_out, refuse
from edgepack.bundle.pack import Content, refuse_foreign, replace_bundle, write_bundle
from edgepack.export.sensitivity import read_ranking
from edgepack.recipe.recipe import Recipe, fetch_model
from edgepack.recipe.target import Target
from edgepack.stages import progress
from edgepack.stages.cache import StageCache, sweep, work_folder
from edgepack.stages.workers import Folders, Workers, fitting_jobs
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import BudgetError, EdgepackError, InputError
from edgepack_runtime.paths import cache_folder, write_whole

_logger = logging.getLogger(__name__)
Latencies = dict[str, dict[str, float]]


@dataclass(frozen=True)
class Built:
    """A finished bundle on disk."""

    path: Path
    """Where it is."""
    bundle: Bundle
    """The opened bundle."""
    baseline_bytes: int
    """Size of the float graph."""
    latency_ms: Latencies
    """{variant: {"tokens×rows": ms}} for the variants that this host can run, with the float model
    as `float32`; empty if it can run none."""
    stages: list[dict[str, Any]]
    """The table by stage as JSON values (`stage_table.Row`); empty for a plain conversion."""


def plans(
    recipe: Recipe,
    targets: Sequence[Target],
    *,
    offline: bool = False,
    kits: Mapping[str, Mapping[str, str]] | None = None,
) -> list[Plan]:
    """Find the model and plan a bundle for each target; `kits` are wheels by target, see `kit.py`.

    The data is checked here: faults are errors, and misleading data is logged as a warning.
    """
    model = fetch_model(recipe, offline=offline)
    refuse(recipe, model, targets)
    wanted = [make_plan(recipe, model, t, kit=(kits or {}).get(t.name)) for t in targets]
    planned = [plan.without(left_out(model, (v.spec for v in plan.variants))) for plan in wanted]
    for line in lint(recipe, model):
        _logger.warning("%s", line)
    return planned


def build(
    planned: Sequence[Plan],
    out: Path,
    view: progress.View,
    *,
    jobs: int = 0,
    strict: bool = False,
) -> list[Built]:
    """Make the bundles of all plans in the folder `out`.

    A variant that cannot be made is left out, and the bundle says why.

    Args:
        planned: what to build.
        out: the folder for the bundles.
        view: shows the stages as they run.
        jobs: how many stages may run at a time; 0 for as many as help and fit in memory.
        strict: a variant that cannot be made is an error.

    Raises:
        BudgetError: a bundle exceeds its budget, and repair did not help.
        EdgepackError: anything else; its family says what to do.  If a stage failed or a budget is
            exceeded, `out` is unchanged.  If writing failed, every bundle in it is whole, either
            the old one or the new one.

    """
    _check_writable(out)
    for plan in planned:
        refuse_foreign(bundle_path(plan, out))
    cache = StageCache()
    sweep(cache.root)
    sweep(out, "edgepack")  # and nothing else in the user's folder
    jobs = jobs or max((fitting_jobs(plan.model.source.path) for plan in planned), default=1)
    with Workers(cache, view, jobs) as workers:
        made = [_gated(plan, workers, strict=strict) for plan in planned]
    for line in dict.fromkeys(line for item in made for line in item.remarks):
        _logger.warning("%s", line)
    with work_folder(out) as work:  # here a bundle does not look finished
        built = [
            _unchanged(item, bundle_path(item.plan, out)) or _candidate(item, work, view)
            for item in made
        ]
        return [_publish(item, out) for item in built]


def _gated(plan: Plan, workers: Workers, *, strict: bool) -> Made:
    """Run the stages; while a variant loses too much, leave more layers in float and repeat.

    If that does not help, a variant beyond the budget ends the build, and one that only differs too
    much from the float model is left out.
    """
    folders: Folders = {}
    plan = _run(plan, workers, folders, strict=strict)
    while True:
        made = made_of(plan, folders)
        lost, unlike = gate.lost(made), gate.unlike(made)
        if not lost and not unlike:
            return made
        if kept := _repair(made, workers, folders, {**unlike, **lost}):
            repaired = make_plan(plan.recipe, plan.model, plan.target, kept=kept, kit=plan.kit)
            plan = _run(repaired.without(plan.left_out), workers, folders, strict=strict)
        elif lost:
            table = stage_table.measure_forms(made, manifest_of(made, content_of(made)))
            _refuse(plan, gate.lost_message(made, lost), table)
        else:
            reasons = {name: gate.unlike_message(like) for name, like in unlike.items()}
            plan = _without(plan, reasons, strict=strict)


def _run(plan: Plan, workers: Workers, folders: Folders, *, strict: bool) -> Plan:
    """Run the stages of a plan; return the plan without variants that cannot be made."""
    if strict and plan.left_out:
        _without(plan, plan.left_out, strict=True)
    optional = () if strict else plan.optional()
    log = _log(plan, workers.cache)
    failures = workers.run(plan.stages(), folders, log, optional=optional)
    reasons: dict[str, str] = {}
    for variant in plan.variants:
        for stage in variant.stages():
            if (failure := failures.get(stage.key)) is not None:
                reasons.setdefault(variant.spec.name, getattr(failure, "reason", str(failure)))
    return plan.without(reasons) if reasons else plan


def _without(plan: Plan, reasons: Mapping[str, str], *, strict: bool) -> Plan:
    """Leave variants out of a plan; an `InputError` if `strict`."""
    if strict:
        told = "; ".join(f"{name}: {reason}" for name, reason in reasons.items())
        raise InputError(f"{plan.target.name}: {told}; leave it out with --variant")
    return plan.without(reasons)


def _repair(
    made: Made, workers: Workers, folders: Folders, drops: Mapping[str, float]
) -> dict[str, tuple[str, ...]]:
    """Return the layers to leave in float next, by variant; empty if nothing can help."""
    plan = made.plan
    if plan.sensitivity is None or not gate.repairable(made):
        return {}
    ranking = list(plan.ranking())
    optional = {stage.key for stage in ranking}
    if workers.run(ranking, folders, _log(plan, workers.cache), optional=optional):
        return {}
    return gate.next_repair(plan, read_ranking(folders[plan.sensitivity.key]), drops)


def _refuse(plan: Plan, message: str, table: list[dict[str, Any]]) -> NoReturn:
    """Raise a `BudgetError`; write the table by stage where it outlives the build."""
    path = cache_folder() / "reports" / f"{plan.model.name}-{plan.target.name}.json"
    write_whole(path, json.dumps(table, indent=1).encode())
    raise BudgetError(f"over budget: {message}; report: {path}")


def _check_costs(
    plan: Plan, bundle: Bundle, latency: Latencies, table: list[dict[str, Any]]
) -> None:
    if message := gate.costs_message(plan.recipe.budget, bundle, latency):
        _refuse(plan, message, table)


def _candidate(made: Made, out: Path, view: progress.View) -> Built:
    """Pack a bundle in `out`, measure it, and check its budget."""
    plan, content = made.plan, content_of(made)
    manifest = manifest_of(made, content)
    content = Content({**content.files, **sbom.documents(plan, manifest)})
    manifest = replace(manifest, files=content.entries())
    path = bundle_path(plan, out)
    with view.stage(f"pack {plan.target.name}", cached=False):
        table = stage_table.measure_forms(made, manifest) if plan.staged else []
        write_bundle(manifest, content, path, layout=plan.recipe.layout, report=table)
    bundle = Bundle.open(path)
    with view.stage(f"measure {plan.target.name}", cached=False):
        latency = measure(bundle, made)
        _check_costs(plan, bundle, latency, table)
    return Built(path, bundle, made.export_size, latency, table)


def _unchanged(made: Made, path: Path) -> Built | None:
    """Return the bundle at `path` if it belongs to this plan and is whole."""
    plan = made.plan
    try:
        found = Bundle.open(path)
        found.verify()
    except EdgepackError:
        return None
    if found.manifest.provenance.get("plan") != plan.key:
        return None
    latency = measure(found, made)
    _check_costs(plan, found, latency, found.report)
    return Built(path, found, made.export_size, latency, found.report)


def _publish(built: Built, out: Path) -> Built:
    path = out / built.path.name
    if path != built.path:
        replace_bundle(built.path, path)
    return replace(built, path=path, bundle=Bundle.open(path))


def _log(plan: Plan, cache: StageCache) -> Path:
    return cache.root.parent / "logs" / f"{plan.key[:16]}.log"


def bundle_path(plan: Plan, out: Path) -> Path:
    """Return where a plan's bundle is written."""
    suffix = ".epk" if plan.recipe.layout == "epk" else ""
    return out / f"{plan.model.name}-{plan.target.name}{suffix}"


def _check_writable(out: Path) -> None:
    """Check that the folder can be written to, before the work and not after it."""
    probe = out / ".edgepack-write-test"
    try:
        out.mkdir(parents=True, exist_ok=True)
        probe.write_bytes(b"")
        probe.unlink()
    except OSError as exc:
        raise InputError(f"cannot write to {out}: {exc.strerror}; choose another with -o") from exc
