"""A channel behind a URL: a web server that takes PUT, a bucket, a disk; and what is none."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler
from pathlib import Path

import pytest
from click.testing import CliRunner
from fleet import NAME, follow, light_change, make_bundle, small_release, take_update
from server import Server, listening

from edgepack.channel import carry, keys, releases
from edgepack.cli import main as host
from edgepack_runtime.errors import HostError, InputError, LinkError, TrustError


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
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "any",
        "AWS_SECRET_ACCESS_KEY": "any",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    store = s3fs.S3FileSystem(skip_instance_cache=True)
    store.mkdir("fleet")
    readable = {
        "Effect": "Allow",
        "Principal": "*",
        "Action": "s3:GetObject",
        "Resource": "arn:aws:s3:::fleet/*",
    }
    policy = json.dumps({"Version": "2012-10-17", "Statement": [readable]})
    store.call_s3("put_bucket_policy", Bucket="fleet", Policy=policy)
    try:
        yield "s3://fleet/stable/", f"{address}/fleet/stable"
    finally:
        server.stop()


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
    device = follow(place / "device", address)
    assert take_update(device) == first.digest
    call("keys", "rotate", "timestamp", *signed)
    call("publish", str(second.path), *signed, "--percent", "40")
    call("publish", str(second.path), *signed)
    said = json.loads(call("channel", "list", url, "--json"))[NAME]
    assert (said["percent"], said["release"], len(said["deltas"])) == (100, 2, 1)
    assert take_update(device) == second.digest
    call("channel", "refresh", url, "--keys", own)
    call("channel", "export", url, "--usb", str(place / "usb"), "--keys", own)
    stick = follow(place / "other", str(place / "usb"))
    assert take_update(stick) == second.digest
    call(
        "channel",
        "export",
        url,
        "--epk",
        str(place / "l.epk"),
        "--name",
        NAME,
        "--light",
        "--keys",
        own,
    )
    light = follow(place / "third", str(place / "l.epk"))
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
        releases.publish(small_release(tmp_path, 1), url, tmp_path / "keys", releases.Rollout())


def test_keys_that_have_a_channel_make_no_second_one(tmp_path: Path, web: Server) -> None:
    """A path that is mistyped must not replace the root that the keys trust."""
    rollout = releases.Rollout()
    releases.publish(small_release(tmp_path, 1), web.url, tmp_path / "keys", rollout)
    for where in (tmp_path / "chanel", f"{web.url}/chanel"):
        with pytest.raises(InputError, match="check the path, or copy that channel there"):
            releases.publish(small_release(tmp_path, 2), where, tmp_path / "keys", rollout)
    releases.publish(small_release(tmp_path, 2), web.url, tmp_path / "keys", rollout)


def test_a_blob_that_the_server_changed_is_not_exported(tmp_path: Path, web: Server) -> None:
    """What comes from a URL is hashed before it goes into a file or a delta."""
    bundle = small_release(tmp_path, 1)
    releases.publish(bundle, web.url, tmp_path / "keys", releases.Rollout())
    path = web.root / "blobs" / bundle.manifest.files[0].sha256
    path.write_bytes(b"x" * path.stat().st_size)
    with pytest.raises(TrustError, match="is damaged"):
        carry.export(web.url, tmp_path / "usb", tmp_path / "keys", 90)
