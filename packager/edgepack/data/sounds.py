"""Sounds of a build: those of a user's folder or table, or made ones."""

from __future__ import annotations

import json
import random
import wave
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.data.rows import Columns, read_examples
from edgepack.data.texts import GOLDEN
from edgepack_runtime.bundle.description import Audio
from edgepack_runtime.inputs.audio import AudioReader

TOOLS = ("edgepack", "numpy")
_EVALUATION, _SAMPLES = 24, 32
_RATE = 16_000
_LONGEST = 8  # seconds of a stored sound


@dataclass(frozen=True)
class Settings:
    """How to collect sounds."""

    columns: Columns = Columns()
    """The columns of a table."""
    samples: int = 0
    """The maximum number of sounds for calibration; 0 for 32."""
    seed: int = 0
    """The seed of the random choice, and of made sounds."""


def collect(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write WAV files, and `texts.json` as for texts; an item is {"file": its path}.

    Raises:
        InputError: the folder has no sounds, or one cannot be read.

    """
    wanted = settings.samples or _SAMPLES
    if "data" in inputs:
        sounds = _from_data(inputs["data"], settings, _EVALUATION + wanted)
    else:
        sounds = [made(settings.seed + at) for at in range(_EVALUATION + wanted)]
    (out / "sounds").mkdir()
    items = []
    for number, samples in enumerate(sounds):
        name = f"sounds/{number}.wav"
        write_wav(out / name, samples)
        items.append({"file": name})
    evaluation = items[:_EVALUATION]
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
    reader = AudioReader(Audio(_RATE))
    return [reader.read(example.text)[: _LONGEST * _RATE] for example in examples[:most]]


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
