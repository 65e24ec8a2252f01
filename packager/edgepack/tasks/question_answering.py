"""Question answering: exact answers and shared words, as SQuAD counts them."""

from __future__ import annotations

import re
import string
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

OPTIMUM = "question-answering"
AUTO_CLASS = "AutoModelForQuestionAnswering"
ARCHITECTURES: tuple[str, ...] = ("ForQuestionAnswering",)
HEAD = "ForQuestionAnswering"
ADAPTER = "QUESTION_ANS"
READS = "text"
DECODES = False
PAIRS = False
LEARNS = False
MARK = ""
PACKAGES: tuple[str, ...] = ()


def evaluate(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:
    """Measure F1 of words and exact match, against the nearest of the right answers.

    A row is a question (text), a context (pair) and its answers (label): one, or a list.

    Raises:
        InputError: a row has no context or no answer.

    """
    wrong = [e.line for e in examples if e.pair is None or e.label is None]
    if wrong:
        raise InputError(
            f"evaluation data, line {wrong[0]}: a row needs a question (data.text), a context "
            "(data.pair) and an answer (data.label)"
        )
    questions = [{"question": e.text, "context": e.pair} for e in examples]
    found = [answer["answer"] for answer in model(questions, batch_size=batch_size)]
    scores = [
        [_score(answer, right) for right in (e.label if isinstance(e.label, tuple) else (e.label,))]
        for answer, e in zip(found, examples, strict=True)
    ]
    figures = {
        "qa_f1": sum(max(f1 for f1, _ in row) for row in scores) / len(scores),
        "exact_match": sum(max(exact for _, exact in row) for row in scores) / len(scores),
    }
    return Quality("qa_f1", figures, len(scores))


def _score(answer: str, right: object) -> tuple[float, bool]:
    """Return the F1 of the words, and whether the texts are equal."""
    found, wanted = normal(answer), normal(str(right))
    words, others = found.split(), wanted.split()
    if not words or not others:
        return float(words == others), words == others
    shared = sum((Counter(words) & Counter(others)).values())
    return 2 * shared / (len(words) + len(others)), found == wanted


def normal(text: str) -> str:
    """Return a text in lower case, without punctuation, articles and double spaces.

    Source: the evaluation script of SQuAD 1.1.
    """
    bare = "".join(letter for letter in text.lower() if letter not in string.punctuation)
    return " ".join(re.sub(r"\b(a|an|the)\b", " ", bare).split())
