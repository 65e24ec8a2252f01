"""The hooks around the switch to a release: what they see, put off and take back."""

from __future__ import annotations

import os
import select
import subprocess
import sys
from pathlib import Path

import pytest
from fleet import NAME, Command, make_bundle, new_device, publish

from edgepack_runtime.errors import NothingToDoError, SelfTestError
from edgepack_runtime.store.store import ATTEMPTS, Store
from edgepack_runtime.update.takeover import Hooks
from edgepack_runtime.update.updater import Updater


def test_the_hooks_see_the_switch(place: Path, update: Command) -> None:
    """The one before it and the one after it are told which release it is."""
    log = place / "log"
    code, answer = update(
        "--before",
        f'echo "before $EDGEPACK_NAME $EDGEPACK_VERSION $EDGEPACK_RELEASE" >> {log}',
        "--after",
        f'echo "after $EDGEPACK_DIGEST" >> {log}',
    )
    assert code == 0
    assert log.read_text().splitlines() == [f"before {NAME} 1.1 1", f"after {answer['digest']}"]


def test_a_hook_puts_the_switch_off(place: Path, update: Command, call: Command) -> None:
    """Not now: what ran goes on, nothing is condemned, and the next time it is taken."""
    update()
    before = call("status")[1]["active"]
    publish(place, make_bundle(place, 2))
    assert update("--before", "exit 3")[0] == 7
    state = call("status")[1]
    assert (state["active"], state["bad"]) == (before, [])
    assert update("--before", "true")[0] == 0


@pytest.mark.parametrize("hook", ["exit 3", "sleep 60"])
def test_a_hook_takes_the_switch_back(
    place: Path, update: Command, call: Command, hook: str
) -> None:
    """The service behind it does not come up: back to what ran, and not again."""
    update()
    before = call("status")[1]["active"]
    publish(place, make_bundle(place, 2))
    assert update("--after", hook, "--patience", "2")[0] == 6
    state = call("status")[1]
    assert state["active"] == before
    assert len(state["bad"]) == 1


@pytest.mark.parametrize("hook", ["--before", "--after"])
def test_a_hook_beyond_its_time_ends_with_all_that_it_started(
    place: Path, update: Command, hook: str
) -> None:
    """A child of its shell does not switch anything after the hook was given up."""
    os.mkfifo(place / "alive")
    reader = os.open(place / "alive", os.O_RDONLY | os.O_NONBLOCK)
    command = f"exec 9> {place}/alive; (sleep 60; echo done >&9) & wait"
    assert update(hook, command, "--patience", "2")[0] in (6, 7)
    assert select.select([reader], [], [], 10)[0]  # what is killed takes a moment to be gone
    assert os.read(reader, 9) == b""  # the end of the pipe: nobody holds it open any more
    os.close(reader)


def test_hooks_of_the_python_interface(place: Path) -> None:
    """The same by `Updater`: an error before puts off, an error after takes back."""

    def busy(_: object) -> None:
        raise NothingToDoError("a call is under way")

    def down(_: object) -> None:
        raise SelfTestError("no answer on port 80")

    device = new_device(place)
    parts = (device.store, device.sources, device.root, NAME, device.policy)
    put_off = Updater(*parts, hooks=Hooks(before=busy))
    put_off.install(put_off.check())
    with pytest.raises(NothingToDoError, match="under way"):
        put_off.try_out()
    assert not device.store.state.trial
    taken_back = Updater(*parts, hooks=Hooks(after=down))
    taken_back.install(taken_back.check())
    assert taken_back.try_out() == "no answer on port 80"
    assert device.store.state.active == ""


def test_a_device_that_dies_in_the_hook_comes_back_to_it(place: Path, update: Command) -> None:
    """The release is active but not settled: the hook runs again, and in the end it goes back."""
    store = Store.at(place / "device")
    update()
    before = store.state.active
    publish(place, make_bundle(place, 2))
    command = [
        sys.executable,
        "-m",
        "edgepack_runtime",
        "update",
        "--store",
        str(place / "device"),
        "--channel",
        str(place / "channel"),
        "--root",
        str(place / "root.json"),
        "--name",
        NAME,
        "--after",
        f"echo x >> {place}/died; kill -9 $PPID",
    ]
    codes: list[int] = []
    while store.state.bad == () and len(codes) < 9:
        codes.append(subprocess.run(command, check=False, capture_output=True).returncode)
        if len(codes) == 1:
            running = store.running()
            assert running is not None
            assert running.digest == store.state.active == store.state.trial != before
    assert codes[:-1] == [-9] * (len(codes) - 1)
    assert 1 < len(codes) <= ATTEMPTS + 2
    assert (store.state.active, store.state.trial) == (before, "")
    assert update()[0] == 7


@pytest.mark.parametrize("again", [True, False], ids=["the same hook", "no hook any more"])
def test_a_device_that_dies_once_in_the_hook_settles(
    place: Path, update: Command, *, again: bool
) -> None:
    """The next run finishes what the power cut interrupted."""
    device = new_device(place)

    def cut(_: object) -> None:
        raise KeyboardInterrupt

    parts = (device.store, device.sources, device.root, NAME, device.policy)
    updater = Updater(*parts, hooks=Hooks(after=cut))
    updater.install(updater.check())
    with pytest.raises(KeyboardInterrupt):
        updater.try_out()
    assert device.store.state.active == device.store.state.trial != ""
    hook = ["--after", f"touch {place}/settled"] if again else []
    assert update(*hook)[0] == 7
    assert (place / "settled").exists() == again
    assert device.store.state.trial == ""
    assert device.store.state.active
