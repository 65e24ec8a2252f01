"""The texts a build looks at: to calibrate int8, to measure agreement, to be golden.

A recipe names a file of typical inputs.  Without one they are generated (`generate.py`).
Either way some of those that calibrate are very short, as commands to devices are: scales
that saw long texts only are too coarse for them.
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
_SHORT = 4  # one short text, made of their words, for so many texts of a user
_MARKS = (".", "?", "...")
_GOLDEN_WORDS = 40
_FIRST_CHARACTERS = 12  # at most 14 tokens, special ones included, in any script
_LEAST_CHARACTERS = 4
_MOST_CHARACTERS = 2000

Item = str | tuple[str, str]


@dataclass(frozen=True)
class Settings:
    """task and columns: how to read the file; seed: of the choice.

    samples: how many texts calibrate, at most; 0 for 64.
    """

    task: str
    columns: Columns = Columns()
    samples: int = 0
    seed: int = 0


def collect(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write `texts.json`: the lists `calibration`, `evaluation` and `golden`, and `generated`.

    An item is a text or a pair of texts; those of `golden` are all texts.  `generated` tells
    whether they were made up.  A file that holds few texts calibrates with all of them.

    Raises:
        InputError: the file holds no texts.

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
    """Pick the golden texts; a short one stands first, which proves a freshly loaded model."""
    first = min(texts, key=lambda text: (len(text) < _LEAST_CHARACTERS, len(text), text))
    short = [text for text in texts if len(text.split()) <= _GOLDEN_WORDS] or texts
    return [first[:_FIRST_CHARACTERS], *short[: GOLDEN - 1]]


def _from_file(path: Path, settings: Settings, wanted: int) -> list[Item]:
    examples = read_examples(str(path), settings.task, settings.columns, labelled=False)
    items = [_item(example) for example in examples if example.text.strip()]
    if not items:
        raise InputError(f"{path} holds no texts")
    random.Random(settings.seed).shuffle(items)  # noqa: S311 (a choice, not a secret)
    return items[: EVALUATION + wanted]


def _item(example: Example) -> Item:
    text = example.text[:_MOST_CHARACTERS]
    return text if example.pair is None else (text, example.pair[:_MOST_CHARACTERS])


def _shortened(items: Sequence[Item], seed: int) -> list[Item]:
    """Return texts of one to three words of every fourth item, pairs of such for pairs.

    Bare punctuation is the shortest text that a device may get, so it is among them.
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
