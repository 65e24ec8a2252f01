"""Held-out rows: which they are, and how many."""

from __future__ import annotations

from edgepack.compress import holdout
from edgepack.compress.schedule import held_out
from edgepack.data.rows import Example


def _labelled(counts: dict[str, int]) -> list[Example]:
    rows = [(f"{label} {i}", label) for label, count in counts.items() for i in range(count)]
    return [Example(text=text, line=n, label=label) for n, (text, label) in enumerate(rows)]


def test_every_class_gives_its_share_of_held_out_rows() -> None:
    """The split is stratified, the same for a seed, and leaves a rare class its only rows."""
    examples = _labelled({"a": 400, "b": 200, "rare": 1})
    held = holdout.split(examples, 0)
    labels = [examples[i].label for i in held]
    assert len(held) == held_out(601)
    assert labels.count("a") == 2 * labels.count("b")
    assert "rare" not in labels
    assert held == holdout.split(examples, 0) != holdout.split(examples, 1)


def test_equal_texts_are_held_out_together_or_not_at_all() -> None:
    """No held-out text is also learned."""
    examples = _labelled({"a": 90, "b": 90}) * 3
    held = set(holdout.split(examples, 0))
    texts = {examples[i].text for i in held}
    assert held
    assert all(i in held for i, e in enumerate(examples) if e.text in texts)


def test_few_rows_are_all_learned_from() -> None:
    """Below a hundred nothing is held out."""
    assert holdout.split(_labelled({"a": 50, "b": 49}), 0) == []
