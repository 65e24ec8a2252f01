"""How good a model is, whatever its task."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

METRICS = {
    "accuracy": "accuracy",
    "micro_f1": "micro-F1",
    "entity_f1": "entity F1",
    "spearman": "Spearman",
    "nearest_accuracy": "nearest-neighbour accuracy",
    "perplexity": "perplexity",
    "chrf": "chrF",
    "ndcg_at_10": "nDCG@10",
    "qa_f1": "F1 of words",
    "word_accuracy": "right words",
}


@dataclass(frozen=True)
class Quality:
    """The result of an evaluation."""

    main: str
    """The name of the main figure."""
    figures: Mapping[str, float]
    """Figures from 0 to 1; correlations from -1 to 1; perplexity from 1 up, where less is better.
    """
    rows: int
    """The number of rows it was measured on."""

    @property
    def value(self) -> float:
        """Return the main figure."""
        return self.figures[self.main]

    def lost(self, other: Quality) -> float:
        """Return how much worse another is: points of a share, percent of a perplexity."""
        if self.main == "perplexity":
            return (math.exp(self._nats(other)) - 1.0) * 100
        return (self.value - other.value) * 100

    def _nats(self, other: Quality) -> float:
        """Return by how much another is more surprised by each of this one's tokens.

        Bytes are compared, as the other may cut the same text into other tokens.
        """
        bits = [quality.figures["bits_per_byte"] for quality in (self, other)]
        bytes_per_token = self.figures["bits_per_token"] / max(bits[0], 1e-9)
        return (bits[1] - bits[0]) * bytes_per_token * math.log(2)

    def said(self, lost: float) -> str:
        """Say what `lost` found, for people."""
        return f"rose {lost:.1f} %" if self.main == "perplexity" else f"fell {lost:.1f} points"

    @property
    def name(self) -> str:
        """Return the name of the main figure, for people."""
        return METRICS[self.main]
