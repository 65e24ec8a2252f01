"""Compare a bundle's answers with those of `transformers.pipeline`, row by row."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SCORE = 1e-4


def pipeline_for(folder: Path, task: str) -> Any:
    """Return the transformers pipeline for a model folder, on the CPU in float32."""
    import torch
    from transformers import pipeline

    with torch.no_grad():
        return pipeline(
            task, model=str(folder), tokenizer=str(folder), device="cpu", dtype=torch.float32
        )


def same(expected: Any, actual: Any, path: str = "answer") -> None:
    """Assert equal keys, order, words and offsets, and scores within `SCORE`."""
    if isinstance(expected, dict):
        assert list(expected) == list(actual), path
        for key in expected:
            same(expected[key], actual[key], f"{path}.{key}")
    elif isinstance(expected, (list, tuple)):
        assert len(expected) == len(actual), f"{path}: {len(expected)} != {len(actual)}"
        for i, (one, other) in enumerate(zip(expected, actual, strict=True)):
            same(one, other, f"{path}[{i}]")
    elif hasattr(expected, "dtype") or isinstance(expected, float):
        assert abs(float(expected) - float(actual)) <= SCORE, f"{path}: {expected} != {actual}"
    else:
        assert expected == actual, f"{path}: {expected!r} != {actual!r}"


def conll_sentences(path: Path, limit: int) -> list[tuple[list[str], list[str]]]:
    """Read (words, tags) of a two-column CoNLL file."""
    found: list[tuple[list[str], list[str]]] = []
    words: list[str] = []
    tags: list[str] = []
    for line in [*path.read_text(encoding="utf-8").splitlines(), ""]:
        if line.strip():
            word, tag = line.strip().split("\t")
            words.append(word)
            tags.append(tag)
        elif words:
            found.append((words, tags))
            words, tags = [], []
    return found[:limit]
