"""The null engine stands on both sides: a whole build in a second, without torch or an engine."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepack.cli import main
from edgepack.model.torch_model import open_torch
from edgepack_runtime import Bundle, load
from edgepack_runtime.model.selftest import selftest

BOARD = """\
summary = "no engine at all"
arch = "any"
[[variants]]
name = "int8"
engine = "null"
provider = "null"
precision = "int8"
scheme = "dynamic"
why = "arithmetic"
"""


@pytest.mark.parametrize(
    ("kind", "task", "answer"),
    [
        ("bert-intent", "text-classification", "label"),
        ("roberta-ner", "token-classification", "entity"),
    ],
)
def test_a_bundle_is_built_gated_and_measured(
    kind: str,
    task: str,
    answer: str,
    model: Callable[[str], Path],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Every stage runs; the bundle gives its golden outputs, and answers as its task does."""
    (tmp_path / "nothing.toml").write_text(BOARD)
    monkeypatch.setenv("EDGEPACK_TARGETS", str(tmp_path))
    arguments = ["build", str(model(kind)), "--target", "nothing", "-o", str(tmp_path), "--json"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (variant,) = json.loads(done.stdout)[0]["variants"]
    assert variant["agreement"] == 1.0
    assert variant["latency_ms"]["16×1"] > 0
    bundle = Bundle.open(next(tmp_path.glob("*.epk")))
    loaded = load(bundle)
    assert selftest(bundle, loaded).agreement == 1.0
    assert loaded.task.name == task
    assert answer in loaded("turn on the lights")[0]


def test_an_exporter_without_layers_to_rank_repairs_nothing(
    model: Callable[[str], Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What loses quality and cannot be repaired ends in the budget's message, not in a crash."""
    (tmp_path / "nothing.toml").write_text(BOARD)
    monkeypatch.setenv("EDGEPACK_TARGETS", str(tmp_path))
    texts = [f"{words} {n}" for n in range(6) for words in ("turn on the lights", "a table", "new")]
    answers = open_torch(model("bert-intent"), "text-classification")(texts)
    data = tmp_path / "rows.tsv"
    rows = [f"{text}\t{answer['label']}" for text, answer in zip(texts, answers, strict=True)]
    data.write_text("\n".join(["text\tlabel", *rows]) + "\n")
    recipe = tmp_path / "edgepack.toml"
    recipe.write_text(
        f'[model]\nsource = "{model("bert-intent")}"\n[data]\nevaluation = "{data}"\n'
        "[budget]\nquality_drop = 1.0\n"
    )
    arguments = ["build", str(recipe), "--target", "nothing", "-o", str(tmp_path)]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 3, done.output
    assert "over budget: quality.accuracy fell" in done.output
