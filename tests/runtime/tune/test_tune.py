"""What `tune` elects: a sound variant, by what was measured here."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import handmade
import pytest

from edgepack_runtime import Bundle, DeviceError, SelfTestError
from edgepack_runtime.bundle.manifest import Requires
from edgepack_runtime.device.facts import cores
from edgepack_runtime.tune import tune as module
from edgepack_runtime.tune.tune import tune

OTHER = json.dumps({"rank": 2, "size": 2}).encode()  # gives two labels where three are right


@pytest.fixture(autouse=True)
def _own_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path / "cache"))


def _bundle(path: Path, *variants: dict[str, Any], extra: dict[str, bytes] | None = None) -> Bundle:
    return Bundle.open(handmade.bundle(path / "b.epk", variants=list(variants), extra=extra))


def test_every_variant_is_measured_at_each_number_of_threads(tmp_path: Path) -> None:
    """Each cell that the model is long enough for has a median, and a 95th percentile."""
    record = tune(_bundle(tmp_path, {"name": "one"}, {"name": "two"}), seconds=0.0)
    assert set(record.latency_ms) == {"one", "two"}
    for name in ("one", "two"):
        assert set(record.latency_ms[name]) == {"16×1", "16×8"}  # the texts have 16 tokens at most
        assert record.details[name]["p95 16×1"] >= record.latency_ms[name]["16×1"] > 0
        assert record.details[name]["memory_mb"] > 0
        assert 1 <= record.threads[name] <= cores()


def test_a_number_of_threads_that_was_asked_for_is_the_only_one(tmp_path: Path) -> None:
    """What is measured is what will run."""
    assert tune(_bundle(tmp_path, {"name": "one"}), seconds=0.0, threads=1).threads == {"one": 1}


def test_a_variant_that_strays_is_left_out(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """However fast it is, it is not the model; the warning names it."""
    variants = ({"name": "bad"}, {"name": "good"})
    with caplog.at_level(logging.WARNING):
        record = tune(_bundle(tmp_path, *variants, extra={"bad/null.json": OTHER}), seconds=0.0)
    assert set(record.latency_ms) == {"good"}
    assert "bad is left out: " in caplog.text


def test_a_bundle_of_which_nothing_is_sound_is_an_error(tmp_path: Path) -> None:
    """Wrong answers are a failed self-test, a demand that is not met is the device's."""
    wrong = _bundle(tmp_path, {"name": "bad"}, extra={"bad/null.json": OTHER})
    with pytest.raises(SelfTestError, match="variant bad strays"):
        tune(wrong, seconds=0.0)
    needy = {"name": "needy", "requires": Requires(isa_any=("no_such_flag",))}
    (tmp_path / "needy").mkdir()
    with pytest.raises(DeviceError, match="nothing to measure: needy: needs a CPU with no_such"):
        tune(_bundle(tmp_path / "needy", needy), seconds=0.0)


def test_a_variant_that_does_not_load_is_not_measured(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A graph that wants an input which nobody makes costs its own variant alone."""
    odd = handmade.graph_of("odd/null.json")
    other = {"name": "odd", "engine": "null", "graphs": (odd,), "provider": "null"}

    def refuse(bundle: Bundle, variant: Any, *rest: Any) -> Any:
        if variant.name == "odd":
            raise DeviceError("it does not load")
        return opened(bundle, variant, *rest)

    from edgepack_runtime.model import variants

    opened = variants.open_variant
    with pytest.MonkeyPatch.context() as patch, caplog.at_level(logging.WARNING):
        patch.setattr(variants, "open_variant", refuse)
        record = tune(_bundle(tmp_path, other, {"name": "good"}), seconds=0.0)
    assert set(record.latency_ms) == {"good"}
    assert "odd is not measured: it does not load" in caplog.text


class _Meter:
    """Counts half a joule at each look."""

    def __init__(self) -> None:
        self.total, self.closed = 0.0, False

    def joules(self) -> float:
        self.total += 0.5
        return self.total

    def close(self) -> None:
        self.closed = True


@pytest.fixture
def meter(monkeypatch: pytest.MonkeyPatch) -> Iterator[_Meter]:
    """A meter that is closed when the measurement is done."""
    made = _Meter()
    monkeypatch.setattr(module, "find_meter", lambda: made)
    yield made
    assert made.closed


def test_energy_is_that_of_one_answer(tmp_path: Path, meter: _Meter) -> None:
    """Half a joule between two looks, shared by the answers between them."""
    details = tune(_bundle(tmp_path, {"name": "one"}), seconds=0.0).details["one"]
    assert details["energy_mj"] == 500.0
    assert meter.total == 1.0
