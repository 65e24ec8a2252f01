"""Fixtures of channels: a web server to publish to."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from server import Server, serve

from edgepack.channel import keys


@pytest.fixture
def web(tmp_path: Path) -> Iterator[Server]:
    """An empty web server that takes PUT."""
    keys.init(tmp_path / "keys")
    (tmp_path / "channel").mkdir()
    with serve(tmp_path / "channel") as state:
        yield state
