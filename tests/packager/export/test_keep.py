"""An update of a light change keeps the scales of the release before, where that is as good."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny
from click.testing import CliRunner

from edgepack.channel import delta
from edgepack.cli import main
from edgepack.compress import finetune
from edgepack.compress.schedule import Schedule
from edgepack.export.previous_scales import REPORT, on_old_scale
from edgepack.stages.cache import StageCache
from edgepack_runtime import load
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.model.selftest import selftest

RNG = np.random.default_rng(0)


def quantized(weights: Any) -> tuple[Any, Any]:
    """Quantize by column, symmetric."""
    scale = (np.abs(weights).max(axis=0) / 127).astype(np.float32)
    return np.rint(weights / scale).astype(np.int8), scale


def test_one_extreme_moves_no_channel() -> None:
    """The largest value of each channel gives way a little: fresh scales move all, old ones one."""
    before = RNG.normal(size=(256, 64)).astype(np.float32)
    after = before.copy()
    largest = np.abs(before).argmax(axis=0)
    after[largest, np.arange(64)] *= 0.985
    (old, old_scale), (new, scale) = quantized(before), quantized(after)
    kept, kept_scale = on_old_scale(new, scale, old, old_scale)
    assert (kept_scale == old_scale).mean() > 0.9
    assert (new != old).mean() > 0.05
    assert (kept != old).mean() < (new != old).mean() / 50
    error = np.abs(kept * kept_scale - after) / kept_scale
    assert error.max() <= 2.0  # the extremes moved by 1.9 steps; the rest stayed within a half


def test_what_does_not_fit_gets_its_own_scale() -> None:
    """A channel that grew, or one that shrank a lot, is left as it was quantized."""
    before = RNG.normal(size=(64, 3)).astype(np.float32)
    after = before * np.array([1.5, 0.5, 1.0], np.float32)
    (old, old_scale), (new, scale) = quantized(before), quantized(after)
    kept, kept_scale = on_old_scale(new, scale, old, old_scale)
    assert list(kept_scale == scale) == [True, True, True]
    assert (kept[:, :2] == new[:, :2]).all()
    assert (kept[:, 2] == old[:, 2]).all()


def test_seven_bits_stay_seven() -> None:
    """The form for AVX2 must not saturate because of an update."""
    before = RNG.normal(size=(64, 8)).astype(np.float32)
    after = before + RNG.normal(scale=0.02, size=before.shape).astype(np.float32)
    (old, a), (new, b) = quantized(before), quantized(after)
    kept, _ = on_old_scale(new // 2, b * 2, old // 2, a * 2)
    assert np.abs(kept.astype(int)).max() <= 64


def _taught(folder: Path) -> Path:
    """Return a model whose answers are far apart, as rounding tells little of one drawn by lot."""
    data, first = folder / "train.tsv", folder / "first"
    rows = [f"{text} {i}\t{label}" for i in range(8) for label, text in tiny.INTENTS.items()]
    data.write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    base = tiny.redraw(tiny.make("bert-intent", folder / "drawn"), folder / "base")
    first.mkdir()
    schedule = Schedule(epochs=30.0, learning_rate=5e-3, batch_size=8)
    settings = finetune.Settings("text-classification", schedule)
    finetune.finetune(settings, {"model": base, "data": data}, first)
    return first


@pytest.fixture(scope="module")
def releases(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """A model, and the same after a light change: built afresh, and on the scales of the first."""
    import torch
    from transformers import AutoModelForSequenceClassification

    folder = tmp_path_factory.mktemp("keep")
    first = _taught(folder)
    shutil.copytree(first, folder / "light")
    model = AutoModelForSequenceClassification.from_pretrained(first)
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() == 2:  # the largest of each channel gives way a little
                largest = parameter.abs().argmax(dim=1, keepdim=True)
                parameter.scatter_(1, largest, 0.985 * parameter.gather(1, largest))
    model.save_pretrained(folder / "light")
    found = {"folder": folder}
    for name, source, previous in (
        ("first", "first", ""),
        ("fresh", "light", ""),
        ("kept", "light", "first"),
    ):
        kept = f'[quantize]\nprevious = "{found[previous]}"\n' if previous else ""
        recipe = folder / f"{name}.toml"
        recipe.write_text(f'[model]\nsource = "{folder / source}"\nname = "m"\n{kept}')
        out = folder / f"dist-{name}"
        arguments = ["build", str(recipe), "--target", "cpu-x86-64", "-o", str(out)]
        done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert done.exit_code == 0, done.output
        found[name] = next(out.glob("*.epk"))
    return found


def test_the_update_is_smaller_and_as_good(releases: dict[str, Path]) -> None:
    """A smaller delta where likeness to the float model allows it, the fresh form where not."""
    sizes: dict[str, dict[str, int]] = {}
    for name in ("first", "fresh", "kept"):
        bundle = Bundle.open(releases[name])
        for entry in bundle.manifest.files:
            path = releases["folder"] / "files" / name / entry.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(bundle.read(entry.path))
    for name in ("fresh", "kept"):
        base, new = (releases["folder"] / "files" / part for part in ("first", name))
        sizes[name] = {
            path: len(delta.encode(base / path, new / path))
            for path in (
                "onnxruntime-int8/model.onnx",
                "onnxruntime-int8-avx2/model.onnx",
                "openvino-int8/openvino_model.bin",
            )
        }
    smaller = [path for path in sizes["fresh"] if sizes["kept"][path] < 0.8 * sizes["fresh"][path]]
    same = [path for path in sizes["fresh"] if sizes["kept"][path] == sizes["fresh"][path]]
    assert len(smaller) + len(same) == 3, sizes
    reports = [json.loads(p.read_text()) for p in StageCache().root.glob(f"*/{REPORT}")]
    judged = [(r["kept"], r["cosine"]["kept"] - r["cosine"]["fresh"]) for r in reports]
    assert smaller, (sizes, judged)
    assert sum(kept for kept, _ in judged) == len(smaller)
    assert all(kept == (gained >= -0.001) for kept, gained in judged)
    bundle = Bundle.open(releases["kept"])
    for variant in bundle.manifest.variants:
        if variant.engine != "openvino":
            selftest(bundle, load(bundle, variant=variant.name))


def test_a_previous_bundle_that_is_none_is_refused(releases: dict[str, Path]) -> None:
    """One clear error before any work."""
    recipe = releases["folder"] / "wrong.toml"
    model = f'[model]\nsource = "{releases["folder"] / "first"}"\n'
    recipe.write_text(f'{model}[quantize]\nprevious = "nowhere.epk"\n')
    done = CliRunner().invoke(main, ["build", str(recipe), "--target", "cpu-x86-64"])
    assert done.exit_code == 2
    assert "nowhere.epk" in done.output
