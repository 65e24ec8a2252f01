"""Short rows of a batch run side by side, a thread each, and answer as they would alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack_runtime import DeviceError, load
from edgepack_runtime.engines import _ov_plans as plans

TEXTS = [f"turn on the lights {word}" for word in ("now", "in the hall", "please", "at six", "")]
Build = Callable[..., Path]


def _session(model: Any) -> Any:
    return model._running.opened.graph("model")


@pytest.mark.parametrize("threads", [2, 3])
def test_rows_side_by_side_answer_as_alone(bundle: Build, threads: int) -> None:
    """Bit for bit, for fewer and for more rows than there are threads."""
    model = load(bundle("bert-intent"), variant="openvino-int8", threads=threads)
    alone = [model(text, top_k=None) for text in TEXTS]
    for count in (2, 3, 5):
        assert model(TEXTS[:count], top_k=None, batch_size=8) == alone[:count]
    assert isinstance(_session(model)._lanes[16], plans.Lanes)


def test_one_thread_needs_no_lanes(bundle: Build) -> None:
    """There is nothing to gain, and a second plan takes memory."""
    model = load(bundle("bert-intent"), variant="openvino-int8", threads=1)
    assert model(TEXTS, batch_size=8) == [model(text)[0] for text in TEXTS]
    assert _session(model)._lanes == {16: None}


def test_lanes_that_answer_otherwise_are_not_used(
    bundle: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where another plan rounds in another way, rows run one after the other."""
    model = load(bundle("bert-intent"), variant="openvino-int8", threads=2)
    alone = [model(text, top_k=None) for text in TEXTS]
    honest = plans.Lanes.run
    monkeypatch.setattr(
        plans.Lanes, "run", lambda *args: {k: np.nextafter(v, 9) for k, v in honest(*args).items()}
    )
    assert model(TEXTS, top_k=None, batch_size=8) == alone
    assert _session(model)._lanes == {16: None}


def test_a_failure_on_a_lane_is_told(bundle: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    """As one error of this project, not of OpenVINO."""
    model = load(bundle("bert-intent"), variant="openvino-int8", threads=2)
    model(TEXTS, batch_size=8)

    def fail(*_: object) -> None:
        raise RuntimeError("no memory")

    monkeypatch.setattr(plans.Lanes, "run", fail)
    with pytest.raises(DeviceError, match="openvino fails on 5×16 tokens: no memory"):
        model(TEXTS, batch_size=8)
