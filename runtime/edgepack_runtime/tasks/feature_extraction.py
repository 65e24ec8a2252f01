"""Feature extraction: the vector of every token, as the pipeline of the same name gives.

With `pooling=True` the answer is one vector per text instead, pooled and normalised as
the model declares (sentence-transformers' `modules.json`).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from edgepack_runtime.inputs.calls import Cutting
from edgepack_runtime.inputs.text import TextEncoder, Tokens
from edgepack_runtime.numeric import pool, unit
from edgepack_runtime.tasks import Call

DECIDES = False
PER_TOKEN = False


@dataclass(frozen=True)
class Options(Cutting):
    """pooling: give one vector per text; return_tensors: give numpy arrays, not lists."""

    pooling: bool = False
    return_tensors: bool = False


def items(inputs: object, options: Options) -> list[Any]:  # noqa: ARG001
    """A list holds several texts."""
    return inputs if isinstance(inputs, list) else [inputs]


def prepare(encoder: TextEncoder, item: object, options: Options) -> list[Tokens]:
    """Tokenize a text."""
    return [encoder.encode(item, max_length=options.max_length)]


def windowed() -> bool:
    """A text beyond `max_length` is cut, with a warning."""
    return False


def finish(call: Call, options: Options) -> Any:
    """Return [1, tokens, width], or [width] when pooled."""
    hidden = call.outputs[0][0]
    array = embed(call, 0) if options.pooling else hidden[None]
    return array if options.return_tensors else array.tolist()


def wrap(answers: list[Any], inputs: object, options: Options) -> Any:  # noqa: ARG001
    """One text gives one answer."""
    return answers if isinstance(inputs, list) else answers[0]


def embed(call: Call, index: int) -> Any:
    """Pool text `index` of a call as the model declares; the mean where it says nothing."""
    vector = pool(call.outputs[index][0], call.spec.pooling or "mean")
    return unit(vector) if call.spec.normalize else vector
