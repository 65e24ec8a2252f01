"""Batches: packed once, and in an order of their own each epoch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack.compress.batches import ByLength, pack, pack_labels
from edgepack.data.rows import Example
from edgepack.model.torch_model import load_torch

Get = Callable[..., Path]
TASK = "text-classification"


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_packed_batch_is_what_the_tokenizer_pads(side: str, model: Get) -> None:
    """Texts and pairs of texts: the same ids, mask and types, and labels beside them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model("bert-intent"), padding_side=side)
    config = load_torch(model("bert-intent"), TASK).config
    names = list(config.label2id)
    for pair in (None, "in the kitchen"):
        texts = ["lights on", "what's the weather like", "book a table"]
        examples = [Example(t, i, pair, names[i]) for i, t in enumerate(texts)]
        rows, words = pack(tokenizer, examples, 64)
        labels = pack_labels(examples, rows, words, config)
        wanted = tokenizer([texts[2], texts[0]], None if pair is None else [pair] * 2, padding=True)
        found = rows.pad([2, 0])
        assert {name: tensor.tolist() for name, tensor in found.items()} == dict(wanted)
        assert labels is not None
        assert labels.pick([2, 0]).tolist() == [config.label2id[names[i]] for i in (2, 0)]


def test_an_epoch_takes_every_row_once_in_an_order_of_its_own() -> None:
    """Rows of one step are of like length, and the order is the seed's and the epoch's."""
    lengths = list(range(100)) * 2
    order = ByLength(lengths, 10, seed=0)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    assert sorted(first) == sorted(second) == list(range(200))
    assert first != second
    steps = [first[i : i + 10] for i in range(0, 200, 10)]
    assert max(max(lengths[i] for i in s) - min(lengths[i] for i in s) for s in steps) < 20
