"""Write train.tsv and evaluation.tsv: home-assistant requests of 30 intents, from a grammar.

    python make_data.py

Each intent of grammar.toml has templates with slots.  The last templates of every intent make
the evaluation set only: so the figures tell how the model does on phrasings that it has never
seen.
"""

from __future__ import annotations

import itertools
import random
import re
import tomllib
from pathlib import Path

HERE = Path(__file__).parent
GRAMMAR = tomllib.loads((HERE / "grammar.toml").read_text())
SEED = 0
TRAIN_EACH, EVALUATION_EACH = 180, 30
HELD_OUT = 3  # templates of each intent

FILLERS = ("", "", "", "please ", "hey ", "can you ", "ok ", "now ")


def expand(template: str, rng: random.Random) -> str:
    """Fill the slots of a template."""
    return re.sub(r"\{(\w+)\}", lambda slot: rng.choice(GRAMMAR["slots"][slot[1]]), template)


def utterances(templates: list[str], count: int, rng: random.Random) -> list[str]:
    """Make `count` different utterances, from every template in turn; fewer if there are not."""
    found: dict[str, None] = {}
    for _, template in zip(range(count * 20), itertools.cycle(templates), strict=False):
        found[rng.choice(FILLERS) + expand(template, rng)] = None
        if len(found) == count:
            break
    return list(found)


def write(path: Path, rows: list[tuple[str, str]]) -> None:
    """Write rows of text and intent as TSV."""
    lines = ["text\tintent", *(f"{text}\t{intent}" for text, intent in rows)]
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
    print(f"{path.name}: {len(rows)} utterances of {len({i for _, i in rows})} intents")


def main() -> None:
    """Write both files beside this one."""
    rng = random.Random(SEED)  # noqa: S311 (a choice, not a secret)
    train, evaluation = [], []
    for intent, templates in GRAMMAR["intents"].items():
        seen, unseen = templates[:-HELD_OUT], templates[-HELD_OUT:]
        train += [(text, intent) for text in utterances(seen, TRAIN_EACH, rng)]
        evaluation += [(text, intent) for text in utterances(unseen, EVALUATION_EACH, rng)]
    rng.shuffle(train)
    write(HERE / "train.tsv", train)
    write(HERE / "evaluation.tsv", evaluation)


if __name__ == "__main__":
    main()
