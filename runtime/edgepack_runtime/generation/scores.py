"""From the logits of one position to its token, in the order of transformers 4.57.

Source of the order and of each rule: `GenerationMixin._get_logits_processor` and
`generation/logits_process.py`.  Presence and frequency penalties are OpenAI's.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack_runtime.generation.grammar import Grammar
from edgepack_runtime.generation.settings import Settings

if TYPE_CHECKING:
    import numpy as np

    from edgepack_runtime.numeric import Array


@dataclass(frozen=True)
class Chance:
    """How probable a token was, by the model alone: before penalties, forms and draws."""

    token: int
    """The token that was taken."""
    logprob: float
    """Its log-probability."""
    best: tuple[tuple[int, float], ...]
    """The most probable tokens with their log-probabilities, best first."""


class Chooser:
    """Picks the next token of one text."""

    chances: list[Chance]
    """Of each token, if `record` was asked for."""

    def __init__(
        self,
        settings: Settings,
        prompt: Sequence[int],
        eos: Sequence[int],
        grammar: Grammar | None = None,
    ) -> None:
        import numpy as np

        self._settings: Settings = settings
        self._grammar = grammar
        self._eos = list(eos)
        self._ids = list(prompt)
        self._start = len(prompt)
        self._rng = np.random.default_rng(settings.seed)
        self._best: int | None = None
        self.chances = []

    def record(self, best: int) -> None:
        """Remember from now on how probable each token was, beside the `best` most probable."""
        self._best = best

    def choose(self, logits: Array) -> int:
        """Choose a token by the logits [vocabulary] of the next position, and remember it."""
        scores = self.processed(logits)
        token = draw(scores, self._rng) if self._settings.do_sample else int(scores.argmax())
        self._ids.append(token)
        if self._best is not None:
            self.chances.append(chance(logits, token, self._best))
        if self._grammar:
            self._grammar.take(token)
        return token

    @property
    def complete(self) -> bool:
        """Tell whether the text has the form that was asked for, and nothing may follow."""
        return self._grammar is not None and self._grammar.complete

    def processed(self, logits: Array) -> Array:
        """Return the scores by which a token is chosen."""
        scores = processed(logits, self._ids, self._ids[self._start :], self._settings, self._eos)
        scores = self.exclude(scores, logits)
        return warped(scores, self._settings) if self._settings.do_sample else scores

    def exclude(self, scores: Array, logits: Array) -> Array:
        """Exclude what the form does not allow; where that is all, no other rule holds."""
        import numpy as np

        if self._grammar is None:
            return scores
        formed = self._grammar.restrict(scores)
        if np.isfinite(formed).any():
            return formed
        return self._grammar.restrict(np.array(logits, dtype=np.float32))


def chance(logits: Array, token: int, count: int) -> Chance:
    """Return how probable a token was, by the logits [vocabulary], and the `count` best tokens."""
    import numpy as np

    values = logits.astype(np.float64)
    values = values - values.max()
    values -= np.log(np.exp(values).sum())
    best = np.argsort(-values, kind="stable")[:count]
    return Chance(token, float(values[token]), tuple((int(i), float(values[i])) for i in best))


def processed(
    logits: Array,
    ids: Sequence[int],
    written: Sequence[int],
    settings: Settings,
    eos: Sequence[int],
) -> Array:
    """Return the scores of the next token [vocabulary] by all rules but draws and forms.

    Args:
        logits: or log-probabilities, where several answers are followed.
        ids: the text so far, with the prompt.
        written: the part of it that was written.
        settings: the rules.
        eos: tokens that end the text.

    """
    import numpy as np

    scores = np.array(logits, dtype=np.float32)
    if settings.repetition_penalty != 1.0:
        penalize_repeated(scores, ids, settings.repetition_penalty)
    if settings.presence_penalty or settings.frequency_penalty:
        for token, count in Counter(written).items():
            scores[token] -= settings.presence_penalty + count * settings.frequency_penalty
    if settings.no_repeat_ngram_size:
        scores[banned(ids, ids, settings.no_repeat_ngram_size)] = -np.inf
    if len(written) < settings.min_new_tokens:
        scores[list(eos)] = -np.inf
    return scores


def warped(scores: Array, settings: Settings) -> Array:
    """Return the scores of the tokens that may be drawn; all others are minus infinity."""
    if settings.temperature != 1.0:
        scores = scores / settings.temperature
    if settings.top_k:
        scores = top_k(scores, settings.top_k)
    if settings.top_p < 1.0:
        scores = top_p(scores, settings.top_p)
    if settings.min_p:
        scores = min_p(scores, settings.min_p)
    if settings.typical_p < 1.0:
        scores = typical(scores, settings.typical_p)
    return scores


def penalize_repeated(scores: Array, ids: Sequence[int], penalty: float) -> None:
    """Make tokens that have occurred less likely, in place."""
    import numpy as np

    seen = np.unique(np.asarray(ids, dtype=np.int64))
    picked = scores[seen]
    scores[seen] = np.where(picked < 0, picked * penalty, picked / penalty)


def banned(text: Sequence[int], ids: Sequence[int], size: int) -> list[int]:
    """Return the tokens after `ids` that would repeat a run of `size` tokens of `text`."""
    if len(ids) + 1 < size:
        return []
    last = tuple(ids[len(ids) - size + 1 :])
    runs = zip(*(text[start:] for start in range(size)), strict=False)
    return [run[-1] for run in runs if run[:-1] == last]


def top_k(scores: Array, count: int) -> Array:
    """Allow the `count` best tokens, and ties with the last of them."""
    import numpy as np

    if count >= scores.size:
        return scores
    least = np.partition(scores, -count)[-count]
    return np.where(scores < least, -np.inf, scores)


def top_p(scores: Array, share: float) -> Array:
    """Allow the best tokens that hold `share` of the probability, at least one."""
    import numpy as np

    order = np.argsort(scores, kind="stable")
    total = _softmax(scores[order]).cumsum()
    out = order[total <= 1.0 - share]
    scores = scores.copy()
    scores[out[out != order[-1]]] = -np.inf
    return scores


def min_p(scores: Array, share: float) -> Array:
    """Allow tokens that are at least `share` as probable as the best."""
    import numpy as np

    chances = _softmax(scores)
    return np.where(chances < share * chances.max(), -np.inf, scores)


def typical(scores: Array, mass: float) -> Array:
    """Allow the tokens whose surprise is closest to the expected one, up to `mass`.

    Source: Meister et al. 2022, arXiv 2202.00666.
    """
    import numpy as np

    chances = _softmax(scores)
    with np.errstate(divide="ignore", invalid="ignore"):
        surprise = -np.log(chances)
        distance = np.abs(surprise - np.nansum(surprise * chances))
    order = np.argsort(distance, kind="stable")
    last = min(int((_softmax(scores[order]).cumsum() < mass).sum()), scores.size - 1)
    out = distance > distance[order[last]]
    out[order[0]] = False
    return np.where(out, -np.inf, scores)


def draw(scores: Array, rng: np.random.Generator) -> int:
    """Draw a token by the softmax of the scores."""
    import numpy as np

    allowed = np.flatnonzero(np.isfinite(scores))
    total = _softmax(scores[allowed].astype(np.float64)).cumsum()
    at = int(np.searchsorted(total, rng.random() * total[-1], side="right"))
    return int(allowed[min(at, len(allowed) - 1)])


def _softmax(scores: Array) -> Array:
    import numpy as np

    exps = np.exp(scores - scores.max())
    chances: Array = exps / exps.sum()
    return chances
