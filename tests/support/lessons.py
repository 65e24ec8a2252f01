"""What the tests of compression share: four intents, a schedule, a lesson, a stock model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgepack.compress import augment, teach
from edgepack.compress.schedule import Schedule

TASK = "text-classification"
INTENTS = {
    "lights": ["turn on the lights", "lights on in the kitchen", "turn the lights on please"],
    "weather": ["what's the weather like", "weather in Nairobi tomorrow", "the weather tomorrow"],
    "booking": ["book a table for six", "can you book a table", "a table at the Blue Lagoon"],
    "other": ["the quick brown fox", "jumps over the lazy dog", "the mayor of New York"],
}


def digest_of(folder: Path) -> str:
    """Hash the weights of a model folder."""
    import hashlib

    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def new_folder(path: Path) -> Path:
    """Make a folder and return it."""
    path.mkdir(parents=True)
    return path


def stock(folder: Path) -> Any:
    """Load a folder as any user of transformers would."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder)


def plain_schedule(**changes: Any) -> Schedule:
    """Return a schedule that teaches a tiny model, with these changes."""
    plain = {"epochs": 30.0, "learning_rate": 5e-3, "batch_size": 16}
    return Schedule(**{**plain, **changes})


def lesson_of(teacher: Path, data: dict[str, Path], out: Path, **how: Any) -> dict[str, Path]:
    """Return the inputs of distilling: a teacher, rows from data, and what it says of them."""
    rows, lesson = new_folder(out / "rows"), new_folder(out / "lesson")
    augment.augment(augment.Settings(TASK, copies=1), data, rows)
    inputs = {"teacher": teacher, "rows": rows}
    teach.teach(teach.Settings(TASK, **how), inputs, lesson)
    return {"model": teacher, "rows": rows, "lesson": lesson}
