"""Loading leaves Python's garbage collector as it found it."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from pathlib import Path

import pytest

import edgepack_runtime as er
from edgepack_runtime.gc_pause import collector_paused


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


def test_it_rests_while_a_bundle_loads(monkeypatch: pytest.MonkeyPatch) -> None:
    """And works again when that fails: an error is no way out of collection."""
    seen: list[bool] = []

    def opens(path: Path) -> er.Bundle:
        seen.append(gc.isenabled())
        raise er.InputError(f"no bundle at {path}")

    gc.enable()
    monkeypatch.setattr(er.Bundle, "open", opens)
    with pytest.raises(er.InputError):
        er.load(Path("nothing.epk"))
    assert seen == [False]
    assert gc.isenabled()
