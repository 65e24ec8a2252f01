"""Prove a bundle on this device: its golden inputs must give their golden outputs.

The golden outputs are those of the float model.  Each variant carries the tolerance that
was measured for it at build time, with a margin for other processors.  Below a floor no
tolerance counts: such a variant is not the model that it says it is.
"""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import Task, Tolerance
from edgepack_runtime.errors import SelfTestError, TrustError
from edgepack_runtime.numeric import cosine, pool
from edgepack_runtime.tasks import find

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model
    from edgepack_runtime.numeric import Array


# A variant that decides as the float model does in fewer cases than a coin between two labels.
LEAST_AGREEMENT = 0.5
# An embedding this far from the float model's own is as near to those of other texts: unlike
# sentences of MiniLM reach 0.5, and its roughest int8 form keeps 0.7 on a text of three dots.
LEAST_COSINE = 0.6


@dataclass(frozen=True)
class Golden:
    """Inputs and the float model's outputs for them, each [labels], [tokens, labels] or [width]."""

    texts: tuple[str, ...]
    outputs: tuple[Array, ...]


@dataclass(frozen=True)
class Agreement:
    """How near a model is to a reference.

    cosine: the least cosine similarity of outputs, any one text.
    mean_cosine: its mean over the texts.
    agreement: the share of equal decisions (arg-max, or each label's sign when multi-label);
        for embeddings, which decide nothing, the mean cosine.
    """

    cosine: float
    mean_cosine: float
    agreement: float


def read_golden(bundle: Bundle) -> Golden:
    """Read the golden file of a bundle.

    Raises:
        TrustError: it is malformed.

    """
    import numpy as np

    try:
        value = json.loads(bytes(bundle.read(bundle.manifest.golden)))
        outputs = tuple(
            np.array(o["data"], dtype=np.float32).reshape(o["shape"]) for o in value["outputs"]
        )
        golden = Golden(tuple(str(text) for text in value["inputs"]), outputs)
    except (ValueError, KeyError, TypeError) as exc:
        raise TrustError(f"{bundle.path}: the golden file is malformed: {exc}") from exc
    if not golden.texts or len(golden.texts) != len(golden.outputs):
        raise TrustError(f"{bundle.path}: the golden file holds no pairs of input and output")
    return golden


def reference(task: Task, outputs: Sequence[Array]) -> list[Array]:
    """Reduce raw outputs to what golden files hold: vectors are pooled, the rest is kept."""
    if has_decisions(task):
        return list(outputs)
    return [pool(output, task.pooling or "mean") for output in outputs]


def has_decisions(task: Task) -> bool:
    """Tell whether the task decides between labels."""
    return find(task.name).DECIDES


def compare(task: Task, wanted: Sequence[Array], got: Sequence[Array]) -> Agreement:
    """Compare outputs with a reference of the same shapes; not-a-number counts as no likeness."""
    cosines = [_likeness(a, b) for a, b in zip(wanted, got, strict=True)]
    mean = sum(cosines) / len(cosines)
    if not has_decisions(task):
        return Agreement(min(cosines), mean, mean)
    equal = total = 0
    for a, b in zip(wanted, got, strict=True):
        if a.shape != b.shape:
            total += 1
            continue
        same = decisions(task, a) == decisions(task, b)
        equal, total = equal + int(same.sum()), total + same.size
    return Agreement(min(cosines), mean, equal / total)


def least(task: Task, tolerance: Tolerance) -> Tolerance:
    """Return what a variant must reach: its tolerance, and the floor whatever that says.

    Decisions have a floor of agreement, embeddings one of cosine.
    """
    if has_decisions(task):
        return replace(tolerance, agreement=max(tolerance.agreement, LEAST_AGREEMENT))
    return replace(tolerance, cosine=max(tolerance.cosine, LEAST_COSINE))


def selftest(bundle: Bundle, model: Model, *, limit: int | None = None) -> Agreement:
    """Run the golden inputs (the first `limit` of them) and compare.

    Raises:
        SelfTestError: the outputs stray further than the variant's tolerance, or the floor.

    """
    golden = read_golden(bundle)
    texts, outputs = golden.texts[:limit], golden.outputs[:limit]
    found = compare(model.task, outputs, reference(model.task, model.raw(texts)))
    allowed = least(model.task, model.variant.tolerance)
    # A share of decisions means little on a few texts; the cosine holds for each of them.
    disagrees = limit is None and found.agreement < allowed.agreement
    if found.cosine < allowed.cosine or disagrees:
        raise SelfTestError(
            f"{bundle.path}: variant {model.variant.name} strays from its golden outputs on this "
            f"device: cosine {found.cosine:.4f} (least {allowed.cosine:.4f}), agreement "
            f"{found.agreement:.3f} (least {allowed.agreement:.3f}). "
            "Pick another variant with --variant, and report the device"
        )
    return found


def _likeness(a: Array, b: Array) -> float:
    if a.shape != b.shape:
        return -1.0
    if a.size == 1:  # of single numbers a cosine tells the sign only
        x, y = float(a.ravel()[0]), float(b.ravel()[0])
        value = 1.0 - abs(x - y) / max(abs(x), abs(y), 1.0)
    else:
        value = cosine(a, b)
    return value if math.isfinite(value) else -1.0


def decisions(task: Task, output: Array) -> Any:
    """Return what logits decide: the best label's place, or yes or no of each label."""
    if task.problem_type == "multi_label_classification" or output.shape[-1] == 1:
        return output > 0
    return output.argmax(axis=-1)


__all__ = [
    "LEAST_AGREEMENT",
    "LEAST_COSINE",
    "Agreement",
    "Golden",
    "compare",
    "decisions",
    "least",
    "read_golden",
    "reference",
    "selftest",
]
