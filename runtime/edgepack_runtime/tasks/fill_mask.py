"""Fill-mask: the most probable tokens in the place of a mask.

Source of the rules: `FillMaskPipeline` of transformers 4.57.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack_runtime.errors import InputError, TrustError
from edgepack_runtime.inputs.calls import Cutting, listed
from edgepack_runtime.numeric import softmax
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._texts import CELL_UNIT, CELLS, Call, check, raw, read_first
from edgepack_runtime.tasks._texts import cell as cell_of_texts
from edgepack_runtime.tasks._writing import compare, judged, least

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

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

    top_k: int = 5
    """How many tokens to return."""
    targets: str | list[str] | None = None
    """Judge only these words; a word of several tokens counts as its first one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.top_k < 1:
            raise InputError(f"top_k must be at least 1, not {self.top_k}")


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Answer a text with [{"score", "token", "token_str", "sequence"}], best first.

    A text with several masks gives such a list for each; a list of texts gives a list of answers.
    """
    items = listed(inputs)
    texts = items if isinstance(items, list) else [items]
    targets = _targets(opened, options.targets)
    tokens = [[opened.text.encode(text, max_length=options.max_length)] for text in texts]
    mask = mask_of(opened)
    for text, windows in zip(texts, tokens, strict=True):
        if mask not in windows[0].first.ids:
            raise InputError(f"no {_name(opened, mask)} in {str(text)[:80]!r}")
    calls = read_first(opened, texts, tokens, options)
    answers = [_filled(opened, call, targets, options.top_k) for call in calls]
    return answers if isinstance(items, list) else answers[0]


def mask_of(opened: Opened) -> int:
    """Return the mask's token; a `TrustError` if the bundle does not say."""
    found = opened.text.spec.mask_id
    if found is None:
        raise TrustError("the bundle does not say which token is the mask; build it again")
    return found


def _name(opened: Opened, token: int) -> str:
    return str(opened.text.tokenizer.id_to_token(token))


def _targets(opened: Opened, given: str | list[str] | None) -> list[int]:
    """Return the tokens of the targets, each once, in the order given."""
    words = [given] if isinstance(given, str) else given or []
    found: list[int] = []
    for word in words:
        token = opened.text.tokenizer.token_to_id(word)
        ids = [token] if token is not None else opened.text.ids(word, special=False)[:1]
        if not ids:
            raise InputError(f"the target {word!r} has no token")
        found += ids
    if given is not None and not found:
        raise InputError("targets must name at least one word")
    return list(dict.fromkeys(found))


def _filled(opened: Opened, call: Call, targets: Sequence[int], top_k: int) -> Any:
    import numpy as np

    ids, logits = call.tokens[0].first.ids, call.outputs[0][0]
    places = [at for at, token in enumerate(ids) if token == mask_of(opened)]
    decode = opened.text.decode
    rows = []
    for place in places:
        scores = softmax(logits[place])
        known = np.array(targets) if targets else np.arange(len(scores))
        order = known[np.argsort(-scores[known], kind="stable")][:top_k]
        row = []
        for token in map(int, order):
            filled = [*ids[:place], token, *ids[place + 1 :]]
            sequence = decode(filled, special=len(places) > 1)
            row.append(
                {
                    "score": float(scores[token]),
                    "token": token,
                    "token_str": decode([token], special=True),
                    "sequence": sequence,
                }
            )
        rows.append(row)
    return rows[0] if len(rows) == 1 else rows


def outputs(opened: Opened, inputs: Sequence[str | tuple[str, str]]) -> list[Array]:
    """Return, for each text, [tokens, 1 + logits]: the best token of each place and some logits."""
    return [judged(logits) for logits in raw(opened, inputs)]


def cell(opened: Opened, name: str, samples: Sequence[str]) -> tuple[list[str], dict[str, Any]]:
    """Return the texts that a cell times; one word of each is a mask."""
    texts, options = cell_of_texts(opened, name, samples)
    mask = _name(opened, mask_of(opened))
    return [" ".join([*text.split()[:-1], mask]) for text in texts], options
