"""Latency, text in to result out: edgepack's default variant against its peers.

    python tests/benchmarks/latency.py --work /tmp/bench [--shape minilm] [--quick]

Every contender runs in a process of its own; they take turns, so a drift of the machine's
speed hits all alike.  Ratios are taken round by round: best peer ÷ edgepack, so above 1 is
faster than the best of them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from peers import CONTENDERS
from shapes import SHAPES, WORDS, make_model, make_peers

CELLS = [(tokens, rows) for rows in (1, 8) for tokens in (16, 32, 128)]
HERE = Path(__file__).parent


class Contender:
    """A worker process."""

    def __init__(self, name: str, folder: Path, task: str, threads: int) -> None:
        self.name = name
        env = {**os.environ, "OMP_NUM_THREADS": str(threads), "TOKENIZERS_PARALLELISM": "false"}
        self.process = subprocess.Popen(
            [sys.executable, str(HERE / "peers.py"), name, str(folder), task, str(threads)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
            env=env,
        )
        self._reply()

    def run(self, texts: list[str], repeat: int) -> float:
        """Return the median milliseconds of `repeat` calls."""
        assert self.process.stdin
        self.process.stdin.write(json.dumps({"texts": texts, "repeat": repeat}) + "\n")
        self.process.stdin.flush()
        return float(self._reply()["ms"])

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        sys.exit(f"{self.name} ended early")


def exact_text(tokens: int) -> str:
    """Return a text of exactly `tokens` tokens: WORDS are one token each in this vocabulary."""
    return " ".join(WORDS[i % len(WORDS)] for i in range(tokens - 2))


def compare(folders: dict[str, Path], task: str, threads: int, rounds: int) -> list[dict[str, Any]]:
    """Measure every cell at one thread count."""
    contenders = {name: Contender(name, folders[name], task, threads) for name in CONTENDERS}
    rows = []
    for tokens, batch in CELLS:
        texts = [exact_text(tokens)] * batch
        times: dict[str, list[float]] = {name: [] for name in contenders}
        repeat = {}
        for name, contender in contenders.items():
            contender.run(texts, 2)
            repeat[name] = max(1, min(30, int(120 / contender.run(texts, 2))))
        for _ in range(rounds):
            for name, contender in contenders.items():
                times[name].append(contender.run(texts, repeat[name]))
        rows.append({"threads": threads, "tokens": tokens, "batch": batch, **_summary(times)})
        print(_line(rows[-1]), flush=True)
    for contender in contenders.values():
        contender.process.kill()
    return rows


def _summary(times: dict[str, list[float]]) -> dict[str, Any]:
    medians = {name: statistics.median(values) for name, values in times.items()}
    peers = [name for name in times if name != "edgepack"]
    best = min(peers, key=medians.__getitem__)
    ratios = sorted(p / e for p, e in zip(times[best], times["edgepack"], strict=True))
    eager = statistics.median(p / e for p, e in zip(times["eager"], times["edgepack"], strict=True))
    return {
        "ms": {name: round(value, 3) for name, value in medians.items()},
        "best_peer": best,
        "ratio": round(statistics.median(ratios), 3),
        "ratio_spread": [round(ratios[0], 3), round(ratios[-1], 3)],
        "ratio_to_eager": round(eager, 2),
    }


def _line(row: dict[str, Any]) -> str:
    times = "  ".join(f"{name} {ms:.2f}" for name, ms in row["ms"].items())
    low, high = row["ratio_spread"]
    return (
        f"{row['threads']} thread(s), {row['tokens']:>3} tokens × {row['batch']}: {times}  | "
        f"{row['ratio']:.2f}× the best peer ({row['best_peer']}), "
        f"{low:.2f}–{high:.2f}; {row['ratio_to_eager']:.1f}× eager"
    )


def main() -> None:
    """Build what is missing, measure, write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True, help="folder for models and artefacts")
    parser.add_argument("--shape", choices=sorted(SHAPES), action="append")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--out", type=Path, help="write the rows here as JSON")
    args = parser.parse_args()
    rows = []
    for shape in args.shape or sorted(SHAPES):
        model = args.work / shape / "model"
        task = make_model(shape, model)
        folders = make_peers(model, task, args.work / shape)
        for threads in args.threads or (1, 2):
            print(f"{shape}, {threads} thread(s)")
            found = compare(folders, task, threads, args.rounds)
            rows += [{"shape": shape, **row} for row in found]
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
