"""The few array functions that answers need, in float32 like the outputs of the models."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, np.dtype[Any]]


def softmax(x: Array) -> Array:
    """Softmax over the last axis."""
    import numpy as np

    exps = np.exp(x - x.max(axis=-1, keepdims=True))
    scores: Array = exps / exps.sum(axis=-1, keepdims=True)
    return scores


def sigmoid(x: Array) -> Array:
    """Logistic function, element by element."""
    import numpy as np

    with np.errstate(over="ignore"):  # exp of a large number is infinite, and 1 ÷ that is 0
        scores: Array = 1.0 / (1.0 + np.exp(-x))
    return scores


def cosine(a: Array, b: Array) -> float:
    """Cosine similarity of two arrays as flat vectors; 1.0 for two zero vectors."""
    import numpy as np

    a64, b64 = a.astype(np.float64).ravel(), b.astype(np.float64).ravel()
    scale = float(np.linalg.norm(a64) * np.linalg.norm(b64))
    return float(a64 @ b64) / scale if scale else float(np.array_equal(a64, b64))


def pool(hidden: Array, mode: str) -> Array:
    """Pool token vectors [tokens, width] of one unpadded text into one vector [width]."""
    vector: Array
    if mode == "cls":
        vector = hidden[0]
    elif mode == "max":
        vector = hidden.max(axis=0)
    else:
        vector = hidden.mean(axis=0)
    return vector


def unit(vector: Array) -> Array:
    """Scale a vector to length one, as `torch.nn.functional.normalize` does."""
    import numpy as np

    return vector / max(float(np.linalg.norm(vector)), 1e-12)
