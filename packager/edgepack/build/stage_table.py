"""The table by stage of a build: what every step gained and cost, measured in one run."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgepack.build.made import Made, MadeForm
from edgepack.export import open_as_device, open_reference
from edgepack.model.opened import read_items
from edgepack.model.torch_model import open_torch
from edgepack.tasks import Quality
from edgepack_runtime import tasks
from edgepack_runtime.bundle.manifest import Manifest
from edgepack_runtime.device.facts import probe
from edgepack_runtime.fit import why_not
from edgepack_runtime.model.model import Model
from edgepack_runtime.tune import latency

EXPORTED = "exported and optimised"
_SECONDS = 1.0


@dataclass(frozen=True)
class Row:
    """One form of the model."""

    stage: str
    """The step that made it."""
    quality: float | None
    """The task's figure; None without evaluation data."""
    size: int
    """Bytes of its weights."""
    parameters: int
    """The number of parameters of its torch model."""
    latency_ms: float | None
    """The median of the task's first cell, on one thread; None if this host cannot run it."""
    ratio: float | None
    """Its latency divided by that of the first row."""


def measure_forms(made: Made, manifest: Manifest) -> list[dict[str, Any]]:
    """Measure every form in turn, in this process and on one thread; return `Row`s as JSON.

    Args:
        made: what the stages made.
        manifest: the manifest of the bundle.

    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        task = made.plan.model.task
        models = {_label(form): open_torch(form.folder, task) for form in made.forms}
        models |= _graphs(made, manifest)
        texts = read_items(made.texts, "golden")
        cell = tasks.find(task).CELLS[0]
        times = latency.measure(models, texts, cells=(cell,), seconds=_SECONDS)
    finally:
        torch.set_num_threads(threads)
    first = next(iter(times.values())).get(cell)  # None if the model is too small for it
    found = []
    for name, (quality, size, count) in _facts(made).items():
        ms = times.get(name, {}).get(cell)
        ratio = round(ms / first, 4) if ms and first else None
        found.append(asdict(Row(name, quality, size, count, ms, ratio)))
    return found


def _label(form: MadeForm) -> str:
    return f"{form.name}, PyTorch"


def _graphs(made: Made, manifest: Manifest) -> dict[str, Model]:
    """Open the exported graph and the variants that this host can run."""
    tokenizer, device = made.tokenizer, probe()
    found = {EXPORTED: open_reference(tokenizer, made.export, made.plan.reference, threads=1)}
    fits = manifest.arch in (device.arch, "any")
    for variant, own in zip(manifest.variants, made.variants, strict=True):
        if fits and variant.on_cpu and not why_not(variant, device):
            found[variant.name] = open_as_device(
                tokenizer, own.folder, variant.engine, variant.precision, threads=1
            )
    return found


def _facts(made: Made) -> dict[str, tuple[float | None, int, int]]:
    """Return (quality, bytes, parameters) of every row."""
    facts: dict[str, tuple[float | None, int, int]] = {}
    for form in made.forms:
        count = _parameters(form.folder)
        facts[_label(form)] = (_value(form.quality), 4 * count, count)
    value, _, count = facts[next(reversed(facts))]
    facts[EXPORTED] = (value, made.export_size, count)
    for variant in made.variants:
        facts[variant.spec.name] = (_value(variant.quality), variant.size, count)
    return facts


def _value(quality: Quality | None) -> float | None:
    return quality.value if quality else None


def _parameters(folder: Path) -> int:
    """Count the numbers in a folder's weights, whatever their type."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), "pt") as stored:
            total += sum(prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118
    return total or sum(path.stat().st_size // 4 for path in folder.glob("pytorch_model*.bin"))
