"""A release on trial that crashes, hangs or is too slow, and a device in trouble."""

from __future__ import annotations

from pathlib import Path

import pytest
from fleet import Command, make_bundle, publish

from edgepack_runtime.store.store import ATTEMPTS, Store


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
