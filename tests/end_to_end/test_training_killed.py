"""A training that is killed goes on from its checkpoint, and its trackers work offline."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from edgepack_runtime import Bundle

Get = Callable[..., Path]
WORDS = {
    "lights": "turn on the lamp",
    "weather": "will it rain",
    "booking": "a table for two",
    "other": "tell me a joke",
}
RECIPE = """
[model]
source = "{model}"
name = "killed"

[data]
train = "train.tsv"

[distill]
layers = 1
epochs = 30
batch_size = 8
checkpoint_steps = 10
report_to = [{reporters}]

[build]
targets = ["cpu-arm64"]
"""


def _recipe(folder: Path, model: Path, reporters: str = "") -> Path:
    rows = [f"{text} {i}\t{label}" for i in range(24) for label, text in WORDS.items()]
    (folder / "train.tsv").write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    path = folder / "edgepack.toml"
    path.write_text(RECIPE.format(model=model, reporters=reporters))
    return path


def _start(recipe: Path, cache: Path, **extra: str) -> subprocess.Popen[bytes]:
    env = {**os.environ, "EDGEPACK_CACHE": str(cache), "OMP_NUM_THREADS": "1", **extra}
    command = [sys.executable, "-m", "edgepack", "build", str(recipe), "-o", str(cache / "dist")]
    return subprocess.Popen(
        command,
        env=env,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


@pytest.mark.slow
def test_a_training_killed_twice_gives_the_bundle_of_an_unbroken_one(
    model: Get, tmp_path: Path
) -> None:
    """Kill -9 in the middle of a training, again and again: the same digest in the end."""
    recipe = _recipe(tmp_path, model("bert-intent"))
    assert _start(recipe, tmp_path / "whole").wait(300) == 0
    broken, kills, seen = tmp_path / "broken", 0, 0
    while kills < 2:
        build = _start(recipe, broken)
        while build.poll() is None:
            found = [
                int(path.name.partition("-")[2])
                for path in broken.glob("stages/.*.resumes/**/checkpoint-*")
            ]
            if max(found, default=0) > seen:
                seen, kills = max(found), kills + 1
                os.killpg(build.pid, signal.SIGKILL)
                break
            time.sleep(0.01)
        build.wait(300)
        assert build.returncode == -signal.SIGKILL, "it ended before it could be killed"
    assert _start(recipe, broken).wait(300) == 0
    name = "dist/killed-cpu-arm64.epk"
    assert Bundle.open(broken / name).digest == Bundle.open(tmp_path / "whole" / name).digest


@pytest.mark.slow
def test_weights_and_biases_works_without_a_network(model: Get, tmp_path: Path) -> None:
    """Offline, the run is written beside the student, to be synchronised later."""
    pytest.importorskip("wandb", reason="needs the extra `tracking`")
    recipe = _recipe(tmp_path, model("bert-intent"), '"wandb", "tensorboard"')
    cache = tmp_path / "cache"
    assert _start(recipe, cache, WANDB_MODE="offline").wait(300) == 0
    runs = list(cache.glob("stages/*/logs/wandb/offline-run-*/run-*.wandb"))
    assert runs
    assert runs[0].stat().st_size > 1000
    assert list(cache.glob("stages/*/logs/**/events.out.tfevents.*"))
