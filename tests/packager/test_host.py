"""What the host lacks is told apart from a wrong input: exit code 8, and the remedy."""

from __future__ import annotations

import errno
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import handmade
import pytest
from click.testing import CliRunner
from huggingface_hub.errors import LocalEntryNotFoundError

from edgepack.cli import main
from edgepack.compress import launch, training
from edgepack.compress.schedule import Schedule
from edgepack.data import formats
from edgepack.model.fetch import find_folder
from edgepack.stages.cache import Stage, StageCache
from edgepack.stages.helper import StageError, run_stage
from edgepack.stages.workers import Schedule as Turns
from edgepack_runtime import DeviceError, HostError, InputError, load
from edgepack_runtime.cli import main as runtime
from edgepack_runtime.errors import EdgepackError, LinkError


@dataclass(frozen=True)
class _Nothing:
    """The settings of a stage that has none."""


def _stage(failure: BaseException) -> Stage:
    def run(*_: object) -> None:
        raise failure

    return Stage("quantize", run, _Nothing(), {})


def _without(monkeypatch: pytest.MonkeyPatch, *packages: str) -> None:
    """Let these packages be missing."""
    for name in packages:
        monkeypatch.setitem(sys.modules, name, None)


def test_a_missing_package_of_the_data_is_the_hosts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Parquet and a hub's data set need an extra; the error names it and how to install it."""
    path = tmp_path / "d.parquet"
    path.write_bytes(b"")
    _without(monkeypatch, "pyarrow", "datasets")
    for rows in (
        formats.read_file(path, formats.Layout()),
        formats.read_hub("datasets:org/name"),
    ):
        with pytest.raises(HostError, match=r"extra `data`: pip install 'edgepack\[data\]'"):
            next(rows)


def test_a_missing_package_of_a_command_ends_it_with_8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """`edgepack sign` without its library and `edgepack-runtime update` without python-tuf."""
    bundle = handmade.bundle(tmp_path / "small.epk")
    key = tmp_path / "key"
    key.write_text("")
    _without(monkeypatch, "model_signing", "edgepack_runtime.update.updater")
    done = CliRunner().invoke(main, ["sign", str(bundle), "--key", str(key)])
    assert (done.exit_code, "pip install 'edgepack[signing]'" in done.output) == (8, True)
    place = [
        "--store",
        str(tmp_path / "store"),
        "--channel",
        str(tmp_path),
        "--name",
        "small/board",
    ]
    assert runtime(["update", *place, "--root", str(tmp_path / "root.json")]) == 8
    assert "pip install 'edgepack-runtime[update]'" in capsys.readouterr().err


def test_a_missing_tracker_is_the_hosts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A training that should report to a tracker says which extra brings it."""
    monkeypatch.setattr(training, "find_spec", lambda _: None)
    schedule = Schedule(report_to=("wandb",))
    course: Any = SimpleNamespace(batch_size=8)
    with pytest.raises(HostError, match=r"'wandb'.*edgepack\[tracking\]"):
        training._arguments(schedule, course, tmp_path / "checkpoints", judged=False)


def test_an_engine_that_is_not_installed_stays_the_devices(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A bundle whose engine is missing does not run on this device, as before: exit code 4."""
    bundle = handmade.bundle(tmp_path / "b.epk", variants=[{"engine": "openvino"}])
    monkeypatch.setattr("edgepack_runtime.fit.find_spec", lambda _: None)
    monkeypatch.setattr("edgepack_runtime.engines.find", _missing)
    with pytest.raises(DeviceError, match="openvino is not installed"):
        load(bundle)


def _missing(name: str) -> None:
    raise ImportError(f"no package {name}")


@pytest.mark.parametrize(
    "failure",
    [
        MemoryError(),
        RuntimeError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"),
        Exception("Failed to allocate memory for requested buffer of size 9"),
        RuntimeError("std::bad_alloc"),
    ],
)
def test_memory_that_ran_out_is_the_hosts(failure: Exception, tmp_path: Path) -> None:
    """However a library says it; and it ends the build, whatever the stage is for."""
    stage = _stage(failure)
    with pytest.raises(HostError, match=r"'quantize' ran out of memory; try --jobs 1") as caught:
        run_stage(stage, {}, StageCache(tmp_path), tmp_path / "log")
    turns = Turns([stage], {}, {stage.key})
    assert turns.take(here=True) is stage
    turns.fail(stage, caught.value)
    with pytest.raises(HostError):
        turns.wait()


def test_a_library_that_speaks_of_memory_did_not_run_out_of_it(tmp_path: Path) -> None:
    """What a library cannot do leaves a variant out, in whatever words it says so."""
    stage = _stage(RuntimeError("no such memory layout"))
    with pytest.raises(StageError, match="no such memory layout"):
        run_stage(stage, {}, StageCache(tmp_path), tmp_path / "log")


def test_a_training_that_ran_out_of_memory_says_what_to_lower(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows and settings are right; a smaller batch or another host helps."""
    course = SimpleNamespace(batch_size=64)
    monkeypatch.setattr(training, "_course", lambda *_: (course, {}))

    def train(*_: object) -> None:
        raise RuntimeError("CUDA out of memory. Tried to allocate 2 GiB")

    monkeypatch.setattr(training, "_train", train)
    job: Any = None
    with pytest.raises(HostError, match="at batch_size 64; lower"):
        training.fit(job, Schedule(), tmp_path)


@pytest.mark.parametrize("kind", [InputError, HostError, EdgepackError])
def test_a_training_of_several_processes_fails_with_their_family(
    kind: type[EdgepackError], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was wrong in a process that torchrun started is the same error here."""

    def run(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        said = {"message": "what it was", "exit_code": kind.exit_code}
        (tmp_path / "failure.json").write_text(json.dumps(said))
        return subprocess.CompletedProcess(command, 1, "", "")

    monkeypatch.setattr(subprocess, "run", run)
    settings = SimpleNamespace(schedule=Schedule(processes=2))
    with pytest.raises(EdgepackError, match="what it was") as caught:
        launch.launch("edgepack.compress.finetune", settings, {}, tmp_path)
    assert type(caught.value) is kind


def test_a_full_disk_is_the_hosts(tmp_path: Path) -> None:
    """The stage cache says so, and how much room is left."""
    stage = _stage(OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(HostError, match=r"the disk is full: .* finished stages are not lost"):
        run_stage(stage, {}, StageCache(tmp_path), tmp_path / "log")


@pytest.mark.parametrize(
    ("failure", "family", "words"),
    [
        (ConnectionError("Couldn't reach the hub"), LinkError, "Try again"),
        (OSError("timed out\nsecond line"), LinkError, "timed out. Try again"),
        (OSError(errno.ENOSPC, "No space left on device"), HostError, "Free some space"),
        (FileNotFoundError("no such data set"), InputError, "A local file works"),
        (ValueError("unknown split 'tran'"), InputError, "unknown split 'tran'"),
    ],
)
def test_a_data_set_that_does_not_come_says_whose_fault_it_is(
    failure: Exception, family: type[EdgepackError], words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A link that failed is worth another try, a full disk is the host's, a name the user's."""

    def fail(*_: object, **__: object) -> None:
        raise failure

    datasets = pytest.importorskip("datasets")
    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(datasets, "load_dataset", fail)
    with pytest.raises(EdgepackError, match=words) as caught:
        list(formats.read_hub("datasets:org/name"))
    assert type(caught.value) is family
    assert "second line" not in str(caught.value)


@pytest.mark.parametrize(
    ("failure", "family"),
    [
        (OSError("timed out"), LinkError),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), HostError),
        (LocalEntryNotFoundError("cannot connect"), LinkError),
    ],
)
def test_a_model_that_does_not_come_says_whose_fault_it_is(
    failure: Exception, family: type[EdgepackError], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A hub that fails or cannot be reached is worth another try, a full disk is the host's."""

    def fail(*_: object, **__: object) -> None:
        raise failure

    monkeypatch.setattr("huggingface_hub.snapshot_download", fail)
    monkeypatch.delenv("HF_HUB_OFFLINE")
    with pytest.raises(family, match="model org/name"):
        find_folder("org/name")


def test_what_the_hub_may_not_be_asked_for_is_a_wrong_input(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Where the user forbade the network, trying again does not help."""
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for call in (
        lambda: find_folder("nobody/nothing-at-all"),
        lambda: list(formats.read_hub("datasets:nobody/nothing-at-all")),
    ):
        with pytest.raises(InputError, match="works without a network"):
            call()
