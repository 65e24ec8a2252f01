"""A language model runs on the engine that was measured fastest at what it will do most."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from edgepack_runtime import Bundle, InputError, load
from edgepack_runtime.cli import main
from edgepack_runtime.device import measured
from edgepack_runtime.device.facts import probe

if TYPE_CHECKING:
    from languages import Made

TIMES = {
    "openvino-int8": {"chat": 20.0, "long-prompt": 10.0, "long-answer": 40.0},
    "onnxruntime-int8": {"chat": 21.0, "long-prompt": 30.0, "long-answer": 20.0},
}


@pytest.fixture
def bundle(made: Made, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Return a bundle for both engines, with times that each of them wins somewhere."""
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path))
    path = made("llama", "target", engine="both")
    measured.save(Bundle.open(path).digest, probe(), measured.Record(TIMES))
    return path


@pytest.mark.parametrize(
    ("workload", "variant"),
    [
        (None, "openvino-int8"),
        ("long-prompt", "openvino-int8"),
        ("long-answer", "onnxruntime-int8"),
    ],
)
def test_the_fastest_for_the_workload_runs(
    workload: str | None, variant: str, bundle: Path
) -> None:
    """Each workload has its own winner; without one, all of them count."""
    model = load(bundle, workload=workload)
    assert model.variant.name == variant
    assert model.choice is not None
    assert ("for long" in model.choice.reason) == bool(workload)


def test_an_unknown_workload_is_refused(bundle: Path) -> None:
    """The error names those that the task has."""
    with pytest.raises(InputError, match=r"no workload 'short'; it has chat, long-prompt"):
        load(bundle, workload="short")


def test_inspect_says_what_wins(bundle: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each workload, the fastest first."""
    assert main(["inspect", str(bundle)]) == 0
    said = capsys.readouterr().out
    assert "fastest  in all: openvino-int8" in said
    assert "fastest  long-answer: onnxruntime-int8 20.0 ms, openvino-int8 40.0 ms" in said
