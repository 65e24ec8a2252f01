"""The agents' own programs take a release and take it back; skipped where not installed."""

from __future__ import annotations

import json
import shutil
import subprocess
from pathlib import Path

import pytest
from carriers import EXAMPLE, Site, make_swu, need, rauc_folder
from fleet import bad_release, make_bundle, publish


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
            "mender-artifact",
            "write",
            "module-image",
            "-T",
            "edgepack",
            "-n",
            f"r{number}",
            "-t",
            "test",
            "-o",
            out,
            "-f",
            site.export(),
        )
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


def make_certificate(site: Site) -> None:
    """Make `key` and `cert`, which carriers sign with."""
    done = site.run(
        "openssl",
        "req",
        "-x509",
        "-newkey",
        "rsa:2048",
        "-nodes",
        "-keyout",
        "key",
        "-out",
        "cert",
        "-days",
        "9",
        "-subj",
        "/CN=test",
        "-addext",
        "extendedKeyUsage=emailProtection",
    )
    assert done.returncode == 0, done.stderr


def test_swupdate_itself_installs_the_image(site: Site) -> None:
    """The real program: it succeeds with a good release and fails with a bad one."""
    need("swupdate", "openssl")
    make_certificate(site)
    (site.place / "inbox").mkdir()

    def install() -> int:
        image = make_swu(site)
        done = site.run("swupdate", "-k", "cert", "-H", "board:1.0", "-i", image)
        return done.returncode

    assert install() == 0
    first = site.active
    assert first
    publish(site.place, bad_release(site.place, 2))
    assert install() != 0
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
