"""A kit installs without a network, and no wheel of it can be swapped."""

from __future__ import annotations

import hashlib
import os
import platform
import shutil
import subprocess
import sys
import zipfile
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepack.bundle.kit import collect, platforms, runtime_wheel
from edgepack.cli import main
from edgepack.recipe.target import find_target
from edgepack_runtime import Bundle, InputError, TrustError

Get = Callable[..., Path]
ROOT = Path(__file__).parents[2]
PYTHON = f"{sys.version_info.major}.{sys.version_info.minor}"


@pytest.fixture(scope="module")
def kit(model: Get, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A kit for this machine with the ONNX Runtime engine."""
    folder = tmp_path_factory.mktemp("kit")
    pins = dict(
        line.split("==") for line in (ROOT / "constraints.txt").read_text().split() if "==" in line
    )
    packages = ", ".join(f'"{n}=={pins[n]}"' for n in ("onnxruntime", "numpy", "tokenizers"))
    parent = {"x86_64": "cpu-x86-64", "aarch64": "cpu-arm64"}[platform.machine()]
    (folder / "here.toml").write_text(
        f'extends = "{parent}"\nsummary = "this machine"\n'
        f'[kit]\npython = "{PYTHON}"\nglibc = "2.28"\npackages = [{packages}]\n'
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("EDGEPACK_TARGETS", str(folder))
        command = [
            "build",
            str(model("bert-ner")),
            "--name",
            "ner",
            "-t",
            "here",
            "--kit",
            "-o",
            str(folder),
        ]
        done = CliRunner().invoke(main, command)
    assert done.exit_code == 0, done.output
    return folder / "ner-here-kit"


def _install(kit: Path, into: Path, **more: str) -> subprocess.CompletedProcess[str]:
    """Run the script, as root on Linux without any network at all."""
    alone = ["unshare", "--net"] if os.geteuid() == 0 and shutil.which("unshare") else []
    env = {**os.environ, "PYTHON": sys.executable, **more}
    command = [*alone, "sh", str(kit / "install.sh"), str(into)]
    return subprocess.run(command, env=env, capture_output=True, text=True, check=False)


def test_a_kit_installs_offline_and_answers(kit: Path, tmp_path: Path) -> None:
    """One script: digests checked, virtual environment made, self-test passed, nothing of torch."""
    done = _install(kit, tmp_path / "device")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "wheels_verified: 5" in done.stdout
    assert "agreement:" in done.stdout
    site = tmp_path / f"device/lib/python{PYTHON}/site-packages"
    names = {path.name.partition("-")[0] for path in site.glob("*.dist-info")}
    assert names == {"edgepack_runtime", "numpy", "onnxruntime", "tokenizers"}
    program = [
        str(tmp_path / "device/bin/edgepack-runtime"),
        "run",
        str(tmp_path / "device/bundles/ner-here.epk"),
        "hello",
    ]
    assert subprocess.run(program, capture_output=True, check=True).stdout


def test_the_manifest_pins_the_wheels(kit: Path) -> None:
    """Every wheel's digest stands in the bundle, and no other file is among them."""
    manifest = Bundle.open(kit / "ner-here.epk").manifest
    found = {
        path.name: hashlib.sha256(path.read_bytes()).hexdigest()
        for path in (kit / "wheels").iterdir()
    }
    assert found == manifest.kit


@pytest.mark.parametrize("name", ["edgepack_runtime", "pip"])
def test_nothing_runs_out_of_a_wheel_that_was_swapped(kit: Path, name: str, tmp_path: Path) -> None:
    """The wheels that check and install the others are themselves checked before they run."""
    copy = tmp_path / "kit"
    shutil.copytree(kit, copy)
    wheel = next((copy / "wheels").glob(f"{name}-*.whl"))
    ran = tmp_path / "ran"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr(f"{name}/__init__.py", "")
        archive.writestr(f"{name}/__main__.py", f"open({str(ran)!r}, 'w')")
    done = _install(copy, tmp_path / "device")
    assert done.returncode == 5
    assert not ran.exists()
    assert not (tmp_path / "device").exists()


def test_a_wheel_that_is_swapped_after_the_check_is_not_installed(
    kit: Path, tmp_path: Path
) -> None:
    """Pip compares the digests too: a kit that changes while it is installed is refused."""
    copy = tmp_path / "kit"
    shutil.copytree(kit, copy)
    wheel = next((copy / "wheels").glob("tokenizers-*.whl"))
    python = tmp_path / "python"
    python.write_text(
        f'#!/bin/sh\n[ "$2" = venv ] && printf x >> "{wheel}"\nexec {sys.executable} "$@"\n'
    )
    python.chmod(0o755)
    done = _install(copy, tmp_path / "device", PYTHON=str(python))
    assert done.returncode != 0
    assert "HASHES" in done.stderr
    assert not list(tmp_path.glob("device/lib/*/site-packages/tokenizers*"))


def test_a_kit_is_found_whatever_cdpath_says(kit: Path, tmp_path: Path) -> None:
    """Called by a relative path, with a CDPATH that has a folder of the same name."""
    env = {**os.environ, "CDPATH": str(tmp_path / "other")}
    script = (kit / "install.sh").read_text().partition("into=")[0] + 'echo "$here"\n'
    (kit.parent / "where").mkdir()
    (kit.parent / "where/install.sh").write_text(script)
    (tmp_path / "other/where").mkdir(parents=True)
    command = ["sh", "where/install.sh"]
    done = subprocess.run(
        command, env=env, cwd=kit.parent, capture_output=True, text=True, check=True
    )
    assert done.stdout == f"{kit.parent / 'where'}\n"


@pytest.mark.parametrize("change", ["swap", "add", "remove"])
def test_a_kit_that_was_tampered_with_is_not_installed(
    kit: Path, change: str, tmp_path: Path
) -> None:
    """A wheel that differs, is missing or was added: exit code 5, and nothing was installed."""
    copy = tmp_path / "kit"
    shutil.copytree(kit, copy)
    wheel = next((copy / "wheels").glob("numpy-*.whl"))
    if change == "swap":
        wheel.write_bytes(wheel.read_bytes() + b" ")
    elif change == "add":
        (copy / "wheels/evil-1.0-py3-none-any.whl").write_bytes(b"")
    else:
        wheel.unlink()
    done = _install(copy, tmp_path / "device")
    assert done.returncode == 5
    assert "wheel" in done.stderr
    assert not (tmp_path / "device").exists()


def test_a_kit_for_another_python_says_so(kit: Path, tmp_path: Path) -> None:
    """Without the interpreter that the wheels are for, the script stops with what it needs."""
    env = {**os.environ, "PYTHON": "python9.9"}
    command = ["sh", str(kit / "install.sh"), str(tmp_path / "device")]
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 4
    assert f"this kit is for Python {PYTHON}" in done.stderr


def test_a_wheel_that_cannot_be_had_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error names the package, Python, architecture and glibc, and the way out."""
    monkeypatch.setenv("EDGEPACK_TARGETS", str(tmp_path))
    (tmp_path / "odd.toml").write_text(
        'extends = "cpu-arm64"\nsummary = "odd"\n[kit]\npython = "3.11"\nglibc = "2.17"\n'
        'packages = ["onnxruntime==1.31.1"]\n'
    )
    with pytest.raises(
        InputError, match=r"onnxruntime==1\.31\.1 for Python 3\.11, aarch64, glibc 2\.17.*--wheels"
    ):
        collect(find_target("odd"))


def test_the_runtime_wheel_is_reproducible_and_whole() -> None:
    """Two wheels are the same bytes, hold every module, and record every file's digest."""
    name, content = runtime_wheel()
    assert (name, content) == runtime_wheel()
    with zipfile.ZipFile(BytesIO(content)) as archive:
        names = archive.namelist()
        record = archive.read(next(n for n in names if n.endswith("RECORD"))).decode()
    modules = {
        p.relative_to(ROOT / "runtime").as_posix()
        for p in (ROOT / "runtime/edgepack_runtime").rglob("*.py")
    }
    assert modules <= set(names)
    assert all(f"{name}," in record for name in names)


def test_platform_tags_go_down_from_the_glibc() -> None:
    """A device loads wheels for its own glibc and all older ones."""
    tags = platforms("aarch64", "2.28")
    assert tags[0] == "manylinux_2_28_aarch64"
    assert "manylinux2014_aarch64" in tags
    assert not any("2_29" in tag for tag in tags)


def test_a_bundle_without_a_kit_has_none_to_verify(kit: Path, bundle: Get) -> None:
    """Wheels that no manifest pins are not accepted."""
    with pytest.raises(InputError, match="without a kit"):
        Bundle.open(bundle("bert-ner")).verify_kit(kit / "wheels")
    with pytest.raises(TrustError, match="is missing"):
        Bundle.open(kit / "ner-here.epk").verify_kit(kit / "nowhere")
