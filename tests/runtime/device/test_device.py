"""What a device is asked: CPU flags, GPU, and whether a bundle fits."""

from __future__ import annotations

import dataclasses
import platform
from pathlib import Path
from threading import Thread

import devices
import handmade
import pytest

from edgepack_runtime import Bundle, DeviceError, load
from edgepack_runtime.bundle.manifest import Requires
from edgepack_runtime.cli import main
from edgepack_runtime.device import cpu
from edgepack_runtime.device.facts import probe
from edgepack_runtime.device.gpu import capability_of, find_gpu
from edgepack_runtime.device.identity import engine_version, identity
from edgepack_runtime.fit import misfits, unmet


@pytest.mark.skipif(platform.machine() != "x86_64", reason="asks an x86 CPU")
def test_the_cpu_denies_nothing_that_the_kernel_shows() -> None:
    """On a real machine CPUID and /proc/cpuinfo agree on every flag that decides."""
    flags = next(
        line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("flags")
    ).split()
    assert not cpu.absent() & set(flags)
    assert set(cpu._FLAGS) - cpu.absent() <= set(flags)


def test_a_captured_device_is_read_from_its_files(tmp_path: Path) -> None:
    """Architecture, glibc, JetPack, GPU and cores come from the tree, not from this machine."""
    device = probe(devices.jetpack6(tmp_path))
    assert (device.arch, device.glibc, device.jetpack, device.cores) == ("aarch64", "2.35", "6", 2)
    gpu = find_gpu(tmp_path)
    assert gpu is not None
    assert gpu.compute_capability == "8.7"


@pytest.mark.parametrize(
    ("name", "capability"),
    [
        ("Tesla T4", "7.5"),
        ("NVIDIA A10G", "8.6"),
        ("NVIDIA L4", "8.9"),
        ("NVIDIA L40S", "8.9"),
        ("NVIDIA A100-SXM4-40GB", "8.0"),
        ("NVIDIA GeForce RTX 4090", "8.9"),
        ("NVIDIA H100 80GB HBM3", "9.0"),
        ("Quadro RTX 4000", "7.5"),
        ("NVIDIA RTX 5000 Ada Generation", "8.9"),
        ("NVIDIA GeForce RTX 5080", "12.0"),
        ("Voodoo 2", ""),
    ],
)
def test_a_gpu_is_known_by_its_name(name: str, capability: str) -> None:
    """Where no driver can be asked, the name says what the GPU can do."""
    assert capability_of(name) == capability


def test_each_demand_is_told_in_words(tmp_path: Path) -> None:
    """Every unmet need is listed, not the first one only."""
    device = probe(devices.jetpack6(tmp_path))
    requires = Requires(("avx512_vnni",), 1 << 30, "12.0", ("7",), "2.39")
    said = " ".join(unmet(requires, device))
    for words in ("avx512_vnni", "MB of memory", "compute capability 12.0", "JetPack 7", "2.39"):
        assert words in said
    assert unmet(Requires(("asimddp",), 100, "8.7", ("6", "7"), "2.28"), device) == []


def test_a_bundle_that_does_not_fit_is_refused_with_the_list(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before a download by its manifest, before a load by the same rule: exit code 4, the list."""
    path = handmade.bundle(tmp_path / "new.epk", change={"requires": {"glibc": "9.9"}})
    manifest = Bundle.open(path).manifest
    assert any("glibc 9.9" in reason for reason in misfits(manifest, probe()))
    with pytest.raises(DeviceError, match=r"needs glibc 9\.9"):
        load(path)
    assert load(path, any_device=True)("turn on")
    assert main(["doctor", str(path)]) == 4
    assert "glibc 9.9" in capsys.readouterr().err


def test_room_and_architecture_are_asked_before_a_download(tmp_path: Path) -> None:
    """A bundle larger than the free disk, or for another CPU, is told from its manifest."""
    manifest = Bundle.open(handmade.bundle(tmp_path / "a.epk")).manifest
    assert misfits(manifest, probe(), folder=tmp_path / "not/yet/there") == []
    huge = dataclasses.replace(manifest.files[0], size=1 << 60, sha256="0" * 64)
    large = dataclasses.replace(manifest, files=(huge,), arch="riscv64")
    reasons = misfits(large, probe(), folder=tmp_path)
    assert "riscv64" in reasons[0]
    assert "MB of disk" in reasons[1]


def test_a_captured_device_is_asked_about_a_bundle(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`doctor --root` answers for the device, whatever this machine has installed."""
    root = devices.raspberry_pi_5(tmp_path / "root")
    path = handmade.bundle(tmp_path / "a.epk", change={"arch": "aarch64"})
    assert main(["doctor", str(path), "--root", str(root)]) == 0
    assert "null: fits" in capsys.readouterr().out
    path = handmade.bundle(tmp_path / "b.epk", change={"arch": "x86_64"})
    assert main(["doctor", str(path), "--root", str(root)]) == 4


def test_an_identity_names_engines_and_driver(tmp_path: Path) -> None:
    """Another engine version or another driver is another identity."""
    import onnxruntime

    assert engine_version("onnxruntime") == onnxruntime.__version__
    assert engine_version("os") == ""
    here = probe()
    assert f"onnxruntime {onnxruntime.__version__}" in identity(here)
    old = identity(probe(devices.cuda_server(tmp_path)))
    devices.gpu(tmp_path, "NVIDIA L4", "590.10")
    assert identity(probe(tmp_path)) != old


def test_the_question_is_safe_from_threads() -> None:
    """CPUID is asked once and answers alike in every thread."""
    found: list[frozenset[str]] = []
    workers = [Thread(target=lambda: found.append(cpu.absent.__wrapped__())) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(set(found)) == 1
    assert len(found) == 8
