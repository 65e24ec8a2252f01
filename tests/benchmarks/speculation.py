"""What guessing and remembering gain: text that repeats its prompt, and the second turn of a dialogue.

    python tests/benchmarks/speculation.py BUNDLE --texts FILE --out FILE

`BUNDLE` holds an instruction-tuned language model, and FILE paragraphs, one in each line.  A grounded
task repeats a paragraph that it has read: what summaries and answers from notes do in part.  Ways
take turns, in one process for each engine and number of threads; ratios are medians over the texts,
with their spread.  The text of a guess must be that of no guess, token for token.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

NEW = 96
GUESSES = {"openvino": 7, "onnxruntime": 4}
COUNT = 4


def main() -> None:
    """Measure all variants and numbers of threads, or one in this process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("bundle", type=Path)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--one", nargs=2, metavar=("VARIANT", "THREADS"))
    args = parser.parse_args()
    if args.one:
        print(json.dumps(measured(args.bundle, args.texts, args.one[0], int(args.one[1]))))
        return
    from edgepack_runtime import Bundle

    rows = []
    first = {v.engine: v for v in reversed(Bundle.open(args.bundle).manifest.variants)}
    for variant in first.values():
        for threads in (1, 2):
            command = [sys.executable, __file__, *sys.argv[1:], "--one", variant.name, str(threads)]
            done = subprocess.run(command, check=True, capture_output=True, text=True)
            rows.append(json.loads(done.stdout.splitlines()[-1]))
            print(json.dumps(rows[-1]))
    args.out.write_text(json.dumps(rows, indent=1) + "\n")


def measured(bundle: Path, texts: Path, name: str, threads: int) -> dict[str, Any]:
    """Measure one variant."""
    from edgepack_runtime import load

    model = load(bundle, variant=name, threads=threads)
    paragraphs = [line for line in texts.read_text().splitlines() if len(line) > 300][:COUNT]
    guesses = GUESSES[model.variant.engine]
    gains = [grounded(model, paragraph, guesses) for paragraph in paragraphs]
    whole = " ".join(texts.read_text().split()[:800])  # about 1,000 tokens
    turns = [second_turn(model, whole[start:]) for start in (0, 7, 40, 90)]
    return {
        "variant": name,
        "threads": threads,
        "guesses": guesses,
        "look_up_gain": spread(gains),
        "second_turn_of_first": spread(turns),
    }


def spread(values: list[float]) -> list[float]:
    """Return the median, the least and the largest."""
    return [round(value, 3) for value in (statistics.median(values), min(values), max(values))]


def grounded(model: Any, paragraph: str, guesses: int) -> float:
    """Return how much faster the new tokens come with guesses, for a text that is repeated."""
    from edgepack_runtime import Memory

    words = " ".join(paragraph.split()[:120])
    prompt = f"{words}\n\n{words}\n\n{' '.join(words.split()[:6])}"
    how = {"max_new_tokens": NEW, "min_new_tokens": NEW, "do_sample": False}
    ways: dict[str, dict[str, Any]] = {
        "plain": {},
        "guessed": {"prompt_lookup_num_tokens": guesses},
    }
    best = dict.fromkeys(ways, float("inf"))
    for _ in range(3):
        for way, options in ways.items():
            best[way] = min(best[way], seconds_of_new(model, prompt, {**how, **options}))
    exact = model(prompt, memory=Memory(), **how)  # it runs as a guessed text does
    if model(prompt, **how, **ways["guessed"]) != exact:
        raise SystemExit("a guess changed the text")
    return best["plain"] / best["guessed"]


def seconds_of_new(model: Any, prompt: str, options: dict[str, Any]) -> float:
    """Return the seconds from the first piece of a text to its last."""
    pieces = model(prompt, stream=True, **options)
    next(pieces)
    start = time.perf_counter()
    for _ in pieces:
        pass
    return time.perf_counter() - start


def second_turn(model: Any, note: str) -> float:
    """Return the time to the first piece of a second turn, over that of the first."""
    from edgepack_runtime import Memory

    memory, times = Memory(), []
    system = {"role": "system", "content": f"You answer from this note. {note}"}
    turns: list[dict[str, str]] = [system, {"role": "user", "content": "What is it about?"}]
    for _ in range(2):
        start = time.perf_counter()
        pieces = model(turns, stream=True, memory=memory, max_new_tokens=24, do_sample=False)
        text = next(pieces)
        times.append(time.perf_counter() - start)
        text += "".join(pieces)
        turns = [
            *turns,
            {"role": "assistant", "content": text},
            {"role": "user", "content": "Why?"},
        ]
    return times[1] / times[0]


if __name__ == "__main__":
    main()
