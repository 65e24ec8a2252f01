"""Bundles of the null engine that give vectors: each token is one of three unit vectors."""

from __future__ import annotations

from pathlib import Path

import handmade

from edgepack_runtime import load
from edgepack_runtime.bundle.manifest import canonical_json
from edgepack_runtime.model.model import Model

# Of "turn on the lights" the ids 2 4 5 7 8 3 have the rests 2 1 2 1 2 0 when divided by three.
POOLED = {
    "": [1 / 6, 2 / 6, 3 / 6],
    "mean": [1 / 6, 2 / 6, 3 / 6],
    "cls": [0.0, 0.0, 1.0],
    "max": [1.0, 1.0, 1.0],
}


def open_vectors(place: Path, task: str, pooling: str = "", *, normalize: bool = False) -> Model:
    """Open a model of a task, made in a folder; its golden vector is worked out by hand."""
    text = {"tokenizer": "tokenizer.json", "max_length": 16, "pad_id": 0, "unk_id": 1}
    spec = {"name": task, "text": text, "pooling": pooling, "normalize": normalize}
    golden = {
        "inputs": ["turn on the lights"],
        "outputs": [{"shape": [3], "data": POOLED[pooling]}],
    }
    path = handmade.bundle(
        place / f"{pooling or 'plain'}-{normalize}.epk",
        task=task,
        change={"task": spec},
        extra={"golden.json": canonical_json(golden)},
    )
    return load(path)
