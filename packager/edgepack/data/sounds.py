"""Sounds of a build: those of a user's folder or table, or made ones."""

from __future__ import annotations

import wave
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack.data.collected import Settings, shuffled, write_items
from edgepack_runtime.bundle.description import Audio
from edgepack_runtime.inputs.audio import AudioReader

__all__ = ["TOOLS", "Settings", "collect", "made", "write_wav"]
TOOLS = ("edgepack", "numpy")
_EVALUATION, _SAMPLES = 24, 32
_RATE = 16_000
_LONGEST = 8  # seconds of a stored sound


def collect(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write sounds as WAV files, and their list; see `write_items`.

    Raises:
        InputError: the folder has no sounds, or one cannot be read.

    """
    wanted = settings.samples or _SAMPLES
    most, given = _EVALUATION + wanted, "data" in inputs
    if given:
        read = AudioReader(Audio(_RATE)).read
        rows = shuffled(inputs["data"], settings, most)
        found = [read(example.text)[: _LONGEST * _RATE] for example in rows]
    else:
        found = [made(settings.seed + at) for at in range(most)]
    counts = (_EVALUATION, wanted)
    write_items(out, found, _save, counts, suffix=".wav", generated=not given)


def _save(samples: Any, path: Path) -> None:
    write_wav(path, samples)


def made(seed: int) -> Any:
    """Return a sound of one or two seconds: gliding tones with overtones, pauses and noise."""
    import numpy as np

    rng = np.random.default_rng(seed)
    time = np.arange(int(_RATE * rng.uniform(1.0, 2.0))) / _RATE
    found = rng.normal(0, 0.01, len(time))
    for _ in range(int(rng.integers(2, 6))):
        start, length = rng.uniform(0, time[-1]), rng.uniform(0.1, 0.5)
        tone = rng.uniform(90, 400) * (1 + rng.uniform(-0.3, 0.3) * time)
        voice = sum(np.sin(2 * np.pi * k * tone * time) / k for k in range(1, 9))
        window = np.clip(1 - np.abs(time - start - length / 2) / (length / 2), 0, 1)
        found += 0.1 * rng.uniform(0.3, 1) * voice * window
    return np.clip(found, -1, 1).astype(np.float32)


def write_wav(path: Path, samples: Any, rate: int = _RATE) -> None:
    """Write samples from -1 to 1 as 16-bit PCM."""
    import numpy as np

    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(samples, -1, 1) * 32767).astype("<i2").tobytes())
