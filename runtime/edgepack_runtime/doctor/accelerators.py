"""Rules about NVIDIA's GPUs and libraries, and Intel's accelerators."""

from __future__ import annotations

from edgepack_runtime.doctor.advice import DRIVERS, PYPI_LEAST, capability, install_line
from edgepack_runtime.doctor.facts import System
from edgepack_runtime.doctor.software import Found, engine
from edgepack_runtime.fit import older

_SLOW_HALF = 61  # Pascal's consumer chips, and all before them


def _gpu_unused(system: System) -> Found:
    if system.gpu is None or "cuda" in system.providers or not engine(system):
        return None
    if "gpu" not in install_line(system) and not system.jetson:
        return None  # there is nothing to install for this GPU
    return (
        "limit",
        f"{system.gpu.name} is not used: the installed onnxruntime is for CPUs only",
        f"pip uninstall -y onnxruntime; {install_line(system)}",
    )


def _gpu_build_without_gpu(system: System) -> Found:
    if system.gpu is not None or "onnxruntime-gpu" not in system.packages:
        return None
    return (
        "limit",
        "onnxruntime-gpu is installed, but no NVIDIA GPU is visible",
        "install the driver, or: pip uninstall -y onnxruntime-gpu; pip install onnxruntime",
    )


def _no_kernels_for_gpu(system: System) -> Found:
    """Detect a wheel without kernels for the GPU.

    A cubin runs on later minor versions of its major version, but on a Jetson only on its own
    version (CUDA C++ Programming Guide, binary compatibility).  PTX runs on all later versions.
    """
    gpu, sm = system.gpu, capability(system)
    if gpu is None or "cuda" not in system.providers or not sm:
        return None
    library = system.providers["cuda"]
    near = () if system.jetson else (n for n in library.cubins if n // 10 == sm // 10 and n <= sm)
    if sm in library.cubins or any(near) or any(n <= sm for n in library.ptx):
        return None
    has = ", ".join(f"sm_{n}" for n in sorted(library.cubins))
    return (
        "fault",
        f"the installed onnxruntime has kernels for {has or 'no GPU'}, but {gpu.name} "
        f"needs sm_{sm}: nothing runs on the GPU",
        f"pip uninstall -y onnxruntime-gpu; {install_line(system)}",
    )


def _gpu_too_old(system: System) -> Found:
    gpu, sm = system.gpu, capability(system)
    if gpu is None or not sm or sm >= PYPI_LEAST or system.jetson:
        return None
    slow = "it has no fast half precision (FP16), and " if sm <= _SLOW_HALF else ""
    return (
        "limit",
        f"{gpu.name} (sm_{sm}): {slow}no wheel has kernels for it",
        "pip install onnxruntime, and run on the CPU",
    )


def _old_driver(system: System) -> Found:
    cuda = _needs(system, "cuda", "cudart")
    least = DRIVERS.get(cuda, "0")
    if not cuda or not system.driver or not older(system.driver, least):
        return None
    return (
        "fault",
        f"the NVIDIA driver is {system.driver}; CUDA {cuda} needs {least}",
        f"upgrade the driver to {least} or newer, or: {install_line(system)}",
    )


def _cuda_missing(system: System) -> Found:
    wanted = _needs(system, "cuda", "cudart")
    if not wanted or system.libraries.get("cudart"):
        return None
    return (
        "fault",
        f"the CUDA {wanted} runtime (libcudart.so.{wanted}) is not installed",
        "install JetPack's CUDA: apt install nvidia-cuda"
        if system.jetson
        else "pip install 'onnxruntime-gpu[cuda,cudnn]'",
    )


def _cuda_of_another_major(system: System) -> Found:
    wanted = _needs(system, "cuda", "cudart")
    found = system.libraries.get("cudart", frozenset())
    if not wanted or not found or wanted in found:
        return None
    return (
        "fault",
        f"onnxruntime-gpu is built for CUDA {wanted}, but the installed one is CUDA "
        f"{' and '.join(sorted(found))}",
        f"pip install 'onnxruntime-gpu[cuda,cudnn]' brings CUDA {wanted}; "
        "onnxruntime-gpu==1.26.0 is the last for CUDA 12",
    )


def _cudnn_missing(system: System) -> Found:
    """Since 1.31 the CUDA provider loads cuDNN on demand; TensorRT's provider is linked to it."""
    by_cuda, by_tensorrt = (_needs(system, name, "cudnn") for name in ("cuda", "tensorrt"))
    wanted = by_cuda or by_tensorrt
    if not wanted or wanted in system.libraries.get("cudnn", frozenset()):
        return None
    cuda = _needs(system, "cuda", "cudart") or "13"
    level, who = ("fault", "the CUDA") if by_cuda else ("limit", "only the TensorRT")
    return (
        level,
        f"cuDNN {wanted} (libcudnn.so.{wanted}) is missing; {who} variants need it",
        f"pip install nvidia-cudnn-cu{cuda}, or apt install cudnn9-cuda-{cuda}",
    )


def _tensorrt_missing(system: System) -> Found:
    wanted = _needs(system, "tensorrt", "nvinfer")
    if not wanted or system.libraries.get("nvinfer"):
        return None
    return (
        "limit",
        f"TensorRT {wanted} (libnvinfer.so.{wanted}) is not installed: TensorRT variants "
        "cannot run, but CUDA variants can",
        f"apt install libnvinfer{wanted}",
    )


def _tensorrt_of_another_major(system: System) -> Found:
    wanted = _needs(system, "tensorrt", "nvinfer")
    found = system.libraries.get("nvinfer", frozenset())
    if not wanted or not found or wanted in found:
        return None
    return (
        "limit",
        f"onnxruntime is built for TensorRT {wanted}, but the installed one is TensorRT "
        f"{' and '.join(sorted(found))}",
        f"apt install libnvinfer{wanted}",
    )


def _old_jetpack(system: System) -> Found:
    if system.device.jetpack not in ("4", "5"):
        return None
    return (
        "fault",
        f"JetPack {system.device.jetpack} has Python 3.8, CUDA 11 or older, and "
        "TensorRT 8: nothing runs there",
        "flash JetPack 6 (any Orin); use a Xavier as a cpu-arm64 with a newer Python",
    )


def _unknown_jetson(system: System) -> Found:
    if not system.jetson or system.device.jetpack:
        return None
    return (
        "note",
        f"Jetson Linux {system.jetson} is not a release that this runtime knows",
        "upgrade edgepack-runtime",
    )


def _intel_gpu_without_runtime(system: System) -> Found:
    if "openvino" not in system.packages or system.gpu:
        return None
    if "intel-gpu" not in system.devices or "opencl-intel" in system.devices:
        return None
    return (
        "limit",
        "the Intel GPU has no compute runtime: OpenVINO does not see it",
        "apt install intel-opencl-icd; usermod -aG render $USER",
    )


def _intel_npu_without_driver(system: System) -> Found:
    if "openvino" not in system.packages or "Core(TM) Ultra" not in system.device.cpu:
        return None
    if {"intel-npu", "ze-intel-npu"} <= system.devices:
        return None
    what = "device file /dev/accel/accel0" if "ze-intel-npu" in system.devices else "user driver"
    return (
        "limit",
        f"the NPU's {what} is missing: OpenVINO does not see it",
        "install linux-npu-driver, on kernel 6.6 or newer",
    )


def _needs(system: System, provider: str, library: str) -> str:
    """Return the major version of a library that a provider needs; empty without a GPU."""
    if system.gpu is None or provider not in system.providers:
        return ""
    return system.providers[provider].needs.get(library, "")


RULES = (
    _gpu_unused,
    _gpu_build_without_gpu,
    _no_kernels_for_gpu,
    _gpu_too_old,
    _old_driver,
    _cuda_missing,
    _cuda_of_another_major,
    _cudnn_missing,
    _tensorrt_missing,
    _tensorrt_of_another_major,
    _old_jetpack,
    _unknown_jetson,
    _intel_gpu_without_runtime,
    _intel_npu_without_driver,
)
