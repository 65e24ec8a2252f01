"""A device takes what its owner signed, over bad links, and nothing else."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import handmade
import pytest
from click.testing import CliRunner
from server import Handler, Server, serve

import edgepack_runtime as er
from edgepack import channel, keys
from edgepack.cli import main as host
from edgepack_runtime.bundle import Bundle
from edgepack_runtime.cli import main as runtime
from edgepack_runtime.errors import (
    DeviceError,
    EdgepackError,
    InputError,
    LinkError,
    NothingToDoError,
    TrustError,
)
from edgepack_runtime.manifest import CHUNK
from edgepack_runtime.store import BLOBS, PARTS, Store
from edgepack_runtime.update import Policy, Updater
from edgepack_runtime.update.source import Folder, Http, Link, open_source

NAME = "small/any"
EXAMPLE = Path(__file__).parents[2] / "examples/field-update"
ONCE = Policy(attempts=1, pause=0.0)
BIG = bytes(range(256)) * 4096 * 3 + b"end"  # three chunks and a bit


def _bundle(folder: Path, release: int, **change: Any) -> Bundle:
    extra = {"weights.bin": BIG, "own.bin": bytes([release]) * 50}
    said = {"release": release, "version": f"1.{release}", **change}
    return Bundle.open(handmade.bundle(folder / f"r{release}.epk", change=said, extra=extra))


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A channel with release 1, and its keys."""
    keys.init(tmp_path / "keys")
    _publish(tmp_path, _bundle(tmp_path, 1))
    return tmp_path


def _publish(place: Path, bundle: Bundle, percent: int = 100, cohorts: tuple[str, ...] = ()) -> str:
    rollout = channel.Rollout(percent, cohorts)
    return channel.publish(bundle, place / "channel", place / "keys", rollout)


def _device(place: Path, source: Any = None, policy: Policy = ONCE) -> Updater:
    root = (place / "channel/metadata/1.root.json").read_bytes()
    found = source or Folder(place / "channel")
    return Updater(Store.at(place / "device"), [found], root, NAME, policy)


def _update(device: Updater) -> str:
    bundle = device.install(device.check())
    assert device.try_out() == ""
    return bundle.digest


@pytest.fixture
def server(place: Path) -> Iterator[Server]:
    """The channel on a web server."""
    with serve(place / "channel") as state:
        yield state


def test_a_device_follows_a_channel(place: Path) -> None:
    """First release, the next one, nothing to do, and back: each is what runs."""
    device = _device(place)
    first = _update(device)
    assert device.store.state.active == first
    with pytest.raises(NothingToDoError, match="installed already"):
        device.check()
    _publish(place, _bundle(place, 2))
    second = _update(device)
    assert device.store.state.active == second
    assert device.store.state.previous == first
    device.store.rollback()
    assert device.store.start().bundle.digest == first  # type: ignore[union-attr]
    with pytest.raises(NothingToDoError, match="failed on this device"):
        device.check()


def test_only_what_changed_is_downloaded(place: Path, server: Server) -> None:
    """Blobs that the device has are not fetched again."""
    device = _device(place, Http(server.url, Link()))
    _update(device)
    whole = server.sent
    assert whole > len(BIG)
    _publish(place, _bundle(place, 2))
    _update(device)
    assert server.sent - whole < 10_000


def test_a_release_that_fails_its_self_test_is_taken_back(place: Path) -> None:
    """Golden outputs that do not come out: what ran goes on, and it is not tried again."""
    device = _device(place)
    first = _update(device)
    bad = handmade.bundle(
        place / "bad.epk", change={"release": 2, "version": "1.2"},
        extra={"golden.json": json.dumps(
            {"inputs": ["turn on"], "outputs": [{"shape": [3], "data": [0.0, 0.5, 0.5]}]}
        ).encode()},
    )  # fmt: skip
    _publish(place, Bundle.open(bad))
    device.install(device.check())
    assert "strays from its golden outputs" in device.try_out()
    assert device.store.state.active == first
    with pytest.raises(NothingToDoError, match="failed on this device before"):
        device.check()


# Attacks: what an attacker does to the channel (no key of his own) after release 1 was taken.


def _flip_blob(place: Path) -> None:
    digest = channel.releases(place / "channel")[NAME]["digest"].removeprefix("sha256:")
    path = place / "channel/blobs" / digest
    path.write_bytes(path.read_bytes()[:-1] + b" ")


def _flip_weights(place: Path) -> None:
    for path in (place / "channel/blobs").iterdir():
        if path.stat().st_size < 200:
            path.write_bytes(bytes(len(path.read_bytes())))


def _edit_targets(place: Path) -> None:
    path = max((place / "channel/metadata").glob("*.targets.json"))
    value = json.loads(path.read_text())
    value["signed"]["targets"][NAME]["custom"]["release"] = 9
    path.write_text(json.dumps(value))


def _edit_timestamp(place: Path) -> None:
    path = place / "channel/metadata/timestamp.json"
    value = json.loads(path.read_text())
    value["signed"]["version"] += 5
    path.write_text(json.dumps(value))


def _own_keys(place: Path) -> None:
    keys.init(place / "evil-keys")
    shutil.rmtree(place / "channel")
    channel.publish(_bundle(place, 3), place / "channel", place / "evil-keys", channel.Rollout())


def _one_root_key(place: Path) -> None:
    """A new root that one stolen root key signs, naming the attacker's keys."""
    evil = place / "evil-keys"
    keys.init(evil)
    shutil.copy(place / "keys/root-1.pem", evil / "root-1.pem")
    shutil.copy(place / "keys/root.json", evil / "root.json")
    opened = channel.Channel(place / "channel", evil)
    for name in ("targets", "snapshot", "timestamp"):
        opened.root.signed.add_key(keys.signer(evil, name).public_key, name)
    opened.sign_root()
    opened.save({"targets"})


def _drop_metadata(place: Path) -> None:
    for path in (place / "channel/metadata").glob("*.snapshot.json"):
        path.unlink()


def _mix(place: Path) -> None:
    """The targets of one moment with the snapshot of another."""
    folder = place / "channel/metadata"
    newest = max(folder.glob("*.targets.json"))
    oldest = min(folder.glob("*.targets.json"))
    shutil.copy(oldest, newest)


def _endless(place: Path) -> None:
    path = place / "channel/metadata/timestamp.json"
    path.write_bytes(path.read_bytes() + b" " * 20_000_000)


ATTACKS: dict[str, Callable[[Path], object]] = {
    "manifest altered": _flip_blob, "files altered": _flip_weights,
    "targets altered": _edit_targets, "timestamp altered": _edit_timestamp,
    "arbitrary software": _own_keys, "one root key of two": _one_root_key,
    "metadata withheld": _drop_metadata, "mix and match": _mix, "endless data": _endless,
}  # fmt: skip


@pytest.mark.parametrize("over", ["folder", "http"])
@pytest.mark.parametrize("attack", ATTACKS)
def test_an_attack_is_not_taken(place: Path, server: Server, attack: str, over: str) -> None:
    """Whatever stands in the channel, the device goes on with what it trusted before."""
    source = Folder(place / "channel") if over == "folder" else Http(server.url, Link())
    device = _device(place, source)
    first = _update(device)
    _publish(place, _bundle(place, 2))
    ATTACKS[attack](place)
    with pytest.raises((TrustError, LinkError)):
        device.install(device.check())
    assert device.store.state.active == first
    started = device.store.start()
    assert started.bundle is not None
    assert started.bundle.digest == first


def test_older_metadata_is_refused(place: Path) -> None:
    """Rollback: signed, unexpired, and older than what this device has seen."""
    shutil.copytree(place / "channel", place / "yesterday")
    _publish(place, _bundle(place, 2))
    device = _device(place)
    _update(device)
    with pytest.raises(TrustError, match="was seen before"):
        _device(place, Folder(place / "yesterday")).check()


def test_expired_metadata_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Freeze: a timestamp that its owner no longer renews."""
    monkeypatch.setitem(channel._DAYS, "timestamp", -1)
    _publish(place, _bundle(place, 2))
    with pytest.raises(TrustError, match="expired"):
        _device(place).check()


def test_a_release_for_another_board_is_refused(place: Path) -> None:
    """The signed name binds the board; a device asks for its own."""
    other = handmade.bundle(place / "other.epk", change={"target": "board", "release": 2})
    _publish(place, Bundle.open(other))
    device = _device(place)
    root = device.root
    wrong = Updater(device.store, device.sources, root, "small/jetson", ONCE)
    with pytest.raises(NothingToDoError, match="no release 'small/jetson'"):
        wrong.check()


def test_what_does_not_fit_is_not_downloaded(place: Path, server: Server) -> None:
    """The list of what is lacking comes before the weights do."""
    _publish(place, _bundle(place, 2, arch="riscv64"))
    device = _device(place, Http(server.url, Link()))
    with pytest.raises(DeviceError, match="riscv64"):
        device.install(device.check())
    assert server.sent < 20_000


def test_an_older_release_is_neither_published_nor_taken(place: Path) -> None:
    """Release counters only grow."""
    _publish(place, _bundle(place, 5))
    with pytest.raises(InputError, match="the channel has release 5, this is 4"):
        _publish(place, _bundle(place, 4))
    with pytest.raises(NothingToDoError):
        _publish(place, Bundle.open(place / "r5.epk"))


def test_a_rollout_reaches_its_share_of_devices(place: Path) -> None:
    """A quarter of a thousand devices, the same ones each time; cohorts come first."""
    _publish(place, _bundle(place, 2), percent=25)
    chosen = []
    for number in range(1000):
        one = _device(place, policy=Policy(device=f"d{number}", attempts=1))
        chosen.append(one._chosen(_offer(place, 25, ())))
    assert 200 < sum(chosen) < 300
    cohort = _device(place, policy=Policy(device="d0", cohort="beta", attempts=1))
    assert cohort._chosen(_offer(place, 100, ("beta",)))
    assert not cohort._chosen(_offer(place, 100, ("stable",)))


def _offer(place: Path, percent: int, cohorts: tuple[str, ...]) -> Any:
    from edgepack_runtime.update.trust import Offer

    digest = channel.releases(place / "channel")[NAME]["digest"].removeprefix("sha256:")
    return Offer(digest, 1, 2, "1.2", percent, cohorts)


@pytest.mark.parametrize("name", keys.NAMES)
def test_a_rotated_key_is_followed(place: Path, name: str) -> None:
    """Any key can be replaced; devices learn it from the next root, and keep their floors."""
    device = _device(place)
    _update(device)
    channel.rotate(name, place / "channel", place / "keys")
    _publish(place, _bundle(place, 2))
    _update(device)
    floors = device.store.state.floors
    assert floors["root"] == 2
    assert len([name for name in floors if "@" in name]) == 3  # those of older keys are gone


def test_a_pinned_device_takes_nothing(place: Path) -> None:
    """Held back until it is let go."""
    device = _device(place)
    device.store.pin(pinned=True)
    with pytest.raises(NothingToDoError, match="pinned"):
        device.check()
    device.store.pin(pinned=False)
    assert _update(device)


# Bad links.


def _cut(at: int) -> Callable[[Handler, bytes, int], bool]:
    def fault(handler: Handler, content: bytes, start: int) -> bool:
        if len(content) < CHUNK:
            return False
        handler.reply(content[start : start + at], start, len(content),
                      promise=len(content) - start)  # fmt: skip
        handler.close_connection = True
        return True

    return fault


def _status(code: int) -> Callable[[Handler, bytes, int], bool]:
    def fault(handler: Handler, _: bytes, __: int) -> bool:
        handler.send_response(code)
        handler.send_header("Content-Length", "0")
        handler.end_headers()
        return True

    return fault


def _whole_instead_of_range(handler: Handler, content: bytes, start: int) -> bool:
    if start:
        handler.reply(content, 0, len(content))
    return bool(start)


def _wrong_range(handler: Handler, content: bytes, start: int) -> bool:
    if start:
        handler.reply(content[start - 1 :], start - 1, len(content))
    return bool(start)


def _portal(handler: Handler, content: bytes, start: int) -> bool:
    handler.reply(b"<html>please log in</html>".ljust(len(content) - start), start, len(content))
    return True


def _garbled(handler: Handler, content: bytes, start: int) -> bool:
    body = bytearray(content[start:])
    body[len(body) // 2] ^= 1
    handler.reply(bytes(body), start, len(content))
    return True


def _longer(handler: Handler, content: bytes, start: int) -> bool:
    handler.reply(content[start:] + b"more", start, len(content) + 4)
    return True


CUTS = [
    0,
    1,
    1000,
    CHUNK - 1,
    CHUNK,
    CHUNK + 1,
    2 * CHUNK,
    2 * CHUNK + 77,
    3 * CHUNK,
    len(BIG) - 1,
    len(BIG),
]
FAULTS: dict[str, Sequence[Any]] = {
    **{f"cut after {at}": [_cut(at)] for at in CUTS},
    **{f"cut twice after {at}": [_cut(at), _cut(at // 2 + 1)] for at in CUTS},
    **{f"status {code}": [_status(code)] for code in (301, 302, 400, 404, 416, 429, 500, 502, 503)},
    **{f"{code} after a cut": [_cut(CHUNK + 5), _status(code)] for code in (200, 206, 404, 500)},
    "whole file for a range": [_cut(CHUNK + 5), _whole_instead_of_range],
    "another range": [_cut(CHUNK + 5), _wrong_range],
    "captive portal": [_portal], "portal after a cut": [_cut(2 * CHUNK), _portal],
    "garbled": [_garbled], "garbled after a cut": [_cut(CHUNK), _garbled],
    "longer": [_longer], "longer after a cut": [_cut(CHUNK), _longer],
    "twenty drops": [_cut(200_000)] * 20, "everything at once": [
        _cut(5), _status(503), _portal, _garbled, _cut(CHUNK), _longer, _whole_instead_of_range],
}  # fmt: skip


@pytest.mark.parametrize("fault", FAULTS)
def test_a_bad_link_delays_and_no_more(place: Path, server: Server, fault: str) -> None:
    """The release arrives whole, and a drop wastes at most the chunk that it broke."""
    faults = FAULTS[fault]
    server.faults = [_once_on_weights(list(faults))] * 200
    device = _device(place, Http(server.url, Link(timeout=5)), Policy(attempts=40, pause=0.0))
    assert _update(device)
    wasted = server.sent - sum(p.stat().st_size for p in (place / "channel/blobs").iterdir())
    assert wasted <= (CHUNK + 64 * 1024) * len(faults) + 4 * CHUNK * _lies(fault)
    assert device.store.storage.names(PARTS) == []


def _lies(fault: str) -> int:
    """Count the answers that are whole files of wrong bytes."""
    return sum(fault.count(word) for word in ("portal", "garbled", "longer", "whole")) + 4 * (
        fault == "everything at once"
    )


def _once_on_weights(faults: list[Any]) -> Any:
    """Apply the faults in turn to the large file alone."""

    def fault(handler: Handler, content: bytes, start: int) -> bool:
        if len(content) < CHUNK or not faults:
            return False
        return bool(faults.pop(0)(handler, content, start))

    return fault


def test_a_download_goes_on_after_the_power_went(place: Path, server: Server) -> None:
    """What came before the cut is hashed and kept; the next start asks for the rest only."""
    device = _device(place, Http(server.url, Link()))
    server.faults = [_once_on_weights([_cut(2 * CHUNK + 9)])] * 20
    with pytest.raises(LinkError):
        device.install(device.check())
    name = next(n for n in device.store.storage.names(PARTS))
    part = place / "device" / PARTS / name
    part.write_bytes(part.read_bytes()[: CHUNK + 3] + b"\0" * 40)  # as a cut may leave it
    before = server.sent
    again = _device(place, Http(server.url, Link()))
    assert _update(again)
    assert server.sent - before <= len(BIG) - CHUNK + 10_000


def test_a_mirror_takes_over(place: Path, server: Server) -> None:
    """A bad mirror cannot block a good one."""
    dead = Http("http://127.0.0.1:9", Link(timeout=1))
    device = _device(place)
    both = Updater(device.store, [dead, Http(server.url, Link())], device.root, NAME,
                   Policy(attempts=4, pause=0.0))  # fmt: skip
    assert _update(both)


def test_a_server_that_trickles_is_given_up(place: Path, server: Server) -> None:
    """Slow retrieval: fewer bytes a second than the least, for a whole window."""
    import time

    def trickle(handler: Handler, content: bytes, _: int) -> bool:
        if len(content) < CHUNK:
            return False
        handler.send_response(200)
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        with suppress(OSError):  # the device hangs up
            for i in range(600):
                handler.wfile.write(content[i : i + 1])
                handler.wfile.flush()
                time.sleep(0.05)
        return True

    server.faults = [trickle] * 50
    link = Link(timeout=5, least=1000, window=0.3)
    device = _device(place, Http(server.url, link))
    start = time.monotonic()
    with pytest.raises(LinkError, match="too few"):
        device.install(device.check())
    assert time.monotonic() - start < 20  # the server would go on for 30


def test_a_place_that_is_no_channel_says_so(tmp_path: Path) -> None:
    """Neither a folder nor an address."""
    with pytest.raises(InputError, match="no channel at"):
        open_source(str(tmp_path / "nowhere"))


def test_every_error_is_of_the_family(place: Path) -> None:
    """Whatever a channel's file is replaced with, the device answers with an error of ours."""
    device = _device(place)
    for path in sorted((place / "channel/metadata").iterdir()):
        whole = path.read_bytes()
        for junk in (b"", b"{}", b"\xff\xfe", b"[" * 100_000, whole[: len(whole) // 2], b"null"):
            path.write_bytes(junk)
            with suppress(EdgepackError):
                device.check()
            path.write_bytes(whole)
    assert _update(device)
    assert device.store.storage.names(BLOBS)


def test_the_command_updates_tells_and_goes_back(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """update, status, rollback, pin, collect: what they print, and their exit codes."""
    store = ["--store", str(place / "device"), "--json"]
    root = place / "root.json"
    shutil.copy(place / "channel/metadata/1.root.json", root)
    update = ["update", *store, "--channel", str(place / "channel"), "--name", NAME,
              "--root", str(root)]  # fmt: skip

    def call(*args: str, code: int = 0) -> dict[str, Any]:
        assert runtime([*args]) == code
        printed = capsys.readouterr().out
        return json.loads(printed) if printed else {}

    assert call("status", *store)["running"] == "the factory's release"
    assert call(*update, "--check")["available"] == f"{NAME} 1.1"
    assert call(*update)["running"] == f"{NAME} 1.1"
    call(*update, code=7)
    assert call("status", *store)["running"] == "small 1.1 for any"
    assert er.load(place / "device")("turn on")
    call("pin", *store)
    call(*update, code=7)
    call("pin", *store, "--off")
    _publish(place, _bundle(place, 2))
    with Store.at(place / "device").alone():
        call(*update, code=7)
    assert call(*update)["version"] == "1.2"
    assert call("rollback", *store)["active"].startswith("sha256:")
    assert call("status", *store)["running"] == "small 1.1 for any"
    assert call("collect", *store)["bytes_freed"] > 0
    call("update", *store, "--channel", str(place / "nowhere"), "--name", NAME,
         "--root", str(root), code=2)  # fmt: skip
    call(*update[:-1], str(place / "no-root"), code=5)


def test_the_host_commands_tend_a_channel(tmp_path: Path) -> None:
    """Keys init and list, publish, channel list, retire and refresh, keys rotate."""
    run = CliRunner()

    def call(*args: str, code: int = 0) -> str:
        done = run.invoke(host, [*args])
        assert done.exit_code == code, done.output
        return done.output

    folder, own = str(tmp_path / "channel"), str(tmp_path / "keys")
    signed = ["--channel", folder, "--keys", own]
    bundle = str(_bundle(tmp_path, 1).path)
    call("publish", bundle, *signed, code=2)
    call("channel", "refresh", folder, "--keys", own, code=2)
    assert call("keys", "init", own).count(".pem") == 6
    call("keys", "init", own, code=7)
    assert "timestamp" in call("keys", "list", own)
    assert "release 1" in call("publish", bundle, *signed, "--percent", "20")
    assert json.loads(call("channel", "list", folder, "--json"))[NAME]["percent"] == 20
    call("keys", "rotate", "timestamp", *signed)
    call("channel", "refresh", folder, "--keys", own)
    call("channel", "export", folder, "--usb", str(tmp_path / "usb"), "--keys", own)
    call("channel", "export", folder, "--usb", "x", "--keys", own, "--expires", "soon", code=2)
    call("channel", "retire", NAME, *signed)
    assert call("channel", "list", folder) == ""
    call("channel", "retire", NAME, *signed, code=2)
    call("keys", "rotate", "nobody", *signed, code=2)


def test_the_systemd_unit_of_the_example_updates(place: Path) -> None:
    """Its command, as systemd would run it: an update, then nothing to do, which is success."""
    unit = (EXAMPLE / "edgepack-update.service").read_text()
    command = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    settings = dict(
        line.split("=", 1) for line in (EXAMPLE / "update.conf").read_text().splitlines()
    )
    here = {"EDGEPACK_STORE": str(place / "device"), "CHANNEL": str(place / "channel"),
            "NAME": NAME}  # fmt: skip
    assert set(settings) == set(here)
    words = command.removeprefix("ExecStart=").split()
    assert words[0].endswith("/edgepack-runtime")
    for name, value in here.items():
        words = [word.replace(f"${{{name}}}", value) for word in words]
    shutil.copy(place / "channel/metadata/1.root.json", place / "root.json")
    words = [str(place / "root.json") if w == "/etc/edgepack/root.json" else w for w in words]
    program = [sys.executable, "-m", "edgepack_runtime", *words[1:]]
    codes = [subprocess.run(program, check=False, capture_output=True).returncode for _ in (1, 2)]
    assert codes == [0, 7]
    assert "SuccessExitStatus=7" in unit


def test_a_stick_carries_a_channel(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Exported for 90 days it is taken when the channel itself has long expired, and only once."""
    own = place / "keys"
    channel.export(place / "channel", place / "stick", own, 90)
    monkeypatch.setitem(channel._DAYS, "timestamp", -1)
    channel.refresh(place / "channel", own)
    with pytest.raises(TrustError, match="expired"):
        _device(place).check()
    stick = _device(place, Folder(place / "stick"))
    assert _update(stick)
    with pytest.raises(NothingToDoError):
        stick.check()
    with pytest.raises(InputError, match="is not empty"):
        channel.export(place / "channel", place / "stick", own, 90)
    with pytest.raises(InputError, match="a day or more"):
        channel.export(place / "channel", place / "other", own, 0)


def test_an_old_stick_is_refused(place: Path) -> None:
    """A stick from before the release that runs: older than what the device has seen."""
    channel.export(place / "channel", place / "stick", place / "keys", 90)
    _publish(place, _bundle(place, 2))
    _publish(place, _bundle(place, 3))
    _update(_device(place))
    with pytest.raises(TrustError, match="was seen before"):
        _device(place, Folder(place / "stick")).check()


def test_the_channel_is_not_older_than_its_stick(place: Path) -> None:
    """A device that took a stick goes on with the channel at once."""
    channel.export(place / "channel", place / "stick", place / "keys", 90)
    _update(_device(place, Folder(place / "stick")))
    with pytest.raises(NothingToDoError, match="installed already"):
        _device(place).check()


def _light_change(place: Path, release: int) -> Bundle:
    """A release whose weights differ from the first one's by a step here and there."""
    weights = bytearray(BIG)
    for at in range(0, len(weights), 997):
        weights[at] = (weights[at] + 1) % 256
    extra = {"weights.bin": bytes(weights), "own.bin": bytes([release]) * 50}
    change = {"release": release, "version": f"1.{release}"}
    path = handmade.bundle(place / f"light{release}.epk", change=change, extra=extra)
    return Bundle.open(path)


def test_a_light_change_comes_as_a_delta(place: Path, server: Server) -> None:
    """A hundredth of the bytes, and the very blob that was signed."""
    device = _device(place, Http(server.url, Link()))
    _update(device)
    before = server.sent
    _publish(place, _light_change(place, 2))
    _update(device)
    assert server.sent - before < len(BIG) / 50
    running = device.store.running()
    assert running is not None
    assert bytes(running.read("weights.bin"))[0] == (BIG[0] + 1) % 256


@pytest.mark.parametrize("what", ["no base", "damaged base", "damaged delta", "missing delta"])
def test_without_its_delta_the_whole_blob_is_taken(place: Path, server: Server, what: str) -> None:
    """The full blob is always there."""
    device = _device(place, Http(server.url, Link()))
    if what != "no base":
        _update(device)
    _publish(place, _light_change(place, 2))
    delta = channel.releases(place / "channel")[NAME]["deltas"][0]
    path = place / "channel/blobs" / delta["sha256"]
    base = place / "device/blobs" / delta["base"]
    if what == "damaged base":
        base.write_bytes(base.read_bytes()[:-1] + b"x")
    if what == "damaged delta":
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    if what == "missing delta":
        path.unlink()
    before = server.sent
    assert _update(device)
    assert server.sent - before > len(BIG)


def test_replaced_root_keys_rule_no_device(place: Path) -> None:
    """Old root keys, stolen after they were replaced, cannot fork the line of roots."""
    shutil.copytree(place / "keys", place / "stolen")
    shutil.copytree(place / "channel", place / "forked")
    for name in keys.ROOTS:
        channel.rotate(name, place / "channel", place / "keys")
    _publish(place, _bundle(place, 2))
    device = _device(place)
    first = _update(device)
    for name in ("targets", "snapshot", "timestamp"):
        channel.rotate(name, place / "forked", place / "stolen")
    for _ in range(3):
        channel.refresh(place / "forked", place / "stolen")
    evil = _bundle(place, 7)
    channel.publish(evil, place / "forked", place / "stolen", channel.Rollout())
    with pytest.raises(TrustError, match="forked"):
        _device(place, Folder(place / "forked")).check()
    assert device.store.state.active == first


def test_a_signed_hash_is_no_path(place: Path) -> None:
    """Even the owner of the targets key cannot write outside of the store."""
    (place / "device").mkdir()
    (place / "device/victim").write_text("precious")
    opened = channel.Channel(place / "channel", place / "keys")
    opened.targets.signed.targets[NAME].hashes["sha256"] = "../victim"
    opened.save({"targets"})
    with pytest.raises(TrustError, match="no sha256"):
        _device(place).check()
    with pytest.raises(TrustError, match="no sha256"):
        Store.at(place / "device").receive("../victim", 4, (), lambda _: iter([b"evil"]))
    assert (place / "device/victim").read_text() == "precious"


def test_what_lies_in_the_channel_is_not_signed_unseen(place: Path) -> None:
    """Who can write to the web folder cannot have his release signed with the next one."""
    path = max((place / "channel/metadata").glob("*.targets.json"))
    value = json.loads(path.read_text())
    value["signed"]["targets"][NAME]["custom"]["release"] = 9
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="not signed by"):
        _publish(place, _bundle(place, 2))


def test_a_retired_release_does_not_come_back(place: Path) -> None:
    """What was seen is remembered also when there was nothing to take."""
    shutil.copytree(place / "channel", place / "yesterday")
    channel.retire(NAME, place / "channel", place / "keys")
    with pytest.raises(NothingToDoError):
        _device(place).check()
    with pytest.raises(TrustError, match="was seen before"):
        _device(place, Folder(place / "yesterday")).check()


def test_a_rotation_that_cannot_be_signed_changes_nothing(place: Path) -> None:
    """Without two root keys the old key stays and goes on signing."""
    own = place / "keys"
    (place / "safe").mkdir()
    for name in keys.ROOTS:
        shutil.move(own / f"{name}.pem", place / "safe")
    before = (own / "timestamp.pem").read_bytes()
    with pytest.raises(InputError, match="needs 2 root keys"):
        channel.rotate("timestamp", place / "channel", own)
    assert (own / "timestamp.pem").read_bytes() == before
    channel.refresh(place / "channel", own)
    assert _update(_device(place))


def test_a_resumed_part_is_not_counted_twice(place: Path, server: Server) -> None:
    """Room for what is missing is enough; the release before the last gives way if it is not."""
    device = _device(place, Http(server.url, Link()))
    server.faults = [_once_on_weights([_cut(2 * CHUNK + 9)])] * 20
    with pytest.raises(LinkError):
        device.install(device.check())
    room = len(BIG) - 2 * CHUNK + (2 << 20)
    again = _device(place, Http(server.url, Link()))
    object.__setattr__(again.store.storage, "free", lambda: room)
    assert _update(again)


def test_damaged_weights_are_repaired(place: Path, server: Server) -> None:
    """A flipped bit on the disk: the same release comes again, and runs."""
    device = _device(place, Http(server.url, Link()))
    first = _update(device)
    damaged = max((place / "device/blobs").iterdir(), key=lambda path: path.stat().st_size)
    content = bytearray(damaged.read_bytes())
    content[1000] ^= 1
    damaged.write_bytes(bytes(content))
    assert device.store.running() is None
    assert device.install(device.check()).digest == first
    assert device.store.state.trial == ""
    assert device.store.running() is not None


def test_one_unreadable_record_is_not_the_end(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A bad sector under one of the two records leaves the other."""
    device = _device(place)
    first = _update(device)
    store, state = device.store, device.store.state
    newest = "S0" if state.seq % 2 else "S1"
    other = "S1" if newest == "S0" else "S0"
    read = store.storage.read

    def bad(path: str, size: int = -1) -> bytes:
        if path == other:
            raise OSError(5, "Input/output error", path)
        return read(path, size)

    monkeypatch.setattr(store.storage, "read", bad)
    assert store.state.active == first
    assert store.start().bundle is not None


def test_nothing_is_collected_that_cannot_be_judged(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A release that cannot be opened for a moment keeps its blobs."""
    device = _device(place)
    first = _update(device)

    def no_handles(_: str) -> memoryview:
        raise OSError(24, "Too many open files")

    with monkeypatch.context() as patch:
        patch.setattr(device.store.storage, "map", no_handles)
        device.store.collect()
    running = device.store.running()
    assert running is not None
    assert running.digest == first


def test_a_device_that_is_short_of_memory_condemns_nothing(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What lies with the device is no verdict on the release: it comes again."""
    device = _device(place)

    def full(*_: object, **__: object) -> object:
        raise DeviceError("needs 900 MB of memory, 20 MB are free")

    device.install(device.check())
    with monkeypatch.context() as patch:
        patch.setattr("edgepack_runtime.model.load", full)
        with pytest.raises(DeviceError):
            device.try_out()
    assert device.store.state.bad == ()
    assert _update(device)


def test_a_stale_mirror_does_not_block_the_others(place: Path) -> None:
    """Metadata that is refused at one place is looked for at the next."""
    shutil.copytree(place / "channel", place / "broken")
    (place / "broken/metadata/timestamp.json").write_text("<html>log in</html>")
    device = _device(place)
    both = Updater(device.store, [Folder(place / "broken"), Folder(place / "channel")],
                   device.root, NAME, Policy(attempts=4, pause=0.0))  # fmt: skip
    assert _update(both)


def test_a_wider_rollout_keeps_its_deltas(place: Path) -> None:
    """The same release for more devices: those that come later get the deltas too."""
    _publish(place, _light_change(place, 2), percent=10)
    deltas = channel.releases(place / "channel")[NAME]["deltas"]
    assert deltas
    _publish(place, Bundle.open(place / "light2.epk"), percent=100)
    assert channel.releases(place / "channel")[NAME]["deltas"] == deltas


def test_a_publish_that_was_interrupted_is_finished(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Targets were written, the rest was not: the same command completes it."""
    write = channel._write

    def stops(path: Path, content: bytes) -> None:
        if path.name.endswith("snapshot.json"):
            raise OSError(28, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(channel, "_write", stops)
        with pytest.raises(OSError, match="No space"):
            _publish(place, _bundle(place, 2))
    _publish(place, Bundle.open(place / "r2.epk"))
    assert _device(place).check().version == "1.2"
