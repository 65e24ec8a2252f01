"""Speed and memory of writing text: both engines of a bundle against their peers.

    python tests/benchmarks/generation.py --work /tmp/bench --peers PYTHON [--shape small]

`PYTHON` is an interpreter with the packages that `generation_peers.py` names.  Every contender runs
in a process of its own; they take turns, so a drift of the machine's speed hits all alike.  The
prompt's speed is that of one new token; the answer's speed is that of the tokens after it.  Ratios
are taken round by round against the best peer, so above 1 is faster than the best of them.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from generation_shape import SHAPES, make_contenders, make_model

HERE = Path(__file__).parent
PROMPTS = (128, 1024)
NEW = 48
BANDWIDTH = 33e9  # bytes a second of the machine's memory at two threads


class Contender:
    """A worker process."""

    def __init__(self, python: Path, kind: str, path: Path, variant: str, threads: int) -> None:
        self.bytes = _weights(path, variant)
        self.process = subprocess.Popen(
            [
                str(python),
                str(HERE / "generation_peers.py"),
                "serve",
                kind,
                str(path),
                variant,
                str(threads),
            ],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            text=True,
        )
        self._reply()

    def seconds(self, prompt: dict[str, Any], new: int) -> float:
        """Return how long a prompt and `new` tokens take."""
        return float(self._ask({**prompt, "new": new})["seconds"])

    def memory(self) -> dict[str, float]:
        """Return the megabytes that the process has taken."""
        return self._ask({"memory": True})

    def _ask(self, request: dict[str, Any]) -> dict[str, Any]:
        assert self.process.stdin
        self.process.stdin.write(json.dumps(request) + "\n")
        self.process.stdin.flush()
        return self._reply()

    def _reply(self) -> dict[str, Any]:
        assert self.process.stdout
        for line in self.process.stdout:
            if line.startswith("{"):
                return dict(json.loads(line))
        sys.exit(f"{self.process.args!r} ended early")


def prompts_of(tokens: int, model: Path) -> Iterator[dict[str, Any]]:
    """Yield texts of exactly so many tokens, and the tokens.

    They begin differently, because some peers keep what they read.
    """
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(model / "tokenizer.json"))
    words = sorted(f" {t[1:]}" for t in tokenizer.get_vocab() if t.startswith("Ġ") and len(t) > 4)
    whole = [word for word in words if len(tokenizer.encode(word).ids) == 1]
    rng = random.Random(tokens)  # noqa: S311 (no secret)
    while True:
        text = "".join(rng.choices(whole, k=tokens))
        ids = tokenizer.encode(text).ids
        assert len(ids) == tokens
        yield {"text": text, "ids": ids}


def compare(
    workers: dict[str, Contender], model: Path, rounds: int, facts: dict[str, Any]
) -> list[dict[str, Any]]:
    """Measure every prompt length; return one row for each."""
    rows = []
    for tokens in PROMPTS:
        prompts = prompts_of(tokens, model)
        read: dict[str, list[float]] = {name: [] for name in workers}
        written: dict[str, list[float]] = {name: [] for name in workers}
        for worker in workers.values():
            worker.seconds(next(prompts), 2)
        for _ in range(rounds):
            for name, worker in workers.items():
                first = worker.seconds(next(prompts), 1)
                whole = worker.seconds(next(prompts), NEW)
                read[name].append(tokens / first)
                written[name].append((NEW - 1) / (whole - first))
        row = {**facts, "prompt": tokens, "prefill": _summary(read), "decode": _summary(written)}
        row["bandwidth_share"] = {
            name: round(statistics.median(written[name]) * worker.bytes / BANDWIDTH, 3)
            for name, worker in workers.items()
        }
        rows.append(row)
        _show(row)
    memory = {name: worker.memory() for name, worker in workers.items()}
    for row in rows:
        row["memory"] = {k: {n: round(v, 1) for n, v in m.items()} for k, m in memory.items()}
    print({name: round(found["anonymous_mb"]) for name, found in memory.items()}, flush=True)
    for worker in workers.values():
        worker.process.kill()
    return rows


def _summary(speeds: dict[str, list[float]]) -> dict[str, Any]:
    """Return tokens a second, and ratios of edgepack's engines to the best peer."""
    medians = {name: round(statistics.median(found), 2) for name, found in speeds.items()}
    peers = {name: value for name, value in medians.items() if not name.startswith("edgepack")}
    found: dict[str, Any] = {"tokens_per_second": medians}
    if not peers:
        return found
    best = max(peers, key=lambda name: peers[name])
    found["best_peer"] = best
    for name, own in speeds.items():
        if name.startswith("edgepack"):
            ratios = sorted(a / b for a, b in zip(own, speeds[best], strict=True))
            found[f"{name}, ratio"] = [
                round(value, 3) for value in (statistics.median(ratios), ratios[0], ratios[-1])
            ]
    return found


def _show(row: dict[str, Any]) -> None:
    print(f"{row['precision']}, {row['threads']} thread(s), prompt {row['prompt']}", flush=True)
    for what in ("prefill", "decode"):
        print(f"  {what}: {row[what]}", flush=True)


def _weights(path: Path, variant: str) -> int:
    """Count the bytes that a token reads: the files of weights."""
    if path.suffix == ".epk":
        from edgepack_runtime import Bundle

        manifest = Bundle.open(path).manifest
        (found,) = [item for item in manifest.variants if item.name == variant]
        return sum(manifest.file(name).size for name in found.files)
    kinds = (".bin", ".gguf", ".data")
    return sum(
        f.stat().st_size for f in path.iterdir() if f.suffix in kinds and "tokenizer" not in f.name
    )


def main() -> None:
    """Build what is missing, and measure."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--peers", type=Path)
    parser.add_argument("--shape", choices=SHAPES, default="386m")
    parser.add_argument("--precision", choices=("int8", "int4"), action="append")
    parser.add_argument("--threads", type=int, action="append")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--only-build", action="store_true")
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    work = args.work / args.shape
    make_model(args.shape, work / "model")
    rows = []
    for precision in args.precision or ("int8", "int4"):
        made = make_contenders(work / "model", precision, work, args.peers)
        for threads in [] if args.only_build else args.threads or (1, 2):
            bundle = made["edgepack"]
            workers = {
                f"edgepack {engine}": Contender(
                    Path(sys.executable), "edgepack", bundle, f"{engine}-{precision}", threads
                )
                for engine in ("onnxruntime", "openvino")
            }
            for name, path in made.items():
                if name != "edgepack":
                    workers[name] = Contender(args.peers, name, path, "-", threads)
            facts = {"shape": args.shape, "precision": precision, "threads": threads}
            rows += compare(workers, work / "model", args.rounds, facts)
    if args.out:
        args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
