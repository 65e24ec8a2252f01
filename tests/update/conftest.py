"""A channel with one release, in a folder and on a web server."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fleet import make_bundle, publish
from server import Server, serve

from edgepack import keys


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A channel with release 1, and its keys."""
    keys.init(tmp_path / "keys")
    publish(tmp_path, make_bundle(tmp_path, 1))
    return tmp_path


@pytest.fixture
def server(place: Path) -> Iterator[Server]:
    """The channel on a web server."""
    with serve(place / "channel") as state:
        yield state
