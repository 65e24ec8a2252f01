"""The gate: a bundle that exceeds its budget is not published.

Quality is measured for each variant on the evaluation data, through the runtime, against the
teacher.  A variant that lost too much is repaired before the build is refused: its most sensitive
layers are left in float, twice as many with every attempt.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict

from edgepack.build.made import Made
from edgepack.build.plan import Plan
from edgepack.recipe.recipe import Budget
from edgepack_runtime import tasks
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.tune.memory import peak_memory

LEAST_LIKENESS = 0.8  # below this agreement with the float model, a variant is left out
_HALF = 2  # repair leaves at most one layer in this many in float
_ROUNDING = 1e-6
_log = logging.getLogger(__name__)


def lost(made: Made) -> dict[str, float]:
    """Return {variant: points below the teacher} for the variants beyond the budget."""
    limit, base = made.plan.recipe.budget.quality_drop, made.forms[0].quality
    if limit is None or base is None:
        return {}
    drops = {
        variant.spec.name: base.lost(variant.quality)
        for variant in made.variants
        if variant.quality
    }
    return {name: drop for name, drop in drops.items() if drop > limit + _ROUNDING}


def unlike(made: Made) -> dict[str, float]:
    """Return {variant: agreement} for the variants that are too far from the float model.

    Evaluation data shows this best; without it, the agreement on the comparison texts counts.
    """
    final = made.forms[-1].quality
    found = {}
    for variant in made.variants:
        like = variant.assessment["agreement"]
        if final and variant.quality:
            like = max(like, 1.0 - final.lost(variant.quality) / 100)
        if like < LEAST_LIKENESS:
            found[variant.spec.name] = like
    return found


def unlike_message(likeness: float) -> str:
    """Say why a variant is left out."""
    return (
        f"agrees with the float model in only {likeness:.1%} of its answers (minimum "
        f"{LEAST_LIKENESS:.0%})"
    )


def repairable(made: Made) -> bool:
    """Tell whether int8 caused the loss: the float model before quantization is within budget."""
    first, last = made.forms[0].quality, made.forms[-1].quality
    limit = made.plan.recipe.budget.quality_drop
    if limit is None or first is None or last is None:
        return True
    return first.lost(last) <= limit + _ROUNDING


def next_repair(
    plan: Plan, ranking: Sequence[str], drops: Mapping[str, float]
) -> dict[str, tuple[str, ...]]:
    """Return the layers to leave in float, by variant; variants without a loss do not change.

    Empty if no more layers can be left: that is possible only for int8 and int4 variants, and for
    at most half of the layers.
    """
    kept = {v.spec.name: v.kept for v in plan.variants if v.kept}
    changed = False
    for variant in plan.variants:
        name, count = variant.spec.name, max(1, 2 * len(variant.kept))
        small = variant.spec.precision in ("int8", "int4")
        if name in drops and small and count <= len(ranking) // _HALF:
            kept[name] = tuple(ranking[:count])
            changed = True
    return kept if changed else {}


def lost_message(made: Made, drops: Mapping[str, float]) -> str:
    """Say how far the worst variant is beyond the quality budget, and the remedy."""
    name, drop = max(drops.items(), key=lambda item: item[1])
    variant = next(v for v in made.variants if v.spec.name == name)
    plan, kept, quality = made.plan, variant.plan.kept, variant.quality
    assert quality  # noqa: S101 (without it nothing was lost)
    scheme = f"{variant.spec.precision} {variant.spec.scheme}".removesuffix(" none")
    tried = f", {len(kept)} layers left in float" if kept else ""
    if not repairable(made):
        tried = f"; the {made.forms[-1].name} model lost it before quantization"
    return (
        f"quality.{quality.main} {quality.said(drop)} "
        f"(limit {plan.recipe.budget.quality_drop:g}) on {quality.rows} rows; "
        f"{scheme}, variant {name} for {plan.target.name}{tried}. Train longer or remove less of "
        "the model, leave the variant out (build.variants), or raise budget.quality_drop"
    )


def costs_message(
    budget: Budget, bundle: Bundle, latency: Mapping[str, Mapping[str, float]]
) -> str:
    """Say if a bundle is too large, too slow here, or takes too much memory; else return "".

    Args:
        budget: the limits.
        bundle: the bundle, not yet published.
        latency: the figures from `measure` for what runs on this host; empty if nothing does.

    """
    sizes = {file.sha256: file.size for file in bundle.manifest.files}
    found = {"bundle_mb": sum(sizes.values()) / 1e6}
    cells = [latency.get(variant.name, {}) for variant in bundle.manifest.variants]
    cell = tasks.find(bundle.manifest.task.name).CELLS[0]
    if here := [times[cell] for times in cells if cell in times]:
        found["latency_ms"] = min(here)
    if any(cells) and budget.memory_mb is not None:
        found["memory_mb"] = peak_memory(bundle.path)
    limits = asdict(budget)
    for name in sorted(set(_REMEDIES) - set(found)):
        if limits[name] is not None:
            _log.warning(
                "budget.%s is not checked: this host cannot measure %s", name, bundle.path.name
            )
    for name, value in found.items():
        limit = limits[name]
        if limit is not None and value > limit:
            return (
                f"{name} is {value:.2f} (limit {limit:g}), bundle {bundle.path.name}. "
                f"{_REMEDIES[name]}, or raise budget.{name}"
            )
    return ""


_REMEDIES = {
    "bundle_mb": "Trim the vocabulary, prune or distil further, or name fewer build.variants",
    "latency_ms": "Prune or distil further",
    "memory_mb": "Trim the vocabulary, prune or distil further",
}
