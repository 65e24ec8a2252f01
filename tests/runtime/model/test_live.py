"""A program that answers from a store while the store changes under it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from threading import Event, Thread

import handmade
import pytest
from fleet import make_bundle, new_device, publish, take_update

import edgepack_runtime as er
from edgepack_runtime.errors import InputError, NothingToDoError
from edgepack_runtime.model.follow import Follower
from edgepack_runtime.store.find import open_bundle
from edgepack_runtime.store.layout import BLOBS
from edgepack_runtime.store.room import make_room
from edgepack_runtime.store.store import Store


def test_no_call_is_lost_in_a_switch(place: Path) -> None:
    """Callers go on while four releases come and one goes back; each answer is right."""
    device = new_device(place)
    take_update(device)
    model = er.follow(place / "device", every=0.01)
    wanted = er.load(place / "r1.epk")("turn on")
    stop, wrong, calls = Event(), [], [0, 0]

    def ask(number: int) -> None:
        while not stop.wait(0.001):
            answer = model("turn on")
            calls[number] += 1
            if answer != wanted:
                wrong.append(answer)

    threads = [Thread(target=ask, args=(number,)) for number in range(2)]
    for thread in threads:
        thread.start()
    seen = [model.digest]
    for release in (2, 3, 4, 5):
        publish(place, make_bundle(place, release))
        seen.append(take_update(device))
        device.store.collect()
        wait_for(model, seen[-1])
    device.store.rollback()
    wait_for(model, seen[-2])
    stop.set()
    for thread in threads:
        thread.join()
    model.close()
    assert not wrong
    assert min(calls) > 0
    assert len(set(seen)) == 5


def wait_for(model: Follower, digest: str) -> None:
    """Wait until a release answers."""
    pause = Event()
    for _ in range(500):
        if model.digest == digest:
            return
        pause.wait(0.01)
    raise AssertionError(f"{model.digest} still answers, not {digest}")


def test_the_factory_release_answers_until_there_is_another(place: Path) -> None:
    """A device that was never updated runs what it was shipped with."""
    device = new_device(place)
    with pytest.raises(InputError, match="factory"):
        er.follow(place / "device")
    model = er.follow(place / "device", factory=handmade.bundle(place / "factory.epk"), every=60)
    assert model.digest == ""
    assert model("turn on")
    digest = take_update(device)
    assert model.look()
    assert model.digest == digest
    assert not model.look()
    device.store.rollback()
    assert model.look()
    assert model.digest == ""
    model.close()


def test_a_release_that_does_not_load_leaves_the_one_before(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The device may lack memory for it just now: calls go on."""
    device = new_device(place)
    first = take_update(device)
    model = er.follow(place / "device", every=60)
    publish(place, make_bundle(place, 2))
    second = take_update(device)

    def full(_: object) -> object:
        raise er.DeviceError("needs 900 MB of memory")

    with monkeypatch.context() as patch:
        patch.setattr("edgepack_runtime.model.follow.load", full)
        assert not model.look()
    assert model.digest == first
    assert model("turn on")
    assert not model.look()  # not at once
    monkeypatch.setattr("edgepack_runtime.model.follow.time.monotonic", lambda: 1e9)
    assert model.look()
    assert model.digest == second
    model.close()


class PanicError(BaseException):
    """What a tokenizer raises that panics: no `Exception`."""


@pytest.mark.parametrize("error", [PanicError, Exception])
def test_a_release_that_panics_does_not_end_the_following(
    place: Path, monkeypatch: pytest.MonkeyPatch, error: type[BaseException]
) -> None:
    """Whatever loading a bad release raises, the next good one is followed."""
    device = new_device(place)
    take_update(device)
    failed = Event()

    def panic(_: object) -> object:
        failed.set()
        raise error("index out of bounds")

    model = er.follow(place / "device", every=0.01)
    publish(place, make_bundle(place, 2))
    with monkeypatch.context() as patch:
        patch.setattr("edgepack_runtime.model.follow.load", panic)
        take_update(device)
        assert failed.wait(10)
    publish(place, make_bundle(place, 3))
    wait_for(model, take_update(device))
    model.close()


def test_readers_do_not_stop_updates_for_want_of_room(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Anyone may lock a blob that anyone may read: when room is needed, that does not count."""
    device = new_device(place)
    first = take_update(device).removeprefix("sha256:")
    store = device.store
    with store.storage.lock(f"{BLOBS}/{first}", shared=True):
        for release in (2, 3):
            publish(place, make_bundle(place, release))
            take_update(device)
        assert store.collect() == 0
        monkeypatch.setattr(
            store.storage, "free", lambda: 0 if first in store.storage.names(BLOBS) else 1 << 30
        )
        make_room(store, 1000)
    assert first not in store.storage.names(BLOBS)


@pytest.mark.parametrize("before", [None, 0o644, 0o666])
def test_the_lock_of_writers_is_for_their_user_alone(place: Path, before: int | None) -> None:
    """Who cannot open the file cannot hold updates back, whatever mode it had before."""
    lock = place / "device/lock"
    if before is not None:
        lock.parent.mkdir()
        lock.touch()
        lock.chmod(before)
    with Store.at(place / "device").alone():
        assert lock.stat().st_mode & 0o777 == 0o600


def test_a_lock_of_another_user_serves_as_it_is(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where its mode is not ours to change, the store is still taken and let go."""
    store = Store.at(place / "device")
    with store.alone():
        (place / "device/lock").chmod(0o666)

    def refused(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr("edgepack_runtime.store.storage.os.fchmod", refused)
    with store.alone(), pytest.raises(NothingToDoError, match="another process"):  # noqa: SIM117 (entered in turn)
        with Store.at(place / "device").alone():
            pass


def test_what_somebody_reads_is_not_collected(place: Path) -> None:
    """Two updates later its blobs are as they were; once it is let go they are gone."""
    device = new_device(place)
    first = take_update(device)
    blob = place / "device/blobs" / first.removeprefix("sha256:")
    blob.chmod(0o644)
    reader = Store.at(place / "device")
    with reader.reading() as bundle:
        assert bundle is not None
        for release in (2, 3):
            publish(place, make_bundle(place, release))
            take_update(device)
        device.store.collect()
        assert bundle.verify() > 0
        assert blob.stat().st_mode & 0o777 == 0o644  # other users read it, too
    assert device.store.collect() > 0
    assert first.removeprefix("sha256:") not in device.store.storage.names(BLOBS)


def test_a_release_that_was_loaded_is_whole_for_as_long_as_it_answers(
    tmp_path: Path, bundle: Callable[..., Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    """`load` of a store reads files of its release that an engine needs two updates later."""
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path / "cache"))
    store = Store.at(tmp_path / "store")
    switch_to(store, er.Bundle.open(bundle("bert-intent")))
    variants = open_bundle(tmp_path / "store").manifest.variants
    variant = next(v for v in variants if v.engine == "openvino" and v.options["static_tokens"])
    model = er.load(tmp_path / "store", variant=variant.name)
    for release in (2, 3):
        switch_to(store, make_bundle(tmp_path, release))
        store.collect()
    assert len(model(["turn on the lights " * 9, "what is the weather like"])) == 2
    held = store.collect()
    del model
    assert held == 0
    assert store.collect() > 0


def switch_to(store: Store, release: er.Bundle) -> None:
    """Install a release, as an update does, and let it run."""
    with store.alone():
        store.install(release)
        assert store.start().on_trial
        store.confirm()


def test_a_lock_on_a_blob_that_is_gone_makes_none(place: Path) -> None:
    """Only the lock of writers is a file of its own."""
    take_update(new_device(place))
    store = Store.at(place / "device")
    with pytest.raises(FileNotFoundError), store.storage.lock(f"{BLOBS}/{'0' * 64}"):
        pass
