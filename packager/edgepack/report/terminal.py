"""What a build prints at its end: one table for each bundle, or the same as JSON."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import geometric_mean
from typing import TYPE_CHECKING, Any

from edgepack.build.build import Built
from edgepack.build.measure import BASELINE
from edgepack.build.plan import Plan
from edgepack_runtime import tasks
from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.device import measured

if TYPE_CHECKING:
    from rich.table import Table

_LONG = 100  # milliseconds or megabytes; longer numbers need no decimals


def as_json(built: Sequence[Built]) -> list[dict[str, Any]]:
    """Return everything the tables show, and the digests."""
    return [
        {
            "path": str(item.path),
            "digest": item.bundle.digest,
            "target": item.bundle.manifest.target,
            "task": item.bundle.manifest.task.name,
            "baseline": {"bytes": item.baseline_bytes, "latency_ms": item.latency_ms.get(BASELINE)},
            "default_here": fastest(item),
            "stages": item.stages,
            "left_in_float": item.bundle.manifest.provenance.get("left_in_float", {}),
            "compared_on": item.bundle.manifest.provenance.get("compared_on", "given"),
            "left_out": item.bundle.manifest.provenance.get("left_out", {}),
            "variants": [_variant(item, variant) for variant in item.bundle.manifest.variants],
        }
        for item in built
    ]


def plan_json(plan: Plan) -> dict[str, Any]:
    """Return a plan with its key, for --dry-run."""
    return {"key": plan.key, **plan.as_json()}


def table(item: Built) -> Table:
    """Return the final table of one bundle: before and after, with a row for each variant."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    manifest = item.bundle.manifest
    cells = _cells(item)
    title = f"{manifest.name} {manifest.version} for {manifest.target}"
    unit = tasks.find(manifest.task.name).CELL_UNIT
    captions = [f"milliseconds, text to result, by {unit}"] if cells else []
    if manifest.provenance.get("compared_on", "given") == "generated":
        captions.append("agreement with the float model on generated texts; yours say more")
    shown = Table(
        title=title,
        caption="\n".join(captions),
        title_style="bold",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("variant", no_wrap=True)
    timed = [*(cell.replace("-", "-\n") for cell in cells), *(["speed-up"] if cells else [])]
    for name in ("MB", *timed, "agreement", "min cos"):
        shown.add_column(name, justify="right", no_wrap=True)
    before = item.latency_ms.get(BASELINE, {})
    first = [_ms(before, cell) for cell in cells] + (["1.0×"] if cells else [])
    shown.add_row("before: float32", _megabytes(item.baseline_bytes), *first, "", "", style="dim")
    best = fastest(item)
    for variant in manifest.variants:
        row = _variant(item, variant)
        mine = row["latency_ms"] or {}
        times = [_ms(mine, cell) for cell in cells] + ([_speed_up(before, mine)] if cells else [])
        shown.add_row(
            variant.name,
            _megabytes(row["bytes"]),
            *times,
            f"{row['agreement']:.2%}",
            f"{row['least_cosine']:.3f}",
            style="bold" if variant.name == best else "",
        )
    return shown


def stages_table(item: Built) -> Table:
    """Return the table by stage: what each step gained and cost, starting with the teacher."""
    from rich.box import SIMPLE_HEAD
    from rich.table import Table

    task = item.bundle.manifest.task
    rules = tasks.find(task.name)
    shown = Table(
        title=f"{item.bundle.manifest.name}: step by step",
        title_style="bold",
        caption=f"ms: {rules.CELLS[0]} {rules.CELL_UNIT}, one thread; T/T0 in one run",
        box=SIMPLE_HEAD,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    shown.add_column("stage", no_wrap=True)
    quality = (1, "") if task.writing else (100, "%")  # a perplexity is no share
    for name in ("perplexity" if task.writing else "quality", "MB", "M parameters", "ms", "T/T0"):
        shown.add_column(name.replace("-", "-\n"), justify="right", no_wrap=True)
    for row in item.stages:
        shown.add_row(
            row["stage"],
            _shown(row["quality"], *quality),
            _megabytes(row["size"]),
            _shown(row["parameters"], 1e-6, ""),
            _shown(row["latency_ms"], 1, ""),
            "–" if row["ratio"] is None else f"{row['ratio']:.3f}",
        )
    return shown


def _shown(value: float | None, factor: float, unit: str) -> str:
    return "–" if value is None else f"{value * factor:.2f}{unit}"


def summary(item: Built) -> str:
    """Say in one line where the bundle is and which variant runs here."""
    best = fastest(item)
    kept = item.bundle.manifest.provenance.get("left_in_float", {})
    repaired = "".join(
        f"\nrepaired: {name} has {', '.join(layers)} left in float" for name, layers in kept.items()
    )
    left_out = item.bundle.manifest.provenance.get("left_out", {})
    repaired += "".join(f"\nleft out: {name}: {why}" for name, why in left_out.items())
    here = f"picked on this machine: {best}" if best else "its variants are measured on the device"
    size = sum({f.sha256: f.size for f in item.bundle.manifest.files}.values())
    return f"{item.path}  {_megabytes(size)} MB  {item.bundle.digest[:19]}…  {here}{repaired}"


def fastest(item: Built) -> str | None:
    """Name the variant that `load` picks on this machine; None if none runs here."""
    names = [v.name for v in item.bundle.manifest.variants if v.name in item.latency_ms]
    return min(names, key=lambda name: measured.score(name, item.latency_ms), default=None)


def _variant(item: Built, variant: Variant) -> dict[str, Any]:
    sizes = (item.bundle.manifest.file(path).size for path in variant.files)
    return {
        "name": variant.name,
        "engine": variant.engine,
        "provider": variant.provider,
        "precision": variant.precision,
        "bytes": sum(sizes),
        "agreement": variant.measured["agreement"],
        "cosine": variant.measured["cosine"],
        "least_cosine": variant.measured.get("least_cosine", variant.measured["cosine"]),
        "latency_ms": item.latency_ms.get(variant.name),
    }


def _cells(item: Built) -> list[str]:
    return list(next(iter(item.latency_ms.values()), {}))


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.1f}" if count < _LONG * 1e6 else f"{count / 1e6:.0f}"


def _ms(times: dict[str, float], cell: str) -> str:
    if cell not in times:
        return "–"
    return f"{times[cell]:.2f}" if times[cell] < _LONG else f"{times[cell]:.0f}"


def _speed_up(before: dict[str, float], after: dict[str, float]) -> str:
    """Return the geometric mean of the ratios over the cells that both have."""
    ratios = [before[cell] / after[cell] for cell in before if cell in after]
    return f"{geometric_mean(ratios):.1f}×" if ratios else "–"
