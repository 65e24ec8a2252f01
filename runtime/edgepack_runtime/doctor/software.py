"""Rules about the system, Python, the engine's packages and the CPU."""

from __future__ import annotations

from edgepack_runtime.doctor.advice import install_line
from edgepack_runtime.doctor.facts import System
from edgepack_runtime.fit import older

Found = tuple[str, str, str] | None
_BUILDS = ("onnxruntime", "onnxruntime-gpu", "onnxruntime-openvino", "onnxruntime-directml")
_BROKEN = ("1.20.0", "1.24.0", "1.24.1")  # qdrant/fastembed's list
_LOW_DISK_MB, _LOW_MEMORY_MB = 300, 512


def engine(system: System) -> str:
    """Return the version of the installed ONNX Runtime, whichever build; empty if there is none."""
    return next((system.packages[name] for name in _BUILDS if name in system.packages), "")


def _system_of_32_bits(system: System) -> Found:
    if system.device.arch != "armv7l":
        return None
    return (
        "fault",
        "this is a 32-bit system; no engine has wheels for it",
        "install the 64-bit image of the same system",
    )


def _no_glibc(system: System) -> Found:
    if system.device.glibc or not system.device.arch:
        return None
    return (
        "fault",
        "no glibc was found (Alpine and other musl systems); engines need it",
        "use a system or base image with glibc, for instance debian:12-slim",
    )


def _old_glibc(system: System) -> Found:
    if not system.device.glibc or not older(system.device.glibc, "2.28"):
        return None
    return (
        "fault",
        f"glibc is {system.device.glibc}; the wheels of onnxruntime need 2.28",
        "upgrade to Debian 10, Ubuntu 20.04 or newer",
    )


def _old_python(system: System) -> Found:
    if not system.python or not older(system.python, "3.10"):
        return None
    return (
        "fault",
        f"Python is {system.python}; the runtime needs 3.10",
        "install a newer one beside it, for instance with uv python install 3.11",
    )


def _python_3_10(system: System) -> Found:
    if system.python != "3.10" and not system.python.startswith("3.10."):
        return None
    return (
        "note",
        "Python is 3.10, for which the last onnxruntime on PyPI is 1.23.2",
        install_line(system),
    )


def _managed_python(system: System) -> Found:
    if not system.managed or "edgepack-runtime" in system.packages:
        return None
    return (
        "note",
        "the system's Python refuses pip install (PEP 668)",
        "python3 -m venv ~/edgepack && . ~/edgepack/bin/activate",
    )


def _low_disk(system: System) -> Found:
    if system.disk_mb is None or system.disk_mb >= _LOW_DISK_MB:
        return None
    return (
        "fault",
        f"{system.disk_mb} MB of disk are free; an engine and a bundle take "
        f"{_LOW_DISK_MB} MB or more",
        "free some space, or move $EDGEPACK_CACHE to another disk",
    )


def _low_memory(system: System) -> Found:
    if not system.memory_mb or system.memory_mb >= _LOW_MEMORY_MB:
        return None
    return (
        "limit",
        f"the device has {system.memory_mb} MB of memory; a small int8 model takes 150 MB",
        "build with budget.memory_mb, or trim the vocabulary",
    )


# The engine.


def _no_engine(system: System) -> Found:
    if engine(system) or "openvino" in system.packages:
        return None
    return "fault", "no engine is installed", install_line(system)


def _two_builds(system: System) -> Found:
    both = [name for name in _BUILDS if name in system.packages]
    if len(both) < 2:
        return None
    return (
        "fault",
        f"{' and '.join(both)} are both installed; they overwrite each other's files",
        f"pip uninstall -y {' '.join(both)}; {install_line(system)}",
    )


def _old_engine(system: System) -> Found:
    version = engine(system)
    if not version or not older(version, "1.20"):
        return None
    return "fault", f"onnxruntime is {version}; bundles need 1.20", install_line(system)


def _broken_engine(system: System) -> Found:
    if engine(system) not in _BROKEN:
        return None
    return "fault", f"onnxruntime {engine(system)} is a broken release", install_line(system)


def _numpy_2_with_a_numpy_1_build(system: System) -> Found:
    """Jetson's 1.23.0 is built against numpy 1 (onnxruntime#27562)."""
    version = system.packages.get("onnxruntime-gpu", "")
    numpy = system.packages.get("numpy", "")
    if not system.jetson or not version or older("1.23.2", version) or older(numpy or "0", "2"):
        return None
    return (
        "fault",
        f"numpy is {numpy}, but onnxruntime-gpu {version} for Jetson is built for "
        "numpy 1: importing it crashes",
        "pip install 'numpy<2'",
    )


def _missing_needs(system: System) -> Found:
    lacking = [name for name in ("numpy", "tokenizers") if name not in system.packages]
    if not lacking or not (engine(system) or "openvino" in system.packages):
        return None
    names = " and ".join(lacking)
    return (
        "fault",
        f"packages that the runtime needs are missing: {names}",
        f"pip install {' '.join(lacking)}",
    )


def _openvino_on_arm(system: System) -> Found:
    """Intel says so in openvino_build_deploy#440."""
    if system.device.arch != "aarch64" or "openvino" not in system.packages:
        return None
    return (
        "note",
        "OpenVINO runs int8 models in fp16 on ARM, slower and with more memory",
        "pip uninstall openvino; " + install_line(system),
    )


# The CPU.


def _no_avx2(system: System) -> Found:
    if system.device.arch != "x86_64" or not system.device.isa or "avx2" in system.device.isa:
        return None
    return (
        "limit",
        "the CPU has no AVX2: int8 runs on slow kernels",
        "measure with edgepack-runtime tune before shipping",
    )


def _no_vnni(system: System) -> Found:
    isa = system.device.isa
    if system.device.arch != "x86_64" or "avx2" not in isa or isa & {"avx512_vnni", "avx_vnni"}:
        return None
    return (
        "note",
        "the CPU has no VNNI, where 8-bit weights saturate: the variant with 7-bit weights is used",
        "nothing to do",
    )


def _no_dot_product(system: System) -> Found:
    isa = system.device.isa
    if system.device.arch != "aarch64" or not isa or "asimddp" in isa:
        return None
    return (
        "note",
        "the CPU has no dot-product instructions (ARMv8.2): int8 gains less here",
        "nothing to do; a Raspberry Pi 5 has them",
    )


RULES = (
    _system_of_32_bits,
    _no_glibc,
    _old_glibc,
    _old_python,
    _python_3_10,
    _managed_python,
    _low_disk,
    _low_memory,
    _no_engine,
    _two_builds,
    _old_engine,
    _broken_engine,
    _numpy_2_with_a_numpy_1_build,
    _missing_needs,
    _openvino_on_arm,
    _no_avx2,
    _no_vnni,
    _no_dot_product,
)
