"""The command that installs the right engine, and the facts about wheels that it depends on."""

from __future__ import annotations

from edgepack_runtime.doctor.facts import System
from edgepack_runtime.fit import older

PYPI_LEAST = 75  # the lowest sm of the GPU wheels on PyPI
_CUDA_13, _CUDA_12 = "580", "525"  # oldest driver branch (CUDA release notes)
DRIVERS = {"12": _CUDA_12, "13": _CUDA_13}
_JETPACK_6 = (
    "pip install 'numpy<2' onnxruntime-gpu==1.23.0 "
    "--index-url https://pypi.jetson-ai-lab.io/jp6/cu126"
)


def install_line(system: System) -> str:
    """Return the command that installs the engine that suits a device best."""
    if system.device.jetpack:
        if system.device.jetpack == "6":
            return _JETPACK_6
        return "jetson-containers build onnxruntime   # no wheel has kernels for this GPU"
    driver = system.driver or "0"
    if capability(system) >= PYPI_LEAST and system.device.arch == "x86_64":
        newest = "1.26.0" if older(driver, _CUDA_13) else "1.31.1"  # the last for CUDA 12
        if system.python and older(system.python, "3.11"):
            newest = "1.23.2"  # the last for Python 3.10
        if not older(driver, _CUDA_12):
            return f"pip install 'onnxruntime-gpu[cuda,cudnn]=={newest}'"
    if system.python and older(system.python, "3.11"):
        return "pip install 'edgepack-runtime[onnxruntime]' onnxruntime==1.23.2"
    if system.device.arch == "x86_64" and system.device.isa & {"avx512_vnni", "avx_vnni"}:
        return "pip install 'edgepack-runtime[onnxruntime,openvino]'"
    return "pip install 'edgepack-runtime[onnxruntime]'"


def capability(system: System) -> int:
    """Return the GPU's compute capability, such as 87; 0 if there is no GPU or it is unknown."""
    text = system.gpu.compute_capability if system.gpu else ""
    return int(text.replace(".", "")) if text else 0
