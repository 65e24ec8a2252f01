"""A kit on a real aarch64 system: Debian for ARM, its programs run by QEMU."""

from __future__ import annotations

import json
import os
import platform
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgepack.data.rows import read_rows
from edgepack_runtime import Bundle
from edgepack_runtime.model.variants import open_variant

ROWS = 200
TOOLS = ("debootstrap", "qemu-aarch64-static", "update-binfmts", "unshare", "chroot")
PACKAGES = "debootstrap qemu-user-static binfmt-support"
CHECK = Path("/proc/sys/fs/binfmt_misc/qemu-aarch64")

pytestmark = pytest.mark.slow


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert done.returncode == 0, f"{' '.join(command)}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Debian 12 for arm64 with Python and nothing else."""
    if platform.machine() != "x86_64" or os.geteuid() != 0:
        pytest.skip("needs an x86-64 Linux host and root")
    if lacking := [name for name in TOOLS if shutil.which(name) is None]:
        pytest.skip(f"needs {', '.join(lacking)}: apt install {PACKAGES}")
    if not CHECK.exists():
        subprocess.run(["update-binfmts", "--enable", "qemu-aarch64"], check=False)
    if not CHECK.exists():
        pytest.skip("needs binfmt_misc: mount -t binfmt_misc none /proc/sys/fs/binfmt_misc")
    folder = tmp_path_factory.mktemp("arm64")
    _run(
        "debootstrap",
        "--arch=arm64",
        "--variant=minbase",
        "--include=python3",
        "bookworm",
        str(folder),
    )
    yield folder
    shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("target", ["cpu-arm64", "raspberry-pi-5"])
def test_a_kit_installs_offline_and_answers_like_the_build_host(
    root: Path, data: Path, target: str, tmp_path: Path
) -> None:
    """No network, no compiler: the self-test passes, and 99 % of int8 decisions are the host's."""
    model = str(data / "models/clinc150-teacher")
    _run(
        sys.executable,
        "-m",
        "edgepack",
        "build",
        model,
        "--name",
        "intent",
        "-t",
        target,
        "--kit",
        "-o",
        str(tmp_path),
    )
    shutil.copytree(tmp_path / f"intent-{target}-kit", root / target)
    inside = ["unshare", "--net", "chroot", str(root)]
    said = _run(*inside, "sh", f"/{target}/install.sh", f"/opt/{target}")
    assert "agreement" in said
    machine = _run(
        *inside, f"/opt/{target}/bin/python", "-c", "import platform; print(platform.machine())"
    )
    assert machine.strip() == "aarch64"
    rows = [row["text"] for _, row in read_rows(str(data / "data/clinc150/val.tsv"))]
    texts = [str(text) for text in rows[:: len(rows) // ROWS][:ROWS]]
    bundle = f"/opt/{target}/bundles/intent-{target}.epk"
    lines = _run(
        *inside, f"/opt/{target}/bin/edgepack-runtime", "run", bundle, text="\n".join(texts) + "\n"
    ).splitlines()
    there = [json.loads(line)[0]["label"] for line in lines]
    opened = Bundle.open(tmp_path / f"intent-{target}.epk")
    here = open_variant(opened, opened.manifest.variants[0])
    equal = [here(text)[0]["label"] == label for text, label in zip(texts, there, strict=True)]
    assert sum(equal) >= 0.99 * ROWS
