"""Retain the scales of the previous release, so that the update for a light change is small.

The weights of a light fine-tune move by fractions of a quantization step.  With new scales, all of
them are rounded again, and a few extreme weights change every value of a channel.  On the scales of
the previous release, most values do not change, and the delta is small.  The result is measured: if
it is less close to the float model, no scales are retained.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from shutil import copytree, ignore_patterns
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

from edgepack.export import open_as_device
from edgepack.export.traits import copy_traits
from edgepack.model.opened import likeness, move_files, read_items
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import canonical_json
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

Apply = Callable[[Path, Path, Path], int]
REPORT = "kept.json"
_SLACK = 0.001  # mean cosine with the float model that retained scales may cost
# A weight is known to within half a step, on its new scale and on its old one: if the two are
# within one step, they may be the same value.  A whole step is a change.
_STEPS = 0.95
_LOOSE = 1.25  # an old scale may be coarser than the new one by this factor
_SEVEN_BITS = 64


def names_variant(bundle: Path, name: str) -> bool:
    """Tell whether a bundle has an int8 variant of this name.

    Raises:
        InputError: there is no bundle, or it is a folder.
        TrustError: it is damaged.

    """
    if bundle.is_dir():
        raise InputError(f"quantize.previous: {bundle} is a folder; give the .epk of that release")
    variants = Bundle.open(bundle).manifest.variants
    return any(v.name == name and v.precision == "int8" for v in variants)


def keep_scales(
    engine: str, variant: str, apply: Apply, inputs: Mapping[str, Path], out: Path
) -> None:
    """Requantize the variant in `out` on the scales of the previous release, if that is as good.

    Args:
        engine: the engine of the variant.
        variant: its name in the previous bundle.
        apply: reads the old files and the new ones, and writes files with retained scales; returns
            the number of tensors whose scales it retained.
        inputs: `previous` (a bundle), `export`, `tokenizer`, `texts`.
        out: the folder of the variant; a report is added.

    """
    with TemporaryDirectory(dir=out) as name:
        old, new = Path(name, "old"), Path(name, "new")
        new.mkdir()
        spill(Bundle.open(inputs["previous"]), variant, old)
        tensors = apply(old, out, new)
        copy_traits(inputs["export"], new)
        report: dict[str, Any] = {"tensors": tensors}
        if tensors:
            wanted = _outputs(inputs, inputs["export"], engine, "float32")
            fresh, kept = (
                likeness(inputs["tokenizer"], wanted, _outputs(inputs, folder, engine, "int8"))
                for folder in (_alone(out, Path(name, "fresh")), new)
            )
            keeps = kept.mean_cosine >= fresh.mean_cosine - _SLACK
            report["kept"] = keeps
            report["cosine"] = {"fresh": fresh.mean_cosine, "kept": kept.mean_cosine}
            if keeps:
                move_files(new, out)
    (out / REPORT).write_bytes(canonical_json(report))


def on_old_scale(
    weights: NDArray[Any], scale: NDArray[Any], old: NDArray[Any], old_scale: NDArray[Any]
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Express int8 weights on older scales, channel by channel, where the older scales can.

    Weights are int8; scales are float32 and broadcast over them.  Returns the weights and their
    scales.  A value is left unchanged when the difference is below the rounding error.

    """
    import numpy as np

    value = weights.astype(np.float32) * scale
    # A form of seven bits must not become one of eight.
    top = _SEVEN_BITS if int(np.abs(weights.astype(np.int16)).max()) <= _SEVEN_BITS else 127
    spread = (1,) * (value.ndim - scale.ndim) + scale.shape
    axes = tuple(axis for axis, size in enumerate(spread) if size == 1)
    largest = np.abs(value).max(axis=axes, keepdims=True).reshape(scale.shape)
    fits = (old_scale <= _LOOSE * scale) & (largest <= (top + 0.5) * old_scale)
    kept = np.where(fits, old_scale, scale).astype(np.float32)
    moved = np.clip(np.rint(value / kept), -top, top)
    stays = fits & (np.abs(old.astype(np.float32) * kept - value) <= _STEPS * kept)
    stays &= np.abs(old.astype(np.int16)) <= top
    return np.where(stays, old, moved).astype(np.int8), kept


def spill(bundle: Bundle, variant: str, folder: Path) -> None:
    """Write the files of a bundle's variant to a new folder, laid out as an exporter does."""
    folder.mkdir()
    found = next((item for item in bundle.manifest.variants if item.name == variant), None)
    if found is None:
        raise InputError(f"{bundle.path} has no variant {variant}")
    for name, content in bundle.files(found).items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


def _alone(out: Path, folder: Path) -> Path:
    """Return a new folder with the files of `out`, without those of its own parent folder."""
    copytree(out, folder, copy_function=os.link, ignore=ignore_patterns(folder.parent.name))
    return folder


def _outputs(inputs: Mapping[str, Path], folder: Path, engine: str, precision: str) -> list[Any]:
    texts = read_items(inputs["texts"], "evaluation")
    model = open_as_device(inputs["tokenizer"], folder, engine, precision)
    return model.outputs(texts)
