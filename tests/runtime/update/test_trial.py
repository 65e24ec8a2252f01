"""A release on trial that crashes, hangs or is not wanted now; the hooks around the switch."""

from __future__ import annotations

import hashlib
import json
import os
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import handmade
import pytest
from fleet import NAME, make_bundle, new_device, publish, take_update

from edgepack.channel import releases
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.cli import main as runtime
from edgepack_runtime.errors import NothingToDoError, SelfTestError, TrustError
from edgepack_runtime.store.store import ATTEMPTS, Store
from edgepack_runtime.update.takeover import Hooks
from edgepack_runtime.update.updater import Updater

Command = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def call(place: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a command on the store of a place: its exit code and its answer or error."""

    def run(name: str, *options: str) -> tuple[int, dict[str, Any]]:
        code = runtime([name, "--json", "--store", str(place / "device"), *options])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else {"error": printed.err}

    return run


@pytest.fixture
def update(place: Path, call: Command) -> Command:
    """Return the update command for a place's channel."""
    root = place / "root.json"
    shutil.copy(place / "channel/metadata/1.root.json", root)
    fixed = ["--channel", str(place / "channel"), "--root", str(root), "--name", NAME]
    return lambda *options: call("update", *fixed, *options)


def replace_interpreter(monkeypatch: pytest.MonkeyPatch, place: Path, script: str) -> None:
    """Let a shell script stand for the process that proves a release."""
    path = place / "interpreter"
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)
    monkeypatch.setattr("edgepack_runtime.update.trial.sys.executable", str(path))


@pytest.mark.parametrize(
    ("script", "said"), [("kill -SEGV $$", "broke off"), ("exec sleep 60", "did not end within")]
)
def test_a_release_that_crashes_or_hangs_is_given_up(
    place: Path, update: Command, monkeypatch: pytest.MonkeyPatch, script: str, said: str
) -> None:
    """It has as many attempts as a trial has; then what ran goes on."""
    store = Store.at(place / "device")
    assert update()[0] == 0
    before = store.state.active
    publish(place, make_bundle(place, 2))
    with monkeypatch.context() as patch:
        replace_interpreter(patch, place, f"echo x >> {place}/starts; {script}")
        code, answer = update("--patience", "0.3")
    assert code == 6
    assert said in answer["error"]
    assert len((place / "starts").read_text().split()) == ATTEMPTS
    assert (store.state.active, store.state.trial) == (before, "")
    assert len(store.state.bad) == 1
    assert update()[0] == 7


def test_what_failed_here_can_be_forgiven(place: Path, update: Command, call: Command) -> None:
    """`retry` lets it be tried again; with nothing to forgive there is nothing to do."""
    assert call("retry")[0] == 7
    update()
    publish(place, make_bundle(place, 2))
    update()
    call("rollback")
    assert update()[0] == 7
    assert len(call("retry")[1]["forgiven"]) == 1
    assert update()[1]["version"] == "1.2"


def test_a_rollback_of_another_release_does_nothing(
    place: Path, update: Command, call: Command
) -> None:
    """A carrier that takes back its own release twice does not take back the one before."""
    first = update()[1]["digest"]
    publish(place, make_bundle(place, 2))
    second = update()[1]["digest"]
    assert call("rollback", "--release", first)[0] == 7
    assert call("rollback", "--release", second)[1]["active"] == first
    assert call("rollback", "--release", second)[0] == 7
    assert call("status")[1]["active"] == first


def test_a_lock_that_is_held_too_long_is_an_error(
    place: Path, update: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another update is nothing to do about; one that has lasted for hours is said to be stuck."""
    now = time.monotonic()
    with Store.at(place / "device").alone():
        assert update("--check")[0] == 7
        monkeypatch.setattr("edgepack_runtime.store.writer.time.monotonic", lambda: now + 7 * 3600)
        code, answer = update("--check")
        assert code == 1
        assert "for 7 h" in answer["error"]
    assert update("--check")[0] == 0
    with Store.at(place / "device").alone():
        assert update("--check")[0] == 7


def test_a_rollback_leaves_no_device_with_nothing(
    place: Path, update: Command, call: Command
) -> None:
    """With no release before it the one that runs stays, unless the factory's is asked for."""
    first = update()[1]["digest"]
    code, answer = call("rollback")
    assert code == 2
    assert "--factory" in answer["error"]
    publish(place, make_bundle(place, 2))
    update()
    assert [call("rollback")[0] for _ in range(2)] == [0, 2]
    assert call("status")[1]["active"] == first
    assert call("rollback", "--factory")[1]["active"] == "the factory's release"


def test_a_store_keeps_to_its_model(place: Path, update: Command) -> None:
    """Another name is refused, which may be mistyped, unless the change is meant."""
    change = {"name": "other", "release": 1}
    other = publish(place, Bundle.open(handmade.bundle(place / "other.epk", change=change)))
    update()
    code, answer = update("--name", other)
    assert code == 2
    assert f"runs {NAME}" in answer["error"]
    assert update("--name", "smal/any", "--switch-name")[0] == 2
    assert update("--name", other, "--switch-name")[1]["running"] == f"{other} 1.0"


@pytest.mark.parametrize(
    ("machine", "named"),
    [("a" * 32, True), ("b" * 32, True), ("uninitialized", False), ("", False), (None, False)],
)
def test_a_rollout_finds_devices_by_their_machine_id(
    place: Path, update: Command, monkeypatch: pytest.MonkeyPatch, machine: str | None, *,
    named: bool,
) -> None:  # fmt: skip
    """Without --device each has a name of its own; one that has none waits until all take it."""
    if machine is not None:
        (place / "machine-id").write_text(f"{machine}\n")
    monkeypatch.setattr("edgepack_runtime.cli.update._MACHINE_ID", place / "machine-id")
    publish(place, make_bundle(place, 2), percent=99)
    code, answer = update("--check")
    release = releases.releases(place / "channel")[NAME]["digest"].removeprefix("sha256:")
    name = hashlib.sha256(f"edgepack {machine}".encode()).hexdigest()
    number = int(hashlib.sha256(f"{name}/{release}".encode()).hexdigest()[:8], 16) % 100
    assert code == 0  # who is not chosen gets the release before
    assert answer["release"] == (2 if named and number < 99 else 1)
    publish(place, make_bundle(place, 3))
    assert update("--check")[1]["release"] == 3


def test_the_hooks_see_the_switch(place: Path, update: Command) -> None:
    """The one before it and the one after it are told which release it is."""
    log = place / "log"
    code, answer = update(
        "--before", f'echo "before $EDGEPACK_NAME $EDGEPACK_VERSION $EDGEPACK_RELEASE" >> {log}',
        "--after", f'echo "after $EDGEPACK_DIGEST" >> {log}',
    )  # fmt: skip
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


def test_time_that_was_seen_is_not_forgotten(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A clock that falls back to 1970 does not make a channel fresh that ran out long ago."""
    device = new_device(place)
    take_update(device)
    now = time.time()
    monkeypatch.setattr("edgepack_runtime.update.trust.time.time", lambda: now + 5 * 86400)
    publish(place, make_bundle(place, 2))
    take_update(device)
    stale = place / "stale"
    shutil.copytree(place / "channel", stale)
    monkeypatch.setattr("edgepack_runtime.update.trust.time.time", lambda: 0.0)
    floors = dict(device.store.state.floors)
    device.store.raise_floors({"time": int(now) + 8 * 86400})
    publish(place, make_bundle(place, 3))
    with pytest.raises(TrustError, match="expired"):
        device.check()
    assert device.store.state.floors["time"] > floors["time"] > now


def test_a_clock_far_ahead_does_not_lock_the_device_out(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In 2099 all is expired; back in the present, updates go on."""
    device = new_device(place)
    take_update(device)
    publish(place, make_bundle(place, 2))
    with monkeypatch.context() as patch:
        patch.setattr("edgepack_runtime.update.trust.time.time", lambda: 4.07e9)
        with pytest.raises(TrustError, match="expired"):
            device.check()
    assert take_update(device)


def test_a_device_that_dies_in_the_hook_comes_back_to_it(place: Path, update: Command) -> None:
    """The release is active but not settled: the hook runs again, and in the end it goes back."""
    store = Store.at(place / "device")
    update()
    before = store.state.active
    publish(place, make_bundle(place, 2))
    command = [sys.executable, "-m", "edgepack_runtime", "update", "--store", str(place / "device"),
               "--channel", str(place / "channel"), "--root", str(place / "root.json"), "--name",
               NAME, "--after", f"echo x >> {place}/died; kill -9 $PPID"]  # fmt: skip
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


def test_nothing_is_run_from_the_current_folder(
    place: Path, update: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stick may hold a module that Python would take for its own."""
    stick = place / "stick"
    stick.mkdir()
    (stick / "hashlib.py").write_text(f"open({str(place / 'ran')!r}, 'w')\nraise SystemExit(0)\n")
    monkeypatch.chdir(stick)
    assert update()[0] == 0
    assert not (place / "ran").exists()


@pytest.mark.parametrize("script", ["kill -KILL $$", "echo 'error: no memory' >&2; exit 4"])
def test_a_device_in_trouble_condemns_nothing(
    place: Path, update: Command, monkeypatch: pytest.MonkeyPatch, script: str
) -> None:
    """Killed as by a system short of memory, or without it: given up for now."""
    update()
    publish(place, make_bundle(place, 2))
    with monkeypatch.context() as patch:
        replace_interpreter(patch, place, script)
        assert update()[0] == 4
    assert Store.at(place / "device").state.bad == ()
    assert update()[0] == 0


def test_a_release_that_is_too_slow_here_is_given_up(place: Path, update: Command) -> None:
    """Its outputs are right and its time is not: what ran goes on, and it is said by how much."""
    update()
    store = Store.at(place / "device")
    before = store.state.active
    publish(place, make_bundle(place, 2))
    code, answer = update("--most-ms", "0.000001")
    assert code == 6
    assert "ms for a golden input" in answer["error"]
    assert store.state.active == before
    publish(place, make_bundle(place, 3))
    assert update("--most-ms", "60000")[0] == 0
