"""What the owner's commands print of a release and of a channel."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from click.testing import CliRunner
from fleet import light_change, make_bundle

from edgepack.channel import keys, repository
from edgepack.cli import main

if TYPE_CHECKING:
    from server import Server


def _said(*args: object) -> tuple[list[str], list[str]]:
    """Return the lines that a command wrote to stdout and to stderr."""
    done = CliRunner().invoke(main, [str(arg) for arg in args])
    assert done.exit_code == 0, done.output
    return done.stdout.splitlines(), done.stderr.splitlines()


@pytest.mark.parametrize(
    ("make", "new", "shared"), [(make_bundle, "0.0", "3.1"), (light_change, "3.1", "0.0")]
)
def test_a_difference_in_blobs_is_not_called_the_size_of_an_update(
    tmp_path: Path, make: Callable[[Path, int], object], new: str, shared: str
) -> None:
    """What `diff` counts are whole blobs, and it says that a channel's deltas are smaller."""
    make(tmp_path, 2)
    old = make_bundle(tmp_path, 1).path
    other = next(path for path in tmp_path.glob("*.epk") if path != old)
    lines, _ = _said("diff", old, other)
    assert "~ release: 1 → 2" in lines
    assert lines[-1] == (
        f"{new} MB of blobs are new, {shared} MB shared; "
        "the deltas of a channel make an update smaller"
    )


def test_equal_bundles_have_no_difference(tmp_path: Path) -> None:
    """A bundle beside itself: no line, no new byte."""
    path = make_bundle(tmp_path, 1).path
    assert _said("diff", path, path)[0][0] == "no difference"
    found = json.loads("\n".join(_said("diff", path, path, "--json")[0]))
    assert (found["changed"], found["new_bytes"]) == ([], 0)
    assert found["old"] == found["new"]


def test_a_refresh_says_how_long_it_lasts(place: Path) -> None:
    """Who runs it by hand sees that it signed, and for how many days."""
    there = place / "channel"
    said = _said("channel", "refresh", there, "--keys", place / "keys")
    assert said == ([f"{there}: signed, valid for 7 days"], [])


def test_a_refresh_says_no_password(place: Path, server: Server) -> None:
    """The URL is shown as who reads a log may see it."""
    secret = server.url.replace("://", "://me:secret@")
    said = _said("channel", "refresh", secret, "--keys", place / "keys")
    assert said == ([f"{server.url}: signed, valid for 7 days"], [])


def test_a_refresh_warns_of_what_its_keys_cannot_sign(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root and targets that run out soon are named where only the daily keys are."""
    for name in (*keys.ROOTS, "targets"):
        (place / "keys" / f"{name}.pem").unlink()
    monkeypatch.setattr(repository, "_SOON", 400)
    lines, warned = _said("channel", "refresh", place / "channel", "--keys", place / "keys")
    assert [line.partition(" expires on ")[0] for line in warned] == [
        "warning: root",
        "warning: targets",
    ]
    assert all(line.endswith("; run this where its key is") for line in warned)
    assert len(lines) == 1
