"""Uploads and rotations that break off anywhere: the next one finishes them."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from fleet import NAME, follow, small_release, take_update

from edgepack.channel import carry, keys, releases
from edgepack_runtime.errors import LinkError, NothingToDoError

if TYPE_CHECKING:
    from server import Server


@pytest.mark.parametrize("what", ["first", "second", "retire", *keys.NAMES])
def test_an_upload_that_breaks_off_anywhere_is_finished_by_the_next(
    tmp_path: Path, web: Server, what: str
) -> None:
    """Cut before each PUT in turn, again and again: devices see one release or the other, whole."""
    own, rollout = tmp_path / "keys", releases.Rollout()
    first, second, third = (small_release(tmp_path, release) for release in (1, 2, 3))
    acts: dict[str, Callable[[], object]] = {
        "first": lambda: releases.publish(first, web.url, own, rollout),
        "second": lambda: releases.publish(second, web.url, own, rollout),
        "retire": lambda: releases.retire(NAME, web.url, own),
    }
    if what != "first":
        acts["first"]()
        take_update(follow(tmp_path / "device", web.url))
    cuts = 0
    while _is_cut(acts.get(what, lambda: releases.rotate(what, web.url, own)), web, cuts):
        cuts += 1
        if what == "second":
            fresh = follow(tmp_path / f"d{cuts}", web.url)
            assert fresh.check().version in ("1.1", "1.2")
    assert cuts > 2
    web.takes = 1 << 30
    releases.publish(third, web.url, own, rollout)
    assert take_update(follow(tmp_path / "device", web.url)) == third.digest


def _is_cut(act: Callable[[], object], web: Server, takes: int) -> bool:
    """Do something with a server that takes so many files; tell whether it was cut off."""
    web.put.clear()
    web.takes = takes
    try:
        act()
    except LinkError:
        return True
    return False


class _Cut(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("name", keys.NAMES)
def test_a_rotation_that_is_cut_anywhere_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Killed before each file takes its name or goes: the next publish signs, devices follow."""
    base = tmp_path / "base"
    keys.init(base / "keys")
    releases.publish(
        small_release(tmp_path, 1), base / "channel", base / "keys", releases.Rollout()
    )
    take_update(follow(base / "device", str(base / "channel")))
    second, third = small_release(tmp_path, 2), small_release(tmp_path, 3)
    cuts = 0
    while True:
        place = tmp_path / f"cut{cuts}"
        shutil.copytree(base, place)
        try:
            with monkeypatch.context() as patch:
                _die_after(cuts, patch)
                releases.rotate(name, place / "channel", place / "keys")
            break
        except _Cut:
            pass
        device = follow(place / "device", str(place / "channel"))
        if cuts % 3 == 1:
            releases.refresh(place / "channel", place / "keys")
            with pytest.raises(NothingToDoError):
                device.check()
        elif cuts % 3 == 2:
            parcel = carry.Parcel(NAME)
            carry.export_file(parcel, place / "channel", place / "x.epk", place / "keys")
        releases.publish(second, place / "channel", place / "keys", releases.Rollout())
        assert take_update(device) == second.digest
        releases.rotate(name, place / "channel", place / "keys")
        releases.publish(third, place / "channel", place / "keys", releases.Rollout())
        assert take_update(device) == third.digest
        cuts += 1
    assert cuts > 5


def _die_after(count: int, patch: pytest.MonkeyPatch) -> None:
    """Die at the operation with this number, among those that name or remove a file."""
    done = 0
    for name in ("replace", "unlink"):
        real = getattr(os, name)

        def dies(path: Any, *args: Any, real: Callable[..., Any] = real, **more: Any) -> Any:
            nonlocal done
            if real.__name__ == "replace" or not str(path).endswith(".part"):
                if done == count:
                    raise _Cut
                done += 1
            return real(path, *args, **more)

        patch.setattr(os, name, dies)
