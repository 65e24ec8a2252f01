"""The record of a training: what it remarks on."""

from __future__ import annotations

from typing import Any

from edgepack.compress import record


def _record(figures: list[float], **more: Any) -> record.Record:
    history = [{"epoch": i + 1, "held_out": figure} for i, figure in enumerate(figures)]
    return record.Record(
        2e-4,
        len(figures),
        32,
        "float32",
        900,
        100,
        "accuracy",
        "all epochs were done",
        history,
        **more,
    )


def test_a_training_that_was_too_short_says_so() -> None:
    """One line names both figures and the remedy; a settled training says nothing."""
    (rising,) = record.remarks(_record([0.7, 0.81]), "finetune")
    assert "from 70.0% to 81.0%" in rising
    assert "finetune.max_minutes" in rising
    (below,) = record.remarks(_record([0.81, 0.81], probe=0.9), "finetune")
    assert "81.0%" in below
    assert "90.0%" in below
    assert record.remarks(_record([0.92, 0.921], probe=0.9), "finetune") == []
