"""Token classification: entities, scored as seqeval does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgepack.data.labels import check_labels
from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

OPTIMUM = "token-classification"
AUTO_CLASS = "AutoModelForTokenClassification"
ARCHITECTURES: tuple[str, ...] = ("ForTokenClassification",)
HEAD = "ForTokenClassification"
ADAPTER = "TOKEN_CLS"
READS = "text"
DECODES = False
PAIRS = False
LEARNS = True
MARK = ""
PACKAGES: tuple[str, ...] = ()


def evaluate(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    """Score entities as seqeval does, with the tag of each word's first token."""
    from seqeval.metrics import f1_score, precision_score, recall_score

    check_labels(examples, model.task.labels, "evaluation data")
    sentences = [list(example.words) for example in examples]
    answers = model(sentences, is_split_into_words=True, ignore_labels=[], batch_size=batch_size)
    wanted = [list(example.tags) for example in examples]
    found = [_word_tags(words, tokens) for words, tokens in zip(sentences, answers, strict=True)]
    pairs = [pair for a, b in zip(wanted, found, strict=True) for pair in zip(a, b, strict=True)]
    figures = {
        "entity_f1": float(f1_score(wanted, found, zero_division=0)),
        "precision": float(precision_score(wanted, found, zero_division=0)),
        "recall": float(recall_score(wanted, found, zero_division=0)),
        "token_accuracy": sum(a == b for a, b in pairs) / max(1, len(pairs)),
    }
    return Quality("entity_f1", figures, len(examples))


def _word_tags(words: Sequence[str], tokens: Sequence[Mapping[str, Any]]) -> list[str]:
    """Give each word the tag of its first token; `O` if it has none."""
    starts: list[int] = []
    at = 0
    for word in words:
        starts.append(at)
        at += len(word) + 1
    tags = ["O"] * len(words)
    place = -1
    for token in tokens:
        while place + 1 < len(starts) and token["start"] >= starts[place + 1]:
            place += 1
            tags[place] = (
                token["entity"] if token["start"] < starts[place] + len(words[place]) else "O"
            )
    return tags
