"""Fixtures of compression: labelled rows, and a teacher that knows them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import tiny
from lessons import INTENTS, TASK, plain_schedule

from edgepack.compress import finetune

Get = Callable[..., Path]


@pytest.fixture(scope="session")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 48 labelled rows."""
    path = tmp_path_factory.mktemp("data") / "train.tsv"
    rows = [
        f"{text}{end}\t{label}"
        for end in ("", "!", "?", ".")
        for label, texts in INTENTS.items()
        for text in texts
    ]
    path.write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    return path


@pytest.fixture(scope="session")
def teacher(model: Get, train: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model that has learned the four intents."""
    base = tiny.redraw(model("bert-intent"), tmp_path_factory.mktemp("base"))
    out = tmp_path_factory.mktemp("teacher")
    settings = finetune.Settings(TASK, plain_schedule())
    finetune.finetune(settings, {"model": base, "data": train}, out)
    return out
