"""The whole of an update, as a program runs it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from fleet import make_bundle, new_device, publish

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import NothingToDoError, SelfTestError
from edgepack_runtime.update.run import update


def test_a_program_updates_in_one_call(place: Path) -> None:
    """The release is taken, proven and kept; the next call says that there is nothing to do."""
    device = new_device(place)
    taken = update(device)
    assert taken.digest == device.store.state.active
    assert not device.store.state.trial
    with pytest.raises(NothingToDoError):
        update(device)


def test_a_trial_that_was_interrupted_is_finished_first(place: Path) -> None:
    """What a power cut left on trial is proven and kept before the channel is asked."""
    device = new_device(place)
    first = device.install(device.check())
    publish(place, make_bundle(place, 2))
    taken = update(device)
    assert device.store.state.previous == first.digest
    assert taken.digest == device.store.state.active != first.digest


def test_a_release_that_fails_is_given_up(place: Path) -> None:
    """The call says why, what ran goes on, and nothing of it is left on trial."""

    def fail(_: Bundle) -> None:
        raise SelfTestError("its outputs differ")

    device = new_device(place)
    update(device)
    before = device.store.state.active
    publish(place, make_bundle(place, 2))
    with pytest.raises(SelfTestError, match="its outputs differ"):
        update(replace(device, prove=fail))
    assert (device.store.state.active, device.store.state.trial) == (before, "")
