"""The gate: what broke its budget is not published; what can be repaired is."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from click.testing import CliRunner

from edgepack.build import gate
from edgepack.cli import main
from edgepack.model.torch_model import load_torch, open_torch
from edgepack_runtime import Bundle

Get = Callable[..., Path]
TASK = "text-classification"
ROWS = 200
RECIPE = """
[model]
source = "{model}"
name = "tiny"
[data]
train = "train.tsv"
evaluation = "train.tsv"
[build]
targets = ["cpu-x86-64"]
variants = ["onnxruntime-int8-avx2"]
"""


@pytest.fixture(scope="module")
def work(model: Get, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with a tiny teacher, and 200 rows labelled with its own answers."""
    root = tmp_path_factory.mktemp("gate")
    shutil.copytree(model("bert-intent"), root / "teacher")
    rng = random.Random(0)  # noqa: S311 (a choice, not a secret)
    words = [word for sentence in tiny.SENTENCES for word in sentence.split()]
    texts = [" ".join(rng.sample(words, rng.randint(3, 12))) for _ in range(ROWS)]
    answers = open_torch(root / "teacher", TASK)(texts)
    rows = [f"{text}\t{a['label']}" for text, a in zip(texts, answers, strict=True)]
    (root / "train.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    return root


@pytest.fixture
def folder(work: Path, tmp_path: Path) -> Path:
    """Return a folder of this test's own with the data in it."""
    shutil.copy(work / "train.tsv", tmp_path)
    return tmp_path


def _plant_outlier(source: Path, out: Path, layer: int) -> Path:
    """Make one channel of a layer's attention ten thousand times larger, and undo it after.

    The float model computes the same; an int8 scale that must hold the channel loses the rest.
    """
    shutil.copytree(source, out)
    planted = load_torch(out, TASK)
    attention = planted.bert.encoder.layer[layer].attention
    attention.self.value.weight.data[3] *= 1e4
    attention.self.value.bias.data[3] *= 1e4
    attention.output.dense.weight.data[:, 3] /= 1e4
    planted.save_pretrained(out)
    return out


def _build(folder: Path, recipe: str, *options: str) -> tuple[int, str]:
    (folder / "edgepack.toml").write_text(recipe)
    done = CliRunner().invoke(
        main, ["build", str(folder / "edgepack.toml"), "-o", str(folder / "dist"), *options]
    )
    return done.exit_code, done.stdout or done.output


def test_a_layer_that_int8_breaks_is_left_in_float(work: Path, folder: Path) -> None:
    """One planted outlier channel breaks naive int8; the repair names and frees its layer.

    No budget is needed for that: what answers unlike the float model is repaired anyway.
    """
    planted = _plant_outlier(work / "teacher", folder / "planted", layer=1)
    plain = RECIPE.format(model=planted)
    code, output = _build(folder, plain, "--json")
    assert code == 0, output
    (repaired,) = json.loads(output)
    assert repaired["left_in_float"]["onnxruntime-int8-avx2"]
    assert repaired["variants"][0]["agreement"] >= gate.LEAST_LIKENESS
    code, output = _build(folder, plain + "[budget]\nquality_drop = 15.0\n", "--json")
    assert code == 0, output
    (repaired,) = json.loads(output)
    kept = repaired["left_in_float"]["onnxruntime-int8-avx2"]
    assert kept[0] == "bert.encoder.layer.1.attention.output.dense"
    before, after = (row["quality"] for row in repaired["stages"][::2])
    assert before - after <= 0.15
    assert Bundle.open(repaired["path"]).manifest.provenance["left_in_float"] == {
        "onnxruntime-int8-avx2": kept
    }


def test_a_variant_that_answers_otherwise_is_left_out(
    work: Path, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where repair does not help it is left out, and a bundle of nothing else is refused."""
    monkeypatch.setattr(gate, "LEAST_LIKENESS", 1.01)
    code, output = _build(folder, RECIPE.format(model=work / "teacher"))
    assert code == 2
    assert "no variant of cpu-x86-64 can be made" in output
    assert "agrees with the float model" in output


@pytest.mark.parametrize(
    ("budget", "message"),
    [
        ("bundle_mb = 0.01", "over budget: bundle_mb is "),
        ("latency_ms = 0.0001", "over budget: latency_ms is "),
        ("memory_mb = 1", "over budget: memory_mb is "),
    ],
)
def test_a_bundle_that_costs_too_much_is_not_published(
    budget: str, message: str, work: Path, folder: Path
) -> None:
    """Exit code 3, a message with budget, limit and figure, and dist as it was."""
    (folder / "dist").mkdir()
    (folder / "dist/tiny-cpu-x86-64.epk").write_text("the bundle of last week")
    recipe = RECIPE.format(model=work / "teacher") + f"[budget]\n{budget}\n"
    code, output = _build(folder, recipe)
    assert code == 3
    assert message in output
    assert "limit" in output
    assert [path.name for path in (folder / "dist").iterdir()] == ["tiny-cpu-x86-64.epk"]
    assert (folder / "dist/tiny-cpu-x86-64.epk").read_text() == "the bundle of last week"


def test_a_student_that_learned_nothing_is_not_published(work: Path, folder: Path) -> None:
    """A lost quality that no repair brings back is exit code 3; the report is kept."""
    recipe = (
        RECIPE.format(model=work / "teacher")
        + "[prune]\nlayers = 1\nfeed_forward = 4\nheads = 1\n[budget]\nquality_drop = 0.5\n"
    )
    code, output = _build(folder, recipe)
    assert code == 3, output
    assert "over budget: quality.accuracy fell" in output
    assert "(limit 0.5) on 200 rows; int8 dynamic-reduced, variant onnxruntime-int8-avx2" in output
    assert "the pruned model lost it before quantization" in output
    assert not list((folder / "dist").iterdir())
    report = Path(output.split("report: ")[1].split()[0])
    rows = json.loads(report.read_text())
    assert rows[0]["stage"] == "teacher, PyTorch"


def test_the_table_by_stage_is_printed_and_kept(work: Path, folder: Path) -> None:
    """Teacher, each step, the export and every variant, with T/T0; the bundle keeps them."""
    recipe = RECIPE.format(model=work / "teacher") + "[vocabulary]\n[prune]\nfeed_forward = 32\n"
    code, output = _build(folder, recipe)
    assert code == 0, output
    bundle = Bundle.open(folder / "dist/tiny-cpu-x86-64.epk")
    stages = [row["stage"] for row in bundle.report]
    assert stages == [
        "teacher, PyTorch",
        "trimmed, PyTorch",
        "pruned, PyTorch",
        "exported and optimised",
        "onnxruntime-int8-avx2",
    ]
    assert all(stage in output for stage in stages)
    sizes = [row["parameters"] for row in bundle.report[:3]]
    assert sizes[0] > sizes[1] > sizes[2]
    assert bundle.report[0]["ratio"] == 1.0
    assert bundle.manifest.variants[0].measured["accuracy"] == bundle.report[-1]["quality"]


@pytest.mark.parametrize(
    ("recipe", "message"),
    [
        ("[prune]\nlayer = 2\n", "prune.layer: unknown key; did you mean 'layers'?"),
        ("[distill]\nepochs = 'many'\n", "distill.epochs: expected a number, found 'many'"),
        ("[distill]\ntransfer = 'hiden'\n", "unknown value 'hiden'; did you mean 'hidden'?"),
        ("[distill]\nreport_to = ['wandbb']\n", "unknown value 'wandbb'; did you mean 'wandb'?"),
        ("[distill]\nhard = 2\n", "distill.hard: must be from 0 to 1, not 2"),
        ("[budget]\nquality = 1\n", "budget.quality: unknown key"),
    ],
)
def test_a_fault_of_a_compression_recipe_is_one_clear_error(
    recipe: str, message: str, work: Path, folder: Path
) -> None:
    """Exit code 2, the key and the remedy."""
    code, output = _build(folder, RECIPE.format(model=work / "teacher") + recipe)
    assert code == 2, output
    assert message in output


def test_a_search_tries_settings_and_keeps_the_nearest(work: Path, folder: Path) -> None:
    """Three trials of static int8 are reported, and the best is what was kept."""
    from edgepack.stages.cache import StageCache

    recipe = RECIPE.format(model=work / "teacher").replace("onnxruntime-int8-avx2", "openvino-int8")
    code, output = _build(folder, recipe + "[quantize]\nsearch = 3\n", "--json")
    assert code == 0, output
    reports = list(StageCache().root.glob("*/search.json"))
    (trials,) = [json.loads(path.read_text()) for path in reports]
    assert [(trial["alpha"], trial["ranges"]) for trial in trials] == [
        (0.95, "nncf"),
        (0.5, "nncf"),
        (0.95, "percentile"),
    ]
    (built,) = json.loads(output)
    assert built["variants"][0]["cosine"] >= max(t["cosine"] for t in trials) - 1e-3
