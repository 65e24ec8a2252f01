"""Speech recognition by models that give a letter, or a pause, for every moment (CTC).

Source of the rules: `AutomaticSpeechRecognitionPipeline` of transformers 4.57.  A sound of another
rate is resampled, which the pipeline leaves out.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import TYPE_CHECKING, Any

from edgepack_runtime.errors import InputError
from edgepack_runtime.tasks._labels import compare, least
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._sounds import CELL_UNIT, CELLS, cell, check, infer
from edgepack_runtime.tasks._sounds import raw as outputs

if TYPE_CHECKING:
    from edgepack_runtime.bundle.description import Audio
    from edgepack_runtime.numeric import Array

__all__ = [
    "CELLS",
    "CELL_UNIT",
    "DECIDES",
    "PER_TOKEN",
    "Options",
    "answer",
    "cell",
    "check",
    "compare",
    "least",
    "outputs",
]
DECIDES = True
PER_TOKEN = False
_OVERLAP = 6  # a chunk shares a sixth of its length with each neighbour
Letter = tuple[str, int, int]
"""A letter, with its first frame and the one after its last."""


@dataclass(frozen=True)
class Options:
    """The options of a call."""

    return_timestamps: str | None = None
    """`char` or `word`: also say when each was said."""
    chunk_length_s: float | int = 0
    """Read a long sound in chunks of so many seconds; 0 reads it whole."""
    stride_length_s: float | int | None = None
    """Seconds that a chunk shares with each neighbour; a sixth of a chunk by default."""

    def __post_init__(self) -> None:
        if self.return_timestamps not in (None, "char", "word"):
            raise InputError(
                f"return_timestamps must be char or word, not {self.return_timestamps!r}"
            )
        if self.chunk_length_s and not 0 <= 2 * self.shared < self.chunk_length_s:
            raise InputError("a chunk must be longer than what it shares with both neighbours")

    @property
    def shared(self) -> float:
        """Return the seconds that a chunk shares with each neighbour."""
        chosen = self.stride_length_s
        return self.chunk_length_s / _OVERLAP if chosen is None else chosen


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Answer a sound with {"text"}, and "chunks" of [{"text", "timestamp"}] if asked for.

    A list of sounds is answered with a list.
    """
    if isinstance(inputs, list):
        return [answer(opened, item, options) for item in inputs]
    import numpy as np

    spec, samples = opened.audio.spec, opened.audio.read(inputs)
    parts = list(_logits(opened, samples, options))
    best = np.concatenate(parts).argmax(axis=-1)
    letters = list(_letters(best, opened.task.labels, spec))
    text = "".join(letter for letter, _, _ in letters).strip()
    if options.return_timestamps is None:
        return {"text": text}
    pieces = letters if options.return_timestamps == "char" else _words(letters)
    second = spec.frame / spec.sampling_rate
    chunks = [
        {"text": piece, "timestamp": (first * second, last * second)}
        for piece, first, last in pieces
    ]
    return {"text": text, "chunks": chunks}


def _logits(opened: Opened, samples: Array, options: Options) -> Iterator[Array]:
    """Yield logits [frames, letters] of the whole sound, or of each chunk without its overlap."""
    spec = opened.audio.spec
    if not options.chunk_length_s:
        yield infer(opened, samples)
        return
    size, stride = (
        round(seconds * spec.sampling_rate / spec.frame) * spec.frame
        for seconds in (options.chunk_length_s, options.shared)
    )
    for start in range(0, len(samples), size - 2 * stride):
        chunk = samples[start : start + size]
        last = start + size >= len(samples)
        left, right = 0 if start == 0 else stride, 0 if last else stride
        if len(chunk) > left and len(chunk) >= spec.least:
            frames = round(len(chunk) / spec.frame)
            first = round(left / len(chunk) * frames)
            end = frames - round(right / len(chunk) * frames)
            yield infer(opened, chunk)[first:end]
        if last:
            return


def _letters(best: Array, labels: Sequence[str], spec: Audio) -> Iterator[Letter]:
    """Yield the letters of frames: repeats are one, and blanks only part equal letters."""
    at = 0
    for token, run in groupby(best.tolist()):
        end = at + len(list(run))
        if token != spec.blank:
            letter = labels[token]
            yield " " if letter == spec.delimiter else letter, at, end
        at = end


def _words(letters: Sequence[Letter]) -> Iterator[Letter]:
    for space, run in groupby(letters, key=lambda letter: letter[0] == " "):
        if not space:
            word = list(run)
            yield "".join(letter for letter, _, _ in word), word[0][1], word[-1][2]
