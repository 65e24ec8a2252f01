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
from edgepack_runtime.tasks import Call
from edgepack_runtime.tasks.feature_extraction import embed, windowed

__all__ = ["Options", "finish", "items", "prepare", "windowed", "wrap"]


DECIDES = False
PER_TOKEN = False


@dataclass(frozen=True)
class Options(Cutting):
    """return_tensors: give numpy arrays, not lists."""

    return_tensors: bool = False


def items(inputs: object, options: Options) -> list[Any]:  # noqa: ARG001
    """A list holds several texts or comparisons."""
    return inputs if isinstance(inputs, list) else [inputs]


def prepare(encoder: TextEncoder, item: object, options: Options) -> list[Tokens]:
    """Tokenize a text, or the source and the sentences of a comparison."""
    if not isinstance(item, dict):
        return [encoder.encode(item, max_length=options.max_length)]
    if set(item) != {"source_sentence", "sentences"}:
        raise InputError('a comparison is {"source_sentence": "…", "sentences": ["…", …]}')
    sentences = listed(item["sentences"])
    if not isinstance(sentences, list) or not sentences:
        raise InputError('"sentences" must be a list of at least one text')
    texts = [item["source_sentence"], *sentences]
    return [encoder.encode(text, max_length=options.max_length) for text in texts]


def finish(call: Call, options: Options) -> Any:
    """Return a vector [width], or similarities [sentences]."""
    vectors = [embed(call, i) for i in range(len(call.tokens))]
    if isinstance(call.item, dict):
        return [cosine(vectors[0], other) for other in vectors[1:]]
    return vectors[0] if options.return_tensors else vectors[0].tolist()


def wrap(answers: list[Any], inputs: object, options: Options) -> Any:  # noqa: ARG001
    """One item gives one answer."""
    return answers if isinstance(inputs, list) else answers[0]
