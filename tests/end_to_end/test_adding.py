"""A new task, engine and board are the files that ARCHITECTURE.md names, and no others.

The files of `added/` are laid into a copy of both packages.  There a model is built for the board
and answers, in a process that has no torch.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
ADDED = Path(__file__).parent / "added"
# As a sitecustomize, which Python imports first.
NO_TORCH = "import sys\nsys.modules['torch'] = None\n"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a copy of the packages and targets, with the added files."""
    folder = tmp_path_factory.mktemp("copy")
    for name in ("packager", "runtime", "targets"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copytree(ADDED, folder, dirs_exist_ok=True)
    (folder / "sitecustomize.py").write_text(NO_TORCH)
    return folder


def _run(copy: Path, *arguments: str) -> str:
    paths = os.pathsep.join(str(path) for path in (copy, copy / "packager", copy / "runtime"))
    done = subprocess.run(
        [sys.executable, "-m", *arguments],
        check=False,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_what_is_added_is_what_the_docs_name() -> None:
    """Two files a task, two an engine, one a board."""
    rows = (ROOT / "ARCHITECTURE.md").read_text()
    named = set()
    for path in (p for p in ADDED.rglob("*.*") if p.is_file()):
        folder = path.parent.relative_to(ADDED).as_posix()
        assert re.search(rf"^\| an? (task|engine|device) .*`{folder}/", rows, re.MULTILINE), path
        named.add(f"{folder}/{path.name}")
    assert named == {
        "packager/edgepack/tasks/echo_length.py",
        "runtime/edgepack_runtime/tasks/echo_length.py",
        "packager/edgepack/export/abacus.py",
        "runtime/edgepack_runtime/engines/abacus.py",
        "targets/abacus-board.toml",
    }


def test_an_added_task_runs_on_an_added_engine_and_board(
    copy: Path, model: Callable[[str], Path], tmp_path: Path
) -> None:
    """Built, gated, measured and answered: no other file had to know of them, nor torch."""
    built = json.loads(
        _run(
            copy,
            "edgepack",
            "build",
            str(model("bert-intent")),
            "--task",
            "echo-length",
            "--target",
            "abacus-board",
            "-o",
            str(tmp_path),
            "--json",
        )
    )
    (variant,) = built[0]["variants"]
    assert variant["agreement"] == 1.0
    assert variant["latency_ms"]["one"] > 0
    bundle = str(next(tmp_path.glob("*.epk")))
    assert _run(copy, "edgepack_runtime", "run", bundle, "turn on", "x").split() == ["7", "1"]
    said = json.loads(_run(copy, "edgepack_runtime", "inspect", bundle, "--json"))
    assert said["variants"][0]["graphs"] == [
        {
            "name": "count",
            "files": ["abacus-float32/beads.bin"],
            "inputs": ["characters"],
            "outputs": ["length"],
        },
        {
            "name": "double",
            "files": ["abacus-float32/twice.bin"],
            "inputs": ["characters"],
            "outputs": ["length"],
        },
    ]
    assert "abacus" in _run(copy, "edgepack_runtime", "selftest", bundle)


def test_an_added_task_may_yield(copy: Path, model: Callable[[str], Path], tmp_path: Path) -> None:
    """Its answer can come piece by piece, from another of its graphs."""
    _run(
        copy,
        "edgepack",
        "build",
        str(model("bert-intent")),
        "--task",
        "echo-length",
        "--target",
        "abacus-board",
        "-o",
        str(tmp_path),
    )
    code = tmp_path / "stream.py"
    code.write_text(
        "import sys, edgepack_runtime\n"
        "pieces = edgepack_runtime.load(sys.argv[1])('four', stream=True)\n"
        "print(type(pieces).__name__, next(pieces), list(pieces))\n"
    )
    paths = os.pathsep.join(str(path) for path in (copy, copy / "runtime"))
    done = subprocess.run(
        [sys.executable, str(code), str(next(tmp_path.glob("*.epk")))],
        check=True,
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths},
    )
    assert done.stdout.strip() == "generator 4 [8]"
