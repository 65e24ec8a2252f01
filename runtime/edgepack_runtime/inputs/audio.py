"""Sounds to numbers, exactly as the model's own feature extractor makes them.

WAV files are read by the standard library, others by soundfile.  A sound of another rate is
resampled by soxr.
"""

from __future__ import annotations

import io
import os
import wave
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.description import Audio
from edgepack_runtime.errors import DeviceError, InputError

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_INSTALL = "pip install 'edgepack-runtime[audio]'"
_MOST_SECONDS = 6 * 3600
_RAW = ("raw", "array")


class AudioReader:
    """Reads what a call passes as a sound, and makes the model's input of it."""

    def __init__(self, spec: Audio) -> None:
        self.spec = spec

    def read(self, item: object) -> Array:
        """Return the samples of a sound, float32 [samples], at the model's rate.

        Args:
            item: a path, the bytes of a file, an array of samples at the model's rate, or
                {"raw": samples, "sampling_rate": Hz}.

        Raises:
            InputError: it is not a sound that can be read.
            DeviceError: soundfile or soxr is not installed, and this sound needs it.

        """
        import numpy as np

        samples, rate = _samples(item, self.spec.sampling_rate)
        if samples.ndim == 2:
            samples = samples.mean(axis=1)
        if samples.ndim != 1 or not len(samples):
            raise InputError("the sound has no samples")
        if not np.isfinite(samples).all():
            raise InputError("the sound has samples that are not numbers")
        if rate != self.spec.sampling_rate:
            samples = _resampled(samples, rate, self.spec.sampling_rate)
        if len(samples) < self.spec.least:
            raise InputError(
                f"the sound has {len(samples)} samples at {self.spec.sampling_rate} Hz, but the "
                f"model needs at least {self.spec.least}"
            )
        found: Array = np.ascontiguousarray(samples, dtype=np.float32)
        return found

    def features(self, samples: Array) -> Array:
        """Return the model's input for samples, float32 [samples]."""
        import numpy as np

        if not self.spec.normalize:
            return samples
        found: Array = (samples - samples.mean()) / np.sqrt(samples.var() + 1e-7)
        return found.astype(np.float32, copy=False)


def _samples(item: Any, own: int) -> tuple[Array, int]:
    """Return samples [samples] or [samples, channels] from -1 to 1, and their rate."""
    if isinstance(item, (str, os.PathLike)):
        return _decoded(_content(item), str(item)[:200])
    if isinstance(item, (bytes, bytearray, memoryview)):
        return _decoded(bytes(item), "the sound")
    if not isinstance(item, Mapping):
        return _numbers(item), own
    name = next((key for key in _RAW if key in item), "")
    if not name or set(item) != {name, "sampling_rate"}:
        raise InputError('a sound with its rate is {"raw": samples, "sampling_rate": Hz}')
    rate = item["sampling_rate"]
    if not isinstance(rate, int) or not 1000 <= rate <= 400_000:
        raise InputError(f"sampling_rate must be from 1000 to 400000 Hz, not {rate!r}")
    return _numbers(item[name]), rate


def _content(path: str | os.PathLike[str]) -> bytes:
    if "://" in str(path):
        raise InputError(f"{str(path)[:80]} is an address; load it first, and pass its bytes")
    try:
        return Path(path).read_bytes()
    except OSError as exc:
        raise InputError(f"{str(path)[:200]}: {exc.strerror}") from exc


def _numbers(item: object) -> Array:
    import numpy as np

    if not isinstance(item, np.ndarray):
        raise InputError(
            "expected a sound (a path, bytes, an array, or samples with their rate), found "
            f"{type(item).__name__}"
        )
    if item.dtype.kind == "i":
        item = item / float(np.iinfo(item.dtype).max + 1)
    if item.dtype.kind != "f":
        raise InputError(f"samples must be numbers from -1 to 1, or int16, not {item.dtype}")
    return item.astype(np.float32, copy=False)


def _decoded(content: bytes, name: str) -> tuple[Array, int]:
    """Decode a file: plain WAV here, all else by soundfile."""
    found = _wav(content)
    if found is not None:
        return found
    try:
        import soundfile
    except ImportError as exc:
        raise DeviceError(
            f"{name} is not a plain WAV file, which needs soundfile: {_INSTALL}"
        ) from exc
    try:
        with soundfile.SoundFile(io.BytesIO(content)) as file:
            if file.frames > _MOST_SECONDS * file.samplerate:
                raise InputError(f"{name} is longer than {_MOST_SECONDS // 3600} hours")
            return file.read(dtype="float32", always_2d=True), int(file.samplerate)
    except (soundfile.SoundFileError, RuntimeError, TypeError) as exc:
        raise InputError(f"{name} is not a sound that can be read: {exc}") from exc


def _wav(content: bytes) -> tuple[Array, int] | None:
    """Decode PCM of 8, 16, 24 or 32 bits; None for anything else."""
    import numpy as np

    try:
        with wave.open(io.BytesIO(content)) as file:
            width, channels, rate = file.getsampwidth(), file.getnchannels(), file.getframerate()
            raw = file.readframes(file.getnframes())
    except (wave.Error, EOFError, ValueError):
        return None
    raw = raw[: len(raw) // (width * channels) * width * channels]
    if width == 1:
        samples = (np.frombuffer(raw, np.uint8).astype(np.float32) - 128) / 128
    elif width == 3:
        wide = np.zeros((len(raw) // 3, 4), np.uint8)
        wide[:, 1:] = np.frombuffer(raw, np.uint8).reshape(-1, 3)
        samples = wide.view("<i4")[:, 0].astype(np.float32) / 2**31
    else:
        samples = np.frombuffer(raw, f"<i{width}").astype(np.float32) / 2 ** (8 * width - 1)
    return samples.reshape(-1, channels), rate


def _resampled(samples: Array, rate: int, wanted: int) -> Array:
    try:
        import soxr
    except ImportError as exc:
        raise DeviceError(
            f"the sound has {rate} Hz and the model needs {wanted}, which needs soxr: {_INSTALL}"
        ) from exc
    found: Array = soxr.resample(samples, rate, wanted, quality="HQ")
    return found
