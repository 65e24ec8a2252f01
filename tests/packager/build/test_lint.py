"""Data is examined before anything costs time: faults are refused, what misleads is said."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack.build.build import plans
from edgepack.build.lint import lint
from edgepack.compress import finetune
from edgepack.compress.tensors import read_training
from edgepack.data.rows import Columns
from edgepack.model.fetch import ModelInfo
from edgepack.recipe.compression import Compression
from edgepack.recipe.recipe import Data, Recipe, fetch_model, read_recipe
from edgepack.recipe.target import find_target
from edgepack.stages.cache import Source
from edgepack_runtime import InputError

Get = Callable[..., Path]
LEAKED = "also in the training data"
FINETUNE = "[finetune]\nepochs = 1\n"
GOOD = [
    ("switch it on", "lights"),
    ("will it rain", "weather"),
    ("two seats", "booking"),
    ("who knows", "other"),
]


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
        return [line.removeprefix(f"{tmp_path}/") for line in lint(recipe, fetch_model(recipe))]

    return run


def test_good_data_is_passed_in_silence(found: Callable[..., list[str]]) -> None:
    """Distinct rows, every class judged, nothing shared: not a word."""
    other = [(f"{text}, please", label) for text, label in GOOD]
    assert found(FINETUNE, train=GOOD, evaluation=other) == []
    assert found() == []


@pytest.mark.parametrize(
    ("train", "evaluation", "said"),
    [
        (
            [*GOOD, GOOD[0], GOOD[1]],
            [],
            "train.tsv, line 6: this row was there before; 2 of 6 rows are repeated",
        ),
        (
            [*GOOD, ("two seats", "other")],
            [],
            "train.tsv, line 6: a different label from line 4; 1 texts have two labels",
        ),
        (
            [*GOOD, *[(f"row {i}", "other") for i in range(50)]],
            [],
            "train.tsv: 51 rows are 'other', 1 'booking'; a class this rare may not be learned",
        ),
        (
            [*GOOD, ("one", "7")],
            [],
            "train.tsv: labels are names and numbers (7); each one is a class",
        ),
        (
            GOOD,
            [("new", "lights"), GOOD[1], ("b", "booking"), ("c", "other")],
            f"evaluation.tsv, line 3: {LEAKED} (1 of 4 rows); quality looks too good",
        ),
        (
            GOOD,
            [("new", "lights"), ("b", "booking"), ("c", "other")],
            "evaluation.tsv: no row for 1 of 4 classes (weather); quality says nothing about them",
        ),
    ],
)
def test_what_misleads_is_one_line(
    found: Callable[..., list[str]],
    train: list[tuple[str, str]],
    evaluation: list[tuple[str, str]],
    said: str,
) -> None:
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
            r"train.tsv: only one class, x; finetune needs two",
        ),
        (FINETUNE, [("a", ""), ("b", "")], [], r"train.tsv: no labels, but finetune needs them"),
    ],
)
def test_what_cannot_work_is_refused(
    found: Callable[..., list[str]],
    more: str,
    train: list[tuple[str, str]],
    evaluation: list[tuple[str, str]],
    message: str,
) -> None:
    """Labels that are only on one side, or too few of them: an error that names the file."""
    files = {"train": train} if train else {}
    with pytest.raises(InputError, match=message):
        found(more, **files, **({"evaluation": evaluation} if evaluation else {}))


def test_unlabelled_texts_are_written_as_the_data_is(model: Get, tmp_path: Path) -> None:
    """The encoding that the recipe names holds for them too, and so does its text column."""
    path = tmp_path / "more.csv"
    path.write_bytes("body;label\ncafé;\ntea;x\n".encode("latin-1"))
    recipe = Recipe(source=str(model("bert-intent")), data=Data(unlabelled=str(path)))
    with pytest.raises(InputError, match=r"more.csv, line 2: not valid UTF-8"):
        lint(recipe, fetch_model(recipe))
    columns = Columns("body", pair="second", encoding="latin-1", delimiter=";")
    found = read_training({"unlabelled": path}, "text-classification", columns)
    assert [(e.text, e.label) for e in found] == [("café", None), ("tea", None)]


def _lint(folder: Path, task: str, finetuned: str, train: object, judged: object = ()) -> list[str]:
    """Examine rows for a model whose config lies in the folder."""
    files: dict[str, str] = {}
    for name, rows in (("train", train), ("evaluation", judged)):
        assert isinstance(rows, (list, tuple))
        path = folder / f"{name}.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        files |= {name: str(path)} if rows else {}
    steps = Compression(finetune=finetune.Settings("")) if finetuned else Compression()
    info = ModelInfo(Source(folder, "key"), "tiny", task, "bert")
    found = lint(
        Recipe(
            source="",
            data=Data(files.get("train", ""), files.get("evaluation", "")),
            compression=steps,
        ),
        info,
    )
    return [line.removeprefix(f"{folder}/") for line in found]


def test_scores_and_tags_are_examined_as_what_they_are(tmp_path: Path) -> None:
    """Scores are no classes, whoever learned them; a rare tag is no rare class; pairs are pairs."""
    scores = [{"text": f"text {i}", "label": i / 3} for i in range(7)]
    (tmp_path / "config.json").write_text(
        '{"id2label": {"0": "a", "1": "b"}, "problem_type": "regression"}'
    )
    for finetuned in ("", "yes"):
        judged = [{"text": f"other {i}", "label": i / 7} for i in range(5)]
        assert _lint(tmp_path, "text-classification", finetuned, scores, judged) == []
    tags = [{"tokens": [f"w{i}", "and"] * 30, "tags": ["B-X", "O"] + ["O"] * 58} for i in range(5)]
    (tmp_path / "config.json").write_text('{"id2label": {"0": "O", "1": "B-X"}}')
    assert _lint(tmp_path, "token-classification", "yes", tags) == []
    again = [*tags, tags[1], {**tags[0], "tags": ["O"] * 60}]
    assert _lint(tmp_path, "token-classification", "yes", again) == [
        "train.jsonl, line 6: this row was there before; 1 of 7 rows are repeated",
        "train.jsonl, line 7: a different label from line 1; 1 texts have two labels",
    ]
    pairs = [{"text": "same", "text_pair": f"other {i}", "label": i / 3} for i in range(4)]
    assert _lint(tmp_path, "sentence-similarity", "", pairs[:2], pairs[2:]) == []
    named = [{"text": f"text {i}", "label": f"topic {i % 2}"} for i in range(4)]
    assert _lint(tmp_path, "sentence-similarity", "", named[:2], named[2:]) == []


def test_an_adapter_says_nothing_of_its_labels(model: Get, tmp_path: Path) -> None:
    """Its folder has no config of a model; whatever the evaluation data has may be right."""
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_model.safetensors").write_bytes(b"")
    base = {"base_model_name_or_path": str(model("bert-intent")), "task_type": "SEQ_CLS"}
    (adapter / "adapter_config.json").write_text(json.dumps(base))
    (tmp_path / "d.tsv").write_text("text\tlabel\na\tnew\n")
    recipe = Recipe(source=str(adapter), data=Data(evaluation=str(tmp_path / "d.tsv")))
    assert lint(recipe, fetch_model(recipe)) == []


def test_fewer_texts_than_asked_for_are_said(
    found: Callable[..., list[str]], tmp_path: Path
) -> None:
    """Of the training data and of a calibration file alike; as many as asked for pass."""
    (tmp_path / "lines.txt").write_text("a\nb\nc\n")
    # What the columns of [data] are called says nothing of this file.
    named = 'pair = "other"\nlabel = "topic"\n[calibration]\nfile = "lines.txt"\nsamples = '
    assert found(f"{named}3\n") == []
    wanted = "calibration.samples asks for 500; all of them are used"
    assert found(f"{named}500\n") == [f"lines.txt: 3 texts, but {wanted}"]
    assert found("[calibration]\nsamples = 500\n", train=GOOD) == [
        f"train.tsv: 4 texts, but {wanted}"
    ]


def test_a_build_is_planned_with_its_warnings(
    found: Callable[..., list[str]], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever plans a build is told, before a stage runs."""
    found(FINETUNE, train=[*GOOD, GOOD[0]])
    caplog.set_level("WARNING")  # exporters raise the level of whatever handlers there are
    plans(read_recipe(tmp_path / "edgepack.toml"), [find_target("cpu-x86-64")])
    assert ["this row was there before" in line for line in caplog.messages] == [True]


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
