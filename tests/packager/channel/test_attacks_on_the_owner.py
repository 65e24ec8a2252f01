"""What an attacker does to the owner of a channel: nothing of it is signed, read or followed."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives.serialization import (
    BestAvailableEncryption,
    Encoding,
    PrivateFormat,
    load_pem_private_key,
)
from fleet import NAME, make_bundle, new_device, publish, take_update
from server import listening

from edgepack.channel import carry, durable, releases, root, site
from edgepack.cli import main as host
from edgepack_runtime.errors import InputError, LinkError, TrustError
from edgepack_runtime.update.source import Folder

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
        (_number_on, "holds version 1"),
        (_take_the_newest, "lacks the newest"),
        (_turn_in_circles, "is not the one that the keys"),
    ],
)
def test_an_owner_does_not_sign_what_was_moved(
    place: Path, change: Callable[[Path], None], said: str
) -> None:
    """Who can write to the web folder cannot have an older release signed as the newest."""
    publish(place, make_bundle(place, 2))
    change(place / "channel/metadata")
    with pytest.raises(InputError, match=said):
        releases.refresh(place / "channel", place / "keys")


def test_links_in_a_channel_reach_no_key(place: Path) -> None:
    """No file that a command writes or copies is one that a link in the channel leads to."""
    own, metadata = place / "keys", place / "channel/metadata"
    secrets = [path.read_bytes() for path in own.glob("*.pem")]
    (metadata / "0.root.json").symlink_to(own / "targets.pem")
    (metadata / "0.targets.json").symlink_to(own / "targets.pem")
    (metadata / "more").symlink_to(own)
    (metadata / ".timestamp.json.part").symlink_to(own / "targets.pem")
    (metadata / "1x.root.json").write_text("no number")
    releases.refresh(place / "channel", own)
    assert [path.read_bytes() for path in own.glob("*.pem")] == secrets
    carry.export(place / "channel", place / "stick", own, 90)
    carry.export_file(carry.Parcel(NAME), place / "channel", place / "x.epk", own)
    copied = [path.read_bytes() for path in place.glob("stick/**/*") if path.is_file()]
    copied.append((place / "x.epk").read_bytes())
    assert not any(secret in content for secret in secrets for content in copied)
    names = {path.name.partition(".")[2] or path.name for path in place.glob("stick/metadata/*")}
    assert names == {"root.json", "targets.json", "snapshot.json", "json"}
    assert take_update(new_device(place, Folder(place / "stick")))


def _blob(place: Path) -> str:
    path = max((place / "channel/blobs").iterdir(), key=lambda path: path.stat().st_size)
    return f"blobs/{path.name}"


@pytest.mark.parametrize("kind", ["link", "pipe"])
@pytest.mark.parametrize(
    "name", ["9.targets.json", "5.root.json", "2.snapshot.json", "timestamp.json", "a blob"]
)
def test_what_is_no_file_is_not_read(place: Path, kind: str, name: str) -> None:
    """A link in the place of a file is not followed, and nobody waits for a pipe."""
    path = place / "channel" / (_blob(place) if name == "a blob" else f"metadata/{name}")
    path.unlink(missing_ok=True)
    if kind == "link":
        path.symlink_to(place / "keys/targets.pem")
    else:
        os.mkfifo(path)
    with pytest.raises((TrustError, InputError), match=r"not a plain file|no channel at"):
        carry.export(place / "channel", place / "stick", place / "keys", 90)


@pytest.mark.parametrize("folder", ["metadata", "blobs"])
def test_a_folder_that_is_a_link_is_not_written_through(place: Path, folder: str) -> None:
    """Who puts a link in the place of a channel's folder does not steer what the owner writes."""
    (place / "channel" / folder).rename(place / "elsewhere")
    (place / "channel" / folder).symlink_to(place / "elsewhere")
    before = sorted((place / "elsewhere").iterdir())
    with pytest.raises(TrustError, match="not a plain file or folder"):
        publish(place, make_bundle(place, 2))
    assert sorted((place / "elsewhere").iterdir()) == before


def _put_back(place: Path) -> None:
    shutil.rmtree(place / "channel/metadata")
    shutil.copytree(place / "yesterday", place / "channel/metadata")


@pytest.mark.parametrize("over", ["folder", "web"])
def test_an_owner_does_not_sign_what_was_put_back(place: Path, server: Server, over: str) -> None:
    """A channel that is wholly as it was yesterday is not signed as today's, by any command."""
    where = server.url if over == "web" else place / "channel"
    own = place / "keys"
    shutil.copytree(place / "channel/metadata", place / "yesterday")
    second = make_bundle(place, 2)
    releases.publish(second, where, own, releases.Rollout(minimum=2))
    shutil.copytree(place / "channel/metadata", place / "today")
    _put_back(place)
    for act in (
        lambda: releases.refresh(where, own),
        lambda: releases.retire(NAME, where, own),
        lambda: carry.export(where, place / "stick", own, 9),
        lambda: releases.publish(make_bundle(place, 3), where, own, releases.Rollout()),
    ):
        with pytest.raises(
            TrustError, match=r"version 2 of targets, but version 3 .* it was rolled back; restore"
        ):
            act()
    shutil.rmtree(place / "channel/metadata")
    shutil.copytree(place / "today", place / "channel/metadata")
    releases.refresh(where, own)
    assert take_update(new_device(place)) == second.digest


def test_what_is_seen_is_remembered(place: Path) -> None:
    """What another machine with these keys published is not taken back here either."""
    shutil.copytree(place / "keys", place / "other")
    releases.publish(make_bundle(place, 2), place / "channel", place / "other", releases.Rollout())
    shutil.copytree(place / "channel/metadata", place / "yesterday")
    publish(place, make_bundle(place, 3))
    releases.refresh(place / "channel", place / "other")
    _put_back(place)
    with pytest.raises(TrustError, match="shows version 3 of targets"):
        releases.refresh(place / "channel", place / "other")


def test_a_version_has_one_content(place: Path) -> None:
    """Of two machines that signed the same version, neither goes on from the other's."""
    shutil.copytree(place / "channel/metadata", place / "yesterday")
    shutil.copytree(place / "keys", place / "other")
    releases.refresh(place / "channel", place / "keys")
    _put_back(place)
    releases.publish(make_bundle(place, 2), place / "channel", place / "other", releases.Rollout())
    with pytest.raises(TrustError, match="another machine signed with the same keys"):
        releases.refresh(place / "channel", place / "keys")


def test_no_number_is_signed_twice(place: Path, server: Server) -> None:
    """A host that keeps an upload and calls it failed has no two contents of one version."""
    server.takes = len(server.put)
    kept = []
    for _ in (1, 2, 3):
        with pytest.raises(LinkError):
            releases.retire(NAME, server.url, place / "keys")
        kept.append(json.loads((place / "keys/signed.json").read_bytes())["targets"]["signed"])
    assert kept == [3, 4, 5]
    server.takes = 1 << 30
    releases.retire(NAME, server.url, place / "keys")
    assert (place / "channel/metadata/6.targets.json").is_file()


def test_keys_are_for_their_owner_alone(place: Path) -> None:
    """They are written with mode 600, by a rotation too; a key that others can reach is refused."""
    releases.rotate("timestamp", place / "channel", place / "keys")
    for path in (place / "keys").glob("*.pem"):
        assert path.stat().st_mode & 0o777 == 0o600
    (place / "keys/timestamp.pem").chmod(0o644)
    with pytest.raises(InputError, match=r"timestamp\.pem can be read or written by others"):
        releases.refresh(place / "channel", place / "keys")


def test_a_key_with_a_passphrase_is_said(place: Path) -> None:
    """The error names the passphrase and the way out."""
    path = place / "keys/timestamp.pem"
    key = load_pem_private_key(path.read_bytes(), None)
    path.write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, BestAvailableEncryption(b"secret"))
    )
    with pytest.raises(InputError, match="has a passphrase"):
        releases.refresh(place / "channel", place / "keys")


def test_unsigned_text_reaches_no_terminal(place: Path) -> None:
    """What a host writes into the metadata is listed without control characters."""
    path = place / "channel/metadata/2.targets.json"
    value = json.loads(path.read_bytes())
    value["signed"]["targets"][NAME]["custom"]["version"] = "\x1b[2J\r1.1"
    path.write_text(json.dumps(value))
    said = CliRunner().invoke(host, ["channel", "list", str(place / "channel")]).output
    assert "?[2J?1.1" in said
    assert "\x1b" not in said


def test_a_host_that_has_every_root_comes_to_an_end() -> None:
    """Roots without end are given up after as many as a device would follow."""
    asked = []

    class Endless(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            version = int(self.path.rpartition("/")[2].partition(".")[0])
            self.send_response(200)
            self.end_headers()
            self.wfile.write(json.dumps({"signed": {"version": version}}).encode())

        def log_message(self, *_: object) -> None:
            pass

    with listening(Endless) as url, pytest.raises(InputError, match="more than 256 versions"):
        releases.releases(url)
    assert len(asked) == 257


def test_a_damaged_memory_is_said(place: Path) -> None:
    """What these keys signed is not forgotten in silence."""
    (place / "keys/signed.json").write_text("[1]")
    with pytest.raises(InputError, match=r"signed\.json is damaged"):
        releases.refresh(place / "channel", place / "keys")


def test_what_is_judged_is_what_is_signed(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While a key is being replaced, a file that changes between two looks is not signed."""
    write = durable.write

    def stops(path: Path, content: bytes) -> None:
        if path.name == "3.targets.json":
            raise OSError(28, "No space left on device")
        write(path, content)

    with monkeypatch.context() as patch:
        patch.setattr(site, "write", stops)
        with pytest.raises(OSError, match="No space"):
            releases.rotate("targets", place / "channel", place / "keys")
    path = place / "channel/metadata/2.targets.json"
    looks = [_own_release(path.read_bytes()), path.read_bytes()]
    read = durable.read_plain

    def changes(asked: Path) -> bytes:
        return looks.pop(0) if asked == path and looks else read(asked)

    with monkeypatch.context() as patch:
        patch.setattr(root, "read_plain", changes)
        with pytest.raises(InputError, match="not signed by its keys"):
            releases.refresh(place / "channel", place / "keys")
    releases.refresh(place / "channel", place / "keys")
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
        releases.releases(server.url)
