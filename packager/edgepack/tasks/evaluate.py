"""Quality on labelled data: the same code for a torch model and for a bundle.

Each task has one figure that counts (`Quality.main`) and others beside it.  Definitions
are scikit-learn's, scipy's and seqeval's.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack.data.rows import Example
from edgepack_runtime.errors import InputError
from edgepack_runtime.model.selftest import reference

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

METRICS = {
    "accuracy": "accuracy",
    "micro_f1": "micro-F1",
    "entity_f1": "entity F1",
    "spearman": "Spearman",
    "nearest_accuracy": "nearest-neighbour accuracy",
    "perplexity": "perplexity",
}
_THRESHOLD = 0.5
TORCH_BATCH = 32  # padding changes nothing in float


@dataclass(frozen=True)
class Quality:
    """What was found on `rows` rows; `figures[main]` is what counts, from 0 to 1.

    Correlations run from -1 to 1; perplexity from 1 up, and there less is better.
    """

    main: str
    figures: Mapping[str, float]
    rows: int

    @property
    def value(self) -> float:
        """Return the figure that counts."""
        return self.figures[self.main]

    @property
    def name(self) -> str:
        """Return what the figure that counts is called, for people."""
        return METRICS[self.main]


def evaluate(model: Model, examples: Sequence[Example], *, batch_size: int = 1) -> Quality:
    """Measure a model on labelled examples.

    Args:
        model: a bundle's, or a torch model behind `open_torch`.
        examples: labelled rows for its task.
        batch_size: rows in one run; 1 is what a device does, and what dynamic int8 depends on.

    Raises:
        InputError: rows without a label, or labels that the model does not know.

    """
    if not examples:
        raise InputError("there are no rows to evaluate")
    if model.task.name == "token-classification":
        return _entities(model, examples, batch_size)
    if model.task.name != "text-classification":
        return _embeddings(model, examples)
    if model.task.problem_type == "regression" or len(model.task.labels) == 1:
        return _regression(model, examples, batch_size)
    if model.task.problem_type == "multi_label_classification":
        return _multi_label(model, examples, batch_size)
    return _classes(model, examples, batch_size)


def check_labels(examples: Sequence[Example], known: Sequence[str], where: str) -> None:
    """Refuse rows without a label and labels that are not `known`, all of them in one error."""
    missing = [example.line for example in examples if example.label is None and not example.tags]
    if missing:
        raise InputError(f"{where}, line {missing[0]}: no label ({len(missing)} rows have none)")
    found = {name for example in examples for name in labels_of(example)}
    unknown = sorted(found - set(known))
    if unknown:
        shown = ", ".join(repr(name) for name in unknown[:5])
        raise InputError(
            f"{where}: {len(unknown)} labels that the model does not know: {shown}; "
            f"it knows {len(known)}: {', '.join(known[:5])}{', …' if len(known) > 5 else ''}"
        )


def labels_of(example: Example) -> tuple[str, ...]:
    """Return every label name of an example."""
    if example.tags:
        return example.tags
    if isinstance(example.label, tuple):
        return example.label
    return () if example.label is None else (str(example.label),)


def _items(examples: Sequence[Example]) -> list[Any]:
    return [
        example.text if example.pair is None else {"text": example.text, "text_pair": example.pair}
        for example in examples
    ]


def _classes(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    from sklearn.metrics import accuracy_score, f1_score

    check_labels(examples, model.task.labels, "evaluation data")
    if any(isinstance(example.label, tuple) for example in examples):
        raise InputError("the evaluation data has lists of labels, the model gives one label")
    wanted = [str(example.label) for example in examples]
    found = [answer["label"] for answer in model(_items(examples), batch_size=batch_size)]
    figures = {
        "accuracy": float(accuracy_score(wanted, found)),
        "macro_f1": float(f1_score(wanted, found, average="macro", zero_division=0)),
    }
    return Quality("accuracy", figures, len(examples))


def _multi_label(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    import numpy as np
    from sklearn.metrics import accuracy_score, f1_score

    check_labels(examples, model.task.labels, "evaluation data")
    places = {label: i for i, label in enumerate(model.task.labels)}
    wanted, found = (np.zeros((len(examples), len(places)), dtype=bool) for _ in range(2))
    answers = model(_items(examples), top_k=None, batch_size=batch_size)
    for i, (example, answer) in enumerate(zip(examples, answers, strict=True)):
        wanted[i, [places[name] for name in labels_of(example)]] = True
        found[i, [places[e["label"]] for e in answer if e["score"] > _THRESHOLD]] = True
    figures = {
        f"{kind}_f1": float(f1_score(wanted, found, average=kind, zero_division=0))
        for kind in ("micro", "macro", "samples")
    }
    figures["exact_match"] = float(accuracy_score(wanted, found))
    return Quality("micro_f1", figures, len(examples))


def _regression(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    answers = model(_items(examples), function_to_apply="none", top_k=1, batch_size=batch_size)
    return _correlations([answer[0]["score"] for answer in answers], examples)


def _entities(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
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
    """Give each word the tag of the first token that lies in it; `O` if it has none."""
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


def _embeddings(model: Model, examples: Sequence[Example]) -> Quality:
    """Score similarities of pairs, or how often a text's nearest neighbour has its label."""
    if all(example.pair and _is_number(example.label) for example in examples):
        left, right = (embed(model, texts) for texts in zip(*_pairs(examples), strict=True))
        return _correlations((left * right).sum(axis=1).tolist(), examples)
    if any(example.label is None for example in examples):
        raise InputError(
            "embeddings are evaluated on pairs with a number (how alike the two texts are), or "
            "on texts with a label; some rows have neither"
        )
    vectors = embed(model, [example.text for example in examples])
    likeness = vectors @ vectors.T
    for i in range(len(examples)):
        likeness[i, i] = -2.0
    nearest = likeness.argmax(axis=1)
    labels = [example.label for example in examples]
    hits = sum(labels[i] == labels[int(j)] for i, j in enumerate(nearest))
    return Quality("nearest_accuracy", {"nearest_accuracy": hits / len(examples)}, len(examples))


def _is_number(label: object) -> bool:
    try:
        float(str(label))
    except ValueError:
        return False
    return True


def _pairs(examples: Sequence[Example]) -> list[tuple[str, str]]:
    return [(example.text, str(example.pair)) for example in examples]


def embed(model: Model, texts: Sequence[str]) -> Any:
    """Return pooled unit vectors [texts, width]."""
    import numpy as np

    vectors = np.stack(reference(model.task, model.raw(texts)))
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def _correlations(found: Sequence[float], examples: Sequence[Example]) -> Quality:
    from scipy.stats import pearsonr, spearmanr

    wrong = [example.line for example in examples if not _is_number(example.label)]
    if wrong:
        raise InputError(f"evaluation data, line {wrong[0]}: the label is not a score")
    wanted = [float(str(example.label)) for example in examples]
    if len(set(wanted)) < 2:
        raise InputError("the evaluation data has one score only: nothing to correlate with")
    figures = {
        "spearman": float(spearmanr(found, wanted).statistic),
        "pearson": float(pearsonr(found, wanted).statistic),
    }
    return Quality("spearman", figures, len(examples))
