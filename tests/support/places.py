"""A channel with one release, in a folder and on a web server."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from carriers import EXAMPLE, Site
from fleet import NAME, make_bundle, publish
from server import Server, serve

from edgepack.channel import keys


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


@pytest.fixture
def site(place: Path) -> Site:
    """A device that was set up as the example's README says."""
    shutil.copy(place / "channel/metadata/1.root.json", place / "root.json")
    lines = (EXAMPLE / "update.conf").read_text().splitlines()
    names = [line.split("=")[0] for line in lines if "=" in line]
    here = {
        "RUNTIME": f"{sys.executable} -m edgepack_runtime",
        "ROOT": str(place / "root.json"),
        "EDGEPACK_STORE": str(place / "device"),
        "CHANNEL": str(place / "channel"),
        "NAME": NAME,
    }
    assert set(names) == set(here)
    conf = place / "update.conf"
    conf.write_text("".join(f'{name}="{value}"\n' for name, value in here.items()))
    return Site(place, here, {"EDGEPACK_CONF": str(conf)})
