"""What a bundle says of its model: the task, and how its inputs become numbers.

The records are part of the manifest, and read as strictly.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Text:
    """How text becomes token ids: the facts that `tokenizer.json` does not hold."""

    tokenizer: str
    """The bundle's path of `tokenizer.json`."""
    max_length: int
    """Tokens of a text, special ones included."""
    pad_id: int
    """The token that fills a batch."""
    pad_type_id: int = 0
    """The token type of the padding."""
    padding_side: str = "right"
    """`left` or `right`."""
    truncation_side: str = "right"
    """`left` or `right`."""
    unk_id: int | None = None
    """The token of what the vocabulary lacks; None if there is none."""
    mask_id: int | None = None
    """The token that stands for a hidden one; None if there is none."""
    first_id: int | None = None
    """The token that begins a text (`[CLS]`); None if there is none."""
    cleans: bool = False
    """Whether a decoded text loses the spaces before punctuation."""


@dataclass(frozen=True)
class Image:
    """How an image becomes numbers; see `inputs/image.py`."""

    height: int
    """Pixels of the model's input."""
    width: int
    """Pixels of the model's input."""
    resize: tuple[int, ...] = ()
    """(height, width), or the shorter side alone; empty for no resizing."""
    resample: int = 2
    """How Pillow resizes, by its number: 0 nearest, 2 bilinear, 3 bicubic."""
    crop: tuple[int, ...] = ()
    """(height, width) around the middle; empty for all."""
    scale: float = 0.0
    """What the values from 0 to 255 are multiplied by; 0 leaves them."""
    mean: tuple[float, ...] = ()
    """Subtracted from red, green and blue; empty for no normalization."""
    std: tuple[float, ...] = ()
    """Divides red, green and blue."""
    bgr: bool = False
    """Whether blue comes first."""


@dataclass(frozen=True)
class Audio:
    """How a sound becomes numbers, and what a model that hears writes; see `inputs/audio.py`."""

    sampling_rate: int
    """Samples of a second."""
    normalize: bool = False
    """Whether each sound gets a mean of 0 and a variance of 1."""
    least: int = 1
    """The fewest samples that the model takes."""
    frame: int = 1
    """Samples of one output of the model."""
    blank: int = 0
    """The output that is no letter, for models that write."""
    delimiter: str = ""
    """The letter that parts words, for models that write."""


@dataclass(frozen=True)
class Writing:
    """How a language model writes: the facts that its tokenizer and graphs do not hold."""

    context: int
    """Positions that prompt and answer share."""
    eos: tuple[int, ...]
    """Tokens that end an answer."""
    start: tuple[int, ...] = ()
    """Tokens that every answer starts with, where answers do not go on with the input."""
    template: str = ""
    """The chat template, Jinja2; empty if it has none."""
    tokens: Mapping[str, str] = field(default_factory=dict)
    """Special tokens that the template names, as `bos_token`."""
    declared: Mapping[str, Any] = field(default_factory=dict)
    """Its own settings, from `generation_config.json`."""


@dataclass(frozen=True)
class Task:
    """What the model answers, to which kinds of input, and with which words."""

    name: str
    """A module of `edgepack_runtime.tasks`."""
    text: Text | None = None
    """None for a model that takes no text."""
    labels: tuple[str, ...] = ()
    """By the index of the output."""
    problem_type: str = ""
    """As a transformers config names it; empty if it does not."""
    activation: str = ""
    """What makes a score of a ranking model's output: `sigmoid` or `none`; empty if unsaid."""
    pooling: str = ""
    """The mode of sentence-transformers: `mean`, `cls`, `max`; empty for none."""
    normalize: bool = False
    """Whether embeddings are scaled to length 1."""
    writing: Writing | None = None
    """None for a model that writes no text."""
    image: Image | None = None
    """None for a model that takes no image."""
    audio: Audio | None = None
    """None for a model that takes no sound."""
