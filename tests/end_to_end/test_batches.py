"""An answer is the same alone and in any batch, whatever form of the graph gives it."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.model.model import Model
from edgepack_runtime.model.variants import open_variant

ATOL = 1e-5
TEXTS = [
    *tiny.SENTENCES,
    "yes",
    "",
    "ok then",
    *(f"{a} {a}" for a in tiny.SENTENCES[:6]),
    "turn the lights on " * 9,
]
CPU = {"onnxruntime": "CPUExecutionProvider", "openvino": "CPU"}


def _models(path: Path) -> dict[str, Model]:
    """Open every variant of a bundle on this CPU, those for accelerators too."""
    bundle = Bundle.open(path)
    return {
        variant.name: open_variant(
            bundle, dataclasses.replace(variant, provider=CPU[variant.engine]), 2
        )
        for variant in bundle.manifest.variants
        if variant.precision != "float16"
    }


def _numbers(answer: Any) -> Any:
    """Return the scores of an answer by label, or its vector."""
    if isinstance(answer, list) and isinstance(answer[0], dict):
        return [entry["score"] for entry in sorted(answer, key=lambda entry: str(entry["label"]))]
    return answer


@pytest.mark.parametrize(
    ("kind", "target", "precision"),
    [
        ("bert-intent", "cpu-x86-64", "target"),
        ("bert-intent", "cpu-x86-64", "float32"),
        ("bert-intent", "jetson-orin", "target"),
        ("sentence", "cpu-x86-64", "target"),
    ],
)
def test_an_answer_is_the_same_alone_and_in_any_batch(
    kind: str, target: str, precision: str, bundle: Callable[..., Path]
) -> None:
    """Each variant gives a text the same scores alone, in batches of any size, in any order."""
    options: dict[str, Any] = {"top_k": None} if kind == "bert-intent" else {}
    for name, model in _models(bundle(kind, target, precision)).items():
        alone = [_numbers(model(text, **options)) for text in TEXTS]
        for size in (2, 8, 64):
            order = random.Random(size).sample(range(len(TEXTS)), len(TEXTS))  # noqa: S311 (a test)
            answers = model([TEXTS[i] for i in order], batch_size=size, **options)
            together = [_numbers(answer) for answer in answers]
            wanted = [alone[i] for i in order]
            assert np.allclose(together, wanted, rtol=0, atol=ATOL), (name, size)
