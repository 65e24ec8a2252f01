"""What all tasks share whose models write: pieces of text, and how near two models are."""

from __future__ import annotations

from collections.abc import Generator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.description import Task, Writing
from edgepack_runtime.bundle.manifest import Tolerance
from edgepack_runtime.errors import InputError, TrustError
from edgepack_runtime.generation.grammar import FORMS, Grammar, compile_form
from edgepack_runtime.generation.text import Pieces
from edgepack_runtime.tasks._likeness import Agreement, compare_vectors
from edgepack_runtime.tasks._opened import Opened

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_JUDGED = 256  # how many logits of a position are compared, spread over the vocabulary


def facts(opened: Opened) -> Writing:
    """Return how the model writes; a `TrustError` if the bundle does not say."""
    if opened.task.writing is None:
        raise TrustError("the bundle does not say how its model writes; build it again")
    return opened.task.writing


def form_of(opened: Opened, options: Any) -> Grammar | None:
    """Compile the form that an answer is to have, if the options name one."""
    forms = {name: form for name in FORMS if (form := getattr(options, name)) is not None}
    if len(forms) > 1:
        raise InputError(f"an answer has one form; give one of {' and '.join(forms)}")
    for name, form in forms.items():
        return compile_form(opened.text, facts(opened).eos, name, form)
    return None


def texts(tokens: Generator[int, None, None], pieces: Pieces) -> Generator[str, None, None]:
    """Yield the text of tokens as it becomes certain, up to a stop text."""
    with closing(tokens):
        for token in tokens:
            if piece := pieces.add(token):
                yield piece
            if pieces.stopped:
                break
        if piece := pieces.finish():
            yield piece


def judged(logits: Array) -> Array:
    """Return [tokens, 1 + logits]: the most probable next token, and some of the logits.

    The logits are spread over the vocabulary; all of them would take megabytes.
    """
    import numpy as np

    best = logits.argmax(axis=1)[:, None].astype(np.float32)
    spread = logits[:, :: max(1, logits.shape[1] // _JUDGED)]
    return np.concatenate([best, spread.astype(np.float32)], axis=1)


def compare(task: Task, wanted: Sequence[Array], got: Sequence[Array]) -> Agreement:  # noqa: ARG001 (the Task protocol)
    """Compare the logits, and the share of positions whose most probable token is the same."""
    like = compare_vectors([w[:, 1:] for w in wanted], [g[:, 1:] for g in got])
    pairs = [(w[:, 0], g[:, 0]) for w, g in zip(wanted, got, strict=True)]
    equal = sum(int((w == g).sum()) if w.shape == g.shape else 0 for w, g in pairs)
    return Agreement(like.cosine, like.mean_cosine, equal / sum(w.size for w, _ in pairs))


def least(tolerance: Tolerance) -> Tolerance:
    """Return the tolerance; a model that writes has no other floor."""
    return tolerance
