"""The losses of a student and of a fine-tuned model: on decisions, labels and inner states."""

from __future__ import annotations

from typing import Any

from edgepack_runtime.errors import InputError

_RELATION_HEADS = 12


def soft(output: Any, wanted: Any, kind: str, temperature: float) -> Any:
    """Return how far each output is from the teacher's: [rows] or [rows, tokens]."""
    from torch.nn import functional

    if kind == "embedding":
        return 1 - functional.cosine_similarity(output, wanted, dim=-1)
    if kind == "regression":
        return ((output - wanted) ** 2).mean(dim=-1)
    if kind == "multi_label_classification":
        target = (wanted / temperature).sigmoid()
        each = functional.binary_cross_entropy_with_logits(
            output / temperature, target, reduction="none"
        )
        return each.mean(dim=-1) * temperature**2
    found, target = ((x / temperature).log_softmax(dim=-1) for x in (output, wanted))
    each = functional.kl_div(found, target, reduction="none", log_target=True)
    return each.sum(dim=-1) * temperature**2


def hard(output: Any, labels: Any, kind: str, labelled: Any) -> Any:
    """Return the task's own loss over the rows that have a label."""
    from torch.nn import functional

    if not bool(labelled.any()):
        return output.sum() * 0.0
    if kind == "regression":
        return ((output[labelled, 0] - labels[labelled]) ** 2).mean()
    if kind == "multi_label_classification":
        return functional.binary_cross_entropy_with_logits(output[labelled], labels[labelled])
    return functional.cross_entropy(output.flatten(0, -2), labels.flatten())


def hidden(found: Any, wanted: Any, mask: Any) -> Any:
    """Compare the last hidden states, token by token.

    Raises:
        InputError: teacher and student differ in width.

    """
    if found.shape[-1] != wanted.shape[-1]:
        raise InputError(
            f"transfer = 'hidden' needs a teacher and a student of the same width, not "
            f"{wanted.shape[-1]} and {found.shape[-1]}; use 'relation'"
        )
    each = ((found - wanted) ** 2).mean(dim=-1)
    return (each * mask).sum() / mask.sum().clamp(min=1)


def relation(found: Any, wanted: Any, mask: Any) -> Any:
    """Compare how tokens relate by their queries, keys and values, head by head."""
    total: Any = 0.0
    for mine, theirs in zip(found.chunk(3, dim=-1), wanted.chunk(3, dim=-1), strict=True):
        widths = (mine.shape[-1], theirs.shape[-1])
        heads = next(h for h in range(_RELATION_HEADS, 0, -1) if not any(w % h for w in widths))
        target, guess = _relations(theirs, mask, heads), _relations(mine, mask, heads)
        each = (target.exp() * (target - guess)).sum(dim=-1).mean(dim=1)
        total = total + (each * mask).sum() / mask.sum().clamp(min=1)
    return total / 3


def _relations(states: Any, mask: Any, heads: int) -> Any:
    """Return log-softmax of scaled products of tokens: [rows, heads, tokens, tokens]."""
    rows, tokens, width = states.shape
    split = states.reshape(rows, tokens, heads, -1).transpose(1, 2)
    scores = split @ split.transpose(-1, -2) / (width / heads) ** 0.5
    return scores.masked_fill(mask[:, None, None, :] == 0, -1e4).log_softmax(dim=-1)
