"""What `examples/field-update` holds for each carrier, driven as its agent drives it."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import handmade
import pytest
import yaml
from fleet import NAME, make_bundle, publish

from edgepack import channel
from edgepack_runtime.bundle import Bundle
from edgepack_runtime.store import Store

EXAMPLE = Path(__file__).parents[2] / "examples/field-update"


@dataclass
class Site:
    """A device with the settings of the example, and where its releases are exported to."""

    place: Path
    settings: dict[str, str]
    env: dict[str, str] = field(default_factory=dict)

    @property
    def active(self) -> str:
        """Return the digest of what runs."""
        return Store.at(self.place / "device").state.active

    def run(self, *command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the device."""
        done = subprocess.run(
            [str(word) for word in command], check=False, capture_output=True, text=True,
            env={**os.environ, **self.env, **env}, cwd=self.place,
        )  # fmt: skip
        print(command, done.returncode, done.stdout, done.stderr, sep="\n")  # noqa: T201 (pytest keeps it)
        return done

    def export(self) -> Path:
        """Write the newest release to `model.epk`; return it."""
        path = self.place / "model.epk"
        keys = self.place / "keys"
        channel.export_file(channel.Parcel(NAME), self.place / "channel", path, keys)
        return path


@pytest.fixture
def site(place: Path) -> Site:
    """A device that was set up as the example's README says."""
    shutil.copy(place / "channel/metadata/1.root.json", place / "root.json")
    lines = (EXAMPLE / "update.conf").read_text().splitlines()
    names = [line.split("=")[0] for line in lines if "=" in line]
    here = {
        "RUNTIME": f"{sys.executable} -m edgepack_runtime", "ROOT": str(place / "root.json"),
        "EDGEPACK_STORE": str(place / "device"), "CHANNEL": str(place / "channel"), "NAME": NAME,
    }  # fmt: skip
    assert set(names) == set(here)
    conf = place / "update.conf"
    conf.write_text("".join(f'{name}="{value}"\n' for name, value in here.items()))
    return Site(place, here, {"EDGEPACK_CONF": str(conf)})


def bad_release(place: Path, release: int) -> Bundle:
    """Return a release whose golden outputs do not come out."""
    golden = {"inputs": ["turn on"], "outputs": [{"shape": [3], "data": [0.0, 0.5, 0.5]}]}
    path = handmade.bundle(
        place / f"bad{release}.epk", change={"release": release, "version": f"1.{release}"},
        extra={"golden.json": json.dumps(golden).encode()},
    )  # fmt: skip
    return Bundle.open(path)


def need(*programs: str) -> None:
    """Skip a test that needs a program that is not here."""
    if missing := [name for name in programs if shutil.which(name) is None]:
        pytest.skip(f"{missing[0]} is not installed")


def test_the_systemd_unit_updates(site: Site) -> None:
    """Its command, as systemd would run it: an update, then nothing to do, which is success."""
    unit = (EXAMPLE / "systemd/edgepack-update.service").read_text()
    command = next(line for line in unit.splitlines() if line.startswith("ExecStart="))
    program, *words = command.removeprefix("ExecStart=").split()
    assert program.endswith("/edgepack-runtime")
    for name, value in site.settings.items():
        words = [word.replace(f"${{{name}}}", value) for word in words]
    assert "$" not in " ".join(words)
    run = [sys.executable, "-m", "edgepack_runtime", *words]
    assert [site.run(*run).returncode for _ in (1, 2)] == [0, 7]
    assert "SuccessExitStatus=7" in unit


def mender(site: Site, state: str, work: Path) -> subprocess.CompletedProcess[str]:
    """Call the update module as the Mender client does."""
    return site.run(EXAMPLE / "mender/edgepack", state, work)


def test_the_mender_module_installs_and_takes_back(site: Site) -> None:
    """Its states in their order, each of them twice, as after a power cut."""
    work = site.place / "work"
    (work / "files").mkdir(parents=True)

    def play(*states: str) -> list[int]:
        shutil.copy(site.export(), work / "files/model.epk")
        return [mender(site, state, work).returncode for state in states for _ in (1, 2)]

    good = ("Download", "ArtifactInstall", "ArtifactCommit", "Cleanup")
    assert mender(site, "NeedsArtifactReboot", work).stdout == "No\n"
    assert mender(site, "SupportsRollback", work).stdout == "Yes\n"
    assert not any(play(*good))
    first = site.active
    publish(site.place, make_bundle(site.place, 2))
    assert not any(play(*good[:2]))
    assert site.active != first
    assert not any(play("ArtifactRollback", "ArtifactFailure", "Cleanup"))
    assert site.active == first
    publish(site.place, bad_release(site.place, 3))
    assert all(play("ArtifactInstall"))
    assert not any(play("ArtifactRollback", "ArtifactFailure", "Cleanup"))
    assert site.active == first
    (work / "files/model.epk").write_bytes(b"cut")
    for state in ("ArtifactInstall", "ArtifactRollback", "Cleanup"):
        assert (mender(site, state, work).returncode == 0) == (state != "ArtifactInstall")
    assert site.active == first


def test_the_mender_client_installs_and_takes_back(site: Site) -> None:
    """The real client, standalone: install, commit; install, roll back; one that fails."""
    need("mender", "mender-artifact", "unshare")
    place = site.place
    for name in ("modules", "data", "etc"):
        (place / name).mkdir()
    shutil.copy(EXAMPLE / "mender/edgepack", place / "modules/edgepack")
    (place / "device_type").write_text("device_type=test\n")
    (place / "etc/artifact_info").write_text("artifact_name=factory\n")
    config = {"DeviceTypeFile": str(place / "device_type"), "ServerURL": "https://mender.invalid"}
    (place / "etc/mender.conf").write_text(json.dumps(config))
    # The client looks for modules and settings in one place, which is ours for as long as it runs.
    mounts = f"mount --bind {place}/modules /usr/share/mender/modules/v3 && "
    mounts += f"mount --bind {place}/etc /etc/mender"
    if site.run("unshare", "-m", "sh", "-c", mounts).returncode:
        pytest.skip("this user may mount nothing")
    apart = f'{mounts} && exec mender --no-syslog --data {place}/data "$@"'

    def call(*words: str | Path) -> int:
        return site.run("unshare", "-m", "sh", "-c", apart, "sh", *words).returncode

    def install(number: int) -> int:
        out = place / f"{number}.mender"
        done = site.run(
            "mender-artifact", "write", "module-image", "-T", "edgepack", "-n", f"r{number}",
            "-t", "test", "-o", out, "-f", site.export(),
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return call("install", out)

    assert (install(1), call("commit")) == (0, 0)
    first = site.active
    assert first
    publish(place, make_bundle(place, 2))
    assert install(2) == 0
    assert site.active != first
    assert call("rollback") == 0
    assert site.active == first
    publish(place, bad_release(place, 3))
    assert install(3) != 0
    assert site.active == first


def test_greengrass_installs_or_fails(site: Site) -> None:
    """The recipe's scripts, their variables filled in as the nucleus does."""
    recipe = yaml.safe_load((EXAMPLE / "greengrass/recipe.yaml").read_text())
    assert recipe["RecipeFormatVersion"] == "2020-01-25"
    (manifest,) = recipe["Manifests"]
    (artifact,) = manifest["Artifacts"]
    assert artifact["Unarchive"] == "NONE"
    assert artifact["Uri"].endswith("/model.epk")
    here = {"runtime": site.settings["RUNTIME"], "store": site.settings["EDGEPACK_STORE"],
            "root": site.settings["ROOT"], "name": NAME}  # fmt: skip
    assert set(here) == set(recipe["ComponentConfiguration"]["DefaultConfiguration"])

    def run(state: str) -> subprocess.CompletedProcess[str]:
        script = manifest["Lifecycle"][state]
        script = script["Script"] if isinstance(script, dict) else script
        script = script.replace("{artifacts:path}", str(site.place))
        for name, value in here.items():
            script = script.replace(f"{{configuration:/{name}}}", value)
        assert "{" not in script
        return site.run("sh", "-c", script)

    site.export()
    assert run("install").returncode == 0
    assert "small 1.1" in run("run").stdout
    first = site.active
    old = site.export().read_bytes()
    publish(site.place, bad_release(site.place, 2))
    site.export()
    assert run("install").returncode == 6
    assert site.active == first
    (site.place / "model.epk").write_bytes(old)  # the component before, installed once more
    assert run("install").returncode == 0
    assert site.active == first


def make_certificate(site: Site) -> None:
    """Make `key` and `cert`, which carriers sign with."""
    done = site.run("openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-keyout", "key",
                    "-out", "cert", "-days", "9", "-subj", "/CN=test",
                    "-addext", "extendedKeyUsage=emailProtection")  # fmt: skip
    assert done.returncode == 0, done.stderr


def make_swu(site: Site) -> Path:
    """Pack the newest release by the example's script."""
    need("cpio")
    out = site.place / "model.swu"
    inbox = site.place / "inbox"
    signed = {"SWU_KEY": "key", "SWU_CERT": "cert"} if (site.place / "key").is_file() else {}
    signed = {name: str(site.place / value) for name, value in signed.items()}
    done = site.run(EXAMPLE / "swupdate/make-swu.sh", site.export(), out, inbox, **signed)
    assert done.returncode == 0, done.stderr
    return out


def test_the_script_of_swupdate_imports(site: Site) -> None:
    """preinst, the file, postinst: what SWUpdate does with the three members of its image."""
    image = make_swu(site)
    listed = site.run("cpio", "-it", "--quiet", "-F", image).stdout.split()
    assert listed == ["sw-description", "edgepack.sh", "model.epk"]
    inbox = site.place / "inbox"

    assert site.run("cpio", "-i", "--quiet", "-F", image, "edgepack.sh").returncode == 0
    script = site.place / "edgepack.sh"

    def play() -> int:
        assert site.run(script, "preinst").returncode == 0
        shutil.copy(site.export(), inbox / "model.epk")
        return site.run(script, "postinst").returncode

    assert play() == 0
    first = site.active
    publish(site.place, bad_release(site.place, 2))
    assert play() == 6
    assert site.active == first
    assert not list(inbox.iterdir())


def test_swupdate_itself_installs_the_image(site: Site) -> None:
    """The real program: it succeeds with a good release and fails with a bad one."""
    need("swupdate", "openssl")
    make_certificate(site)
    (site.place / "inbox").mkdir()

    def install() -> int:
        image = make_swu(site)
        done = site.run(
            "swupdate", "-k", "cert", "-H", "board:1.0", "-i", image
        )  # fmt: skip
        return done.returncode

    assert install() == 0
    first = site.active
    assert first
    publish(site.place, bad_release(site.place, 2))
    assert install() != 0
    assert site.active == first


def rauc_folder(site: Site) -> Path:
    """Return a folder with the example's files and the newest release, as `rauc bundle` takes."""
    folder = site.place / "rauc"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EXAMPLE / "rauc", folder)
    shutil.copy(site.export(), folder / "model.epk")
    return folder


def test_the_handler_of_rauc_imports(site: Site) -> None:
    """Called with the mounted bundle; what it cannot take fails the installation."""
    handler = "edgepack.sh"
    manifest = (EXAMPLE / "rauc/manifest.raucm").read_text()
    assert f"filename={handler}" in manifest

    def play() -> int:
        mounted = rauc_folder(site)
        return site.run(mounted / handler, RAUC_BUNDLE_MOUNT_POINT=str(mounted)).returncode

    assert play() == 0
    first = site.active
    publish(site.place, bad_release(site.place, 2))
    assert play() == 6
    assert site.active == first


def test_rauc_itself_installs_the_bundle(site: Site) -> None:
    """The real program and its service; the bundle is plain, for verity needs the kernel's part."""
    need("rauc", "openssl", "dbus-run-session", "mksquashfs")
    place = site.place
    make_certificate(site)
    (place / "slot").touch()
    (place / "system.conf").write_text(
        f"[system]\ncompatible=example-device\nbootloader=noop\nmountprefix={place}/mnt\n"
        f"statusfile={place}/status\n[keyring]\npath={place}/cert\n"
        f"[slot.rootfs.0]\ndevice={place}/slot\ntype=raw\nbootname=A\n"
    )
    session = place / "session.sh"
    session.write_text(
        "export DBUS_SYSTEM_BUS_ADDRESS=$DBUS_SESSION_BUS_ADDRESS DBUS_STARTER_BUS_TYPE=session\n"
        "rauc --conf=system.conf --override-boot-slot=A service & service=$!\n"
        "sleep 1; timeout 60 rauc install model.raucb; code=$?\n"
        "kill $service; wait $service; exit $code\n"
    )

    def install() -> subprocess.CompletedProcess[str]:
        folder = rauc_folder(site)
        manifest = folder / "manifest.raucm"
        manifest.write_text(manifest.read_text().replace("format=verity", "format=plain"))
        (place / "model.raucb").unlink(missing_ok=True)
        done = site.run("rauc", "bundle", "--cert=cert", "--key=key", folder, "model.raucb")
        assert done.returncode == 0, done.stderr
        return site.run("dbus-run-session", "--", "sh", session)

    first = install()
    if first.returncode and "mount" in first.stderr + first.stdout:
        pytest.skip("this machine mounts no bundles")
    assert first.returncode == 0, first.stderr
    active = site.active
    assert active
    publish(place, bad_release(place, 2))
    assert install().returncode != 0
    assert site.active == active


@dataclass
class Hawkbit:
    """A hawkBit server with one deployment, as far as a device sees it."""

    artifact: bytes = b""
    url: str = ""
    cut: int = 0
    results: list[str] = field(default_factory=list)
    details: list[str] = field(default_factory=list)
    ranges: list[str] = field(default_factory=list)

    def answer(self, path: str) -> dict[str, Any]:
        """Return what a resource says."""
        if path.endswith("/device"):
            href = f"{self.url}/t/controller/v1/device/deploymentBase/7"
            links = {"deploymentBase": {"href": href}} if self.artifact else {}
            return {"config": {"polling": {"sleep": "00:05:00"}}, "_links": links}
        sha256 = hashlib.sha256(self.artifact).hexdigest()
        item = {"filename": "model.epk", "size": len(self.artifact), "hashes": {"sha256": sha256},
                "_links": {"download-http": {"href": f"{self.url}/file"}}}  # fmt: skip
        chunk = {"part": "bApp", "version": "1", "name": "model", "artifacts": [item]}
        return {"id": "7", "deployment": {"download": "forced", "chunks": [chunk]}}


@contextmanager
def hawkbit_server() -> Iterator[Hawkbit]:
    """Serve on loopback until the block ends."""
    state = Hawkbit()

    class Handler(BaseHTTPRequestHandler):
        def log_message(self, *_: object) -> None:
            """Say nothing."""

        def do_GET(self) -> None:
            assert self.headers["Authorization"] == "TargetToken secret"
            if self.path != "/file":
                self.send(200, json.dumps(state.answer(self.path)).encode())
                return
            asked = self.headers.get("Range", "")
            state.ranges.append(asked)
            start = int(asked.removeprefix("bytes=").rstrip("-") or 0)
            body = state.artifact[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body[: state.cut or len(body)])
            state.cut = 0

        def do_POST(self) -> None:
            assert self.path.endswith("/deploymentBase/7/feedback")
            body = self.rfile.read(int(self.headers["Content-Length"]))
            status = json.loads(body)["status"]
            state.results.append(status["result"]["finished"])
            state.details = status["details"]
            self.send(200, b"")

        def send(self, code: int, body: bytes) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    state.url = f"http://127.0.0.1:{server.server_address[1]}"
    worker = Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    worker.start()
    try:
        yield state
    finally:
        server.shutdown()
        server.server_close()
        worker.join()


def test_the_hawkbit_client_takes_a_deployment(site: Site) -> None:
    """Nothing; a download that breaks off and goes on; one that fails and is said so."""
    with hawkbit_server() as server:

        def poll() -> int:
            return site.run(sys.executable, EXAMPLE / "hawkbit/edgepack_hawkbit.py",
                            f"{server.url}/t/controller/v1/device",
                            HAWKBIT_TOKEN="secret").returncode  # fmt: skip

        assert poll() == 0
        server.artifact, server.cut = site.export().read_bytes(), 100_000
        assert poll() == 1
        assert server.results == []
        assert poll() == 0
        assert server.ranges == ["", "bytes=100000-"]
        first = site.active
        assert first
        publish(site.place, bad_release(site.place, 2))
        server.artifact = site.export().read_bytes()
        assert poll() == 6
        assert "strays" in " ".join(server.details)
        assert server.results == ["success", "failure"]
        Store.at(site.place / "device").pin(pinned=True)
        publish(site.place, make_bundle(site.place, 3))
        server.artifact = site.export().read_bytes()
        assert (poll(), server.results[-1]) == (7, "none")
        assert site.active == first


def test_the_balena_loop_respects_the_lock(site: Site) -> None:
    """It updates under the lock, leaves none behind, and does nothing while another holds it."""
    compose = yaml.safe_load((EXAMPLE / "balena/docker-compose.yml").read_text())
    (volume,) = compose["volumes"]
    for service in compose["services"].values():
        assert f"{volume}:{service['environment']['EDGEPACK_STORE']}" in service["volumes"]
    lock = site.place / "updates.lock"
    loop = EXAMPLE / "balena/update-loop.sh"
    lock.touch()
    assert site.run(loop, ONCE="1", BALENA_LOCK=str(lock)).returncode == 0
    assert not (site.place / "device").exists()
    lock.unlink()
    assert site.run(loop, ONCE="1", BALENA_LOCK=str(lock)).returncode == 0
    assert site.active
    assert not lock.exists()
    assert site.run(loop, ONCE="1", BALENA_LOCK=str(lock)).returncode == 7
