"""Perplexity of a causal language model on a text: how surprised it is by each next token."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from edgepack.data.rows import read_examples
from edgepack.tasks._quality import Quality
from edgepack_runtime.errors import InputError

_WINDOW = 1024


def perplexity(folder: Path, data: str) -> Quality:
    """Measure the model in `folder` on the texts of `data`, read as one text.

    Windows overlap by half, and except in the first window, only tokens with half a window before
    them are counted, as described in https://huggingface.co/docs/transformers/perplexity.

    Raises:
        InputError: it is not a causal language model, or the text has only one token.

    """
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    try:
        model = AutoModelForCausalLM.from_pretrained(folder, local_files_only=True).eval()
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, OSError) as exc:
        raise InputError(f"{folder}: not a causal language model: {exc}") from exc
    examples = read_examples(data, "", labelled=False)
    text = "\n".join(example.text for example in examples)
    tokens = tokenizer(text, return_tensors="pt", verbose=False)["input_ids"]
    if tokens.shape[1] < 2:
        raise InputError(f"{data} has only one token; perplexity needs a next one")
    with torch.inference_mode():
        total, count = _loss(model, tokens)
    figures = {"perplexity": math.exp(total / count), "bits_per_token": total / count / math.log(2)}
    return Quality("perplexity", figures, len(examples))


def _loss(model: Any, tokens: Any) -> tuple[float, int]:
    """Return the summed loss in nats, and the number of tokens."""
    from torch.nn import functional

    size = min(_WINDOW, int(getattr(model.config, "max_position_embeddings", _WINDOW)))
    total, count, done = 0.0, 0, 1
    for start in range(0, tokens.shape[1] - 1, max(1, size // 2)):
        window = tokens[:, start : start + size]
        logits = model(window).logits[0, :-1]
        fresh = start + window.shape[1] - done
        loss = functional.cross_entropy(logits[-fresh:], window[0, -fresh:], reduction="sum")
        total, count, done = total + float(loss), count + fresh, done + fresh
        if done >= tokens.shape[1]:
            break
    return total, count
