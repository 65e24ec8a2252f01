"""Prove a bundle on this device: its golden inputs must give their golden outputs.

The golden outputs are those of the float model.  Each variant carries the tolerance that was
measured for it at build time, with a margin for other processors.  The task says how outputs are
compared, and sets a floor below which no tolerance counts.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import SelfTestError, TrustError
from edgepack_runtime.tasks import Agreement

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model
    from edgepack_runtime.numeric import Array


@dataclass(frozen=True)
class Golden:
    """Inputs and the float model's outputs for them."""

    inputs: tuple[Any, ...]
    """Inputs for the task; an input that is not JSON is the bytes of a file of the bundle."""
    outputs: tuple[Array, ...]
    """The outputs that the task compares: logits, a vector, token ids."""


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
        golden = Golden(tuple(_input(bundle, item) for item in value["inputs"]), outputs)
    except (ValueError, KeyError, TypeError) as exc:
        raise TrustError(f"{bundle.path}: the golden file is malformed: {exc}") from exc
    if not golden.inputs or len(golden.inputs) != len(golden.outputs):
        raise TrustError(f"{bundle.path}: the golden file holds no pairs of input and output")
    return golden


def selftest(bundle: Bundle, model: Model, *, limit: int | None = None) -> Agreement:
    """Run the golden inputs (the first `limit` of them) and compare.

    Raises:
        SelfTestError: the outputs stray further than the variant's tolerance, or the floor.

    """
    golden = read_golden(bundle)
    found = model.compare(golden.outputs[:limit], model.outputs(golden.inputs[:limit]))
    allowed = model.least()
    # A share of decisions means little on a few texts; the cosine is meaningful for each of them.
    disagrees = limit is None and found.agreement < allowed.agreement
    if found.cosine < allowed.cosine or disagrees:
        raise SelfTestError(
            f"{bundle.path}: variant {model.variant.name} strays from its golden outputs on this "
            f"device: cosine {found.cosine:.4f} (least {allowed.cosine:.4f}), agreement "
            f"{found.agreement:.3f} (least {allowed.agreement:.3f}). "
            "Pick another variant with --variant, and report the device"
        )
    return found


def _input(bundle: Bundle, value: Any) -> Any:
    """Return a golden input: the JSON value itself, or the content of the file it names."""
    if isinstance(value, dict) and set(value) == {"file"}:
        return bytes(bundle.read(str(value["file"])))
    return value
