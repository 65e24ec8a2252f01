"""A bundle travels through a real OCI registry unchanged."""

from __future__ import annotations

import shutil
import socket
import subprocess
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from edgepack_runtime import Bundle

Get = Callable[..., Path]
CONFIG = """version: 0.1
storage: {{filesystem: {{rootdirectory: {root}}}}}
http: {{addr: "127.0.0.1:{port}"}}
"""


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[str]:
    """A registry on loopback; skip where its program or skopeo is not installed."""
    program = shutil.which("docker-registry") or shutil.which("registry")
    if program is None or shutil.which("skopeo") is None:
        pytest.skip("needs Debian's skopeo and docker-registry")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    config = tmp_path / "registry.yml"
    config.write_text(CONFIG.format(root=tmp_path / "registry", port=port))
    with (tmp_path / "registry.log").open("wb") as log:
        process = subprocess.Popen([program, "serve", str(config)], stdout=log, stderr=log)
    try:
        for _ in range(100):
            try:
                urllib.request.urlopen(f"http://127.0.0.1:{port}/v2/", timeout=1).close()
                break
            except OSError:
                time.sleep(0.1)
        else:
            pytest.fail((tmp_path / "registry.log").read_text())
        yield f"127.0.0.1:{port}"
    finally:
        process.kill()
        process.wait()


def test_a_registry_carries_a_bundle_there_and_back(
    registry: str, bundle: Get, tmp_path: Path
) -> None:
    """Skopeo copies an .epk into a registry and out again: same manifest digest, whole content."""
    path = bundle("bert-intent", "jetson-orin")
    back = tmp_path / "back.epk"
    there = f"docker://{registry}/models/intent:1.0"
    plain = ["--insecure-policy", "copy", "--src-tls-verify=false", "--dest-tls-verify=false"]
    for source, destination in ((f"oci-archive:{path}", there), (there, f"oci-archive:{back}")):
        done = subprocess.run(
            ["skopeo", *plain, source, destination], capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
    returned = Bundle.open(back)
    assert returned.digest == Bundle.open(path).digest
    assert returned.verify() == Bundle.open(path).verify()
