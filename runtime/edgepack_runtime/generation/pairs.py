"""Models that read one text and write another: an encoder, and a decoder that looks back at it.

The encoder gives the keys and values that the decoder reads at each step, under the names of the
decoder's inputs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from edgepack_runtime.engines import Session, State
from edgepack_runtime.generation.grammar import Grammar
from edgepack_runtime.generation.reader import Reader
from edgepack_runtime.generation.scores import Chooser, banned
from edgepack_runtime.generation.settings import PairSettings

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

MASK = "encoder_attention_mask"


def encode(encoder: Session, ids: Sequence[int]) -> dict[str, Array]:
    """Read a text; return what the decoder looks back at, for one row."""
    import numpy as np

    mask = np.ones((1, len(ids)), dtype=np.int64)
    found = encoder.run({"input_ids": np.array([ids], dtype=np.int64), "attention_mask": mask})
    return {**found, MASK: mask}


@dataclass(frozen=True)
class PairReader(Reader):
    """Runs a decoder on the tokens of one answer, one at a time."""

    source: Mapping[str, Array] | None = None
    """What `encode` returned."""

    def logits(self, ids: Sequence[int], *, last: bool = False) -> Array:
        """Run on tokens; return the logits [tokens, vocabulary], or only those of the last."""
        import numpy as np

        found = [rows_logits(self.state, self.source or {}, [token]) for token in ids]
        return found[-1] if last else np.concatenate(found)


class PairChooser(Chooser):
    """Picks the next token of an answer to a source."""

    def __init__(
        self,
        settings: PairSettings,
        start: Sequence[int],
        eos: Sequence[int],
        source: Sequence[int],
        grammar: Grammar | None = None,
    ) -> None:
        super().__init__(settings, start, eos, grammar)
        self._start = 1
        self._pair, self._source = settings, source

    def exclude(self, scores: Array, logits: Array) -> Array:
        """Exclude what a source or its model forbids, and what the form does not allow."""
        return super().exclude(forbid(scores, self._ids, self._source, self._pair), logits)


def forbid(
    scores: Array, ids: Sequence[int], source: Sequence[int], settings: PairSettings
) -> Array:
    """Exclude the tokens that an answer `ids` may not write next, in place."""
    import numpy as np

    if size := settings.encoder_no_repeat_ngram_size:
        scores[banned(source, ids, size)] = -np.inf
    scores[list(settings.suppress_tokens)] = -np.inf
    if settings.forced_eos_token_id is not None and len(ids) == settings.max_new_tokens:
        scores[:] = -np.inf
        scores[settings.forced_eos_token_id] = 0.0
    return scores


def rows_logits(state: State, source: Mapping[str, Array], tokens: Sequence[int]) -> Array:
    """Run each row of a decoder on one token; return the logits [rows, vocabulary]."""
    import numpy as np

    feeds = {"input_ids": np.array(tokens, dtype=np.int64)[:, None], **source}
    found: Array = state.run(feeds)["logits"][:, -1]
    return found
