"""Build time of a BERT-base shape, both engines in int8, against Optimum doing the same.

    python tests/benchmarks/build_time.py --work /tmp/bench

Optimum makes four artefacts one after the other: ONNX, ONNX int8, OpenVINO, OpenVINO int8.
The first three are its own command lines; the fourth is its `OVQuantizer` with the
same number of calibration texts, because its command line calibrates on hub data only.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from shapes import make_model

HERE = Path(__file__).parent
QUANTIZE = (
    "import sys; sys.path.insert(0, {here!r}); from pathlib import Path; import shapes; "
    "shapes._optimum_openvino(Path({model!r}), {task!r}, Path({out!r}))"
)


def timed(command: list[str], env: dict[str, str]) -> float:
    """Run a command quietly; return its seconds."""
    start = time.perf_counter()
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(command)}\n{done.stderr[-2000:]}")
    return time.perf_counter() - start


def optimum(model: Path, task: str, out: Path, env: dict[str, str]) -> dict[str, float]:
    """Time Optimum's four artefacts."""
    cli = str(Path(sys.executable).with_name("optimum-cli"))
    quantize = QUANTIZE.format(here=str(HERE), model=str(model), task=task, out=str(out / "ov8"))
    return {
        "ONNX": timed(
            [cli, "export", "onnx", "-m", str(model), "--task", task, str(out / "onnx")], env
        ),
        "ONNX int8": timed(
            [
                cli,
                "onnxruntime",
                "quantize",
                "--onnx_model",
                str(out / "onnx"),
                "--avx512_vnni",
                "--per_channel",
                "-o",
                str(out / "onnx8"),
            ],
            env,
        ),
        "OpenVINO": timed(
            [
                cli,
                "export",
                "openvino",
                "-m",
                str(model),
                "--task",
                task,
                "--weight-format",
                "fp32",
                str(out / "ov"),
            ],
            env,
        ),
        "OpenVINO int8": timed([sys.executable, "-c", quantize], env),
    }


def main() -> None:
    """Time both, then a second target, an unchanged rebuild, and print the shares."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    model, work = args.work / "bert-base" / "model", args.work / "build-time"
    task = make_model("bert-base", model)
    shutil.rmtree(work, ignore_errors=True)
    env = {**os.environ, "EDGEPACK_CACHE": str(work / "cache"), "HF_HUB_OFFLINE": "1"}
    build = [sys.executable, "-m", "edgepack", "build", str(model), "-o", str(work / "dist"), "-t"]
    found: dict[str, float] = {}
    found["edgepack, cpu-x86-64"] = timed([*build, "cpu-x86-64"], env)
    found["edgepack, unchanged rebuild"] = timed([*build, "cpu-x86-64"], env)
    two = [*build, "cpu-x86-64", "-t"]
    found["edgepack, both after cpu-arm64 was added"] = timed([*two, "cpu-arm64"], env)
    found["edgepack, both after jetson-orin was added"] = timed([*two, "jetson-orin"], env)
    parts = optimum(model, task, work / "optimum", env)
    found |= {f"Optimum, {name}": seconds for name, seconds in parts.items()}
    found["Optimum, all four"] = sum(parts.values())
    for name, seconds in found.items():
        share = seconds / found["edgepack, cpu-x86-64"]
        print(f"{name:<44} {seconds:7.1f} s  {share:6.1%} of edgepack's first build")
    if args.out:
        args.out.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
