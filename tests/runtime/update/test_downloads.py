"""Downloads that break off, mirrors that are dead or stale, and places that are no channel."""

from __future__ import annotations

import shutil
import time
from base64 import b64encode
from contextlib import suppress
from functools import partial
from http.server import BaseHTTPRequestHandler, SimpleHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from faults import cut, once_on_weights
from fleet import BIG, NAME, new_device, take_update
from server import listening

from edgepack_runtime.bundle.manifest import CHUNK
from edgepack_runtime.errors import InputError, LinkError, TrustError
from edgepack_runtime.store.blobs import PARTS
from edgepack_runtime.update.policy import Policy
from edgepack_runtime.update.source import Folder, Http, Link, open_source
from edgepack_runtime.update.updater import Updater

if TYPE_CHECKING:
    from server import Handler, Server


def test_a_download_goes_on_after_the_power_went(place: Path, server: Server) -> None:
    """What came before the cut is hashed and kept; the next start asks for the rest only."""
    device = new_device(place, Http(server.url, Link()))
    server.faults = [once_on_weights([cut(2 * CHUNK + 9)])] * 20
    with pytest.raises(LinkError):
        device.install(device.check())
    name = next(n for n in device.store.storage.names(PARTS))
    part = place / "device" / PARTS / name
    part.write_bytes(part.read_bytes()[: CHUNK + 3] + b"\0" * 40)  # as a cut may leave it
    before = server.sent
    again = new_device(place, Http(server.url, Link()))
    assert take_update(again)
    assert server.sent - before <= len(BIG) - CHUNK + 10_000


def test_a_broken_download_goes_on_where_ranges_are_unknown(place: Path, server: Server) -> None:
    """Python's own web server answers a range with the whole file: its beginning is dropped."""
    device = new_device(place, Http(server.url, Link()))
    server.faults = [once_on_weights([cut(2 * CHUNK + 9)])] * 20
    with pytest.raises(LinkError):
        device.install(device.check())
    assert device.store.storage.names(PARTS)
    asked: list[tuple[str, str]] = []

    class Simple(SimpleHTTPRequestHandler):
        def log_request(self, code: int | str = "-", _: object = None) -> None:
            asked.append((self.headers.get("Range", ""), str(int(code))))

    with listening(partial(Simple, directory=str(place / "channel"))) as url:
        assert take_update(new_device(place, Http(url, Link())))
    assert (f"bytes={2 * CHUNK}-", "200") in asked


def test_a_mirror_takes_over(place: Path, server: Server) -> None:
    """A mirror that does not answer cannot block one that does."""
    dead = Http("http://127.0.0.1:9", Link(timeout=1))
    device = new_device(place)
    both = Updater(
        device.store,
        [dead, Http(server.url, Link())],
        device.root,
        NAME,
        Policy(attempts=4, pause=0.0),
    )
    assert take_update(both)


def test_a_stale_mirror_does_not_block_the_others(place: Path) -> None:
    """Metadata that is refused at one place is looked for at the next."""
    shutil.copytree(place / "channel", place / "broken")
    (place / "broken/metadata/timestamp.json").write_text("<html>log in</html>")
    device = new_device(place)
    both = Updater(
        device.store,
        [Folder(place / "broken"), Folder(place / "channel")],
        device.root,
        NAME,
        Policy(attempts=4, pause=0.0),
    )
    assert take_update(both)


def test_a_server_that_trickles_is_given_up(place: Path, server: Server) -> None:
    """Slow retrieval: fewer bytes a second than the least, for a whole window."""

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
    device = new_device(place, Http(server.url, link))
    start = time.monotonic()
    with pytest.raises(LinkError, match="too slow"):
        device.install(device.check())
    assert time.monotonic() - start < 20  # the server would go on for 30


def test_a_resumed_part_is_not_counted_twice(place: Path, server: Server) -> None:
    """Room for what is missing is enough; the release before the last gives way if it is not."""
    device = new_device(place, Http(server.url, Link()))
    server.faults = [once_on_weights([cut(2 * CHUNK + 9)])] * 20
    with pytest.raises(LinkError):
        device.install(device.check())
    room = len(BIG) - 2 * CHUNK + (2 << 20)
    again = new_device(place, Http(server.url, Link()))
    object.__setattr__(again.store.storage, "free", lambda: room)
    assert take_update(again)


def test_altered_bytes_are_a_matter_of_trust(place: Path, server: Server) -> None:
    """Where no try brings the right ones, it is said which file of which mirror is altered."""
    weights = max((place / "channel/blobs").iterdir(), key=lambda path: path.stat().st_size)
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    for source in (Http(server.url, Link()), Folder(place / "channel")):
        device = new_device(place, source, Policy(attempts=2, pause=0.0))
        with pytest.raises(TrustError, match=f"{weights.name} of {source}: .* not what was signed"):
            device.install(device.check())


def test_a_password_reaches_the_server_and_no_log(
    place: Path, server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    """It is sent as HTTP has it, and neither in an error nor in what is logged."""
    sent: list[str] = []

    class Asking(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            sent.append(self.headers.get("Authorization", ""))
            self.send_error(401)

        def log_message(self, *_: object) -> None:
            pass

    caplog.set_level("DEBUG")
    with listening(Asking) as url:
        address = url.replace("://", "://me:s%65cret@")
        device = new_device(place, open_source(address), Policy(attempts=2, pause=0.0))
        with pytest.raises(LinkError) as caught:
            device.check()
    assert set(sent) == {"Basic " + b64encode(b"me:secret").decode()}
    for proxy in ("socks9://me:secret@nowhere", "me:secret@[nowhere"):
        with pytest.raises(InputError, match="nowhere' is not usable") as unusable:
            Http(server.url, Link(proxy=proxy))
        assert "secret" not in str(unusable.value)
    with pytest.raises(InputError) as nowhere:
        open_source("ftp://me:secret@nowhere/channel")
    said = "".join(map(str, (caught.value, nowhere.value, caplog.text)))
    assert url in said
    assert "cret" not in said
    assert "me:s" not in said


def test_a_place_that_is_no_channel_says_so(tmp_path: Path) -> None:
    """Neither a folder nor an address."""
    with pytest.raises(InputError, match="no channel at"):
        open_source(str(tmp_path / "nowhere"))
