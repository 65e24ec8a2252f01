"""What a training did: `training.json` in the folder of its stage, and remarks for people."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

FILE = "training.json"
_DIGITS = 4
_STILL = 0.005  # half a point gained in the last epoch: the training stopped too early
_BELOW = 0.02  # two points below a linear probe


@dataclass(frozen=True)
class Record:
    """The facts of a finished training."""

    learning_rate: float
    epochs: float
    batch_size: int
    precision: str
    rows: int
    """The number of rows it learned from."""
    held_out: int
    """The number of held-out rows."""
    figure: str
    """The name of what was measured on them; of a loss, less is better."""
    stopped: str
    """Why it stopped."""
    history: Sequence[Mapping[str, float]] = ()
    """{epoch, held_out} for every evaluation."""
    rates_tried: Mapping[str, float] | None = None
    """{rate: loss after a trial}."""
    probe: float | None = None
    """The figure of a linear probe on the same rows; None if there was none."""

    def write(self, out: Path, step: str) -> None:
        """Write `training.json`; `step` is the recipe's table whose settings can be changed."""
        value: dict[str, Any] = {**asdict(self), "remarks": remarks(self, step)}
        (out / FILE).write_text(json.dumps(value, indent=1) + "\n")


def read_record(folder: Path) -> dict[str, Any] | None:
    """Return what `Record.write` wrote to a stage's folder; None if the stage did not train."""
    path = folder / FILE
    found: dict[str, Any] | None = json.loads(path.read_text()) if path.is_file() else None
    return found


def history_of(log: Sequence[Mapping[str, Any]], sign: int = 1) -> list[dict[str, float]]:
    """Return {epoch, held_out} for every evaluation in a Trainer's log; losses are negated."""
    return [
        {
            "epoch": round(entry["epoch"], 2),
            "held_out": round(sign * entry["eval_quality"], _DIGITS),
        }
        for entry in log
        if "eval_quality" in entry
    ]


def since_best(log: Sequence[Mapping[str, Any]]) -> int:
    """Return how many evaluations followed the best one; 0 if the last one is the best."""
    figures = [entry["eval_quality"] for entry in log if "eval_quality" in entry]
    return len(figures) - 1 - figures.index(max(figures)) if figures else 0


def remarks(record: Record, step: str) -> list[str]:
    """Return one line for each thing that a person should know and can change."""
    figures = [entry["held_out"] for entry in record.history]
    name, longer = record.figure, f"raise {step}.max_minutes or set {step}.epochs"
    found = []
    if record.figure != "loss" and len(figures) > 1:
        gain = figures[-1] - max(figures[:-1])
        if gain >= _STILL:
            found.append(
                f"{step}: {name} on held-out rows was still rising at the end, from "
                f"{max(figures[:-1]):.1%} to {figures[-1]:.1%} in epoch {record.epochs:g}; {longer}"
            )
    if record.probe is not None and figures and max(figures) < record.probe - _BELOW:
        found.append(
            f"{step}: {name} on held-out rows is {max(figures):.1%}, but a linear probe on the "
            f"embeddings of the original model reaches {record.probe:.1%}; {longer}, or lower "
            f"{step}.learning_rate (it was {record.learning_rate:g})"
        )
    return found
