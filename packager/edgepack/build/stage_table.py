"""The table of a build by stage: what every step gained and cost, measured in one run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from edgepack.build.gate import CELL
from edgepack.build.plan import Plan
from edgepack.export import find, open_as_device
from edgepack.judge.quality import quality_of
from edgepack.model.opened import open_model, read_golden_texts
from edgepack.model.torch_model import open_torch
from edgepack.stages.cache import Stage, folder_of
from edgepack_runtime.bundle.manifest import Manifest
from edgepack_runtime.device.facts import probe
from edgepack_runtime.fit import why_not
from edgepack_runtime.model.model import Model
from edgepack_runtime.tune import latency

EXPORTED = "exported and optimised"
_SECONDS = 1.0


@dataclass(frozen=True)
class Row:
    """One form of the model.

    size: bytes of its weights; parameters: how many numbers the torch model of it has.
    quality: the task's figure, None without evaluation data; latency_ms: median, one text of
    16 tokens, one thread, None where this host cannot run it; ratio: to the first row.
    """

    stage: str
    quality: float | None
    size: int
    parameters: int
    latency_ms: float | None
    ratio: float | None


def measure_forms(
    plan: Plan, folders: Mapping[str, Path], manifest: Manifest
) -> list[dict[str, Any]]:
    """Measure every form in turn, in this process and on one thread; return `Row`s as JSON.

    Args:
        plan: a plan whose stages have run.
        folders: the output of each stage by key.
        manifest: of the bundle to be.

    """
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    forms = {f"{form.name}, PyTorch": folder_of(form.model, folders) for form in plan.forms}
    try:
        models = {name: open_torch(path, plan.model.task) for name, path in forms.items()}
        models |= _graphs(plan, folders, manifest)
        texts = read_golden_texts(folders[plan.texts.key])
        times = latency.measure(models, texts, cells=((16, 1),), seconds=_SECONDS)
    finally:
        torch.set_num_threads(threads)
    first = next(iter(times.values())).get(CELL)  # none if the model takes no 16 tokens
    found = []
    for name, (quality, size, count) in _facts(plan, folders, forms).items():
        ms = times.get(name, {}).get(CELL)
        ratio = round(ms / first, 4) if ms and first else None
        found.append(asdict(Row(name, quality, size, count, ms, ratio)))
    return found


def _graphs(plan: Plan, folders: Mapping[str, Path], manifest: Manifest) -> dict[str, Model]:
    """Open the exported graph and the variants that this host can run."""
    tokenizer, device = folders[plan.tokenizer.key], probe()
    found = {EXPORTED: open_model(tokenizer, folders[plan.export.key], "onnxruntime", threads=1)}
    fits = manifest.arch in (device.arch, "any")
    for variant, made in zip(manifest.variants, plan.variants, strict=True):
        if fits and variant.on_cpu and not why_not(variant, device):
            found[variant.name] = open_as_device(
                tokenizer, folders[made.make.key], variant.engine, variant.precision, threads=1
            )
    return found


def _facts(
    plan: Plan, folders: Mapping[str, Path], forms: Mapping[str, Path]
) -> dict[str, tuple[float | None, int, int]]:
    """Return (quality, bytes, parameters) of every row."""
    facts: dict[str, tuple[float | None, int, int]] = {}
    for form, (label, path) in zip(plan.forms, forms.items(), strict=True):
        count = _parameters(path)
        facts[label] = (_value(plan.qualities.get(form.name), folders), 4 * count, count)
    final = facts[next(reversed(facts))]
    size = (folders[plan.export.key] / "model.onnx").stat().st_size
    facts[EXPORTED] = (final[0], size, final[2])
    for variant in plan.variants:
        files = find(variant.spec.engine).FILES
        size = sum((folders[variant.make.key] / name).stat().st_size for name in files)
        facts[variant.spec.name] = (_value(variant.quality, folders), size, final[2])
    return facts


def _value(stage: Stage | None, folders: Mapping[str, Path]) -> float | None:
    found = quality_of(stage, folders)
    return found.value if found else None


def _parameters(folder: Path) -> int:
    """Count the numbers in a folder's weights, whatever their type."""
    from math import prod

    from safetensors import safe_open

    total = 0
    for path in folder.glob("*.safetensors"):
        with safe_open(str(path), "pt") as stored:
            total += sum(prod(stored.get_slice(name).get_shape()) for name in stored.keys())  # noqa: SIM118
    return total or sum(path.stat().st_size // 4 for path in folder.glob("pytorch_model*.bin"))
