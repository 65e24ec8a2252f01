"""What an attacker does to the owner of a channel: nothing of it is signed, read or followed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from fleet import NAME, make_bundle, new_device, publish

from edgepack import channel, site
from edgepack_runtime.errors import InputError, TrustError

if TYPE_CHECKING:
    from server import Server


def test_what_lies_in_the_channel_is_not_signed_unseen(place: Path) -> None:
    """Who can write to the web folder cannot have his release signed with the next one."""
    path = max((place / "channel/metadata").glob("*.targets.json"))
    value = json.loads(path.read_text())
    value["signed"]["targets"][NAME]["custom"]["release"] = 9
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="not signed by"):
        publish(place, make_bundle(place, 2))


def _number_on(metadata: Path) -> None:
    """The first targets under a number that is not theirs."""
    shutil.copy(metadata / "1.targets.json", metadata / "9.targets.json")


def _take_the_newest(metadata: Path) -> None:
    (metadata / "3.targets.json").unlink()


def _turn_in_circles(metadata: Path) -> None:
    """Roots that lead from the first to itself."""
    shutil.copy(metadata / "1.root.json", metadata / "2.root.json")
    value = json.loads((metadata / "1.root.json").read_bytes())
    value["signed"]["version"] = 99
    (metadata / "99.root.json").write_text(json.dumps(value))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (_number_on, "holds version 1"), (_take_the_newest, "lacks the newest"),
        (_turn_in_circles, "is not the one that the keys"),
    ],
)  # fmt: skip
def test_an_owner_does_not_sign_what_was_moved(
    place: Path, change: Callable[[Path], None], said: str
) -> None:
    """Who can write to the web folder cannot have an older release signed as the newest."""
    publish(place, make_bundle(place, 2))
    change(place / "channel/metadata")
    with pytest.raises(InputError, match=said):
        channel.refresh(place / "channel", place / "keys")


def test_links_in_a_channel_reach_no_key(place: Path) -> None:
    """A link in place of a file to write, and one in place of a blob to export."""
    key = (place / "keys/targets.pem").read_bytes()
    (place / "channel/metadata/.timestamp.json.part").symlink_to(place / "keys/targets.pem")
    (place / "channel/metadata/1x.root.json").write_text("no number")
    channel.refresh(place / "channel", place / "keys")
    assert (place / "keys/targets.pem").read_bytes() == key
    blob = max((place / "channel/blobs").iterdir(), key=lambda path: path.stat().st_size)
    blob.unlink()
    blob.symlink_to(place / "keys/targets.pem")
    with pytest.raises(TrustError, match="is damaged"):
        channel.export_file(
            channel.Parcel(NAME), place / "channel", place / "x.epk", place / "keys"
        )


def test_what_is_judged_is_what_is_signed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a key is being replaced, a file that changes between two looks is not signed."""
    write = site.write

    def stops(path: Path, content: bytes) -> None:
        if path.name == "3.targets.json":
            raise OSError(28, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(site, "write", stops)
        with pytest.raises(OSError, match="No space"):
            channel.rotate("targets", place / "channel", place / "keys")
    path = place / "channel/metadata/2.targets.json"
    looks = [_own_release(path.read_bytes()), path.read_bytes()]
    read = Path.read_bytes

    def changes(self: Path) -> bytes:
        return looks.pop(0) if self == path and looks else read(self)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "read_bytes", changes)
        with pytest.raises(InputError, match="not signed by its keys"):
            channel.refresh(place / "channel", place / "keys")
    channel.refresh(place / "channel", place / "keys")
    assert new_device(place).check().version == "1.1"


def _own_release(content: bytes) -> bytes:
    value = json.loads(content)
    value["signed"]["targets"][NAME]["custom"]["version"] = "evil"
    return json.dumps(value).encode()


def test_a_server_names_no_path(place: Path, server: Server) -> None:
    """The version that a timestamp names becomes part of a path only if it is a number."""
    path = place / "channel/metadata/timestamp.json"
    value = json.loads(path.read_bytes())
    value["signed"]["meta"]["snapshot.json"]["version"] = "a?/../../../victim"
    path.write_text(json.dumps(value))
    with pytest.raises(InputError, match="names no version"):
        channel.releases(server.url)
