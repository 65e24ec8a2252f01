"""Text generation, measured by how surprised a model is by each next token of a text."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality
from edgepack_runtime.errors import InputError
from edgepack_runtime.generation.reader import all_logits

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model
    from edgepack_runtime.numeric import Array

OPTIMUM = "text-generation"
AUTO_CLASS = "AutoModelForCausalLM"
ARCHITECTURES: tuple[str, ...] = ("ForCausalLM", "LMHeadModel")
HEAD = ""
ADAPTER = "CAUSAL_LM"
READS = "text"
DECODES = True
PAIRS = False
LEARNS = True
MARK = ""
PACKAGES: tuple[str, ...] = (
    # chat templates
    "jinja2==3.1.6",
    "markupsafe==3.0.4",
    # forms of texts
    "llguidance==1.9.1",
    # calls of tools
    "jsonschema==4.26.0",
    "jsonschema-specifications==2025.9.1",
    "referencing==0.37.0",
    "rpds-py==2026.9.1",
    "attrs==26.1.0",
    "typing-extensions==4.16.0",
)
_WINDOW = 1024


def evaluate(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:  # noqa: ARG001 (a text runs alone)
    """Measure the perplexity of the texts, read as one, and how often the next token is right.

    Windows overlap by half, and except in the first window, only tokens with half a window before
    them are counted, as described in https://huggingface.co/docs/transformers/perplexity.

    Raises:
        InputError: the text has only one token.

    """
    text = "\n".join(example.text for example in examples)
    ids = model.encoder.ids(text)
    if len(ids) < 2:
        raise InputError("the evaluation data has only one token; perplexity needs a next one")
    total, hits, count = _score(model, ids)
    figures = {
        "perplexity": math.exp(total / count),
        "bits_per_token": total / count / math.log(2),
        "bits_per_byte": total / len(text.encode()) / math.log(2),
        "next_token_accuracy": hits / count,
    }
    return Quality("perplexity", figures, len(examples))


def _score(model: Model, ids: Sequence[int]) -> tuple[float, int, int]:
    """Return the summed loss in nats, how many tokens were right, and how many were counted."""
    import numpy as np

    size = min(_WINDOW, model.task.writing.context if model.task.writing else _WINDOW)
    total, hits, count, done = 0.0, 0, 0, 1
    for start in range(0, len(ids) - 1, max(1, size // 2)):
        window = ids[start : start + size]
        fresh = start + len(window) - done
        logits = _logits(model, window[:-1])[-fresh:].astype(np.float64)
        wanted = np.array(window[-fresh:])
        top = logits.max(axis=1)
        sums = np.log(np.exp(logits - top[:, None]).sum(axis=1)) + top
        total += float((sums - logits[np.arange(fresh), wanted]).sum())
        hits += int((logits.argmax(axis=1) == wanted).sum())
        count, done = count + fresh, done + fresh
        if done >= len(ids):
            break
    return total, hits, count


def _logits(model: Model, ids: Sequence[int]) -> Array:
    """Return the logits [tokens, vocabulary] of a text."""
    state = model.begin("model", len(ids))
    try:
        return all_logits(state, ids)
    finally:
        state.close()
