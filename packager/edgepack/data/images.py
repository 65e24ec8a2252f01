"""Images of a build: those of a user's folder, or drawn ones.

A folder holds a folder of images for each class, or a table names a file in each row.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack.data.collected import Settings, shuffled, write_items
from edgepack.data.texts import EVALUATION, SAMPLES
from edgepack_runtime.inputs.image import open_image

__all__ = ["TOOLS", "Settings", "as_bytes", "collect", "drawn"]
TOOLS = ("edgepack", "pillow", "numpy")
_LARGEST = 640  # pixels of a stored side


def collect(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write images and their list; see `write_items`.

    Raises:
        InputError: the folder has no images, or one cannot be read.

    """
    wanted = settings.samples or SAMPLES
    most, given = EVALUATION + wanted, "data" in inputs
    if given:
        found = [_small(example.text) for example in shuffled(inputs["data"], settings, most)]
    else:
        found = [drawn(settings.seed + at) for at in range(most)]
    counts = (EVALUATION, wanted)
    write_items(
        out, found, lambda x, path: x.save(path), counts, suffix=".png", generated=not given
    )


def _small(path: str) -> Any:
    picture = open_image(path)
    picture.thumbnail((_LARGEST, _LARGEST))
    return picture


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
