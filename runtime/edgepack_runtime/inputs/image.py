"""Images to numbers, exactly as the model's own slow image processor makes them.

Order: resize → crop → scale → normalize → channels first.  Pillow resizes, as other libraries
round differently.
"""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.description import Image
from edgepack_runtime.errors import DeviceError, InputError

if TYPE_CHECKING:
    from PIL.Image import Image as Picture

    from edgepack_runtime.numeric import Array

MOST_PIXELS = 64_000_000  # of a picture before it is resized: 200 MB as RGB
_FORMATS = ("JPEG", "PNG", "BMP", "GIF", "TIFF", "WEBP", "PPM")
_INSTALL = "images need Pillow: pip install 'edgepack-runtime[vision]'"


class ImageReader:
    """Reads what a call passes as an image, and makes the model's input of it."""

    def __init__(self, spec: Image) -> None:
        self.spec = spec
        self._table: Any = None

    def read(self, item: object) -> Array:
        """Return float32 [3, height, width].

        Args:
            item: a path, the bytes of a file, a Pillow image, or an array uint8 [height, width] or
                [height, width, 3 or 4] of red, green and blue.

        Raises:
            InputError: it is not an image that can be read, or it is too large.
            DeviceError: Pillow is not installed.

        """
        return self.tensor(open_image(item))

    def tensor(self, picture: Picture) -> Array:
        """Return the model's input for an RGB picture."""
        import numpy as np

        spec = self.spec
        if spec.resize:
            picture = picture.resize(_size(picture.size, spec.resize), spec.resample)
        pixels = np.asarray(picture)
        if spec.crop:
            pixels = _cropped(pixels, spec.crop)
        if pixels.shape != (spec.height, spec.width, 3):
            raise InputError(f"this model takes images of {spec.width}×{spec.height} pixels only")
        if self._table is None:
            self._table = _table(spec)
        found = np.stack([self._table[pixels[..., at], at] for at in range(3)])
        return found[::-1].copy() if spec.bgr else found


def _table(spec: Image) -> Array:
    """Return what each of 256 values becomes in each channel: float32 [256, 3]."""
    import numpy as np

    values = np.repeat(np.arange(256, dtype=np.float64)[:, None], 3, axis=1)
    scaled = (values * spec.scale if spec.scale else values).astype(np.float32)
    if not spec.mean:
        return scaled
    mean, deviation = (np.array(x, dtype=np.float32) for x in (spec.mean, spec.std))
    found: Array = (scaled - mean) / deviation
    return found


def _size(size: tuple[int, int], wanted: tuple[int, ...]) -> tuple[int, int]:
    """Return (width, height) to resize to: exactly, or by the shorter side."""
    if len(wanted) == 2:
        return wanted[1], wanted[0]
    width, height = size
    short, long = min(size), max(size)
    longer = max(1, int(wanted[0] * long / short))
    return (wanted[0], longer) if width <= height else (longer, wanted[0])


def _cropped(pixels: Array, wanted: tuple[int, ...]) -> Array:
    """Cut [height, width, 3] around its middle; what is smaller gets a frame of zeros."""
    import numpy as np

    height, width = wanted
    have = pixels.shape[:2]
    top, left = (have[0] - height) // 2, (have[1] - width) // 2
    if top >= 0 and left >= 0:
        return pixels[top : top + height, left : left + width]
    outer = np.zeros((max(height, have[0]), max(width, have[1]), 3), pixels.dtype)
    above, beside = -(-(outer.shape[0] - have[0]) // 2), -(-(outer.shape[1] - have[1]) // 2)
    outer[above : above + have[0], beside : beside + have[1]] = pixels
    top, left = max(0, top + above), max(0, left + beside)
    return outer[top : top + height, left : left + width]


def open_image(item: object) -> Picture:
    """Return what a call passes as an RGB picture, turned as its camera says.

    Raises:
        InputError: it is not an image that can be read, or it is too large.
        DeviceError: Pillow is not installed.

    """
    try:
        from PIL import Image as pillow  # noqa: N813 (a module)
        from PIL import ImageOps
    except ImportError as exc:
        raise DeviceError(_INSTALL) from exc
    name = str(item)[:200] if isinstance(item, (str, os.PathLike)) else "the image"
    try:
        picture = item if isinstance(item, pillow.Image) else _opened(item, pillow)
        width, height = picture.size
        if width * height > MOST_PIXELS:
            raise InputError(
                f"{name} has {width}×{height} pixels, more than {MOST_PIXELS:,}; make it smaller"
            )
        picture.load()
        turned: Picture = ImageOps.exif_transpose(picture).convert("RGB")
    except pillow.DecompressionBombError as exc:
        raise InputError(
            f"{name} has far more than {MOST_PIXELS:,} pixels; make it smaller"
        ) from exc
    except (OSError, ValueError, SyntaxError, TypeError) as exc:
        raise InputError(f"{name} is not an image that can be read: {exc}") from exc
    return turned


def _opened(item: object, pillow: Any) -> Picture:
    """Open a path, bytes or an array; a header alone is read."""
    import warnings

    if isinstance(item, (str, os.PathLike)):
        if "://" in str(item) or str(item).startswith("data:"):
            raise InputError(f"{str(item)[:80]} is an address; load it first, and pass its bytes")
        source: Any = io.BytesIO(Path(item).read_bytes())
    elif isinstance(item, (bytes, bytearray, memoryview)):
        source = io.BytesIO(item)
    else:
        return _of_array(item, pillow)
    pillow.init()  # `formats` names plug-ins that load late
    with warnings.catch_warnings(action="ignore"):  # of its size, which is checked next
        found: Picture = pillow.open(source, formats=_FORMATS)
    return found


def _of_array(item: object, pillow: Any) -> Picture:
    import numpy as np

    if not isinstance(item, np.ndarray):
        raise InputError(
            f"expected an image (a path, bytes, a Pillow image or an array), found "
            f"{type(item).__name__}"
        )
    if item.dtype != np.uint8 or not (
        item.ndim == 2 or (item.ndim == 3 and item.shape[2] in (3, 4))
    ):
        raise InputError(
            "an array must be uint8 [height, width] or [height, width, 3 or 4], not "
            f"{item.dtype} {list(item.shape)}"
        )
    found: Picture = pillow.fromarray(item)
    return found
