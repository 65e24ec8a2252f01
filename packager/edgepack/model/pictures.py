"""What a device must know to make a model's input of an image, as plain numbers.

Source of each rule: the slow image processors of transformers 4.57.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgepack_runtime.bundle.description import Image
from edgepack_runtime.errors import InputError

FILE = "preprocessor_config.json"
_KNOWN = (
    "Beit",
    "Bit",
    "CLIP",
    "ConvNext",
    "DeiT",
    "MobileNetV1",
    "MobileNetV2",
    "MobileViT",
    "Siglip",
    "ViT",
)
_SQUASHED = 384  # from here on, ConvNext does not crop


def facts(folder: Path) -> Image:
    """Read a model's image processor.

    Raises:
        InputError: there is none, or it does what is not built.

    """
    from transformers import AutoImageProcessor

    try:
        processor = AutoImageProcessor.from_pretrained(
            folder, local_files_only=True, use_fast=False
        )
    except (ValueError, KeyError, OSError, TypeError, ImportError) as exc:
        raise InputError(f"{folder}: transformers cannot read {FILE}: {exc}") from exc
    kind = type(processor).__name__.removesuffix("ImageProcessor")
    if kind not in _KNOWN:
        raise InputError(f"the image processor of {kind} is not built yet")
    resize, crop = _sizes(processor, kind)
    height, width = crop or resize
    normal = bool(getattr(processor, "do_normalize", False))
    return Image(
        height=height,
        width=width,
        resize=resize,
        resample=int(processor.resample),
        crop=crop,
        scale=float(processor.rescale_factor) if processor.do_rescale else 0.0,
        mean=tuple(float(x) for x in processor.image_mean) if normal else (),
        std=tuple(float(x) for x in processor.image_std) if normal else (),
        bgr=bool(getattr(processor, "do_flip_channel_order", False)),
    )


def _sizes(processor: Any, kind: str) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Return what to resize to, and what to crop to; empty for neither."""
    size = dict(processor.size)
    if kind == "ConvNext":
        side = size["shortest_edge"]
        if side >= _SQUASHED:
            return (side, side), ()
        return (int(side / processor.crop_pct),), (side, side)
    if not processor.do_resize:
        raise InputError("a model without do_resize takes images of any size, which is not built")
    if "shortest_edge" in size:
        resize: tuple[int, ...] = (int(size["shortest_edge"]),)
    elif {"height", "width"} <= set(size):
        resize = (int(size["height"]), int(size["width"]))
    else:
        raise InputError(f"an image size of {size} is not built yet")
    if not getattr(processor, "do_center_crop", False):
        if len(resize) == 1:
            raise InputError("images of any shape (shortest_edge without a crop) are not built yet")
        return resize, ()
    crop = dict(processor.crop_size)
    return resize, (int(crop["height"]), int(crop["width"]))
