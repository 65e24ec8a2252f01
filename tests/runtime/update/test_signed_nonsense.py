"""What a signature does not make right: a signed release is still checked against what it says."""

from __future__ import annotations

import gzip
import hashlib
import json
import shutil
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING, Any

import handmade
import pytest
from fleet import NAME, make_bundle, new_device, publish, take_update
from server import listening

from edgepack.channel import releases, repository
from edgepack.channel.site import Site
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import LinkError, NothingToDoError, TrustError
from edgepack_runtime.store.record import MINIMUM, RELEASE
from edgepack_runtime.update.source import Http, Link

if TYPE_CHECKING:
    from server import Server


def sign(place: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Let the owner's keys sign targets that were changed, as who stole them may."""
    opened = repository.Repository(Site(place / "channel"), place / "keys")
    change(opened.targets.signed.targets)
    opened.save({"targets"})


def said(**custom: Any) -> Callable[[dict[str, Any]], object]:
    """Return the change that says something else of the release."""
    return lambda targets: targets[NAME].custom.update(custom)


def sign_release(place: Path, content: bytes) -> None:
    """Sign these bytes as the OCI manifest of the release."""
    sha256 = hashlib.sha256(content).hexdigest()
    (place / "channel/blobs" / sha256).write_bytes(content)

    def change(targets: dict[str, Any]) -> None:
        targets[NAME].hashes["sha256"], targets[NAME].length = sha256, len(content)

    sign(place, change)


def test_an_older_release_in_newer_metadata_is_refused(place: Path) -> None:
    """A rollback by the targets key: newer targets, rightly signed, that offer what ran before."""
    shutil.copytree(place / "channel/blobs", place / "blobs")
    before = releases.releases(place / "channel")[NAME]
    publish(place, make_bundle(place, 2))
    second = take_update(new_device(place))

    def put_back(targets: dict[str, Any]) -> None:
        targets[NAME].hashes["sha256"] = before["digest"].removeprefix("sha256:")
        targets[NAME].custom.update(release=1, version="1.1")

    sign(place, put_back)
    device = new_device(place)
    with pytest.raises(TrustError, match="offers release 1, but 2 ran here before"):
        device.check()
    assert device.store.state.active == second


def test_a_release_is_the_one_that_its_signature_counts(place: Path) -> None:
    """Targets that count release 9 for a bundle of release 1 would pass any floor."""
    sign(place, said(release=9))
    device = new_device(place)
    with pytest.raises(TrustError, match="release 1 was signed as 9"):
        device.install(device.check())


def test_a_release_is_for_the_board_that_its_name_says(place: Path) -> None:
    """The right keys signed another board's release under this board's name."""
    other = Bundle.open(handmade.bundle(place / "other.epk", change={"target": "board"}))
    theirs = publish(place, other)
    sign(place, lambda targets: targets.__setitem__(NAME, targets[theirs]))
    device = new_device(place)
    with pytest.raises(TrustError, match="small/any holds small for board"):
        device.install(device.check())


@pytest.mark.parametrize(
    "config",
    [
        {"digest": f"sha256:{'0' * 64}", "size": (16 << 20) + 1},
        {"digest": "../lock", "size": 4},
        {"digest": f"sha256:{'0' * 64}", "size": -1},
    ],
    ids=["large", "path", "negative"],
)
def test_a_config_beyond_reason_is_not_fetched(
    place: Path, server: Server, config: dict[str, Any]
) -> None:
    """A signed manifest may promise a huge model config, or a path: neither is asked for."""
    sign_release(place, json.dumps({"config": config}).encode())
    device = new_device(place, Http(server.url, Link()))
    with pytest.raises(TrustError, match="unusable config"):
        device.install(device.check())
    assert not [path for path in server.asked if "0" * 64 in path or "lock" in path]


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"null",
        b"[]",
        b"[" * 100_000,
        b'{"config": []}',
        b'{"config": {"size": 1e999}}',
        b'{"config": {"digest": "x", "size": 1e999}}',
        b"\xff",
    ],
)
def test_a_signed_manifest_that_is_none_is_malformed(place: Path, content: bytes) -> None:
    """Whatever the bytes are that were signed, the error is ours and nothing is installed."""
    sign_release(place, content)
    device = new_device(place)
    with pytest.raises(TrustError, match="malformed"):
        device.install(device.check())
    assert not device.store.state.trial


def test_a_minimum_above_the_release_is_refused(place: Path) -> None:
    """With stolen keys it would forbid each way back: it is not even remembered."""
    device = new_device(place)
    take_update(device)
    publish(place, make_bundle(place, 2))
    take_update(device)
    sign(place, said(minimum=10**9))
    with pytest.raises(TrustError, match="forbids all below"):
        device.check()
    assert device.store.state.floor(f"{MINIMUM}{NAME}") == 0
    device.store.rollback()


def test_a_minimum_does_not_outlive_its_keys(place: Path) -> None:
    """What stolen keys forbade is allowed again once the owner has replaced them."""
    device = new_device(place)
    for release in (2, 3):
        rollout = releases.Rollout(minimum=release)
        bundle = make_bundle(place, release)
        releases.publish(bundle, place / "channel", place / "keys", rollout)
        take_update(device)
    with pytest.raises(NothingToDoError, match="the minimum is release 3"):
        device.store.rollback()
    releases.rotate("targets", place / "channel", place / "keys")
    publish(place, make_bundle(place, 4))
    take_update(device)
    device.store.rollback()
    device.store.rollback(forced=True)


def test_a_count_does_not_outlive_its_keys(place: Path) -> None:
    """A thief's release 200 runs; with new keys the owner's next release is taken all the same."""
    device = new_device(place)
    take_update(device)
    publish(place, make_bundle(place, 200))
    take_update(device)
    assert device.store.state.floor(f"{RELEASE}{NAME}") == 200
    releases.rotate("targets", place / "channel", place / "keys")
    releases.retire(NAME, place / "channel", place / "keys")
    publish(place, make_bundle(place, 2))
    assert take_update(device)
    assert device.store.state.floor(f"{RELEASE}{NAME}") == 2


def test_another_server_is_not_asked(place: Path, server: Server) -> None:
    """A redirect to a server that has the right bytes is refused: the channel is where it is."""

    class Redirect(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(302)
            self.send_header("Location", f"{server.url}{self.path}")
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with listening(Redirect) as url, pytest.raises(LinkError, match="status 302"):
        new_device(place, Http(url, Link())).check()
    assert server.asked == []


def test_what_comes_is_not_unpacked(place: Path, server: Server) -> None:
    """A server that compresses though it was asked not to is taken at its bytes: no bomb."""
    packed = gzip.compress(bytes(10_000_000))
    (place / "channel/blobs/bomb").write_bytes(packed)

    def fault(handler: Any, content: bytes, _: int) -> bool:
        handler.send_response(200)
        handler.send_header("Content-Encoding", "gzip")
        handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        handler.body(content)
        return True

    server.faults = [fault]
    assert b"".join(Http(server.url, Link()).fetch("blobs/bomb")) == packed
