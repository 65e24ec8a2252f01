"""Two updaters at one store, in two threads or two processes, in any order."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from threading import Event, Thread

import pytest
from explorer import check_no_leak
from fleet import make_bundle, new_device, publish, take_update
from turns import Turns, TurnsDisk

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import NothingToDoError, TrustError
from edgepack_runtime.store.store import Store
from edgepack_runtime.update.updater import Updater

SCHEDULES = 12
BUSY = pytest.raises(NothingToDoError, match="another process or thread")


def steps(device: Updater) -> list[Callable[[], object]]:
    """Return each step of an updater, ready to be called at a device with nothing on trial."""
    offer = device.check()
    return [device.check, lambda: device.install(offer), device.try_out]


@pytest.mark.parametrize("shared", [True, False], ids=["one store", "two stores"])
def test_a_second_thread_is_told_that_there_is_nothing_to_do(place: Path, *, shared: bool) -> None:
    """While one proves a release, none of another's steps begins, whichever `Store` it holds."""
    proving, go_on = Event(), Event()

    def prove(_: Bundle) -> None:
        proving.set()
        assert go_on.wait(30)

    first = replace(new_device(place), prove=prove)
    second = new_device(place)
    second = replace(second, store=first.store) if shared else second
    calls = steps(second)
    thread = Thread(target=take_update, args=(first,))
    thread.start()
    assert proving.wait(30)
    for call in calls:
        with BUSY:
            call()
    assert second.store.state.attempts == 2
    go_on.set()
    thread.join()
    assert second.store.state.active
    with pytest.raises(NothingToDoError, match="installed already"):
        second.check()


def test_a_second_process_is_told_that_there_is_nothing_to_do(place: Path) -> None:
    """One that is forked by a hook, while the store is held, does not write to it as well."""
    codes: list[int] = []
    second = new_device(place)

    def prove(_: Bundle) -> None:
        for call in calls:
            if (child := os.fork()) == 0:
                code = 1
                with suppress(Exception):
                    with BUSY:
                        call()
                    code = 0
                os._exit(code)
            codes.append(os.waitpid(child, 0)[1])

    first = replace(new_device(place), prove=prove)
    calls = [*steps(second), *steps(first)]
    take_update(first)
    assert codes == [0] * 6


def test_what_was_offered_before_a_newer_one_ran_is_not_installed(place: Path) -> None:
    """Between `check` and `install` another updater may have taken the next release."""
    slow = new_device(place)
    offer = slow.check()
    publish(place, make_bundle(place, 2))
    newer = take_update(new_device(place))
    with pytest.raises(TrustError, match="2 ran here before"):
        slow.install(offer)
    assert slow.store.state.active == newer
    assert slow.store.state.trial == ""
    with pytest.raises(NothingToDoError, match="no release is on trial"):
        slow.try_out()


def follow(device: Updater) -> None:
    """Take what there is a few times, as a loop does that knows of no other."""
    for _ in range(4):
        with suppress(NothingToDoError):
            if not device.store.state.trial:
                device.install(device.check())
            device.try_out()


def test_two_updaters_in_any_order_of_their_operations(place: Path) -> None:
    """Whatever thread goes on at each operation, releases are proven one by one, and one runs."""
    take_update(new_device(place))
    publish(place, make_bundle(place, 2))
    for seed in range(SCHEDULES):
        root, turns = place / str(seed), Turns(seed)
        shutil.copytree(place / "device", root)
        inside: list[str] = []

        def prove(bundle: Bundle, inside: list[str] = inside) -> None:
            inside.append(bundle.digest)
            bundle.verify()
            assert inside == [bundle.digest], "two prove at once"
            inside.clear()

        devices = [
            replace(new_device(place), store=Store(TurnsDisk(root, turns)), prove=prove)
            for _ in range(2)
        ]
        turns.run([lambda device=device: follow(device) for device in devices])  # type: ignore[misc]
        store = Store.at(root)
        assert [found.manifest.release for found in store.releases()] == [2, 1]
        assert not store.state.trial
        assert not store.state.bad
        check_no_leak(store)
