"""Training rows packed in arrays, so that making a batch takes no work for each row.

A small student takes a step in 20 ms; tokenizing rows one by one and padding lists would double
that.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

from edgepack.compress.tensors import IGNORED, Batch, label_of, max_length_of, tokenize_all
from edgepack.data.rows import Example

_POOL = 50  # steps whose rows are sorted by length together
_PADS = {"input_ids": "pad_token_id", "token_type_ids": "pad_token_type_id"}


@dataclass(frozen=True)
class Rows:
    """Tokenized rows, one after the other."""

    starts: Any
    """[rows + 1], where each row begins."""
    columns: dict[str, Any]
    """{model input: values of all tokens}."""
    pads: dict[str, int]
    """The padding value of each column."""
    left: bool = False
    """Whether the padding comes first."""

    @property
    def lengths(self) -> Any:
        """Return the number of tokens of each row."""
        return self.starts[1:] - self.starts[:-1]

    def pad(self, picked: Sequence[int]) -> dict[str, Any]:
        """Return int64 tensors [rows, longest], with `attention_mask`."""
        import torch

        places, there = spans(self.starts, picked, left=self.left)
        made = {
            name: torch.from_numpy(gather(values, places, there, self.pads[name]))
            for name, values in self.columns.items()
        }
        return {**made, "attention_mask": torch.from_numpy(there.astype("int64"))}


@dataclass(frozen=True)
class Labels:
    """The labels of packed rows."""

    values: Any
    """int64 [rows] for classes; float32 [rows] for scores, or [rows, labels] for several labels; or
    int64 [tokens], packed like the rows, if every token has a label."""
    known: Any
    """[rows], which rows have a label; the others hold a blank."""
    starts: Any = None
    """[rows + 1], where each row begins, if every token has a label."""

    def pick(self, picked: Sequence[int], *, left: bool = False) -> Any:
        """Return the labels of a batch as a tensor; labels of tokens are padded with `IGNORED`."""
        import torch

        if self.starts is None:
            return torch.from_numpy(self.values[picked])
        places, there = spans(self.starts, picked, left=left)
        return torch.from_numpy(gather(self.values, places, there, IGNORED))


def spans(
    starts: Any, picked: Sequence[int], width: int = 0, *, left: bool = False
) -> tuple[Any, Any]:
    """Return (places, there), each [rows, width]: the position of a token, and if there is one.

    Args:
        starts: [rows + 1].
        picked: row numbers.
        width: width of the result; longer rows are cut; 0 for the longest row's.
        left: whether the padding comes first.

    """
    import numpy as np

    first = starts[picked]
    sizes = starts[np.asarray(picked) + 1] - first
    width = width or int(sizes.max())
    column = np.arange(width)[None] - ((width - sizes)[:, None] if left else 0)
    there = (column >= 0) & (column < sizes[:, None])
    return np.where(there, first[:, None] + column, 0), there


def gather(values: Any, places: Any, there: Any, blank: float) -> Any:
    """Return `values` at `places`, and `blank` where nothing is `there`."""
    found = values[places]
    found[~there] = blank
    return found


def batches(model: Any, tokenizer: Any, examples: Sequence[Example], size: int) -> Iterator[Batch]:
    """Yield batches of examples of similar length; with labels only if every row has one."""
    rows, words = pack(tokenizer, examples, max_length_of(model, tokenizer))
    labels = pack_labels(examples, rows, words, model.config)
    order = sorted(range(len(examples)), key=rows.lengths.tolist().__getitem__)
    for start in range(0, len(order), size):
        picked = order[start : start + size]
        whole = labels is not None and bool(labels.known[picked].all())
        yield Batch(
            rows.pad(picked), labels.pick(picked, left=rows.left) if whole and labels else None
        )


def pack(tokenizer: Any, examples: Sequence[Example], longest: int) -> tuple[Rows, Any]:
    """Tokenize examples; return them packed, and their `word_ids` (None without words)."""
    import numpy as np

    found = tokenize_all(tokenizer, examples, longest)
    lengths = [len(ids) for ids in found["input_ids"]]
    names = [name for name in tokenizer.model_input_names if name in found]
    columns = {
        name: np.fromiter(chain.from_iterable(found[name]), "int64", sum(lengths))
        for name in names
        if name != "attention_mask"
    }
    rows = Rows(
        np.concatenate([[0], np.cumsum(lengths)]).astype("int64"),
        columns,
        {name: int(getattr(tokenizer, key) or 0) for name, key in _PADS.items()},
        left=tokenizer.padding_side == "left",
    )
    return rows, found.get("word_ids")


def pack_labels(examples: Sequence[Example], rows: Rows, words: Any, config: Any) -> Labels | None:
    """Return the labels of packed examples; None if no example has one."""
    import numpy as np

    given = [
        label_of(example, {"word_ids": words[i]} if words else {}, config)
        for i, example in enumerate(examples)
    ]
    known = np.array([label is not None for label in given])
    if not known.any():
        return None
    sample = given[int(known.argmax())]
    if isinstance(sample, list) and isinstance(sample[0], int):
        filled = (
            [IGNORED] * int(size) if label is None else label
            for label, size in zip(given, rows.lengths, strict=True)
        )
        flat = np.fromiter(chain.from_iterable(filled), "int64", int(rows.starts[-1]))
        return Labels(flat, known, rows.starts)
    blank: Any = [0.0] * len(sample) if isinstance(sample, list) else IGNORED
    blank = float("nan") if isinstance(sample, float) else blank
    kind = "int64" if isinstance(sample, int) else "float32"
    return Labels(np.array([blank if x is None else x for x in given], dtype=kind), known)


class ByLength:
    """Order rows at random, but so that the rows of one step have similar lengths.

    The order of an epoch depends only on the seed and the epoch's number.  So it is the same after
    a resume, and for any number of processes, which divide each step's rows among themselves.
    """

    def __init__(self, lengths: Sequence[int], batch_size: int, seed: int) -> None:
        self._lengths = lengths
        self._batch_size = batch_size
        self._seed = seed
        self._epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Set the next epoch; the Trainer calls this."""
        self._epoch = epoch

    def __len__(self) -> int:
        return len(self._lengths)

    def __iter__(self) -> Iterator[int]:
        rng = random.Random(f"{self._seed}/{self._epoch}")  # noqa: S311 (an order, not a secret)
        order = list(range(len(self._lengths)))
        rng.shuffle(order)
        size = self._batch_size
        pools = (order[i : i + size * _POOL] for i in range(0, len(order), size * _POOL))
        ranked = [i for pool in pools for i in sorted(pool, key=self._lengths.__getitem__)]
        steps = [ranked[i : i + size] for i in range(0, len(ranked), size)]
        last = steps.pop() if len(steps[-1]) < size else []  # the short step stays at the end
        rng.shuffle(steps)
        yield from (i for step in [*steps, last] for i in step)
