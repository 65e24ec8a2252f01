"""Fixtures of updates: a channel to change, and the commands on a place's store."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from fleet import NAME, Command
from tufsim import Sim

from edgepack_runtime.cli import main as runtime


@pytest.fixture
def sim(place: Path, monkeypatch: pytest.MonkeyPatch) -> Sim:
    """A channel with one release, and a device with its first root, which does not wait."""
    monkeypatch.setattr("edgepack_runtime.update.download.time.sleep", lambda _: None)
    shutil.copy(place / "channel/metadata/1.root.json", place / "shipped.json")
    return Sim(place)


@pytest.fixture
def call(place: Path, capsys: pytest.CaptureFixture[str]) -> Command:
    """Return a command on the store of a place: its exit code and its answer or error."""

    def run(name: str, *options: str) -> tuple[int, dict[str, Any]]:
        code = runtime([name, "--json", "--store", str(place / "device"), *options])
        printed = capsys.readouterr()
        return code, json.loads(printed.out) if printed.out else {"error": printed.err}

    return run


@pytest.fixture
def update(place: Path, call: Command) -> Command:
    """Return the update command for a place's channel."""
    root = place / "root.json"
    shutil.copy(place / "channel/metadata/1.root.json", root)
    fixed = ["--channel", str(place / "channel"), "--root", str(root), "--name", NAME]
    return lambda *options: call("update", *fixed, *options)
