"""Cold start and memory of a MiniLM bundle, process start to first answer, against Optimum.

    python tests/benchmarks/cold_start.py --work /tmp/bench

Each contender is a fresh process that answers one text and ends; they take turns.  Seconds are
the whole process's, memory is its peak resident set (`wait4`).
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from peers import CONTENDERS
from shapes import make_model, make_peers

TEXT = "the quick brown fox jumps over a lazy dog"
ONE = (
    "import sys; sys.path.insert(0, {here!r}); from pathlib import Path; import peers; "
    "print(peers.load({name!r}, Path({folder!r}), {task!r}, 1)([{text!r}]))"
)


def once(name: str, folder: Path, task: str) -> tuple[float, float]:
    """Run one contender to its first answer; return seconds and peak megabytes."""
    here = str(Path(__file__).parent)
    code = ONE.format(here=here, name=name, folder=str(folder), task=task, text=TEXT)
    start = time.perf_counter()
    pid = os.fork()
    if pid == 0:
        os.environ["HF_HUB_OFFLINE"] = "1"
        quiet = os.open(os.devnull, os.O_WRONLY)
        os.dup2(quiet, 1)
        os.dup2(quiet, 2)
        os.execv(sys.executable, [sys.executable, "-c", code])
    _, status, usage = os.wait4(pid, 0)
    if status != 0:
        sys.exit(f"{name} failed; run it by hand: {code}")
    return time.perf_counter() - start, usage.ru_maxrss / 1024


def main() -> None:
    """Measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model = args.work / "minilm" / "model"
    task = make_model("minilm", model)
    folders = make_peers(model, task, args.work / "minilm")
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in CONTENDERS}
    for turn in range(args.rounds + 1):
        for name in CONTENDERS:
            result = once(name, folders[name], task)
            if turn:  # the first round warms the page cache
                found[name].append(result)
    rows: dict[str, Any] = {}
    for name, results in found.items():
        seconds, megabytes = zip(*results, strict=True)
        rows[name] = {"seconds": [round(f(seconds), 3) for f in (min, statistics.median, max)],
                      "peak_mb": [round(f(megabytes), 1) for f in (min, statistics.median, max)]}  # fmt: skip
        mine = rows["edgepack"]
        ratio = rows[name]["seconds"][1] / mine["seconds"][1]
        share = mine["peak_mb"][1] / rows[name]["peak_mb"][1]
        print(f"{name:<26} {rows[name]}  edgepack: {ratio:.1f}× faster, {share:.0%} of the memory")
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
