"""The doctor on file trees captured from devices: the right fault and the right remedy."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import devices
import pytest
from devices import capture, cpu, gpu, packages, provider, remove, write

from edgepack_runtime.cli import main
from edgepack_runtime.doctor import accelerators, findings, software
from edgepack_runtime.doctor.advice import install_line
from edgepack_runtime.doctor.facts import examine
from edgepack_runtime.doctor.fatbin import architectures

Make = Callable[[Path], Path]
Change = Callable[[Path], object]
JETSON = "https://pypi.jetson-ai-lab.io/jp6/cu126"


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (devices.jetpack6, {"python-3-10"}),
        (devices.jetpack7, set()),
        (devices.raspberry_pi_5, set()),
        (devices.bare_x86, {"no-engine"}),
        (devices.cuda_server, set()),
    ],
)
def test_a_healthy_device_has_no_fault(make: Make, expected: set[str], tmp_path: Path) -> None:
    """The five captured devices show nothing but what is true of them."""
    assert {found.rule for found in findings(examine(make(tmp_path)))} == expected


def _musl(root: Path) -> None:
    (root / "usr/lib/x86_64-linux-gnu/libc.so.6").unlink()
    write(root, "lib/ld-musl-x86_64.so.1", "")


def _python(root: Path, old: str, new: str) -> None:
    (root / f"usr/bin/python{old}").rename(root / f"usr/bin/python{new}")


def _libc(root: Path, arch: str, version: str) -> None:
    text = f"GNU C Library (Debian GLIBC {version}) stable release version {version}.\n"
    write(root, f"usr/lib/{arch}-linux-gnu/libc.so.6", text)


def _no_library(root: Path, pattern: str) -> None:
    for path in list(root.glob(pattern)):
        path.unlink()


def _32_bits(root: Path) -> None:
    (root / "lib/ld-linux-aarch64.so.1").rename(root / "lib/ld-linux-armhf.so.3")


def _pypi_wheel_on_jetson(root: Path) -> None:
    remove(root, "3.10", "onnxruntime_gpu")
    packages(root, "3.10", onnxruntime_gpu="1.31.1")
    provider(root, "3.10", "cuda", [89, 90, 120, 121], "cudart.so.12")


def _replace(python: str, name: str, version: str) -> Change:
    def change(root: Path) -> None:
        remove(root, python, name)
        packages(root, python, **{name: version})

    return change


def _with_openvino(root: Path, *files: str, name: str = "Intel(R) Core(TM) Ultra 7 155H") -> None:
    cpu(root, "avx2 avx_vnni", name)
    packages(root, "3.11", openvino="2026.4.1", numpy="2.4.6", tokenizers="0.22.2")
    for file in files:
        write(root, file, "")


def _as_it_is(root: Path) -> None:
    pass


def _cpu_build(root: Path) -> None:
    _replace("3.12", "onnxruntime_gpu", "1.31.1")(root)
    remove(root, "3.12", "onnxruntime_gpu")
    packages(root, "3.12", onnxruntime="1.31.1")
    _no_library(root, "usr/local/lib/python3.12/dist-packages/onnxruntime/capi/*.so")


def _cuda_12(root: Path) -> None:
    _no_library(root, "usr/local/cuda*/lib64/libcudart*")
    write(root, "usr/local/cuda-12.6/lib64/libcudart.so.12", "")


def _tensorrt_11(root: Path) -> None:
    _no_library(root, "usr/lib/*/libnvinfer*")
    write(root, "usr/lib/aarch64-linux-gnu/libnvinfer.so.11", "")


def _intel_gpu(root: Path) -> None:
    _with_openvino(root)
    write(root, "sys/class/drm/renderD128/device/vendor", "0x8086\n")


# What is wrong, on which device: rule, level, words of the finding, words of the remedy.
Case = tuple[Make, Change, str, str, str, str]
CASES: list[Case] = [
    (devices.raspberry_pi_5, _32_bits, "system-of-32-bits", "fault", "32-bit", "64-bit image"),
    (devices.bare_x86, _musl, "no-glibc", "fault", "musl", "debian:12-slim"),
    (
        devices.bare_x86,
        lambda r: _libc(r, "x86_64", "2.27"),
        "old-glibc",
        "fault",
        "2.27",
        "Debian 10",
    ),
    (
        devices.bare_x86,
        lambda r: _python(r, "3.11", "3.8"),
        "old-python",
        "fault",
        "3.8",
        "uv python",
    ),
    (devices.jetpack6, _as_it_is, "python-3-10", "note", "1.23.2", JETSON),
    (
        devices.bare_x86,
        lambda r: _python(r, "3.11", "3.10"),
        "python-3-10",
        "note",
        "1.23.2",
        "onnxruntime==1.23.2",
    ),
    (
        devices.raspberry_pi_5,
        lambda r: remove(r, "3.11", "edgepack_runtime"),
        "managed-python",
        "note",
        "PEP 668",
        "venv",
    ),
    (
        devices.cuda_server,
        lambda r: capture(r, disk_free_mb=120),
        "low-disk",
        "fault",
        "120 MB",
        "EDGEPACK_CACHE",
    ),
    (
        devices.raspberry_pi_5,
        lambda r: write(r, "proc/meminfo", "MemTotal: 400000 kB\n"),
        "low-memory",
        "limit",
        "390 MB",
        "budget.memory_mb",
    ),
    (devices.bare_x86, _as_it_is, "no-engine", "fault", "no engine", "[onnxruntime,openvino]"),
    (
        devices.raspberry_pi_5,
        lambda r: remove(r, "3.11", "onnxruntime"),
        "no-engine",
        "fault",
        "no engine",
        "pip install 'edgepack-runtime[onnxruntime]'",
    ),
    (
        devices.cuda_server,
        lambda r: packages(r, "3.12", onnxruntime="1.31.1"),
        "two-builds",
        "fault",
        "overwrite",
        "pip uninstall -y onnxruntime onnxruntime-gpu",
    ),
    (
        devices.raspberry_pi_5,
        _replace("3.11", "onnxruntime", "1.16.3"),
        "old-engine",
        "fault",
        "1.16.3",
        "pip install",
    ),
    (
        devices.raspberry_pi_5,
        _replace("3.11", "onnxruntime", "1.24.1"),
        "broken-engine",
        "fault",
        "1.24.1",
        "pip install",
    ),
    (
        devices.jetpack6,
        _replace("3.10", "numpy", "2.1.0"),
        "numpy-2-with-a-numpy-1-build",
        "fault",
        "numpy 1",
        "'numpy<2'",
    ),
    (
        devices.raspberry_pi_5,
        lambda r: remove(r, "3.11", "tokenizers"),
        "missing-needs",
        "fault",
        "tokenizers",
        "pip install tokenizers",
    ),
    (
        devices.raspberry_pi_5,
        lambda r: packages(r, "3.11", openvino="2026.4.1"),
        "openvino-on-arm",
        "note",
        "fp16",
        "pip uninstall openvino",
    ),
    (
        devices.bare_x86,
        lambda r: cpu(r, "sse4_2", "Intel(R) Atom(TM)"),
        "no-avx2",
        "limit",
        "AVX2",
        "tune",
    ),
    (
        devices.bare_x86,
        lambda r: cpu(r, "avx2", "Intel(R) Core(TM) i5-7500"),
        "no-vnni",
        "note",
        "7-bit",
        "nothing to do",
    ),
    (
        devices.raspberry_pi_5,
        lambda r: cpu(r, "fp asimd crc32", "Cortex-A72", arm=True),
        "no-dot-product",
        "note",
        "ARMv8.2",
        "Raspberry Pi 5",
    ),
    (
        devices.cuda_server,
        _cpu_build,
        "gpu-unused",
        "limit",
        "NVIDIA L4 is not used",
        "onnxruntime-gpu[cuda,cudnn]==1.31.1",
    ),
    (
        devices.bare_x86,
        lambda r: packages(r, "3.11", onnxruntime_gpu="1.31.1", numpy="2.4.6", tokenizers="0.22.2"),
        "gpu-build-without-gpu",
        "limit",
        "no NVIDIA GPU",
        "pip install onnxruntime",
    ),
    (devices.jetpack6, _pypi_wheel_on_jetson, "no-kernels-for-gpu", "fault", "needs sm_87", JETSON),
    (
        devices.jetpack7,
        lambda r: provider(r, "3.12", "cuda", [89, 90, 120, 121], "cudart.so.13"),
        "no-kernels-for-gpu",
        "fault",
        "needs sm_110",
        "jetson-containers build",
    ),
    (
        devices.cuda_server,
        lambda r: gpu(r, "NVIDIA GeForce GTX 1080", "580.65.06"),
        "gpu-too-old",
        "limit",
        "FP16",
        "run on the CPU",
    ),
    (
        devices.cuda_server,
        lambda r: gpu(r, "Tesla V100-SXM2-16GB", "580.65.06"),
        "gpu-too-old",
        "limit",
        "sm_70",
        "run on the CPU",
    ),
    (
        devices.cuda_server,
        lambda r: gpu(r, "NVIDIA L4", "550.54.14"),
        "old-driver",
        "fault",
        "550.54.14; CUDA 13 needs 580",
        "onnxruntime-gpu[cuda,cudnn]==1.26.0",
    ),
    (
        devices.cuda_server,
        lambda r: _no_library(r, "usr/local/cuda*/lib64/libcudart*"),
        "cuda-missing",
        "fault",
        "libcudart.so.13",
        "[cuda,cudnn]",
    ),
    (
        devices.cuda_server,
        _cuda_12,
        "cuda-of-another-major",
        "fault",
        "built for CUDA 13, but the installed one is CUDA 12",
        "1.26.0 is the last for CUDA 12",
    ),
    (
        devices.jetpack6,
        lambda r: _no_library(r, "usr/lib/*/libcudnn*"),
        "cudnn-missing",
        "fault",
        "libcudnn.so.9",
        "cudnn9-cuda-12",
    ),
    (
        devices.cuda_server,
        lambda r: _no_library(r, "usr/lib/*/libcudnn*"),
        "cudnn-missing",
        "limit",
        "only the TensorRT",
        "nvidia-cudnn-cu13",
    ),
    (
        devices.cuda_server,
        lambda r: _no_library(r, "usr/lib/*/libnvinfer*"),
        "tensorrt-missing",
        "limit",
        "libnvinfer.so.10",
        "apt install libnvinfer10",
    ),
    (
        devices.jetpack6,
        _tensorrt_11,
        "tensorrt-of-another-major",
        "limit",
        "built for TensorRT 10, but the installed one is TensorRT 11",
        "libnvinfer10",
    ),
    (
        devices.jetpack6,
        lambda r: write(r, "etc/nv_tegra_release", "# R35 (release)\n"),
        "old-jetpack",
        "fault",
        "JetPack 5",
        "JetPack 6",
    ),
    (
        devices.jetpack7,
        lambda r: write(r, "etc/nv_tegra_release", "# R41 (release)\n"),
        "unknown-jetson",
        "note",
        "R41",
        "upgrade edgepack-runtime",
    ),
    (
        devices.bare_x86,
        _intel_gpu,
        "intel-gpu-without-runtime",
        "limit",
        "compute runtime",
        "intel-opencl-icd",
    ),
    (
        devices.bare_x86,
        _with_openvino,
        "intel-npu-without-driver",
        "limit",
        "user driver",
        "linux-npu-driver",
    ),
    (
        devices.bare_x86,
        lambda r: _with_openvino(r, "usr/lib/x86_64-linux-gnu/libze_intel_npu.so.1"),
        "intel-npu-without-driver",
        "limit",
        "/dev/accel/accel0",
        "kernel 6.6",
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case[2]}-{case[0].__name__}")
def test_the_doctor_names_the_fault_and_the_remedy(case: Case, tmp_path: Path) -> None:
    """Each fault, planted in a device, is found by its own rule and answered with what helps."""
    make, change, rule, level, what, remedy = case
    change(make(tmp_path))
    found = {finding.rule: finding for finding in findings(examine(tmp_path))}
    assert rule in found, list(found)
    assert found[rule].level == level
    assert what in found[rule].what
    assert remedy in found[rule].remedy


def test_every_rule_is_tried() -> None:
    """No rule is without a case, and there are at least 25 cases."""
    tried = {rule for _, _, rule, *_ in CASES}
    rules = {
        rule.__name__.lstrip("_").replace("_", "-")
        for rule in (*software.RULES, *accelerators.RULES)
    }
    assert tried == rules
    assert len(CASES) >= 25


def test_kernels_are_read_off_a_library(tmp_path: Path) -> None:
    """The compute capabilities of fat binaries, whatever stands around them; damage is no crash."""
    provider(tmp_path, "3.11", "cuda", [75, 87])
    path = next(tmp_path.rglob("*providers_cuda.so"))
    assert architectures(path) == (frozenset({75, 87}), frozenset())
    whole = path.read_bytes()
    for length in range(0, len(whole), 7):
        path.write_bytes(whole[:length])
        assert architectures(path)[0] <= {75, 87}


def test_each_device_gets_its_own_install_line(tmp_path: Path) -> None:
    """What to type differs by board, GPU, driver and Python."""
    lines = {
        make.__name__: install_line(examine(make(tmp_path / make.__name__)))
        for make in (
            devices.jetpack6,
            devices.jetpack7,
            devices.raspberry_pi_5,
            devices.bare_x86,
            devices.cuda_server,
        )
    }
    assert len(set(lines.values())) == len(lines)
    assert JETSON in lines["jetpack6"]


def test_the_command_prints_what_is_wrong(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`doctor --root` shows the captured device, what is wrong with it, and what to type."""
    _pypi_wheel_on_jetson(devices.jetpack6(tmp_path))
    assert main(["doctor", "--root", str(tmp_path)]) == 0
    shown = capsys.readouterr().out
    assert "jetpack: 6 (R36)" in shown
    assert "fault: the installed onnxruntime has kernels for sm_89, sm_90" in shown
    assert f"install: pip install 'numpy<2' onnxruntime-gpu==1.23.0 --index-url {JETSON}" in shown
    assert main(["doctor", "--root", str(tmp_path), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["findings"][0]["level"] == "fault"
