"""The labels of examples, and whether a model knows them."""

from __future__ import annotations

from collections.abc import Sequence

from edgepack.data.rows import Example
from edgepack_runtime.errors import InputError


def check_labels(examples: Sequence[Example], known: Sequence[str], where: str) -> None:
    """Refuse rows without a label, and labels that are not `known`; one error names them all."""
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
