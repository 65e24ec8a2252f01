"""Build every family for every task, in float and int8, and compare with `transformers.pipeline`.

    python tests/benchmarks/support_table.py --work DIR [FAMILY…]

Models are small, with heads that were trained (`tests/support/families.py`).  What TensorRT and CUDA would
run is run on the CPU.  Results go to `results/families.json`, the table to `docs/families.md`.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import time
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "support"))
import families

HERE = Path(__file__).resolve().parent
RESULTS = HERE / "results" / "families.json"
TABLE = HERE.parents[1] / "docs" / "families.md"
TARGETS = ("cpu-x86-64", "jetson-orin")
TEXTS = 100
SHORT = ["yes", "stop", ".", "lights off", "who sings this tune?"]
LEAST = 0.98  # of int8 decisions; of the mean cosine where there are none
PARITY = 1e-4


@dataclass
class Cell:
    """What became of one family, task and target.

    difference: of float32 scores, the largest of any engine; int8: {variant: share of decisions, or
    the mean cosine}; left_out: {variant: reason}; error: why there is no bundle; refused_s: when.
    """

    family: str
    task: str
    target: str
    difference: float | None = None
    int8: dict[str, float] = field(default_factory=dict)
    half: dict[str, float] = field(default_factory=dict)
    left_out: dict[str, str] = field(default_factory=dict)
    error: str = ""
    refused_s: float | None = None

    @property
    def verdict(self) -> str:
        """`yes`, `float only` or `no`."""
        if self.difference is None or self.difference > PARITY:
            return "no"
        wanted = [*self.int8.values(), *self.half.values()]
        whole = not self.left_out and min(wanted, default=0.0) >= LEAST
        return "yes" if whole else "float only"

    @property
    def why(self) -> str:
        """What keeps it from `yes`."""
        reasons = [f"{name}: {text}" for name, text in self.left_out.items()]
        reasons += [
            f"{name}: {value:.1%}"
            for name, value in {**self.int8, **self.half}.items()
            if value < LEAST
        ]
        if self.difference is not None and self.difference > PARITY:
            reasons.append(f"float differs by {self.difference:.1e}")
        return self.error or "; ".join(reasons)


def main() -> None:
    """Run what the command line names, and write the results and the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("families", nargs="*", default=[])
    asked = parser.parse_args()
    os.environ.setdefault("EDGEPACK_CACHE", str(asked.work / "cache"))
    warnings.simplefilter("ignore")
    known = json.loads(RESULTS.read_text()) if RESULTS.exists() else []
    cells = {(c["family"], c["task"], c["target"]): c for c in known}
    for family in asked.families or families.FAMILIES:
        for task in families.FAMILIES[family].tasks:
            for cell in measure(family, task, asked.work):
                cells[cell.family, cell.task, cell.target] = asdict(cell)
                print(
                    f"{family:15} {task:20} {cell.target:12} {cell.verdict:10} "
                    f"{cell.difference} {cell.why[:150]}",
                    flush=True,
                )
            RESULTS.write_text(json.dumps(list(cells.values()), indent=1) + "\n")
    write_table([Cell(**cell) for cell in cells.values()])


def measure(family: str, task: str, work: Path) -> Iterator[Cell]:
    """Build one family and task for both targets, in both precisions."""
    model = work / "models" / family / task
    if not (model / "config.json").exists():
        families.make(family, task, model)
    cells = {target: Cell(family, task, target) for target in TARGETS}
    texts = [text for text, _ in families.rows(TEXTS, seed=5)] + SHORT
    wanted = _pipeline(model, task, texts)
    for precision in ("float32", "target"):
        start = time.perf_counter()
        try:
            built = _build(model, task, work / "dist" / precision, precision)
        except Exception as exc:  # noqa: BLE001 (whatever a build raises is a result)
            for cell in cells.values():
                cell.error = f"{type(exc).__name__}: {exc}"[:300]
                cell.refused_s = round(time.perf_counter() - start, 1)
            break
        for bundle in built:
            _judge(bundle, cells[bundle.manifest.target], texts, wanted)
    yield from cells.values()


def _build(model: Path, task: str, out: Path, precision: str) -> list[Any]:
    from edgepack.build.build import build, plans
    from edgepack.recipe.recipe import Recipe
    from edgepack.recipe.target import find_target
    from edgepack.stages.progress import Quiet

    name = f"{model.parent.name}-{task}"
    recipe = Recipe(source=str(model), task=task, name=name, precision=precision, targets=TARGETS)
    planned = plans(recipe, [find_target(target) for target in TARGETS])
    return [built.bundle for built in build(planned, out, Quiet(), jobs=1)]


def _judge(bundle: Any, cell: Cell, texts: list[str], wanted: list[Any]) -> None:
    """Run every variant of a bundle on the CPU, whatever it was made for."""
    from edgepack_runtime.bundle.manifest import Requires
    from edgepack_runtime.model.variants import open_variant

    cell.left_out |= bundle.manifest.provenance.get("left_out", {})
    for variant in bundle.manifest.variants:
        cpu = "CPU" if variant.engine == "openvino" else "CPUExecutionProvider"
        here = replace(variant, provider=cpu, requires=Requires())
        if "Tensorrt" in variant.provider:
            options = {k: v for k, v in variant.options.items() if k == "exact_width"}
            here = replace(here, options=options)
        got = _answers(open_variant(bundle, here), texts)
        if variant.precision == "float32":
            found = float(max(_difference(a, b) for a, b in zip(wanted, got, strict=True)))
            cell.difference = max(cell.difference or 0.0, found)
        else:
            shares = [_likeness(a, b) for a, b in zip(wanted, got, strict=True)]
            kind = cell.int8 if variant.precision == "int8" else cell.half
            kind[variant.name] = round(sum(shares) / len(shares), 4)


def _answers(model: Any, texts: list[str]) -> list[Any]:
    options: dict[str, Any] = {}
    if model.task.name == "token-classification":
        options = {"ignore_labels": []}
    if model.task.name == "text-classification":
        options = {"top_k": 10}
    return [model(text, **options) for text in texts]


def _pipeline(folder: Path, task: str, texts: list[str]) -> list[Any]:
    """Return what transformers answers; sentence vectors as sentence-transformers makes them."""
    import numpy as np
    import transformers

    transformers.logging.set_verbosity_error()
    name = "feature-extraction" if task == "sentence-similarity" else task
    options: dict[str, Any] = {"ignore_labels": []} if task == "token-classification" else {}
    pipe = transformers.pipeline(name, model=str(folder), device="cpu", **options)
    if task == "text-classification":
        return [pipe(text, top_k=10) for text in texts]
    if task != "sentence-similarity":
        return [pipe(text) for text in texts]
    means = [np.asarray(pipe(text)[0]).mean(axis=0) for text in texts]
    return [(mean / np.linalg.norm(mean)).tolist() for mean in means]


def _difference(wanted: Any, got: Any) -> float:
    """Return the largest difference of two answers; of other labels or words, infinite."""
    import numpy as np

    if isinstance(wanted[0], dict):
        key = "label" if "label" in wanted[0] else "entity"
        a, b = (
            {(row[key], row.get("word"), row.get("start")): row["score"] for row in rows}
            for rows in (wanted, got)
        )
        if set(a) != set(b):
            return float("inf")
        return float(max(abs(a[k] - b[k]) for k in a))
    first, second = np.asarray(wanted), np.asarray(got)
    scale = max(1.0, float(np.abs(first).max()))
    return float(np.abs(first - second).max()) / scale if first.shape == second.shape else 9.9


def _likeness(wanted: Any, got: Any) -> float:
    """Return the share of equal decisions, or the cosine."""
    import numpy as np

    if not isinstance(wanted[0], dict):
        a, b = np.asarray(wanted).ravel(), np.asarray(got).ravel()
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))
    if "label" in wanted[0]:
        return float(wanted[0]["label"] == got[0]["label"])
    pairs = list(zip(wanted, got, strict=True))
    return float(sum(a["entity"] == b["entity"] for a, b in pairs)) / len(pairs)


def write_table(cells: list[Cell]) -> None:
    """Write `docs/families.md`."""
    names = {task: task for task in families.TASKS}
    lines = [
        "# Families",
        "",
        "Made by `python tests/benchmarks/support_table.py`: small models with random weights and heads that",
        "were trained, built for an x86 CPU and for jetson-orin, and compared with",
        "`transformers.pipeline` on 105 texts. The variants of a GPU were run on the CPU: no GPU has run",
        "them.",
        "",
        "* **yes**: float32 is within 1e-4 of the pipeline, every variant of the target is there, and",
        "  int8 and float16 give at least 98 % of its decisions (a mean cosine of 0.98 for vectors).",
        "* **float only**: float32 is, and a variant is left out of the bundle or decides otherwise more",
        "  often.",
        "* **no**: there is no bundle, or float32 differs.",
        "",
        f"| family | {' | '.join(f'{names[t]}, {x}' for t in families.TASKS for x in ('x86', 'jetson'))} |",
        f"|---|{'---|' * 8}",
    ]
    found = {(cell.family, cell.task, cell.target): cell for cell in cells}
    for family in families.FAMILIES:
        row = [found.get((family, task, target)) for task in families.TASKS for target in TARGETS]
        lines.append(f"| {family} | {' | '.join(c.verdict if c else '–' for c in row)} |")
    reasons = [(c, c.why) for c in cells if c.verdict != "yes"]
    if reasons:
        lines += ["", "## Why not", "", "| family | task | target | why |", "|---|---|---|---|"]
        lines += [f"| {c.family} | {c.task} | {c.target} | {why} |" for c, why in reasons]
    TABLE.parent.mkdir(exist_ok=True)
    TABLE.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
