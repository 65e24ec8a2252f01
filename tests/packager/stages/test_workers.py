"""Stages side by side: who runs what and when, and what a helper's end looks like."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from threading import Thread

import pytest

from edgepack.data import texts as data
from edgepack.data.rows import Columns
from edgepack.export.sensitivity import NoSettings, rank
from edgepack.stages import workers
from edgepack.stages.cache import Source, Stage, StageCache, file_source
from edgepack.stages.helper import Helper, StageError, run_stage
from edgepack.stages.progress import Quiet
from edgepack.stages.workers import Folders, Schedule, Workers, fitting_jobs
from edgepack_runtime import EdgepackError, InputError
from edgepack_runtime.device.facts import probe


def _nothing(settings: NoSettings, inputs: Mapping[str, Path], out: Path) -> None:
    """Do nothing."""


def _stage(label: str, *needs: Stage, resumes: bool = False) -> Stage:
    inputs: dict[str, Stage | Source] = {need.label: need for need in needs}
    inputs["name"] = Source(Path(label), label)
    return Stage(label, _nothing, NoSettings(), inputs, resumes=resumes)


def test_a_stage_is_handed_out_when_its_inputs_are_there() -> None:
    """Two that need nothing run side by side; the third waits for both."""
    first, second = _stage("first"), _stage("second")
    last = _stage("last", first, second)
    folders: Folders = {}
    schedule = Schedule([first, second, last], folders)
    assert schedule.take(here=True) is first
    assert schedule.take(here=False) is second
    got: list[Stage | None] = []
    waiting = Thread(target=lambda: got.append(schedule.take(here=False)))
    waiting.start()
    schedule.finish(first, Path("1"))
    waiting.join(0.2)
    assert waiting.is_alive()
    schedule.finish(second, Path("2"))
    waiting.join(5)
    assert got == [last]
    assert schedule.inputs(last)["first"] == Path("1")
    schedule.finish(last, Path("3"))
    schedule.wait()
    assert schedule.take(here=True) is None
    assert list(folders.values()) == [Path("1"), Path("2"), Path("3")]


def test_training_has_the_machine_to_itself() -> None:
    """It is for the building process, runs beside nothing, and nothing runs beside it."""
    training, other, rest = _stage("training", resumes=True), _stage("other"), _stage("rest")
    schedule = Schedule([training, other, rest], {})
    assert schedule.take(here=False) is other
    got: list[Stage | None] = []
    here = Thread(target=lambda: got.append(schedule.take(here=True)))
    here.start()
    here.join(5)
    assert got == [rest]  # not the training, which comes first
    schedule.finish(rest, Path("rest"))
    schedule.finish(other, Path("other"))
    assert schedule.take(here=True) is training


def test_the_first_failure_ends_it() -> None:
    """Nothing more is handed out, and the reason is raised where the build waits."""
    first, second = _stage("first"), _stage("second")
    schedule = Schedule([first, second], {})
    schedule.take(here=True)
    schedule.fail(first, InputError("this"))
    schedule.fail(second, InputError("not that"))
    assert schedule.take(here=False) is None
    with pytest.raises(InputError, match="this"):
        schedule.wait()


@pytest.fixture
def texts(tmp_path: Path) -> Stage:
    """A real stage that takes no library's import."""
    rows = tmp_path / "rows.csv"
    rows.write_text("text,label\n" + "".join(f"this is row {i},a\n" for i in range(99)))
    settings = data.Settings("text-classification")
    return Stage("texts", data.collect, settings, {"data": file_source(rows)}, data.TOOLS)


@pytest.fixture
def helper() -> Iterator[Helper]:
    """A helper that is killed after the test."""
    made = Helper()
    yield made
    made.close()


def _inputs(stage: Stage) -> Folders:
    return {name: item.path for name, item in stage.inputs.items() if isinstance(item, Source)}


def test_a_helper_makes_the_same(texts: Stage, helper: Helper, tmp_path: Path) -> None:
    """What it leaves in the cache is what this process makes, byte for byte."""
    made = [
        run(texts, _inputs(texts), StageCache(tmp_path / name), tmp_path / "log")
        for name, run in (("here", run_stage), ("there", helper.run))
    ]
    here, there = ((folder / "texts.json").read_bytes() for folder in made)
    assert here == there
    assert len(here) > 100


def test_an_error_of_a_library_comes_back(helper: Helper, tmp_path: Path) -> None:
    """It names the stage, and the file with the details."""
    stage = Stage("rank", rank, NoSettings(), {"export": Source(tmp_path, "nothing")})
    with pytest.raises(StageError, match=r"stage 'rank' failed: .*model\.onnx.*log"):
        helper.run(stage, _inputs(stage), StageCache(tmp_path / "cache"), tmp_path / "log")


def test_an_error_comes_back_whole(texts: Stage, helper: Helper, tmp_path: Path) -> None:
    """Its family, and so its exit code, and its words; the helper goes on."""
    store, log = StageCache(tmp_path / "cache"), tmp_path / "log"
    named = replace(texts, settings=data.Settings("text-classification", Columns("body")))
    with pytest.raises(InputError, match=r"no column 'body'; it has text"):
        helper.run(named, _inputs(named), store, log)
    assert helper.run(texts, _inputs(texts), store, log).is_dir()


def test_a_helper_that_dies_is_one_clear_error(
    texts: Stage, helper: Helper, tmp_path: Path
) -> None:
    """As when the kernel kills it for its memory; the next stage gets a new one."""
    store, log = StageCache(tmp_path / "cache"), tmp_path / "log"
    helper.run(texts, _inputs(texts), store, log)
    assert helper._process is not None
    os.kill(helper._process.pid, signal.SIGKILL)
    other = replace(texts, settings=data.Settings("text-classification", seed=1))
    with pytest.raises(EdgepackError, match=r"'texts' failed: its process died \(-9\).*--jobs 1"):
        helper.run(other, _inputs(other), store, log)
    assert helper.run(other, _inputs(other), store, log).is_dir()


def test_workers_share_stages(texts: Stage, tmp_path: Path) -> None:
    """Every stage is run by somebody, once."""
    store = StageCache(tmp_path / "cache")
    stages = [
        replace(texts, settings=data.Settings("text-classification", seed=seed))
        for seed in range(8)
    ]
    folders: Folders = {}
    with Workers(store, Quiet(), jobs=3) as crew:
        crew.run(stages, folders, tmp_path / "log")
    assert set(folders) == {stage.key for stage in stages}
    assert all((folder / "texts.json").is_file() for folder in folders.values())
    assert not list(store.root.glob(".*"))


PARENT = """
import sys, time
from pathlib import Path
from edgepack.stages.helper import _start
process = _start()
print(process.pid, flush=True)
time.sleep(600)
"""


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="looks a process up in /proc")
def test_a_helper_never_outlives_its_parent() -> None:
    """However that ends."""
    parent = subprocess.Popen([sys.executable, "-c", PARENT], stdout=subprocess.PIPE, text=True)
    with parent:
        assert parent.stdout
        child = Path("/proc", parent.stdout.readline().strip())
        assert child.exists()
        parent.kill()
    end = time.monotonic() + 30
    while child.exists() and time.monotonic() < end:
        time.sleep(0.05)
    assert not child.exists()


@pytest.mark.parametrize(
    ("megabytes", "cores", "memory_mb", "jobs"),
    [
        (64, 2, 16_000, 2),
        (1, 2, 16_000, 1),  # a helper's imports take longer than it saves
        (64, 1, 16_000, 1),
        (64, 2, 1000, 1),  # two stages at a time would not fit
    ],
)
def test_two_stages_run_where_it_pays_and_fits(
    megabytes: int,
    cores: int,
    memory_mb: int,
    jobs: int,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By the size of the model, the cores and the free memory of the host."""
    with (tmp_path / "model.safetensors").open("wb") as stream:
        stream.truncate(megabytes << 20)
    monkeypatch.setattr(workers, "cores", lambda: cores)
    monkeypatch.setattr(workers, "probe", lambda: replace(probe(), memory_mb=memory_mb))
    assert fitting_jobs(tmp_path) == jobs
