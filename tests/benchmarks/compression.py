"""What a recipe of `recipes/` makes of its teacher: time, size, quality.

    EDGEPACK_DATA=… python tests/benchmarks/compression.py --work /tmp/bench clinc150 [wnut17 …]

The recipe is built; then the teacher in `transformers.pipeline` (eager) and the bundle answer the
same texts of the evaluation data one by one, each in a process of its own with one thread, taking
turns.  Ratios are taken round by round, text in to answer out.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from itertools import islice
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))

from latency import Contender

from edgepack.data.rows import read_examples, read_rows
from edgepack.recipe.recipe import Recipe, read_recipe
from edgepack_runtime import load
from edgepack_runtime.paths import cache_folder

HERE = Path(__file__).parent
TEXTS = 100
SNIPS_HELD_OUT = 1000
BORROWED = 5000


def prepare(name: str, work: Path) -> Path:
    """Write the recipe, and what data it needs that does not lie there ready."""
    data = Path(os.environ["EDGEPACK_DATA"]).resolve()
    work.mkdir(parents=True, exist_ok=True)
    if name == "wnut17":  # names that its few tweets lack: encyclopaedia and voice requests
        wiki = (data / "data/wikitext2/valid.tokens.txt").read_text().replace("<unk>", "")
        spoken = islice(read_rows(str(data / "data/snips_nlu/train.jsonl")), BORROWED)
        texts = [*wiki.replace(" . ", " .\n").splitlines(), *(row["text"] for _, row in spoken)]
        kept = [text.strip() for text in texts if len(text.split()) > 3]
        (work / "texts.txt").write_text("\n".join(kept) + "\n")
    if name in ("snips", "snips_intents"):
        lines = (data / "data/snips_nlu/train.jsonl").read_text().splitlines(keepends=True)
        (work / "train.jsonl").write_text("".join(lines[SNIPS_HELD_OUT:]))
        (work / "evaluation.jsonl").write_text("".join(lines[:SNIPS_HELD_OUT]))
    if name == "embedding":
        rows = read_rows(str(data / "data/clinc150/train.tsv"))
        (work / "texts.txt").write_text("".join(f"{row['text']}\n" for _, row in rows))
    recipe = (HERE / "recipes" / f"{name}.toml").read_text()
    path = work / "edgepack.toml"
    path.write_text(recipe.replace("$DATA", str(data)).replace("$WORK", str(work.resolve())))
    return path


def build(recipe: Path) -> tuple[dict[str, Any], float]:
    """Build the recipe; return its report and the seconds it took, cached stages included."""
    out = recipe.parent / "dist"
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "edgepack", "build", str(recipe), "-o", str(out), "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    return json.loads(done.stdout)[0], time.perf_counter() - start


def teacher_folder(recipe: Path) -> Path:
    """Return the folder of the teacher: the fine-tuned one if the recipe fine-tunes."""
    from edgepack.recipe.recipe import fetch_model

    done = subprocess.run(
        [sys.executable, "-m", "edgepack", "build", str(recipe), "--dry-run", "--json"],
        check=True,
        capture_output=True,
        text=True,
    )
    stages: dict[str, str] = {
        stage["label"]: stage["key"] for stage in json.loads(done.stdout)[0]["stages"]
    }
    if "fine-tune" in stages:
        return cache_folder() / "stages" / stages["fine-tune"]
    return fetch_model(read_recipe(recipe)).source.path


def speed(recipe: Recipe, task: str, teacher: Path, dist: Path, rounds: int) -> dict[str, Any]:
    """Compare median milliseconds of a text, in turns."""
    examples = read_examples(recipe.data.evaluation, task, recipe.data.columns)
    texts = [e.text for e in examples[:: max(1, len(examples) // TEXTS)]]
    contenders = {
        name: Contender(name, folder, task, 1)
        for name, folder in (("eager", teacher), ("edgepack", dist))
    }
    medians: dict[str, list[float]] = {name: [] for name in contenders}
    for _ in range(rounds + 1):  # the first one warms up
        for name, contender in contenders.items():
            medians[name].append(statistics.median(contender.run([t], 3) for t in texts))
    for contender in contenders.values():
        contender.process.kill()
    ratios = [e / m for e, m in zip(medians["eager"][1:], medians["edgepack"][1:], strict=True)]
    return {
        "ms": {name: round(statistics.median(times[1:]), 3) for name, times in medians.items()},
        "ratio": round(statistics.median(ratios), 1),
        "ratio_spread": [round(min(ratios), 1), round(max(ratios), 1)],
    }


def likeness(recipe: Recipe, teacher: Path, bundle: Path) -> float:
    """Return the mean cosine of the bundle's sentence vectors to the teacher's."""
    from edgepack.model.torch_model import open_torch
    from edgepack.tasks.feature_extraction import embed

    examples = read_examples(recipe.data.evaluation, "sentence-similarity", recipe.data.columns)
    texts = [example.text for example in examples]
    ours = embed(load(bundle), texts)
    theirs = embed(open_torch(teacher, "sentence-similarity"), texts)
    return float((ours * theirs).sum(axis=1).mean())


def main() -> None:
    """Build, measure, print and write JSON."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("recipes", nargs="+")
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    rows = {}
    for name in args.recipes:
        path = prepare(name, args.work / name)
        report, seconds = build(path)
        recipe, teacher = read_recipe(path), teacher_folder(path)
        bundle = Path(report["path"])
        weights = 4 * report["stages"][0]["parameters"]
        size = bundle.stat().st_size
        rows[name] = {
            "build_seconds": round(seconds),
            "bundle_mb": round(size / 1e6, 2),
            "smaller": round(weights / size, 1),
            **speed(recipe, report["task"], teacher, bundle.parent, args.rounds),
            "stages": report["stages"],
        }
        if report["task"] == "sentence-similarity":
            rows[name]["mean_cosine"] = round(likeness(recipe, teacher, bundle), 4)
        shown = {key: value for key, value in rows[name].items() if key != "stages"}
        print(f"{name}: {shown}")
        for row in report["stages"]:
            print(
                f"  {row['stage']:<28} {row['quality']}  {row['size'] / 1e6:.1f} MB  "
                f"{row['latency_ms']} ms  {row['ratio']}",
                flush=True,
            )
        if args.out:
            args.out.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
