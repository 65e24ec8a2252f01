"""A build from the outside: reproducible, resumable after any kill, shared between targets."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack.stages.cache import sweep
from edgepack_runtime import Bundle

Get = Callable[..., Path]
TARGETS = ["-t", "cpu-x86-64", "-t", "cpu-arm64", "-t", "jetson-orin"]


def _environment(cache: Path) -> dict[str, str]:
    return {**os.environ, "EDGEPACK_CACHE": str(cache), "HF_HUB_OFFLINE": "1"}


def _command(model: Path, out: Path, *more: str) -> list[str]:
    return [sys.executable, "-m", "edgepack", "build", str(model), "-o", str(out), *more]


def _digests(out: Path) -> dict[str, str]:
    return {path.name: Bundle.open(path).digest for path in sorted(out.glob("*.epk"))}


@pytest.fixture(scope="module")
def built(model: Get, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An undisturbed build for three targets, beside its cache."""
    root = tmp_path_factory.mktemp("undisturbed")
    trap = root / "trap"
    trap.mkdir()
    (trap / "openvino_telemetry.py").write_text(
        "import pathlib; pathlib.Path(__file__).with_name('sent').touch()"
    )
    command = _command(model("bert-ner"), root / "dist", *TARGETS, "--json")
    env = _environment(root / "cache")
    env["PYTHONPATH"] = os.pathsep.join([str(trap), env.get("PYTHONPATH", "")]).rstrip(os.pathsep)
    done = subprocess.run(command, env=env, capture_output=True, text=True, check=True)
    (root / "report.json").write_text(done.stdout)
    return root


def test_the_report_says_what_was_built(built: Path) -> None:
    """--json prints nothing else, and holds size, agreement and latency of every variant."""
    report = json.loads((built / "report.json").read_text())
    assert [item["target"] for item in report] == ["cpu-x86-64", "cpu-arm64", "jetson-orin"]
    for item in report:
        assert Bundle.open(item["path"]).digest == item["digest"]
        assert item["baseline"]["bytes"] > 0
        for variant in item["variants"]:
            assert variant["bytes"] > 0
            assert variant["agreement"] > 0.8
    timed = [bool(v["latency_ms"]) for v in report[0]["variants"]]
    assert any(timed) == (os.uname().machine == "x86_64")


def test_no_library_tells_its_makers(built: Path) -> None:
    """NNCF and OpenVINO send usage data through this package; a build never imports it."""
    assert not (built / "trap/sent").exists()


def test_a_fresh_build_is_the_same_bytes(built: Path, model: Get, tmp_path: Path) -> None:
    """Another cache, another order of targets, stages side by side: equal byte for byte."""
    reverse = ["-t", "jetson-orin", "-t", "cpu-arm64", "-t", "cpu-x86-64", "--jobs", "2"]
    command = _command(model("bert-ner"), tmp_path / "dist", *reverse, "--json")
    subprocess.run(command, env=_environment(tmp_path / "cache"), capture_output=True, check=True)
    for path in sorted((built / "dist").glob("*.epk")):
        assert path.read_bytes() == (tmp_path / "dist" / path.name).read_bytes(), path.name


def test_an_unchanged_rebuild_is_the_same_and_runs_no_stage(
    built: Path, model: Get, tmp_path: Path
) -> None:
    """With the cache, no stage runs again, whatever became of the output."""
    dist = tmp_path / "dist"
    shutil.copytree(built / "dist", dist)
    victim = min(dist.glob("*.epk"))
    victim.write_bytes(victim.read_bytes()[:-2000])
    command = _command(model("bert-ner"), dist, *TARGETS)
    done = subprocess.run(
        command, env=_environment(built / "cache"), capture_output=True, text=True, check=True
    )
    stages = [line for line in done.stderr.splitlines() if "✓" in line]
    ran = [line for line in stages if "cached" not in line and "pack" not in line]
    assert all("measure" in line for line in ran), ran
    assert _digests(dist) == _digests(built / "dist")


def test_a_build_killed_at_any_moment_resumes(built: Path, model: Get, tmp_path: Path) -> None:
    """Kill -9 again and again, at each new stage: the build ends with the same digests.

    The helper dies with the build, and what it was at is begun anew.
    """
    env = _environment(tmp_path / "cache")
    command = _command(model("bert-ner"), tmp_path / "dist", *TARGETS, "--jobs", "2", "--json")
    kills = 0
    for _ in range(40):
        process = subprocess.Popen(
            command, env=env, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        if _wait_for_progress(process, tmp_path / "cache" / "stages"):
            break
        process.send_signal(signal.SIGKILL)
        process.wait()
        kills += 1
        assert not list((tmp_path / "dist").glob("*.epk")) or _whole(tmp_path / "dist")
    else:
        pytest.fail("the build never ended")
    assert kills >= 2
    assert _digests(tmp_path / "dist") == _digests(built / "dist")
    sweep(tmp_path / "cache" / "stages")  # as the next build does: a killed one's helper was slow
    assert not list((tmp_path / "cache" / "stages").glob(".*"))


def _wait_for_progress(process: subprocess.Popen[bytes], stages: Path) -> bool:
    """Return False in the middle of a stage, some new stages later; True when the build ended."""
    finished = len(list(stages.glob("[0-9a-f]*"))) if stages.exists() else 0
    while process.poll() is None:
        now = list(stages.glob("[0-9a-f]*")) if stages.exists() else []
        if len(now) > finished + 3 and list(stages.glob(".*")):
            return False
        time.sleep(0.005)
    assert process.returncode == 0
    return True


def _whole(dist: Path) -> bool:
    for path in dist.glob("*.epk"):
        Bundle.open(path).verify()
    return True


def test_a_read_only_cache_is_one_clear_error(model: Get, tmp_path: Path) -> None:
    """A cache folder that cannot be made is exit 1 and names the variable to set."""
    (tmp_path / "file").write_text("in the way")
    command = _command(model("bert-ner"), tmp_path / "dist", "-t", "cpu-arm64", "--json")
    done = subprocess.run(
        command,
        env=_environment(tmp_path / "file/cache"),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: cannot write the stage cache .*; set EDGEPACK_CACHE\n", done.stderr
    )


def test_a_full_disk_leaves_the_output_as_it_was(built: Path, model: Get, tmp_path: Path) -> None:
    """No space for a stage: exit 8, one clear error, and the old bundle is still there."""
    dist = tmp_path / "dist"
    dist.mkdir()
    old = min((built / "dist").glob("*.epk"))
    shutil.copyfile(old, dist / old.name)
    small = tmp_path / "small-disk"
    small.mkdir()
    script = 'mount -t tmpfs -o size=300k none "$0" && exec "$@"'
    namespace = ["unshare", "-rm", "bash", "-c", script, str(small)]
    if subprocess.run([*namespace, "true"], capture_output=True, check=False).returncode:
        pytest.skip("cannot mount a small disk here")
    command = [*namespace, *_command(model("bert-ner"), dist, *TARGETS, "--json")]
    done = subprocess.run(
        command, env=_environment(small), capture_output=True, text=True, check=False
    )
    assert done.returncode == 8, done.stderr
    errors = [line for line in done.stderr.splitlines() if not re.match(r"\[\d+/\d+\] ", line)]
    assert len(errors) == 1
    assert errors[0].startswith("error: the disk is full: 0 MB left ")
    assert [path.name for path in dist.iterdir()] == [old.name]
    assert (dist / old.name).read_bytes() == old.read_bytes()


def test_targets_share_their_stages(built: Path) -> None:
    """The dynamic int8 form is one blob in the bundles of all three targets."""
    names = ["bert-ner-cpu-x86-64.epk", "bert-ner-cpu-arm64.epk", "bert-ner-jetson-orin.epk"]
    blobs = {
        Bundle.open(built / "dist" / n).manifest.file("onnxruntime-int8/model.onnx").sha256
        for n in names
    }
    assert len(blobs) == 1
    jetson = Bundle.open(built / "dist" / names[2]).manifest
    assert (
        jetson.file("tensorrt-fp16/model.onnx").sha256 == jetson.file("cuda-fp16/model.onnx").sha256
    )


def test_a_folder_layout_is_the_same_bundle(built: Path, model: Get, tmp_path: Path) -> None:
    """--layout folder holds the same blobs under the same digest, and replaces an older one."""
    command = _command(
        model("bert-ner"), tmp_path, "-t", "cpu-arm64", "--layout", "folder", "--json"
    )
    for _ in range(2):
        subprocess.run(command, env=_environment(built / "cache"), capture_output=True, check=True)
    folder = Bundle.open(tmp_path / "bert-ner-cpu-arm64")
    assert folder.digest == Bundle.open(built / "dist" / "bert-ner-cpu-arm64.epk").digest
    assert folder.verify() > 0
    assert [path.name for path in tmp_path.iterdir()] == ["bert-ner-cpu-arm64"]
