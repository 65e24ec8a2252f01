"""The texts of a build: to calibrate int8, to measure agreement, and for golden inputs.

A recipe names a file of typical inputs.  Without one, texts are generated (`generate.py`).  Either
way, some calibration texts are very short, like commands to devices: scales from only long texts
would be too coarse for these.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.data.generate import generate
from edgepack.data.rows import Columns, Example, read_examples
from edgepack_runtime.errors import InputError

TOOLS = ("edgepack", "tokenizers")
EVALUATION = 48
GOLDEN = 8
SAMPLES = 64
_SHORT = 4  # one short text, made from their words, for this many texts of a user
_MARKS = (".", "?", "...")
_GOLDEN_WORDS = 40
_FIRST_CHARACTERS = 12  # at most 14 tokens, special ones included, in any script
_LEAST_CHARACTERS = 4
_MOST_CHARACTERS = 2000

Item = str | tuple[str, str]


@dataclass(frozen=True)
class Settings:
    """How to collect texts."""

    task: str
    """The task of the rows in the file; empty for plain texts."""
    columns: Columns = Columns()
    """The columns of the file."""
    samples: int = 0
    """The maximum number of texts for calibration; 0 for 64."""
    seed: int = 0
    """The seed of the random choice."""


def collect(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write `texts.json`: the lists `calibration`, `evaluation` and `golden`, and `generated`.

    An item is a text or a pair of texts; items of `golden` are always texts.  `generated` tells
    whether they were generated.  If a file has few texts, all of them calibrate.

    Raises:
        InputError: the file has no texts.

    """
    wanted = settings.samples or SAMPLES
    if "data" in inputs:
        pool = _from_file(inputs["data"], settings, wanted)
        calibration = [*pool[-wanted:], *_shortened(pool[-wanted:], settings.seed)]
    else:
        pool = [*generate(inputs["tokenizer"], settings.seed, EVALUATION + wanted)]
        calibration = pool[-wanted:]
    evaluation = pool[:EVALUATION]
    golden = _golden([item if isinstance(item, str) else item[0] for item in evaluation])
    chosen = {
        "calibration": calibration,
        "evaluation": list(dict.fromkeys([*golden, *evaluation])),
        "golden": golden,
        "generated": "data" not in inputs,
    }
    (out / "texts.json").write_text(json.dumps(chosen, ensure_ascii=False))


def _golden(texts: Sequence[str]) -> list[str]:
    """Pick the golden texts; the first is short, since it proves a freshly loaded model."""
    first = min(texts, key=lambda text: (len(text) < _LEAST_CHARACTERS, len(text), text))
    short = [text for text in texts if len(text.split()) <= _GOLDEN_WORDS] or texts
    return [first[:_FIRST_CHARACTERS], *short[: GOLDEN - 1]]


def _from_file(path: Path, settings: Settings, wanted: int) -> list[Item]:
    examples = read_examples(str(path), settings.task, settings.columns, labelled=False)
    items = [_item(example) for example in examples if example.text.strip()]
    if not items:
        raise InputError(f"{path} has no texts")
    random.Random(settings.seed).shuffle(items)  # noqa: S311 (a choice, not a secret)
    return items[: EVALUATION + wanted]


def _item(example: Example) -> Item:
    text = example.text[:_MOST_CHARACTERS]
    return text if example.pair is None else (text, example.pair[:_MOST_CHARACTERS])


def _shortened(items: Sequence[Item], seed: int) -> list[Item]:
    """Return texts of one to three words from every fourth item; for pairs, pairs of them.

    Bare punctuation is included, because it is the shortest text that a device may get.
    """
    rng = random.Random(seed)  # noqa: S311 (a choice, not a secret)
    short: list[Item] = [
        _few_words(item, rng)
        if isinstance(item, str)
        else (_few_words(item[0], rng), _few_words(item[1], rng))
        for item in items[::_SHORT]
    ]
    alone = isinstance(items[0], str)
    return short + [mark if alone else (mark, mark) for mark in _MARKS]


def _few_words(text: str, rng: random.Random) -> str:
    words = text.split()
    at = rng.randrange(max(1, len(words)))
    # Some scripts have no spaces: there a word is a few characters.
    return " ".join(word[:_FIRST_CHARACTERS] for word in words[at : at + rng.randint(1, 3)])
