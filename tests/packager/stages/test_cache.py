"""The stage cache: whole stages or none, found again by what they depend on."""

from __future__ import annotations

import errno
import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepack.cli import main
from edgepack.cli.cache import entries, to_remove
from edgepack.stages import cache, sources
from edgepack.stages.cache import Source, Stage, StageCache, sweep
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
    monkeypatch.setattr(cache, "free_bytes", lambda _: free["bytes"])
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


@pytest.fixture
def filled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> StageCache:
    """A cache with three stages of 1 kB, used 40, 20 and 0 days ago, that no build is using."""
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path))
    store = StageCache()
    (tmp_path / "source").write_text("")
    inputs = {"source": tmp_path / "source"}
    for days in (40, 20, 0):
        source = Source(tmp_path / "source", f"{days}")
        made = store.run(
            Stage(f"stage of {days}", write, Settings("x" * 1000), {"source": source}), inputs
        )
        then = time.time() - days * 86_400 - 60
        os.utime(made / "artifact.json", (then, then))
    os.close(cache._held.pop(store.root))
    return store


def _labels(store: StageCache) -> list[str]:
    return [entry.label for entry in entries(store.root)]


def _call(*arguments: str, code: int = 0) -> str:
    done = CliRunner().invoke(main, ["cache", *arguments])
    assert done.exit_code == code, done.output
    return done.output


def test_the_cache_is_listed_by_label(filled: StageCache) -> None:
    """Each stage stands there with what it is called, its size and its age, the newest first."""
    rows = json.loads(_call("list", "--json"))
    assert [row["label"] for row in rows] == ["stage of 0", "stage of 20", "stage of 40"]
    assert [row["days"] for row in rows] == [0.0, 20.0, 40.0]
    assert all(row["bytes"] > 1000 for row in rows)
    assert f"3 stages at {filled.root}" in _call("list")


@pytest.mark.parametrize(
    ("arguments", "left"),
    [
        (["--older", "30d"], ["stage of 0", "stage of 20"]),
        (["--older", "1w"], ["stage of 0"]),
        (["--older", "41d"], ["stage of 0", "stage of 20", "stage of 40"]),
        (["--keep", "0.0025MB"], ["stage of 0", "stage of 20"]),
        (["--keep", "2GB"], ["stage of 0", "stage of 20", "stage of 40"]),
        (["--older", "30d", "--keep", "0.0015MB"], ["stage of 0"]),
        (["--all"], []),
    ],
)
def test_pruning_leaves_what_was_used_last(
    arguments: list[str], left: list[str], filled: StageCache
) -> None:
    """By age, by size, or all; what stays is whole, what goes leaves nothing."""
    _call("prune", *arguments)
    assert _labels(filled) == left
    assert len(list(filled.root.iterdir())) == len(left)


def test_pruning_says_what_it_needs(filled: StageCache) -> None:
    """Without a limit, or with one that is none, nothing goes and the message shows the form."""
    assert "--older 30d, --keep 2GB or --all" in _call("prune", code=2)
    assert "for instance 30d" in _call("prune", "--older", "soon", code=2)
    assert "for instance 2GB" in _call("prune", "--keep", "2", code=2)
    assert len(_labels(filled)) == 3


def test_a_stage_that_is_used_is_young_again(filled: StageCache) -> None:
    """Looking a stage up counts as its use, so that the next prune by age leaves it."""
    source = Source(filled.root.parent / "source", "40")
    old = Stage("stage of 40", write, Settings("x" * 1000), {"source": source})
    assert filled.lookup(old)
    assert _labels(filled)[0] == "stage of 40"


def test_nothing_is_pruned_under_a_build(filled: StageCache) -> None:
    """While another process uses the cache, a prune removes nothing and says why."""
    code = (
        "import sys; from edgepack.stages import cache; from pathlib import Path\n"
        "cache._hold(Path(sys.argv[1])); print('in', flush=True); sys.stdin.read()"
    )
    command = [sys.executable, "-c", code, str(filled.root)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as build:
        assert build.stdout
        assert build.stdout.readline() == b"in\n"
        assert "a build is using the cache" in _call("prune", "--all", code=1)
        build.communicate()
    assert len(_labels(filled)) == 3
    assert "3 stages removed" in _call("prune", "--all")


def test_a_build_holds_its_cache(stage: Stage, filled: StageCache) -> None:
    """A stage that was looked up is safe until the process that did so ends."""
    assert filled.lookup(stage) is None
    assert "a build is using the cache" in _call("prune", "--all", code=1)
    os.close(cache._held.pop(filled.root))
    assert to_remove(entries(filled.root), keep=0)


def test_the_key_depends_on_the_code_that_a_stage_reaches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A helper of a helper counts, imported inside a function or by name; types alone do not."""
    folder = tmp_path / "edgepack_toy"
    (folder / "plug").mkdir(parents=True)
    files = {
        "__init__.py": "",
        "stage.py": "from edgepack_toy import near\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    from edgepack_toy import typed\n"
        "def run(settings, inputs, out):\n    from edgepack_toy.plug import find\n",
        "near.py": "def lazy():\n    import edgepack_toy.far\n",
        "far.py": "",
        "typed.py": "",
        "other.py": "",
        "plug/__init__.py": "from importlib import import_module\n",
        "plug/engine.py": "",
    }
    for name, content in files.items():
        (folder / name).write_text(content)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.setattr(sources, "PROJECT", ("edgepack_toy",))

    def key() -> str:
        for function in (sources.code_digest, sources._digest, sources._imports, sources._path):
            function.cache_clear()
        return sources.code_digest("edgepack_toy.stage")

    keys = [key()]
    for name in files:
        with (folder / name).open("a") as stream:
            stream.write("# another line\n")
        keys.append(key())
    changed = [name for name, a, b in zip(files, keys, keys[1:], strict=False) if a != b]
    for function in (sources.code_digest, sources._digest, sources._imports, sources._path):
        function.cache_clear()
    assert sorted(set(files) - set(changed)) == ["other.py", "typed.py"]


def test_the_key_of_a_real_stage_counts_its_helpers() -> None:
    """What makes a variant reaches the module that writes its graph, and no command line."""
    reached, wanted = set[str](), ["edgepack.export.onnxruntime"]
    while wanted:
        name = wanted.pop()
        if name not in reached:
            reached.add(name)
            wanted += sources._imports(name)
    assert {
        "edgepack.export.graph",
        "edgepack.export.search",
        "edgepack_runtime.model.model",
    } <= reached
    assert "edgepack.cli" not in reached
    assert "edgepack.build.plan" not in reached


def test_data_that_did_not_change_are_hashed_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every target and every repair asks for the key of the same file."""
    path = tmp_path / "rows.jsonl"
    path.write_text("a")
    first = cache.file_source(path)
    with monkeypatch.context() as patch:
        patch.delattr(cache, "hash_files")
        assert cache.file_source(path) == first
    path.write_text("other")
    assert cache.file_source(path).key != first.key
