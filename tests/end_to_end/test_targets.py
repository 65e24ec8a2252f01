"""The catalogue of targets: all build, a board is one file, and what compiles waits its turn."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

import edgepack_runtime as er
from edgepack.build.build import build, plans
from edgepack.bundle.pack import Content, write_bundle
from edgepack.recipe.recipe import Recipe
from edgepack.recipe.target import all_targets, as_markdown, explain_target, find_target
from edgepack.stages.progress import Quiet
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.cli import main
from edgepack_runtime.device import measured
from edgepack_runtime.device.facts import cores, probe
from edgepack_runtime.model.prepare import compiled_folder, prepare, prepared
from edgepack_runtime.model.variants import open_variant
from edgepack_runtime.tune.tune import thread_counts

Get = Callable[..., Path]
ROOT = Path(__file__).parents[2]
TEXTS = ["turn on the lights", "in New York", "a", "book a table for two in the old town tonight"]
BOARD = """
summary = "a board whose first variant is compiled"
arch = "any"

[[variants]]
name = "compiled"
engine = "openvino"
provider = "CPU"
precision = "int8"
scheme = "static"
options = { prepare = true }
why = "stands in for TensorRT: a plan that is built on the device"

[[variants]]
name = "portable"
engine = "onnxruntime"
provider = "CPUExecutionProvider"
precision = "int8"
scheme = "dynamic-reduced"
why = "answers meanwhile"
"""


@pytest.fixture
def board(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: Get) -> Path:
    """Build for a board that one file in a user's folder describes, with a cache of its own."""
    monkeypatch.setenv("EDGEPACK_TARGETS", str(tmp_path / "targets"))
    (tmp_path / "targets").mkdir()
    (tmp_path / "targets/my-board.toml").write_text(BOARD)
    planned = plans(Recipe(source=str(model("bert-ner"))), [find_target("my-board")])
    path = build(planned, tmp_path / "dist", Quiet())[0].path
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path / "device"))
    return path


def test_every_target_builds_from_one_recipe(model: Get, tmp_path: Path) -> None:
    """One command, one model: a bundle for each board, each with all its variants."""
    targets = all_targets()
    assert len(targets) >= 17
    built = build(plans(Recipe(source=str(model("bert-intent"))), targets), tmp_path, Quiet())
    for target, item in zip(targets, built, strict=True):
        manifest = item.bundle.manifest
        assert manifest.target == target.name
        assert manifest.requires == target.requires
        assert [v.name for v in manifest.variants] == [v.name for v in target.variants]
        assert all(v.requires.memory_mb >= 40 for v in manifest.variants)
        item.bundle.verify()


def test_the_table_of_targets_is_made_from_the_data() -> None:
    """targets/README.md is what `edgepack targets --markdown` prints."""
    assert (ROOT / "targets/README.md").read_text() == as_markdown(all_targets())


def test_a_target_explains_itself() -> None:
    """Variants with their reasons and demands, and what a person installs on the device."""
    said = "\n".join(explain_target(find_target("jetson-orin-nano")))
    for words in ("JetPack 6 or 7", "tensorrt-fp16", "compute capability 8.7", "numpy<2"):
        assert words in said


def test_a_target_says_only_what_differs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`extends` takes the rest from another; a loop or an unknown name is one clear error."""
    monkeypatch.setenv("EDGEPACK_TARGETS", str(tmp_path))
    (tmp_path / "mine.toml").write_text('extends = "raspberry-pi-5"\nsummary = "mine"\n')
    mine, theirs = find_target("mine"), find_target("raspberry-pi-5")
    assert mine.variants == theirs.variants
    assert (mine.summary, mine.depth, mine.detect) == ("mine", 2, {})
    (tmp_path / "loop.toml").write_text('extends = "loop"\n')
    with pytest.raises(er.InputError, match="no usable target 'loop'"):
        find_target("loop")


def test_the_portable_variant_serves_until_the_other_is_compiled(
    board: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`load` leaves an uncompiled variant alone and says how to get it; `prepare` makes it."""
    model = er.load(board)
    assert model.variant.name == "portable"
    assert model.choice is not None
    assert "edgepack-runtime prepare" in model.choice.rejected["compiled"]
    bundle, device = Bundle.open(board), probe()
    old = compiled_folder(bundle, bundle.manifest.variant("compiled"), device).with_name("older")
    old.mkdir(parents=True)
    assert main(["prepare", str(board), "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"compiled": "ready"}
    assert er.load(board).variant.name == "compiled"
    assert not old.exists()  # of another driver or engine
    assert prepared(bundle, bundle.manifest.variant("compiled"), device)


def _repacked(path: Path, to: Path, change: dict[str, str]) -> Path:
    """Write a bundle again with other words in its manifest."""
    bundle = Bundle.open(path)
    folder = to.with_suffix("")
    folder.mkdir()
    files = {}
    for entry in bundle.manifest.files:
        files[entry.path] = folder / entry.sha256
        files[entry.path].write_bytes(bytes(bundle.read(entry.path)))
    manifest = dataclasses.replace(bundle.manifest, **change)  # type: ignore[arg-type]
    write_bundle(manifest, Content(files), to, layout="epk")
    return to


def test_a_variant_that_fails_its_golden_inputs_is_never_ready(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What compiles but does not answer as it should stays out, with the reason."""
    change = {"golden": "portable/config.json"}  # what compiles, and is no golden file
    broken = _repacked(board, tmp_path / "broken.epk", change)
    said = prepare(Bundle.open(broken))
    assert "golden file is malformed" in said["compiled"]
    monkeypatch.setattr(sys, "executable", "/bin/false")
    assert prepare(Bundle.open(broken), again=False) == said  # not tried again behind a model
    assert "died" in prepare(Bundle.open(board))["compiled"]
    assert er.load(board).variant.name == "portable"
    assert main(["prepare", str(board)]) == 4


def test_a_compiler_may_say_as_much_as_it_likes(
    board: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Megabytes of messages, in no encoding at all, neither block nor break the preparation."""
    noisy = tmp_path / "noisy"
    noisy.write_text("#!/bin/sh\nhead -c 3000000 /dev/urandom >&2\nexit 1\n")
    noisy.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(noisy))
    assert prepare(Bundle.open(board))["compiled"]


def test_a_variant_that_was_named_is_kept(board: Path) -> None:
    """Preparing behind a model does not replace the variant that its user asked for."""
    model = er.load(board, variant="portable", prepare=True)
    prepare(Bundle.open(board))
    assert model.variant.name == "portable"


def test_a_running_model_takes_over_what_was_compiled(board: Path) -> None:
    """Answers never stop and never change shape while the better variant is made behind them."""
    model = er.load(board, prepare=True)
    assert model.variant.name == "portable"
    wanted = [len(answer) for answer in model(TEXTS, ignore_labels=[])]
    end = time.monotonic() + 120
    while model.variant.name == "portable":
        assert [len(answer) for answer in model(TEXTS, ignore_labels=[])] == wanted
        assert time.monotonic() < end
    assert model.variant.name == "compiled"
    assert model.provider == "CPU"
    assert [len(answer) for answer in model(TEXTS, ignore_labels=[])] == wanted


def test_an_election_measures_what_matters(board: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Medians and 95th percentiles at the best thread count, and memory; `load` goes by them."""
    assert main(["tune", str(board), "--seconds", "0.05", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["fastest"] == "portable"
    details = said["details"]["portable"]
    assert details["memory_mb"] > 20
    assert details["p95 16×1"] >= said["latency_ms"]["portable"]["16×1"]
    assert said["threads"]["portable"] in thread_counts(cores())
    bundle = Bundle.open(board)
    assert measured.load(bundle.digest, probe()).threads == said["threads"]
    other = dataclasses.replace(probe(), cpu="another")
    assert measured.load(bundle.digest, other) == measured.Record()
    assert main(["tune", str(board), "--seconds", "0"]) == 2
    assert main(["prepare", str(board)]) == 0
    assert measured.load(bundle.digest, probe()) == measured.Record()  # there is a new candidate


def test_plans_of_fixed_length_answer_alike(board: Path) -> None:
    """As an NPU runs it: static plans only, batches text by text, the same answers."""
    bundle = Bundle.open(board)
    variant = bundle.manifest.variant("compiled")
    assert bundle.manifest.task.text
    length = bundle.manifest.task.text.max_length
    options = {"static_only": True, "static_tokens": [8, 16, length]}
    fixed = open_variant(bundle, dataclasses.replace(variant, options=options), 1)
    usual = open_variant(bundle, variant, 1)
    for one, other in zip(fixed.outputs(TEXTS), usual.outputs(TEXTS), strict=True):
        assert one.shape == other.shape
        assert abs(one - other).max() < 1e-3
    assert fixed(TEXTS, batch_size=4) == fixed(TEXTS, batch_size=1)


def test_a_device_that_openvino_does_not_see_is_an_error(board: Path) -> None:
    """Asking for an NPU where there is none says what is there instead."""
    bundle = Bundle.open(board)
    variant = dataclasses.replace(bundle.manifest.variant("compiled"), provider="NPU")
    with pytest.raises(er.DeviceError, match="openvino sees no NPU here, only"):
        open_variant(bundle, variant)
