"""Which rows share one run of a graph, so that an answer is the same alone and in any batch.

What an int8 graph gives for a row depends on how the row is run: dynamic int8 takes its scale
from all that is in the run, and static int8 turns the last bit, which another padding or another
compiled plan changes, into a whole step.  So dynamic rows run one by one, and static ones run in
the width and on the plan that they have alone.  Float32 takes any company: its answers differ by
10⁻⁶.  On GPUs, which are made for full batches, answers differ by the rounding of half precision.
A model that sees padding (`exact_width`) shares a run with texts of its own length alone, anywhere.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.engines import Session


def mixes(variant: Variant) -> bool:
    """Tell whether rows of unlike widths may share a run."""
    alike = variant.precision == "float32" or not variant.on_cpu
    return alike and not exact(variant)


def exact(variant: Variant) -> bool:
    """Tell whether a text must run in its own length."""
    return variant.options.get("exact_width") is True


def most_rows(variant: Variant, wanted: int) -> int:
    """Return how many rows a run may have when the caller wants so many."""
    if variant.scheme.startswith("dynamic") and variant.on_cpu:
        return 1
    most = variant.options.get("max_rows")  # what the engine was compiled for
    return min(wanted, most) if type(most) is int and most > 0 else wanted


def runs(
    variant: Variant, session: Session, lengths: Sequence[int], size: int
) -> Iterator[tuple[list[int], int]]:
    """Group rows of like length: yield the row numbers and the padded width of each run.

    Args:
        variant: what runs.
        session: which knows the widths that it likes.
        lengths: tokens of each row.
        size: the most rows that the caller wants in one run.

    """
    size, mixed = most_rows(variant, size), mixes(variant)

    def width(rows: int, tokens: int) -> int:
        return tokens if exact(variant) else session.width(rows, tokens)

    group: list[int] = []
    for row in sorted(range(len(lengths)), key=lengths.__getitem__):
        other_width = group and width(1, lengths[row]) != width(1, lengths[group[0]])
        if len(group) == size or (other_width and not mixed):
            yield group, width(len(group), lengths[group[-1]])
            group = []
        group.append(row)
    if group:
        yield group, width(len(group), lengths[group[-1]])
