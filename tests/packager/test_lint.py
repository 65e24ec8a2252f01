"""Data is examined before anything costs time: faults are refused, what misleads is said."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack.build import plans
from edgepack.fetch import fetch
from edgepack.lint import lint
from edgepack.recipe import read_recipe
from edgepack.target import find_target
from edgepack_runtime import InputError

Get = Callable[..., Path]
LEAKED = "also in the training data"
FINETUNE = "[finetune]\nepochs = 1\n"
GOOD = [("switch it on", "lights"), ("will it rain", "weather"), ("two seats", "booking"),
        ("who knows", "other")]  # fmt: skip


@pytest.fixture
def found(model: Get, tmp_path: Path) -> Callable[..., list[str]]:
    """Return a function that writes data and a recipe and returns the warnings, without folders."""

    def run(more: str = "", **files: list[tuple[str, str]]) -> list[str]:
        for name, rows in files.items():
            lines = [f"{text}\t{label}\n" for text, label in rows]
            (tmp_path / f"{name}.tsv").write_text("text\tlabel\n" + "".join(lines))
        named = "".join(f'{name} = "{name}.tsv"\n' for name in files)
        (tmp_path / "edgepack.toml").write_text(
            f'[model]\nsource = "{model("bert-intent")}"\n[data]\n{named}{more}'
        )
        recipe = read_recipe(tmp_path / "edgepack.toml")
        return [line.removeprefix(f"{tmp_path}/") for line in lint(recipe, fetch(recipe))]

    return run


def test_good_data_is_passed_in_silence(found: Callable[..., list[str]]) -> None:
    """Distinct rows, every class judged, nothing shared: not a word."""
    other = [(f"{text}, please", label) for text, label in GOOD]
    assert found(FINETUNE, train=GOOD, evaluation=other) == []
    assert found() == []


@pytest.mark.parametrize(
    ("train", "evaluation", "said"),
    [
        ([*GOOD, GOOD[0], GOOD[1]], [],
         "train.tsv, line 6: this row is there before; 2 of 6 rows repeat one"),
        ([*GOOD, ("two seats", "other")], [],
         "train.tsv, line 6: another label than at line 4; 1 texts have two labels"),
        ([*GOOD, *[(f"row {i}", "other") for i in range(50)]], [],
         "train.tsv: 51 rows are 'other', 1 'booking'; what is so rare may not be learned"),
        ([*GOOD, ("one", "7")], [],
         "train.tsv: labels are names and numbers (7); each is a class"),
        (GOOD, [("new", "lights"), GOOD[1], ("b", "booking"), ("c", "other")],
         f"evaluation.tsv, line 3: {LEAKED}, as 1 of 4 rows; quality looks too good"),
        (GOOD, [("new", "lights"), ("b", "booking"), ("c", "other")],
         "evaluation.tsv: no row for 1 of 4 classes (weather); quality says nothing of them"),
    ],
)  # fmt: skip
def test_what_misleads_is_one_line(
    found: Callable[..., list[str]], train: list[tuple[str, str]],
    evaluation: list[tuple[str, str]], said: str,
) -> None:  # fmt: skip
    """Repeats, conflicts, imbalance, mixed labels, leakage, classes not judged: each by itself."""
    files = {"train": train} | ({"evaluation": evaluation} if evaluation else {})
    assert found(FINETUNE, **files) == [said]


@pytest.mark.parametrize(
    ("more", "train", "evaluation", "message"),
    [
        (
            FINETUNE,
            GOOD,
            [("a", "lihgts")],
            r"evaluation.tsv: 1 labels that the model does not know",
        ),
        (
            FINETUNE,
            [("a", "1"), ("b", "2")],
            [("c", "one")],
            r"does not know: 'one'; it knows 2: 1, 2",
        ),
        (
            "",
            [],
            [("a", "lihgts")],
            r"evaluation.tsv: 1 labels that the model does not know: 'lihgts'",
        ),
        ("[prune]\nlayers = 1\n", [("a", "on")], [], r"train.tsv: 1 labels that .* not know: 'on'"),
        (
            FINETUNE,
            [("a", "x"), ("b", "x")],
            [],
            r"train.tsv: one class only, x; finetune needs two",
        ),
        (FINETUNE, [("a", ""), ("b", "")], [], r"train.tsv: no labels, which finetune needs"),
    ],
)
def test_what_cannot_work_is_refused(
    found: Callable[..., list[str]], more: str, train: list[tuple[str, str]],
    evaluation: list[tuple[str, str]], message: str,
) -> None:  # fmt: skip
    """Labels that are only on one side, or too few of them: an error that names the file."""
    files = {"train": train} if train else {}
    with pytest.raises(InputError, match=message):
        found(more, **files, **({"evaluation": evaluation} if evaluation else {}))


def test_fewer_texts_than_asked_for_are_said(
    found: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Of the training data and of a calibration file alike; as many as asked for pass."""
    (tmp_path / "lines.txt").write_text("a\nb\nc\n")
    named = '[calibration]\nfile = "lines.txt"\nsamples = '
    assert found(f"{named}3\n") == []
    wanted = "calibration.samples asks for 500; all of them calibrate"
    assert found(f"{named}500\n") == [f"lines.txt: 3 texts, {wanted}"]
    assert found("[calibration]\nsamples = 500\n", train=GOOD) == [f"train.tsv: 4 texts, {wanted}"]


def test_a_build_is_planned_with_its_warnings(
    found: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever plans a build is told, before a stage runs."""
    found(FINETUNE, train=[*GOOD, GOOD[0]])
    plans(read_recipe(tmp_path / "edgepack.toml"), [find_target("cpu-x86-64")])
    assert ["this row is there before" in line for line in caplog.messages] == [True]


@pytest.mark.parametrize("key", ["train", "evaluation", "unlabelled"])
def test_a_wrong_column_is_found_before_torch_is_loaded(
    key: str, model: Get, tmp_path: Path
) -> None:
    """In whichever file of the recipe it is, the error costs no import of a heavy library."""
    (tmp_path / "right.tsv").write_text("utterance\tlabel\na\tlights\nb\tother\n")
    (tmp_path / "wrong.tsv").write_text("body\tlabel\na\tlights\nb\tother\n")
    files = {"train": "right.tsv"} | {key: "wrong.tsv"}
    named = "".join(f'{name} = "{file}"\n' for name, file in files.items())
    (tmp_path / "edgepack.toml").write_text(
        f'[model]\nsource = "{model("bert-intent")}"\n[data]\ntext = "utterance"\n{named}'
        f'{FINETUNE}[build]\ntargets = ["cpu-x86-64"]\n'
    )
    code = (
        "import sys\nfrom edgepack.cli import main\n"
        "try: main(['build'])\nexcept SystemExit as end: print(end.code)\n"
        "print([name for name in ('torch', 'transformers', 'onnx') if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True
    )
    assert "wrong.tsv: no column 'utterance'; it has body, label" in done.stderr
    assert done.stdout == "2\n[]\n"
