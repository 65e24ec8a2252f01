"""Cold start and memory of a MiniLM bundle, process start to first answer, against Optimum.

    python tests/benchmarks/cold_start.py --work /tmp/bench

Each contender is a fresh process, timed from its start to the line that holds its answer; they
take turns.  Memory is its peak resident set until then (VmHWM).  Like stands beside like: each
peer is compared with edgepack's default variant and with its variant for the same engine.  All
run from compiled modules, as installed packages do: the round that is not counted writes them.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from peers import CONTENDERS, EDGEPACK_ONNXRUNTIME
from shapes import make_model, make_peers

TEXT = "the quick brown fox jumps over a lazy dog"
ONE = (
    "import sys; sys.path.insert(0, {here!r}); from pathlib import Path; import peers; "
    "answer = peers.load({name!r}, Path({folder!r}), {task!r}, 1)([{text!r}]); "
    "status = open('/proc/self/status').read(); "
    "print('ANSWER', status.split('VmHWM:')[1].split()[0], answer, flush=True)"
)


def once(name: str, folder: Path, task: str) -> tuple[float, float]:
    """Run one contender to its first answer; return seconds and peak megabytes."""
    here = str(Path(__file__).parent)
    code = ONE.format(here=here, name=name, folder=str(folder), task=task, text=TEXT)
    env = {**os.environ, "HF_HUB_OFFLINE": "1"}
    env.pop("PYTHONDONTWRITEBYTECODE", None)
    start = time.perf_counter()
    process = subprocess.Popen(
        [sys.executable, "-c", code],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env=env,
    )
    assert process.stdout
    for line in process.stdout:
        if line.startswith("ANSWER"):
            took = time.perf_counter() - start
            process.communicate()
            return took, int(line.split()[1]) / 1024
    sys.exit(f"{name} failed; run it by hand: {code}")


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
    folders[EDGEPACK_ONNXRUNTIME] = folders["edgepack"]
    names = (*CONTENDERS[:1], EDGEPACK_ONNXRUNTIME, *CONTENDERS[1:])
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in names}
    for turn in range(args.rounds + 1):
        for name in names:
            result = once(name, folders[name], task)
            if turn:  # the first round warms the page cache
                found[name].append(result)
    rows: dict[str, Any] = {}
    for name, results in found.items():
        seconds, megabytes = zip(*results, strict=True)
        rows[name] = {
            "seconds": [round(f(seconds), 3) for f in (min, statistics.median, max)],
            "peak_mb": [round(f(megabytes), 1) for f in (min, statistics.median, max)],
        }
    for name in CONTENDERS[1:]:
        for mine in names[:2]:
            ratio = rows[name]["seconds"][1] / rows[mine]["seconds"][1]
            share = rows[mine]["peak_mb"][1] / rows[name]["peak_mb"][1]
            print(
                f"{name:<26} ÷ {mine:<24} {ratio:5.1f}× the time; edgepack takes {share:.0%} "
                "of the memory"
            )
    print(json.dumps(rows))
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
