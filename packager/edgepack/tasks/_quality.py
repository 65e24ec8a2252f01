"""How good a model is, whatever its task."""

from __future__ import annotations

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
            return (other.value / self.value - 1.0) * 100
        return (self.value - other.value) * 100

    def said(self, lost: float) -> str:
        """Say what `lost` found, for people."""
        return f"rose {lost:.1f} %" if self.main == "perplexity" else f"fell {lost:.1f} points"

    @property
    def name(self) -> str:
        """Return the name of the main figure, for people."""
        return METRICS[self.main]
