"""A channel behind a URL: a web server that takes PUT, a bucket; and links that break."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import handmade
import pytest
from click.testing import CliRunner
from fleet import NAME, ONCE, light_change, make_bundle, take_update
from server import Server, listening, serve

from edgepack.channel import carry, keys, releases, site
from edgepack.cli import main as host
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import (
    EdgepackError,
    HostError,
    InputError,
    LinkError,
    NothingToDoError,
    TrustError,
)
from edgepack_runtime.store.store import Store
from edgepack_runtime.update.source import open_source
from edgepack_runtime.update.updater import Updater


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Server]:
    """An empty web server that takes PUT."""
    keys.init(tmp_path / "keys")
    (tmp_path / "channel").mkdir()
    with serve(tmp_path / "channel") as state:
        yield state


@pytest.fixture
def bucket(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[str, str]]:
    """An S3 bucket: its URL for who publishes, and for devices."""
    s3fs = pytest.importorskip("s3fs")
    server = pytest.importorskip("moto.server").ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    keys.init(tmp_path / "keys")
    server.start()
    address = "http://{}:{}".format(*server.get_host_and_port())
    for name, value in {
        "AWS_ENDPOINT_URL": address, "AWS_ACCESS_KEY_ID": "any", "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():  # fmt: skip
        monkeypatch.setenv(name, value)
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.mkdir("fleet")
    readable = {"Effect": "Allow", "Principal": "*", "Action": "s3:GetObject",
                "Resource": "arn:aws:s3:::fleet/*"}  # fmt: skip
    policy = json.dumps({"Version": "2012-10-17", "Statement": [readable]})
    store.call_s3("put_bucket_policy", Bucket="fleet", Policy=policy)
    try:
        yield "s3://fleet/stable/", f"{address}/fleet/stable"
    finally:
        server.stop()


def _device(folder: Path, address: str) -> Updater:
    """Return a device that follows a channel, and trusts its first root."""
    source = open_source(address)
    root = b"".join(source.fetch("metadata/1.root.json"))
    return Updater(Store.at(folder), [source], root, NAME, ONCE)


def _tend(place: Path, url: str, address: str) -> None:
    """Publish by every command to a URL, and take each by HTTP from another."""
    run = CliRunner()

    def call(*args: str, code: int = 0) -> str:
        done = run.invoke(host, [*args])
        assert done.exit_code == code, done.output
        return done.output

    own = str(place / "keys")
    signed = ["--channel", url, "--keys", own]
    first, second = make_bundle(place, 1), light_change(place, 2)
    assert f"{url}: {NAME} is release 1" in call("publish", str(first.path), *signed)
    call("publish", str(first.path), *signed, code=7)
    device = _device(place / "device", address)
    assert take_update(device) == first.digest
    call("keys", "rotate", "timestamp", *signed)
    call("publish", str(second.path), *signed, "--percent", "40")
    call("publish", str(second.path), *signed)
    said = json.loads(call("channel", "list", url, "--json"))[NAME]
    assert (said["percent"], said["release"], len(said["deltas"])) == (100, 2, 1)
    assert take_update(device) == second.digest
    call("channel", "refresh", url, "--keys", own)
    call("channel", "export", url, "--usb", str(place / "usb"), "--keys", own)
    stick = _device(place / "other", str(place / "usb"))
    assert take_update(stick) == second.digest
    call("channel", "export", url, "--epk", str(place / "l.epk"), "--name", NAME, "--light",
         "--keys", own)  # fmt: skip
    light = _device(place / "third", str(place / "l.epk"))
    light.store.install(first)
    light.store.confirm()
    assert take_update(light) == second.digest
    call("channel", "retire", NAME, *signed)
    assert call("channel", "list", url) == ""


def test_a_channel_is_tended_on_a_web_server(tmp_path: Path, web: Server) -> None:
    """Publish, roll out, rotate, refresh, export, retire, by GET and PUT alone."""
    _tend(tmp_path, web.url, web.url)
    order = [path.rpartition("/")[2] for path in web.put]
    assert order[-3:] == ["5.targets.json", "10.snapshot.json", "timestamp.json"]
    blobs = [path for path in web.put if path.startswith("/blobs/")]
    assert len(blobs) == len(set(blobs))  # none was sent twice


def test_a_channel_is_tended_in_a_bucket(tmp_path: Path, bucket: tuple[str, str]) -> None:
    """The same in S3, spoken to by s3fs; devices read it by HTTPS without keys."""
    _tend(tmp_path, *bucket)


def test_a_channel_is_tended_where_files_are_written_in_place(tmp_path: Path) -> None:
    """A mounted disk, and likewise SFTP: under another name first, so that each is whole."""
    keys.init(tmp_path / "keys")
    there = tmp_path / "there/channel"
    _tend(tmp_path, f"file://{there}", str(there))
    assert not list(there.rglob("*.part"))


def _small(place: Path, release: int) -> Bundle:
    change = {"release": release, "version": f"1.{release}"}
    return Bundle.open(handmade.bundle(place / f"s{release}.epk", change=change))


@pytest.mark.parametrize("what", ["first", "second", "retire", *keys.NAMES])
def test_an_upload_that_breaks_off_anywhere_is_finished_by_the_next(
    tmp_path: Path, web: Server, what: str
) -> None:
    """Cut before each PUT in turn, again and again: devices see one release or the other, whole."""
    own, rollout = tmp_path / "keys", releases.Rollout()
    first, second, third = (_small(tmp_path, release) for release in (1, 2, 3))
    acts: dict[str, Callable[[], object]] = {
        "first": lambda: releases.publish(first, web.url, own, rollout),
        "second": lambda: releases.publish(second, web.url, own, rollout),
        "retire": lambda: releases.retire(NAME, web.url, own),
    }
    if what != "first":
        acts["first"]()
        take_update(_device(tmp_path / "device", web.url))
    cuts = 0
    while _is_cut(acts.get(what, lambda: releases.rotate(what, web.url, own)), web, cuts):
        cuts += 1
        if what == "second":
            fresh = _device(tmp_path / f"d{cuts}", web.url)
            assert fresh.check().version in ("1.1", "1.2")
    assert cuts > 2
    web.takes = 1 << 30
    releases.publish(third, web.url, own, rollout)
    assert take_update(_device(tmp_path / "device", web.url)) == third.digest


def _is_cut(act: Callable[[], object], web: Server, takes: int) -> bool:
    """Do something with a server that takes so many files; tell whether it was cut off."""
    web.put.clear()
    web.takes = takes
    try:
        act()
    except LinkError:
        return True
    return False


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("nothing://x/y", InputError, "nothing"),
        ("gs://bucket/x", HostError, "gcsfs"),
        ("http://127.0.0.1:9/channel", LinkError, "127.0.0.1:9"),
        ("{web}/elsewhere", InputError, "no channel at {web}/elsewhere: metadata/timestamp.json"),
    ],
)
def test_a_url_that_is_no_channel_is_said(
    web: Server, tmp_path: Path, url: str, error: type[Exception], said: str
) -> None:
    """An unknown protocol, one whose package is missing, no server, and nothing there."""
    with pytest.raises(error, match=said.format(web=web.url)):
        releases.refresh(url.format(web=web.url), tmp_path / "keys")


@pytest.mark.parametrize("answer", [b"<html>welcome</html>", b'{"signed": {"version": 1}}'])
def test_a_server_that_answers_everything_is_no_channel(tmp_path: Path, answer: bytes) -> None:
    """A single-page application, a captive portal: said at once, and nothing is signed."""
    keys.init(tmp_path / "keys")

    class Portal(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with listening(Portal) as url, pytest.raises(InputError, match=r"root\.json is "):
        releases.publish(_small(tmp_path, 1), url, tmp_path / "keys", releases.Rollout())


def test_keys_that_have_a_channel_make_no_second_one(tmp_path: Path, web: Server) -> None:
    """A path that is mistyped must not replace the root that the keys trust."""
    rollout = releases.Rollout()
    releases.publish(_small(tmp_path, 1), web.url, tmp_path / "keys", rollout)
    for where in (tmp_path / "chanel", f"{web.url}/chanel"):
        with pytest.raises(InputError, match="check the path, or copy that channel there"):
            releases.publish(_small(tmp_path, 2), where, tmp_path / "keys", rollout)
    releases.publish(_small(tmp_path, 2), web.url, tmp_path / "keys", rollout)


def test_a_blob_that_the_server_changed_is_not_exported(tmp_path: Path, web: Server) -> None:
    """What comes from a URL is hashed before it goes into a file or a delta."""
    bundle = _small(tmp_path, 1)
    releases.publish(bundle, web.url, tmp_path / "keys", releases.Rollout())
    path = web.root / "blobs" / bundle.manifest.files[0].sha256
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(TrustError, match="is damaged"):
        carry.export(web.url, tmp_path / "usb", tmp_path / "keys", 90)


@pytest.mark.parametrize("at", [1, 2])
def test_of_two_machines_that_publish_at_once_one_hears_of_it(
    tmp_path: Path, web: Server, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    """Before the targets or the snapshot that one uploads, another publishes: that stays."""
    web.knows_conditions = True
    own, rollout = tmp_path / "keys", releases.Rollout()
    releases.publish(_small(tmp_path, 1), web.url, own, rollout)
    shutil.copytree(own, tmp_path / "other")
    theirs = _small(tmp_path, 4)

    def races() -> None:
        releases.publish(theirs, web.url, tmp_path / "other", rollout)

    with monkeypatch.context() as patch:
        _before_upload(at, races, patch)
        with pytest.raises(EdgepackError, match="written by another machine meanwhile"):
            releases.publish(_small(tmp_path, 3), web.url, own, rollout)
    assert take_update(_device(tmp_path / "device", web.url)) == theirs.digest
    releases.refresh(web.url, own)
    releases.refresh(web.url, tmp_path / "other")
    assert releases.releases(web.url)[NAME]["release"] == 4


def test_a_server_without_conditions_loses_nothing_in_silence(
    tmp_path: Path, web: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where an upload goes over the other's file, both machines say so."""
    own, rollout = tmp_path / "keys", releases.Rollout()
    releases.publish(_small(tmp_path, 1), web.url, own, rollout)
    shutil.copytree(own, tmp_path / "other")

    def races() -> None:
        releases.publish(_small(tmp_path, 2), web.url, tmp_path / "other", rollout)

    with monkeypatch.context() as patch:
        _before_upload(1, races, patch)
        with pytest.raises(EdgepackError, match="written by another machine meanwhile"):
            releases.publish(_small(tmp_path, 3), web.url, own, rollout)
    with pytest.raises(TrustError, match="another machine signed with the same keys"):
        releases.refresh(web.url, tmp_path / "other")


def _before_upload(at: int, act: Callable[[], None], patch: pytest.MonkeyPatch) -> None:
    """Act between the look at the place of a metadata file, the first being 1, and its upload."""
    put, puts = site.UrlSite._put, 0

    def races(self: site.UrlSite, path: str, content: bytes, *, new: bool = False) -> None:
        nonlocal puts
        if "/metadata/" in path:
            puts += 1
            if puts == at:
                act()
        put(self, path, content, new=new)

    patch.setattr(site.UrlSite, "_put", races)


class _Cut(BaseException):
    """The process dies here."""


@pytest.mark.parametrize("name", keys.NAMES)
def test_a_rotation_that_is_cut_anywhere_is_finished_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Killed before each file takes its name or goes: the next publish signs, devices follow."""
    base = tmp_path / "base"
    keys.init(base / "keys")
    releases.publish(_small(tmp_path, 1), base / "channel", base / "keys", releases.Rollout())
    take_update(_device(base / "device", str(base / "channel")))
    second, third = _small(tmp_path, 2), _small(tmp_path, 3)
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
        device = _device(place / "device", str(place / "channel"))
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
