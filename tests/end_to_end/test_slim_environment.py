"""A virtual environment with only the runtime and one engine runs every bundle."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Get = Callable[..., Path]
ROOT = Path(__file__).parents[2]
KINDS = ["bert-intent", "bert-ner", "roberta-ner", "xlm-roberta", "albert", "sentence"]
SCRIPT = """
import json, sys
import edgepack_runtime as er
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.model.selftest import selftest
found = {}
for path in sys.argv[1:]:
    bundle = Bundle.open(path)
    model = er.load(bundle, any_device=True)
    answer = model("turn on the lights in New York")
    json.dumps(answer)
    found[path] = [model.variant.engine, selftest(bundle, model).agreement, bool(answer)]
bad = {"torch", "transformers", "optimum", "onnx", "huggingface_hub"} & set(sys.modules)
assert not bad, bad
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The interpreter of an environment made by the README's line for devices."""
    folder = tmp_path_factory.mktemp("slim") / "venv"
    subprocess.run([sys.executable, "-m", "venv", str(folder)], check=True)
    pip = [str(folder / "bin/pip"), "install", "-q", "-c", str(ROOT / "constraints.txt")]
    subprocess.run([*pip, f"{ROOT / 'runtime'}[onnxruntime]"], check=True)
    return folder / "bin/python"


def test_every_bundle_runs_in_the_slim_environment(python: Path, bundle: Get) -> None:
    """Each architecture, for each target, loads, answers and passes its self-test there."""
    paths = [bundle(kind, target) for kind in KINDS for target in ("cpu-x86-64", "jetson-orin")]
    paths += [bundle("bert-ner", "cpu-arm64"), bundle("bert-ner", precision="float32")]
    done = subprocess.run(
        [str(python), "-c", SCRIPT, *map(str, paths)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert len(found) == len(paths)
    assert all(engine == "onnxruntime" and answered for engine, _, answered in found.values())


def test_the_device_has_none_of_the_build_stack(python: Path) -> None:
    """The device line installs the runtime, numpy, tokenizers, an engine and their needs."""
    done = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=json"], capture_output=True, check=True
    )
    names = {item["name"].lower() for item in json.loads(done.stdout)}
    assert not names & {"torch", "transformers", "optimum", "onnx", "edgepack", "nncf", "openvino"}


def test_the_command_line_works_there(python: Path, bundle: Get, tmp_path: Path) -> None:
    """run, inspect, selftest, tune and doctor of edgepack-runtime, and their exit codes."""
    path = str(bundle("bert-ner"))

    def call(*args: str, code: int = 0, text: bytes = b"") -> str:
        program = [str(python), "-m", "edgepack_runtime", *args]
        done = subprocess.run(program, input=text, capture_output=True, check=False)
        assert done.returncode == code, done.stderr.decode()
        return (done.stdout if code == 0 else done.stderr).decode()

    assert json.loads(call("run", path, "hello", "-o", "ignore_labels=[]"))
    lines = call("run", path, text="one\nzwölf 😀\n\n".encode()).splitlines()
    assert len(lines) == 3
    assert json.loads(call("inspect", path, "--json"))["format"] == 1
    assert json.loads(call("selftest", path, "--json"))["agreement"] > 0.5
    assert json.loads(call("doctor", path, "--json"))["variants"]["openvino-int8"] != "fits"
    tuned = json.loads(call("tune", path, "--json"))
    assert tuned["fastest"] in tuned["latency_ms"]
    assert "no bundle at" in call("run", "missing.epk", "x", code=2)
    assert "not UTF-8 at byte 1" in call("run", path, text=b"a\xff\n", code=2)
    assert "NAME=VALUE" in call("run", path, "x", "-o", "nonsense", code=2)
    assert "is not installed" in call("run", path, "x", "--variant", "openvino-int8", code=4)
    assert "built for jetson-orin" in call(
        "run", str(bundle("bert-ner", "jetson-orin")), "x", code=4
    )
    damaged = tmp_path / "damaged.epk"
    damaged.write_bytes(Path(path).read_bytes()[:5000])
    assert "truncated" in call("selftest", str(damaged), code=5)


def test_updates_need_three_pure_packages_more(tmp_path: Path) -> None:
    """`edgepack-runtime[update]` brings tuf and what it stands on, and nothing to compile."""

    def planned(what: str) -> dict[str, str]:
        report = tmp_path / "report.json"
        subprocess.run(
            [
                sys.executable,
                "-m",
                "pip",
                "install",
                "-q",
                "--dry-run",
                "--ignore-installed",
                "-c",
                str(ROOT / "constraints.txt"),
                "--report",
                str(report),
                what,
            ],
            check=True,
        )
        items = json.loads(report.read_text())["install"]
        return {item["metadata"]["name"]: item["download_info"]["url"] for item in items}

    plain, update = planned(str(ROOT / "runtime")), planned(f"{ROOT / 'runtime'}[update]")
    more = set(update) - set(plain)
    assert more == {"tuf", "securesystemslib", "urllib3"}
    assert all(update[name].endswith("py3-none-any.whl") for name in more)
