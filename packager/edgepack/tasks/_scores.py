"""Figures that several tasks share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality
from edgepack_runtime.errors import InputError


def items(examples: Sequence[Example]) -> list[Any]:
    """Return examples in the form that a model takes: texts, and pairs of texts."""
    return [
        example.text if example.pair is None else {"text": example.text, "text_pair": example.pair}
        for example in examples
    ]


def is_number(label: object) -> bool:
    """Tell whether a label is a number."""
    try:
        float(str(label))
    except ValueError:
        return False
    return True


def correlations(found: Sequence[float], examples: Sequence[Example]) -> Quality:
    """Correlate scores with labels that are numbers; the main figure is Spearman's."""
    from scipy.stats import pearsonr, spearmanr

    wrong = [example.line for example in examples if not is_number(example.label)]
    if wrong:
        raise InputError(f"evaluation data, line {wrong[0]}: the label is not a score")
    wanted = [float(str(example.label)) for example in examples]
    if len(set(wanted)) < 2:
        raise InputError(
            "the evaluation data has only one score: there is nothing to correlate with"
        )
    figures = {
        "spearman": float(spearmanr(found, wanted).statistic),
        "pearson": float(pearsonr(found, wanted).statistic),
    }
    return Quality("spearman", figures, len(examples))
