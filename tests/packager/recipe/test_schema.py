"""Recipes and targets: every fault is reported, and all of them at once."""

from __future__ import annotations

from pathlib import Path

import pytest

from edgepack.recipe.recipe import read_recipe
from edgepack.recipe.target import all_targets, find_target, native
from edgepack_runtime import InputError

ROOT = Path(__file__).parents[3]


def test_a_full_recipe_is_read(tmp_path: Path) -> None:
    """Every key of a recipe lands where it belongs, paths relative to the recipe."""
    path = tmp_path / "edgepack.toml"
    (tmp_path / "model").mkdir()
    path.write_text(
        '[model]\nsource = "model"\ntask = "token-classification"\nname = "ner"\nversion = "2.0"\n'
        'release = 3\nmax_length = 128\n[calibration]\nfile = "texts.jsonl"\ncolumn = "body"\n'
        'samples = 32\n[build]\ntargets = ["jetson-orin"]\n'
        'precision = "float32"\nlayout = "folder"\n'
    )
    recipe = read_recipe(path)
    assert recipe.source == str((tmp_path / "model").resolve())
    assert (recipe.task, recipe.name, recipe.version) == ("token-classification", "ner", "2.0")
    assert (recipe.release, recipe.max_length, recipe.samples) == (3, 128, 32)
    assert recipe.calibration == tmp_path / "texts.jsonl"
    assert recipe.targets == ("jetson-orin",)
    assert (recipe.precision, recipe.layout, recipe.column) == ("float32", "folder", "body")


def test_all_faults_of_a_recipe_come_together(tmp_path: Path) -> None:
    """Unknown keys, wrong types and wrong values are one error with the near misses named."""
    path = tmp_path / "edgepack.toml"
    path.write_text(
        '[model]\nsorce = "x"\nrelease = "two"\ntask = "text-clasification"\n'
        '[calibration]\nsamples = -1\n[build]\ntargets = "jetson-orin"\n[bild]\n'
    )
    with pytest.raises(InputError) as caught:
        read_recipe(path)
    message = str(caught.value)
    for part in (
        "model.source: missing",
        "model.sorce: unknown key; did you mean 'source'?",
        "model.release: expected a whole number, found 'two'",
        "did you mean 'text-classification'?",
        "calibration.samples: must be at least 0, not -1",
        "build.targets: expected a list of strings",
        "bild: unknown key; did you mean 'build'?",
    ):
        assert part in message
    assert "7 faults" in message


def test_what_is_no_toml_says_where(tmp_path: Path) -> None:
    """A syntax error names the file and the line."""
    path = tmp_path / "edgepack.toml"
    path.write_text("[model\n")
    with pytest.raises(InputError, match=r"edgepack.toml is not valid TOML.*line 1"):
        read_recipe(path)


def test_every_shipped_target_reads_and_explains_itself() -> None:
    """Each target has a summary, and each of its variants a reason."""
    targets = all_targets()
    assert {"cpu-arm64", "cpu-x86-64", "jetson-orin"} <= {target.name for target in targets}
    for target in targets:
        assert target.summary
        assert all(variant.why for variant in target.variants)
        names = [variant.name for variant in target.variants]
        assert len(set(names)) == len(names)


def test_an_unknown_target_suggests_the_near_one() -> None:
    """A typing error in a target's name is answered with the right name."""
    with pytest.raises(InputError, match="did you mean 'jetson-orin'"):
        find_target("jetson-orn")


def test_native_is_the_most_special_target_that_fits(tmp_path: Path) -> None:
    """A marker file makes a Jetson of an ARM machine; without it, it is a plain one."""
    assert native(tmp_path, "x86_64").name == "cpu-x86-64"
    assert native(tmp_path, "arm64").name == "cpu-arm64"
    marks = tmp_path / "proc/device-tree"
    marks.mkdir(parents=True)
    (tmp_path / "etc").mkdir()
    (marks / "model").write_text("Raspberry Pi 5 Model B Rev 1.0\0")
    assert native(tmp_path, "aarch64").name == "raspberry-pi-5"
    (tmp_path / "etc/nv_tegra_release").write_text("# R36")
    for model, name in (
        ("NVIDIA Jetson AGX Orin Developer Kit", "jetson-agx-orin"),
        ("NVIDIA Jetson Orin NX Engineering Reference Developer Kit", "jetson-orin-nx"),
        ("NVIDIA Jetson Orin Nano Developer Kit", "jetson-orin-nano"),
        ("Orin of a kind to come", "jetson-orin"),
        ("NVIDIA Jetson AGX Thor Developer Kit", "jetson-thor"),
    ):
        (marks / "model").write_text(model)
        assert native(tmp_path, "aarch64").name == name
    with pytest.raises(InputError, match="no target fits"):
        native(tmp_path, "riscv64")


def test_a_board_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A TOML file in $EDGEPACK_TARGETS is a target; a faulty one says what is wrong with it."""
    monkeypatch.setenv("EDGEPACK_TARGETS", str(tmp_path))
    body = (
        'summary = "my board"\narch = "aarch64"\n'
        '[[variants]]\nname = "cpu"\nengine = "onnxruntime"\n'
        'provider = "CPUExecutionProvider"\nprecision = "int8"\nscheme = "dynamic"\n'
        'why = "it fits"\n'
    )
    (tmp_path / "my-board.toml").write_text(body)
    assert find_target("my-board").variants[0].name == "cpu"
    (tmp_path / "bad.toml").write_text(body.replace("onnxruntime", "onnxruntim") + "colour = 1\n")
    with pytest.raises(InputError, match=r"(?s)did you mean 'onnxruntime'.*colour: unknown key"):
        find_target("bad")


@pytest.mark.parametrize("path", sorted((ROOT / "tests/benchmarks/recipes").glob("*.toml")))
def test_the_recipes_of_the_benchmarks_are_valid(path: Path) -> None:
    """No recipe that figures are quoted of has a fault."""
    assert read_recipe(path).budget.quality_drop


def test_the_chinese_recipe_is_that_of_wnut17() -> None:
    """Other data, the same steps: what is claimed of one recipe is claimed of both."""
    folder = ROOT / "tests/benchmarks/recipes"
    one, other = (read_recipe(folder / f"{name}.toml") for name in ("wnut17", "chinese"))
    assert one.compression == other.compression
    assert one.budget == other.budget
