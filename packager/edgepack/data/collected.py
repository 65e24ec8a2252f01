"""What collecting images and collecting sounds share: files of a user's data, or made ones."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.data.rows import Columns, Example, read_examples
from edgepack.data.texts import GOLDEN


@dataclass(frozen=True)
class Settings:
    """How to collect files."""

    columns: Columns = Columns()
    """The columns of a table."""
    samples: int = 0
    """The maximum number for calibration; 0 for the usual number."""
    seed: int = 0
    """The seed of the random choice, and of what is made."""


def shuffled(source: Path, settings: Settings, most: int) -> list[Example]:
    """Return rows of a folder or a table in random order, at most so many.

    Raises:
        InputError: there are none.

    """
    examples = read_examples(str(source), "", settings.columns, labelled=False)
    random.Random(settings.seed).shuffle(examples)  # noqa: S311 (a choice, not a secret)
    return examples[:most]


def write_items(
    out: Path,
    items: Sequence[Any],
    save: Callable[[Any, Path], object],
    counts: tuple[int, int],
    *,
    suffix: str,
    generated: bool,
) -> None:
    """Write each item to a file, and `texts.json` as for texts; an item is {"file": its path}.

    Args:
        out: the folder of the stage.
        items: what was collected.
        save: writes one to a path.
        counts: how many are for evaluation, and how many for calibration.
        suffix: of the files' names.
        generated: whether they were made.

    """
    (out / "files").mkdir()
    listed = []
    for number, item in enumerate(items):
        name = f"files/{number}{suffix}"
        save(item, out / name)
        listed.append({"file": name})
    evaluation = listed[: counts[0]]
    chosen = {
        "calibration": listed[-counts[1] :],
        "evaluation": evaluation,
        "golden": evaluation[:GOLDEN],
        "generated": generated,
    }
    (out / "texts.json").write_text(json.dumps(chosen))
