"""Question answering: the part of a text that answers a question.

Source of the rules: `QuestionAnsweringPipeline` of transformers 4.57.  A text that is too long is
read in windows that overlap.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.description import Task
from edgepack_runtime.bundle.manifest import Tolerance
from edgepack_runtime.errors import InputError
from edgepack_runtime.inputs.calls import Batching, listed
from edgepack_runtime.numeric import softmax
from edgepack_runtime.tasks._likeness import Agreement, compare_vectors
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._texts import CELL_UNIT, CELLS, check, infer
from edgepack_runtime.tasks._texts import cell as cell_of_texts

if TYPE_CHECKING:
    from tokenizers import Encoding

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
OUTPUTS = ("start_logits", "end_logits")
_FORM = 'question answering takes {"question": …, "context": …}, or a list of them'
_WINDOW, _OVERLAP = 384, 128  # tokens
_HIDDEN = -10000.0


@dataclass(frozen=True)
class Options(Batching):
    """The options of a call."""

    top_k: int = 1
    """How many answers to return, best first; one alone is not in a list."""
    doc_stride: int | None = None
    """Tokens that two windows share; 128 or half a window by default."""
    max_seq_len: int | None = None
    """Tokens of a window, the question included; 384 by default."""
    max_answer_len: int = 15
    """The most tokens of an answer."""
    handle_impossible_answer: bool = False
    """Also consider that the text has no answer: the empty one."""
    align_to_words: bool = True
    """Answer with whole words; turn this off for languages without spaces."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("top_k", "max_answer_len"):
            if getattr(self, name) < 1:
                raise InputError(f"{name} must be at least 1, not {getattr(self, name)}")


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Answer a question with {"score", "start", "end", "answer"}; `start` and `end` are characters.

    With `top_k`, there is a list of them.
    """
    items = listed(inputs)
    questions = items if isinstance(items, list) else [items]
    windows = [_windows(opened, item, options) for item in questions]
    rows = [row for found in windows for row in found]
    logits = iter(infer(opened, rows, options.batch_size, OUTPUTS))
    answers = [
        _answers(item, [(row, next(logits)) for row in found], opened, options)
        for item, found in zip(questions, windows, strict=True)
    ]
    return answers if isinstance(items, list) else answers[0]


def _windows(opened: Opened, item: object, options: Options) -> Sequence[Encoding]:
    if not isinstance(item, dict) or set(item) != {"question", "context"}:
        raise InputError(_FORM)
    if not isinstance(item["context"], str) or not item["context"].strip():
        raise InputError("the context is empty, so it cannot have an answer")
    longest = options.max_seq_len or min(opened.text.spec.max_length, _WINDOW)
    stride = min(longest // 2, _OVERLAP) if options.doc_stride is None else options.doc_stride
    last = opened.text.spec.padding_side == "right"
    pair = (item["question"], item["context"]) if last else (item["context"], item["question"])
    cut = "only_second" if last else "only_first"
    return opened.text.encode(*pair, stride=stride, max_length=longest, cut=cut).windows


def _answers(
    item: dict[str, str],
    windows: Sequence[tuple[Encoding, Array]],
    opened: Opened,
    options: Options,
) -> Any:
    """Return the best answers over all windows; equal ones count together."""
    context = 1 if opened.text.spec.padding_side == "right" else 0
    found: dict[str, dict[str, Any]] = {}
    no_answer = 1_000_000.0
    for row, logits in windows:
        starts, ends = _probabilities(row, logits, opened, context)
        no_answer = min(no_answer, float(starts[0] * ends[0]))
        starts[0] = ends[0] = 0.0
        for start, end, score in _spans(starts, ends, options):
            first, last = _characters(row, start, end, context, words=options.align_to_words)
            text = item["context"][first:last]
            known = found.setdefault(
                text.lower(), {"score": 0.0, "start": first, "end": last, "answer": text}
            )
            known["score"] += score
    ranked = list(found.values())
    if options.handle_impossible_answer:
        ranked.append({"score": no_answer, "start": 0, "end": 0, "answer": ""})
    ranked = sorted(ranked, key=lambda entry: -entry["score"])[: options.top_k]
    return ranked[0] if len(ranked) == 1 else ranked


def _probabilities(row: Encoding, logits: Array, opened: Opened, context: int) -> list[Array]:
    """Return how probable each token is as start and as end; those of the question never are."""
    import numpy as np

    first = opened.text.spec.first_id
    can = np.array(
        [
            place == context or (first is not None and token == first)
            for place, token in zip(row.sequence_ids, row.ids, strict=True)
        ]
    )
    hidden = np.where(can[:, None], logits, np.float32(_HIDDEN))
    hidden = np.exp(hidden - hidden.max(axis=0))
    shares = hidden / hidden.sum(axis=0)
    allowed = np.where(can[:, None], shares, 0.0)
    return [allowed[:, 0], allowed[:, 1]]


def _spans(starts: Array, ends: Array, options: Options) -> list[tuple[int, int, float]]:
    """Return the best spans [start, end] with their scores, best first."""
    import numpy as np

    table = np.tril(np.triu(np.outer(starts, ends)), options.max_answer_len - 1)
    flat = table.ravel()
    wanted = options.top_k * 2 + 10 if options.align_to_words else options.top_k
    best = np.argsort(-flat, kind="stable")[:wanted]
    rows, columns = np.unravel_index(best, table.shape)
    spans = zip(rows, columns, strict=True)
    return [(int(a), int(b), float(table[a, b])) for a, b in spans if table[a, b] > 0]


def _characters(
    row: Encoding, start: int, end: int, context: int, *, words: bool
) -> tuple[int, int]:
    """Return where a span of tokens lies in the context, as characters."""
    if words:
        numbers = row.token_to_word(start), row.token_to_word(end)
        if None not in numbers:
            spans = [row.word_to_chars(number, context) for number in numbers]
            if None not in spans:
                return int(spans[0][0]), int(spans[1][1])
    return int(row.offsets[start][0]), int(row.offsets[end][1])


def outputs(opened: Opened, inputs: Sequence[str | tuple[str, str]]) -> list[Array]:
    """Return the logits [tokens, 2] of start and end; a text alone is its own question."""
    pairs = [(text, text) if isinstance(text, str) else text for text in inputs]
    rows = [opened.text.encode(*pair).first for pair in pairs]
    return [infer(opened, [row], 1, OUTPUTS)[0] for row in rows]


def compare(task: Task, wanted: Sequence[Array], got: Sequence[Array]) -> Agreement:  # noqa: ARG001 (the Task protocol)
    """Compare the logits, and the probabilities of starts and ends: what both models share."""
    like = compare_vectors(wanted, got)
    shared = [_shared(a, b) for a, b in zip(wanted, got, strict=True)]
    return Agreement(like.cosine, like.mean_cosine, sum(shared) / len(shared))


def _shared(one: Array, other: Array) -> float:
    """Return the share of probability that two models put on the same tokens."""
    import numpy as np

    if one.shape != other.shape:
        return 0.0
    return float(np.minimum(softmax(one.T), softmax(other.T)).sum(axis=-1).mean())


def least(tolerance: Tolerance) -> Tolerance:
    """Return the tolerance; an answer has no other floor."""
    return tolerance


def cell(
    opened: Opened, name: str, samples: Sequence[str]
) -> tuple[list[dict[str, str]], dict[str, Any]]:
    """Return the questions that a cell times: its tokens are in the context."""
    texts, options = cell_of_texts(opened, name, samples)
    return [{"question": "", "context": text} for text in texts], options
