"""The stage cache: whole stages or none, found again by what they depend on."""

from __future__ import annotations

import errno
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from edgepack import cache
from edgepack.cache import Source, Stage, StageCache, sweep
from edgepack_runtime import EdgepackError


@dataclass(frozen=True)
class Settings:
    """What the stage of these tests writes."""

    text: str = "made"


def write(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the settings and the input to a file."""
    (out / "file").write_text(settings.text + inputs["source"].read_text())


@pytest.fixture
def stage(tmp_path: Path) -> Stage:
    """A stage with one source."""
    source = tmp_path / "source"
    source.write_text(" from source")
    return Stage("write", write, Settings(), {"source": Source(source, "key-of-source")})


def test_a_finished_stage_is_found_again(stage: Stage, tmp_path: Path) -> None:
    """What ran once is looked up by its key, and holds what it wrote."""
    store = StageCache(tmp_path / "cache")
    assert store.lookup(stage) is None
    inputs = {"source": stage.inputs["source"].path}  # type: ignore[union-attr]
    made = store.run(stage, inputs)
    assert store.lookup(stage) == made
    assert (made / "file").read_text() == "made from source"


def test_the_key_depends_on_everything_the_output_does(stage: Stage) -> None:
    """Other settings, inputs or tools are another key; the label is not part of it."""
    others = [
        replace(stage, settings=Settings("other")),
        replace(stage, inputs={"source": Source(Path("x"), "other key")}),
        replace(stage, tools=("click",)),
        replace(stage, inputs={"source": stage}),
    ]
    assert len({stage.key, *(other.key for other in others)}) == 5
    assert replace(stage, label="other").key == stage.key


@pytest.mark.parametrize("harm", ["remove", "shorten", "unmark"])
def test_a_stage_that_lost_something_is_made_again(harm: str, stage: Stage, tmp_path: Path) -> None:
    """A file that is gone or shorter, or a folder without its mark, is no finished stage."""
    store = StageCache(tmp_path / "cache")
    inputs = {"source": stage.inputs["source"].path}  # type: ignore[union-attr]
    made = store.run(stage, inputs)
    if harm == "remove":
        (made / "file").unlink()
    elif harm == "shorten":
        (made / "file").write_text("ma")
    else:
        (made / "artifact.json").unlink()
    assert store.lookup(stage) is None
    assert (store.run(stage, inputs) / "file").read_text() == "made from source"


def test_a_stage_that_fails_leaves_nothing(stage: Stage, tmp_path: Path) -> None:
    """An error inside a stage removes its work folder and marks nothing finished."""
    store = StageCache(tmp_path / "cache")
    with pytest.raises(FileNotFoundError):
        store.run(stage, {"source": tmp_path / "missing"})
    assert list(store.root.iterdir()) == []


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_is_one_clear_error(
    number: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, stage: Stage
) -> None:
    """The message says how much is left, where, and what to do."""

    def full(*_: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "write_text", full)
    inputs = {"source": stage.inputs["source"].path}  # type: ignore[union-attr]
    with pytest.raises(EdgepackError, match=r"the disk is full: .* MB left .* set EDGEPACK_CACHE"):
        StageCache(tmp_path / "cache").run(stage, inputs)


def test_a_library_that_fails_for_lack_of_space_is_told_apart(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A RuntimeError on a full disk is the disk's, on any other disk it is its own."""

    def crash(*_: object) -> None:
        raise RuntimeError("could not write file")

    failing = replace(stage, run=crash)
    free = {"bytes": 0}
    monkeypatch.setattr(cache, "_free", lambda _: free["bytes"])
    store = StageCache(tmp_path / "cache")
    with pytest.raises(EdgepackError, match="the disk is full"):
        store.run(failing, {})
    free["bytes"] = 1 << 40
    with pytest.raises(RuntimeError, match="could not write file"):
        store.run(failing, {})


def test_work_of_dead_builds_is_swept_and_of_living_ones_kept(tmp_path: Path) -> None:
    """Only work folders whose process is gone are removed."""
    store = StageCache(tmp_path / "cache")
    dead, alive = store.root / ".abc.999999999", store.root / f".abc.{os.getpid()}"
    dead.mkdir(parents=True)
    alive.mkdir()
    sweep(store.root)
    assert not dead.exists()
    assert alive.exists()
