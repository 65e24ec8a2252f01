"""Sentence embeddings and their similarity, pooled and normalised as the model declares.

A text gives its vector [width]; `{"source_sentence": …, "sentences": […]}` gives the
cosine similarity of the source to each sentence.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgepack_runtime.errors import InputError
from edgepack_runtime.inputs.calls import Cutting, listed
from edgepack_runtime.inputs.text import TextEncoder, Tokens
from edgepack_runtime.numeric import cosine
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._texts import CELL_UNIT, CELLS, Call, cell, check, read_first
from edgepack_runtime.tasks._vectors import compare, least, outputs
from edgepack_runtime.tasks.feature_extraction import embed

__all__ = [
    "CELLS",
    "CELL_UNIT",
    "DECIDES",
    "PER_TOKEN",
    "Options",
    "answer",
    "cell",
    "check",
    "compare",
    "least",
    "outputs",
]

DECIDES = False
PER_TOKEN = False


@dataclass(frozen=True)
class Options(Cutting):
    """The options of a call."""

    return_tensors: bool = False
    """Give numpy arrays, not lists."""


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Answer a text with its vector [width], and a comparison with similarities [sentences].

    A list of them gives a list of answers.
    """
    inputs = listed(inputs)
    items = inputs if isinstance(inputs, list) else [inputs]
    tokens = [_tokenize(opened.text, item, options) for item in items]
    answers = [_compare(call, options) for call in read_first(opened, items, tokens, options)]
    return answers if isinstance(inputs, list) else answers[0]


def _tokenize(encoder: TextEncoder, item: object, options: Options) -> list[Tokens]:
    if not isinstance(item, dict):
        return [encoder.encode(item, max_length=options.max_length)]
    if set(item) != {"source_sentence", "sentences"}:
        raise InputError('a comparison is {"source_sentence": "…", "sentences": ["…", …]}')
    sentences = listed(item["sentences"])
    if not isinstance(sentences, list) or not sentences:
        raise InputError('"sentences" must be a list of at least one text')
    texts = [item["source_sentence"], *sentences]
    return [encoder.encode(text, max_length=options.max_length) for text in texts]


def _compare(call: Call, options: Options) -> Any:
    vectors = [embed(call, i) for i in range(len(call.tokens))]
    if isinstance(call.item, dict):
        return [cosine(vectors[0], other) for other in vectors[1:]]
    return vectors[0] if options.return_tensors else vectors[0].tolist()
