"""More texts for a small data set, by dropping, replacing and swapping words.

The new texts have no label: the teacher labels them.  So noise teaches the student the teacher's
judgement, and cannot teach it a wrong label.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from edgepack.compress.tensors import read_training
from edgepack.data.rows import Columns, Example
from edgepack_runtime import tasks

TOOLS = ("edgepack",)
_DROP, _REPLACE, _SWAP = 0.1, 0.15, 0.2  # probabilities: per word, per word, per text

_ENOUGH, _MOST = 60_000, 12  # new texts in total; copies of one text


@dataclass(frozen=True)
class Settings:
    """How to make new texts."""

    task: str
    copies: int | None = 0
    """New texts for each text of the data; None for as many as give enough rows."""
    columns: Columns = Columns()
    seed: int = 0


def augment(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write `rows.jsonl`: every example of the data, then the new texts."""
    examples = read_training(inputs, settings.task, settings.columns)
    words = [word for example in examples for word in _words(example)]
    rng = random.Random(settings.seed)  # noqa: S311 (a choice, not a secret)
    rows = [_row(example) for example in examples]
    copies = _copies(settings.task, len(examples)) if settings.copies is None else settings.copies
    for _ in range(copies):
        rows += [{**_noised(e, words, rng), "copy_of": i} for i, e in enumerate(examples)]
    with (out / "rows.jsonl").open("w", encoding="utf-8") as stream:
        stream.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)


def read_rows(folder: Path) -> list[Example]:
    """Read what `augment` wrote."""
    with (folder / "rows.jsonl").open(encoding="utf-8") as stream:
        return [_example(json.loads(line), number) for number, line in enumerate(stream, 1)]


def read_origins(folder: Path) -> list[int]:
    """Return, for each row of `augment`, the number of the row it was made from; else its own."""
    with (folder / "rows.jsonl").open(encoding="utf-8") as stream:
        return [json.loads(line).get("copy_of", number) for number, line in enumerate(stream)]


def _copies(task: str, rows: int) -> int:
    """Return how many copies of each text to make: tags tolerate less noise than labels."""
    enough, most = (30_000, 4) if tasks.find(task).PER_TOKEN else (_ENOUGH, _MOST)
    return min(most, round(enough / rows))


def _words(example: Example) -> Sequence[str]:
    return example.words or example.text.split()


def _row(example: Example) -> dict[str, object]:
    row: dict[str, object] = {
        "text": example.text,
        "pair": example.pair,
        "label": example.label,
        "words": example.words,
        "tags": example.tags,
    }
    empty = [name for name in ("words", "tags") if not row[name]]
    return {name: v for name, v in row.items() if v is not None and name not in empty}


def _example(row: dict[str, object], line: int) -> Example:
    plain = {
        name: tuple(v) if isinstance(v, list) else v for name, v in row.items() if name != "copy_of"
    }
    return Example(line=line, **plain)  # type: ignore[arg-type]


def _noised(example: Example, words: Sequence[str], rng: random.Random) -> dict[str, object]:
    kept = []
    for word in _words(example):
        chance = rng.random()
        if chance >= _DROP:
            kept.append(rng.choice(words) if chance < _DROP + _REPLACE else word)
    if len(kept) > 1 and rng.random() < _SWAP:
        at = rng.randrange(len(kept) - 1)
        kept[at], kept[at + 1] = kept[at + 1], kept[at]
    kept = kept or list(_words(example)) or [""]
    if example.words:
        return {"text": " ".join(kept), "words": kept}
    row: dict[str, object] = {"text": " ".join(kept)}
    return row if example.pair is None else {**row, "pair": example.pair}
