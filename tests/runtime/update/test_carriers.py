"""What `examples/field-update` holds for each carrier, driven as its agent drives it."""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import yaml
from carriers import EXAMPLE, Site, make_swu, rauc_folder
from fleet import NAME, bad_release, make_bundle, publish
from hawkbit import serve_hawkbit
from server import listening

from edgepack_runtime.store.store import Store


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


def test_greengrass_installs_or_fails(site: Site) -> None:
    """The recipe's scripts, their variables filled in as the nucleus does."""
    recipe = yaml.safe_load((EXAMPLE / "greengrass/recipe.yaml").read_text())
    assert recipe["RecipeFormatVersion"] == "2020-01-25"
    (manifest,) = recipe["Manifests"]
    (artifact,) = manifest["Artifacts"]
    assert artifact["Unarchive"] == "NONE"
    assert artifact["Uri"].endswith("/model.epk")
    here = {
        "runtime": site.settings["RUNTIME"],
        "store": site.settings["EDGEPACK_STORE"],
        "root": site.settings["ROOT"],
        "name": NAME,
    }
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


def test_the_hawkbit_client_takes_a_deployment(site: Site) -> None:
    """Nothing; a download that breaks off and goes on; one that fails and is said so."""
    with serve_hawkbit() as server:

        def poll() -> int:
            return site.run(
                sys.executable,
                EXAMPLE / "hawkbit/edgepack_hawkbit.py",
                f"{server.url}/t/controller/v1/device",
                HAWKBIT_TOKEN="secret",
            ).returncode

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
    gone = site.run(sys.executable, EXAMPLE / "hawkbit/edgepack_hawkbit.py", server.url)
    assert gone.returncode == 1
    assert gone.stderr.startswith("error: ")
    assert "\n" not in gone.stderr.strip()


@pytest.fixture
def client(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The hawkBit example as a module, with a token."""
    spec = importlib.util.spec_from_file_location("hk", EXAMPLE / "hawkbit/edgepack_hawkbit.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setenv("HAWKBIT_TOKEN", "secret")
    return module


@pytest.mark.parametrize("redirected", [True, False])
def test_the_hawkbit_client_shows_its_token_to_its_server_alone(
    client: Any,
    redirected: bool,  # noqa: FBT001 (a parameter of the test)
) -> None:
    """Another host, linked or redirected to, is asked for the file and gets no token."""
    seen: dict[str, tuple[str | None, str | None]] = {}

    class Cdn(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            seen["cdn"] = (self.headers["Authorization"], self.headers["Range"])
            self.send_response(200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    with listening(Cdn) as cdn:

        class Own(Cdn):
            def do_GET(self) -> None:
                seen["own"] = (self.headers["Authorization"], self.headers["Range"])
                self.send_response(302)
                self.send_header("Location", f"{cdn}/file")
                self.send_header("Content-Length", "0")
                self.end_headers()

        with listening(Own) as own:
            client.Server.address = f"{own}/t/controller/v1/device"
            request = client.prepared(f"{own if redirected else cdn}/x", {"Range": "bytes=5-"})
            client.OPENER.open(request, timeout=10).close()
    assert seen["cdn"] == (None, "bytes=5-")
    assert seen.get("own", ("TargetToken secret", "bytes=5-")) == ("TargetToken secret", "bytes=5-")


def test_the_hawkbit_client_does_not_leave_https(client: Any) -> None:
    """A server by https does not send it to http, whatever the host; other schemes go nowhere."""
    client.Server.address = "https://hawkbit.example/t/controller/v1/device"
    for url in ("http://hawkbit.example/file", "http://cdn.example/file", "file:///etc/passwd"):
        with pytest.raises(ValueError, match="is no address by https"):
            client.prepared(url, {})
    assert "Authorization" in client.prepared("https://hawkbit.example:443/file", {}).headers


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
