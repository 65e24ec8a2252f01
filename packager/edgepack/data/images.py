"""Images of a build: those of a user's folder, or drawn ones.

A folder holds a folder of images for each class, or a table names a file in each row.
"""

from __future__ import annotations

import io
import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.data.rows import Columns, read_examples
from edgepack.data.texts import EVALUATION, GOLDEN, SAMPLES
from edgepack_runtime.inputs.image import open_image

TOOLS = ("edgepack", "pillow", "numpy")
_LARGEST = 640  # pixels of a stored side


@dataclass(frozen=True)
class Settings:
    """How to collect images."""

    columns: Columns = Columns()
    """The columns of a table."""
    samples: int = 0
    """The maximum number of images for calibration; 0 for 64."""
    seed: int = 0
    """The seed of the random choice, and of drawn images."""


def collect(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write images, and `texts.json` as for texts; an item is {"file": its path}.

    Raises:
        InputError: the folder has no images, or one cannot be read.

    """
    wanted = settings.samples or SAMPLES
    if "data" in inputs:
        pictures = _from_data(inputs["data"], settings, EVALUATION + wanted)
    else:
        pictures = [drawn(settings.seed + at) for at in range(EVALUATION + wanted)]
    (out / "images").mkdir()
    items = []
    for number, picture in enumerate(pictures):
        name = f"images/{number}.png"
        picture.save(out / name)
        items.append({"file": name})
    evaluation = items[:EVALUATION]
    chosen = {
        "calibration": items[-wanted:],
        "evaluation": evaluation,
        "golden": evaluation[:GOLDEN],
        "generated": "data" not in inputs,
    }
    (out / "texts.json").write_text(json.dumps(chosen))


def _from_data(source: Path, settings: Settings, most: int) -> Sequence[Any]:
    examples = read_examples(str(source), "", settings.columns, labelled=False)
    random.Random(settings.seed).shuffle(examples)  # noqa: S311 (a choice, not a secret)
    found = []
    for example in examples[:most]:
        picture = open_image(example.text)
        picture.thumbnail((_LARGEST, _LARGEST))
        found.append(picture)
    return found


def drawn(seed: int) -> Any:
    """Return a drawn image: shapes of some colours on a shaded ground, of some size."""
    import numpy as np
    from PIL import Image, ImageDraw

    rng = np.random.default_rng(seed)
    width, height = (int(x) for x in rng.integers(160, 420, 2))
    across, down = np.linspace(0, 1, width)[None, :, None], np.linspace(0, 1, height)[:, None, None]
    ground = rng.integers(0, 128, 3) * across + rng.integers(0, 128, 3) * down
    pixels = np.clip(ground + rng.normal(0, 6, (height, width, 3)), 0, 255).astype(np.uint8)
    picture = Image.fromarray(pixels)
    pen = ImageDraw.Draw(picture)
    for _ in range(int(rng.integers(3, 9))):
        left, top = rng.integers(0, width), rng.integers(0, height)
        box = [left, top, left + rng.integers(10, 160), top + rng.integers(10, 160)]
        colour = tuple(int(x) for x in rng.integers(0, 256, 3))
        shape = (pen.ellipse, pen.rectangle)[int(rng.integers(0, 2))]
        shape([int(x) for x in box], fill=colour)
    return picture


def as_bytes(picture: Any) -> bytes:
    """Return a picture as a PNG file."""
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()
