"""What a language model learns from: all texts as one row of tokens, cut into windows.

The texts are joined by line breaks, as `evaluate` joins them to measure perplexity.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from edgepack.compress.batches import Rows
from edgepack.compress.schedule import held_out
from edgepack.compress.tensors import IGNORED, Batch, max_length_of
from edgepack.data.rows import Example
from edgepack_runtime.errors import InputError


def pack(model: Any, tokenizer: Any, examples: Sequence[Example], size: int) -> Rows:
    """Return windows of `size` tokens, or of as many as the model takes.

    Raises:
        InputError: the texts have fewer than two tokens, so no token follows another.

    """
    import numpy as np

    size = max_length_of(model, tokenizer, most=size)
    text = "\n".join(example.text for example in examples)
    ids = np.array(tokenizer(text, add_special_tokens=False)["input_ids"], dtype="int64")
    starts = np.arange(0, len(ids) + size, size).clip(max=len(ids))
    starts = np.delete(starts, -2) if starts[-1] - starts[-2] < 2 else starts
    if len(ids) < 2 or len(starts) < 2:
        raise InputError("the training data has fewer than two tokens; a model learns the next one")
    return Rows(starts, {"input_ids": ids}, {"input_ids": 0})


def divide(rows: Rows, *, holds_out: bool) -> tuple[list[int], list[int]]:
    """Return the windows to learn from and those held out, which are evenly spread."""
    count = len(rows.lengths)
    wanted = held_out(count) if holds_out else 0
    held = {round((i + 0.5) * count / wanted) for i in range(wanted)}
    return [i for i in range(count) if i not in held], sorted(held)


def batches(rows: Rows, size: int, most: int) -> Iterator[Batch]:
    """Yield batches of at most `most` windows, evenly spread; a window is its own label."""
    picked = list(range(0, len(rows.lengths), -(-len(rows.lengths) // most)))
    for start in range(0, len(picked), size):
        inputs = rows.pad(picked[start : start + size])
        yield Batch(inputs, next_tokens(inputs))


def next_tokens(batch: Any) -> Any:
    """Return the labels [rows, tokens] of a batch: its tokens, without the padding."""
    return batch["input_ids"].masked_fill(batch["attention_mask"] == 0, IGNORED)


def loss(logits: Any, labels: Any) -> Any:
    """Return the mean surprise of each next token, in nats.

    Args:
        logits: float32 [rows, tokens, vocabulary].
        labels: int64 [rows, tokens], from `next_tokens`.

    """
    from torch.nn import functional

    return functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), labels[:, 1:].flatten(), ignore_index=IGNORED
    )
