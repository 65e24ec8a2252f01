"""Shared by tasks that read texts with one graph, `model`: tokens in, an output for each text."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.description import Task
from edgepack_runtime.engines._batching import runs
from edgepack_runtime.errors import InputError
from edgepack_runtime.inputs.calls import Batching, Cutting
from edgepack_runtime.inputs.text import INPUTS, TextEncoder, Tokens
from edgepack_runtime.tasks._opened import Opened

if TYPE_CHECKING:
    from tokenizers import Encoding

    from edgepack_runtime.numeric import Array

GRAPH = "model"
_SIZES = {"16×1": (16, 1), "32×1": (32, 1), "128×1": (128, 1), "16×8": (16, 8)}  # tokens × rows
CELLS = tuple(_SIZES)
CELL_UNIT = "tokens × rows"
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Call:
    """One item of a call, with everything known about it."""

    spec: Task
    """The task of the model."""
    encoder: TextEncoder
    """The tokenizer of the bundle."""
    item: Any
    """The item as the caller passed it."""
    tokens: list[Tokens]
    """The texts of the item."""
    outputs: list[list[Array]]
    """`outputs[i][j]` is the raw output of window j of text i: [labels] or [tokens, width]."""


def check(opened: Opened) -> None:
    """Check that the graph takes only tokens; a `DeviceError` if it takes more."""
    opened.check_feeds(GRAPH, INPUTS)


def read_first(
    opened: Opened, items: Sequence[Any], tokens: list[list[Tokens]], options: Cutting
) -> list[Call]:
    """Run the first window of every text; a longer text is cut, with a warning.

    Args:
        opened: the variant that runs.
        items: the items of the call.
        tokens: the texts of each item.
        options: the options of the call.

    """
    _check_length(opened.text, [text for item in tokens for text in item], options)
    kept = [[text.windows[:1] for text in item] for item in tokens]
    return _calls(opened, items, tokens, kept, options)


def read_whole(
    opened: Opened, items: Sequence[Any], tokens: list[list[Tokens]], options: Batching
) -> list[Call]:
    """Run every window of every text; the arguments are those of `read_first`."""
    kept = [[text.windows for text in item] for item in tokens]
    return _calls(opened, items, tokens, kept, options)


def _calls(
    opened: Opened,
    items: Sequence[Any],
    tokens: list[list[Tokens]],
    kept: Sequence[Sequence[Sequence[Encoding]]],
    options: Batching,
) -> list[Call]:
    rows = [window for item in kept for text in item for window in text]
    flat = iter(infer(opened, rows, options.batch_size))
    outputs = [[[next(flat) for _ in text] for text in item] for item in kept]
    return [
        Call(opened.task, opened.text, *row) for row in zip(items, tokens, outputs, strict=True)
    ]


def _check_length(encoder: TextEncoder, texts: Sequence[Tokens], options: Cutting) -> None:
    """Warn once that texts are cut, or refuse them, depending on the options."""
    if options.when_long == "cut" or (options.when_long == "warn" and encoder.said_cut):
        return
    cut = sum(len(text.windows) > 1 for text in texts)
    longer = f"{cut} of {len(texts)} texts are longer than "
    longer += f"{options.max_length or encoder.spec.max_length} tokens"
    if cut and options.when_long == "error":
        raise InputError(f"{longer}; shorten them, or leave on_long out to have them cut")
    if cut:
        encoder.said_cut = True
        _log.warning("%s; only their beginning is read (not said again)", longer)


def infer(
    opened: Opened, rows: Sequence[Encoding], batch_size: int, names: Sequence[str] = ()
) -> list[Array]:
    """Return the first output of the graph for each row: [labels] or [tokens, width].

    With `names`, it is these outputs side by side: [tokens, names].
    """
    import numpy as np

    session, encoder = opened.graph(GRAPH), opened.text
    lengths = [max(1, len(row.ids)) for row in rows]
    outputs: list[Array] = [None] * len(rows)  # type: ignore[list-item]
    for group, width in runs(opened.variant, session, lengths, batch_size):
        picked = [rows[i] for i in group]
        found = session.run(encoder.batch(picked, width))
        output = found[session.outputs[0]]
        if names:
            output = np.stack([found[name] for name in names], axis=-1)
        for at, i in enumerate(group):
            row = output[at] if output.ndim == 2 else encoder.unpad(output, rows[i], at)
            outputs[i] = row
    return outputs


def raw(opened: Opened, inputs: Sequence[str | tuple[str, str]]) -> list[Array]:
    """Return the graph's output for each text or pair; each runs on its own.

    A text longer than `max_length` is cut to its first window.
    """
    items = [(text, None) if isinstance(text, str) else text for text in inputs]
    return [infer(opened, [opened.text.encode(*item).first], 1)[0] for item in items]


def cell(opened: Opened, name: str, samples: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the inputs and options of the call that a cell times, made from words of the samples.

    There are no inputs if the model does not take this many tokens.
    """
    tokens, rows = _SIZES[name]
    if tokens > opened.text.spec.max_length:
        return [], {}
    return [text_of(opened.text, samples, tokens)] * rows, {"batch_size": rows}


def text_of(encoder: TextEncoder, texts: Sequence[str], tokens: int) -> str:
    """Join words of `texts` into a text of `tokens` tokens, special ones included.

    It has one or two tokens fewer if no word is short enough to fill the end.
    """
    words = list(dict.fromkeys(" ".join(texts).split())) or ["a"]
    picked: list[str] = []
    tried = 0
    while tried < len(words):
        word = words[(len(picked) + tried) % len(words)]
        encoded = encoder.encode(" ".join([*picked, word]))
        size = len(encoded.first.ids)
        if size > tokens or len(encoded.windows) > 1:  # it was cut: it would be longer
            tried += 1
            continue
        picked, tried = [*picked, word], 0
        if size == tokens:
            break
    return " ".join(picked)
