"""Loading leaves Python's garbage collector as it found it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgepack_runtime as er
from edgepack_runtime.collector import collector_paused


@pytest.fixture(autouse=True)
def _as_it_was() -> Iterator[None]:
    enabled = gc.isenabled()
    yield
    (gc.enable if enabled else gc.disable)()


@pytest.mark.parametrize("enabled", [True, False])
def test_a_pause_ends_as_it_began(*, enabled: bool) -> None:
    """Also a nested one: the outer pause goes on."""
    (gc.enable if enabled else gc.disable)()
    with collector_paused():
        assert not gc.isenabled()
        with collector_paused():
            assert not gc.isenabled()
        assert not gc.isenabled()
    assert gc.isenabled() is enabled


def test_a_failed_load_turns_it_on_again(tmp_path: Path) -> None:
    """An error is no way out of collection."""
    gc.enable()
    with pytest.raises(er.InputError):
        er.load(tmp_path / "nothing.epk")
    assert gc.isenabled()
