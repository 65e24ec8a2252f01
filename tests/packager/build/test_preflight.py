"""What cannot be built is said before anything is exported, and one variant sinks no build."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from edgepack.build.build import build, plans
from edgepack.cli import main
from edgepack.export import known, tensorrt
from edgepack.recipe.recipe import Recipe
from edgepack.recipe.target import find_target
from edgepack.stages.cache import Source, Stage
from edgepack.stages.helper import StageError
from edgepack.stages.progress import Quiet
from edgepack.stages.workers import Schedule
from edgepack_runtime import Bundle, EdgepackError, InputError
from edgepack_runtime.bundle.manifest import canonical_json

Get = Callable[[str], Path]


def check(*args: str, code: int = 2) -> str:
    """Run `edgepack check`, assert its exit code, return what it printed."""
    result = CliRunner().invoke(main, ["check", *args])
    assert result.exit_code == code, result.output
    return result.output


@pytest.fixture
def folder(model: Get, tmp_path: Path) -> Path:
    """Return a copy of a small classifier, to be spoilt."""
    shutil.copytree(model("bert-intent"), tmp_path / "spoilt")
    return tmp_path / "spoilt"


def _config(folder: Path, **values: Any) -> None:
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**config, **values}))


def test_a_model_that_builds_is_told_variant_by_variant(model: Get) -> None:
    """Every variant of every target that was asked for, without a build."""
    output = check(str(model("bert-intent")), "-t", "jetson-orin", "-t", "cpu-x86-64", code=0)
    assert "bert, text-classification" in output
    assert "tensorrt-fp16, cuda-fp16, tensorrt-int8, onnxruntime-int8" in output
    found = json.loads(check(str(model("bert-intent")), "--json", code=0))
    assert found["targets"]["cpu-x86-64"]["openvino-int8"] == ""
    assert len(found["targets"]) > 10


def test_a_family_that_nobody_exports_is_refused(folder: Path) -> None:
    """So is one whose export is known to fail, and one that reads more than text."""
    for name, why in (
        ("nosuch", "exports no model of type 'nosuch'"),
        ("longformer", "cannot be exported"),
        ("layoutlm", "reads bbox beside the text"),
        ("t5", "not for text-classification"),
    ):
        _config(folder, model_type=name)
        assert why in check(str(folder))


def test_code_of_its_own_is_refused_without_advice_that_cannot_be_followed(folder: Path) -> None:
    """A model that brings Python files is not run, and nobody is told to trust it."""
    _config(folder, model_type="nosuch", auto_map={"AutoModel": "code.Model"})
    output = check(str(folder))
    assert "needs its own code" in output
    assert "trust_remote_code" not in output


def test_a_head_that_nobody_trained_is_refused(model: Get, folder: Path) -> None:
    """An encoder alone, or a classifier of texts asked for tags, would answer at random."""
    assert "no head trained" in check(str(folder), "--task", "token-classification")
    output = check(str(model("sentence")), "--task", "text-classification")
    assert "it is a BertModel" in output
    assert "[finetune]" in output


def test_a_folder_without_a_tokenizer_is_refused(folder: Path) -> None:
    """None at all, or one that has no fast form."""
    for path in folder.glob("*token*"):
        path.unlink()
    (folder / "vocab.txt").unlink(missing_ok=True)
    assert "has no tokenizer" in check(str(folder))
    (folder / "vocab.json").write_text("{}")
    _config(folder, model_type="flaubert")
    assert "no fast form" in check(str(folder))


@pytest.mark.parametrize("spoil", [lambda c: c[:-9], lambda _: b"version https://", lambda _: b""])
def test_damaged_weights_are_named(folder: Path, spoil: Callable[[bytes], bytes]) -> None:
    """Cut short, a pointer of Git LFS, and an empty file: the message names it."""
    path = folder / "model.safetensors"
    path.write_bytes(spoil(path.read_bytes()))
    assert "model.safetensors is damaged or cut short" in check(str(folder))


def test_the_table_of_families_is_what_optimum_says() -> None:
    """It is made from the exporters that are installed; another version must make it anew."""
    assert known.survey() == json.loads(known._FILE.read_text())


def _stage(name: str, *needs: Stage) -> Stage:
    inputs: dict[str, Stage | Source] = {need.label: need for need in needs}
    settings = find_target("cpu-arm64").variants[0]
    return Stage(name, canonical_json, settings, {**inputs, "name": Source(Path(name), name)})  # type: ignore[arg-type]


def test_what_needs_an_optional_stage_is_left_out_with_it() -> None:
    """The rest is still handed out; each that is lacking has the reason."""
    export, make, assess, other = (
        first := _stage("export"),
        second := _stage("make", first),
        _stage("assess", second),
        _stage("other"),
    )
    schedule = Schedule([export, make, assess, other], {}, {export.key, make.key, assess.key})
    assert schedule.take(here=True) is export
    reason = StageError("export", "no form", Path("log"))
    schedule.fail(export, reason)
    assert schedule.take(here=True) is other
    schedule.finish(other, Path("other"))
    assert schedule.take(here=True) is None
    assert schedule.wait() == dict.fromkeys((export.key, make.key, assess.key), reason)


def test_a_full_disk_ends_a_build_at_an_optional_stage() -> None:
    """It is no trait of the model: a bundle without the variant would be wrong."""
    export = _stage("export")
    schedule = Schedule([export], {}, {export.key})
    schedule.take(here=True)
    schedule.fail(export, EdgepackError("the disk is full"))
    with pytest.raises(EdgepackError, match="the disk is full"):
        schedule.wait()


def test_a_variant_that_cannot_be_made_sinks_no_build(
    model: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The bundle has the others and says why; with strict it is an error, and nothing is there."""
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path / "cache"))  # another test may have made it
    breach = tensorrt.Breach("some-rule", "nowhere", "TensorRT does not like it")
    monkeypatch.setattr(tensorrt, "lint", lambda _: [breach])
    recipe = Recipe(source=str(model("bert-intent")), name="part", version="9.9.9")
    planned = plans(recipe, [find_target("jetson-orin")])
    with pytest.raises(InputError, match="faults that TensorRT refuses"):
        build(planned, tmp_path / "strict", Quiet(), jobs=1, strict=True)
    assert list((tmp_path / "strict").iterdir()) == []
    (built,) = build(planned, tmp_path / "dist", Quiet(), jobs=1)
    names = [variant.name for variant in built.bundle.manifest.variants]
    assert names == ["tensorrt-fp16", "cuda-fp16", "onnxruntime-int8"]
    left_out = Bundle.open(built.path).manifest.provenance["left_out"]
    assert list(left_out) == ["tensorrt-int8"]
    assert "the first at nowhere" in left_out["tensorrt-int8"]


def test_only_what_was_asked_for_is_left_out(model: Get, monkeypatch: pytest.MonkeyPatch) -> None:
    """An engine that has no form of a family costs its own variants, in float32 too."""
    monkeypatch.setattr("edgepack.export.openvino.why_not", lambda *_: "no such form")
    source, target = str(model("bert-intent")), find_target("cpu-x86-64")
    for precision, lacking in (("target", "openvino-int8"), ("float32", "openvino-float32")):
        (plan,) = plans(Recipe(source=source, precision=precision), [target])
        assert plan.left_out == {lacking: "no such form"}
    (plan,) = plans(Recipe(source=source, variants=("onnxruntime-int8",)), [target])
    assert plan.left_out == {}


def test_a_target_of_which_nothing_can_be_made_is_an_error(model: Get) -> None:
    """A bundle without a variant is none."""
    (plan,) = plans(Recipe(source=str(model("bert-intent"))), [find_target("cpu-arm64")])
    names = [variant.spec.name for variant in plan.variants]
    with pytest.raises(InputError, match=r"no variant of cpu-arm64 can be made: .*too big"):
        plan.without(dict.fromkeys(names, "too big"))
    (plan,) = plans(Recipe(source=str(model("bert-intent"))), [find_target("cpu-x86-64")])
    assert plan.without({"openvino-int8": "too big"}).key != plan.key
