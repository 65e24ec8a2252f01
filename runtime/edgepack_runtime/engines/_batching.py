"""Which rows share one run of a graph, so that an answer is the same alone and in any batch.

The output of an int8 graph for a row depends on how the row is run.  Dynamic int8 takes its scale
from everything in the run.  Static int8 turns a change of the last bit, which another padding or
another compiled plan can cause, into a whole step.  So dynamic rows run one by one, and static rows
run in the width and on the plan that they would have alone.  Float32 rows can share any run: their
answers differ by 10⁻⁶.  On GPUs, which are made for full batches, answers differ by the rounding of
half precision.  With a model that sees padding (`exact_width`), only texts of the same length share
a run, on every device.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.engines import Session


def mixes(variant: Variant) -> bool:
    """Tell whether rows of different widths may share a run."""
    alike = variant.precision == "float32" or not variant.on_cpu
    return alike and not exact(variant)


def exact(variant: Variant) -> bool:
    """Tell whether a text must run at its own length."""
    return variant.options.get("exact_width") is True


def most_rows(variant: Variant, wanted: int) -> int:
    """Return how many rows a run may have when the caller wants `wanted`."""
    if variant.scheme.startswith("dynamic") and variant.on_cpu:
        return 1
    most = variant.options.get("max_rows")  # what the engine was compiled for
    return min(wanted, most) if type(most) is int and most > 0 else wanted


def runs(
    variant: Variant, session: Session, lengths: Sequence[int], size: int
) -> Iterator[tuple[list[int], int]]:
    """Group rows of similar length: yield the row numbers and the padded width of each run.

    Args:
        variant: the variant that runs.
        session: its session, which knows its best widths.
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
