"""What several modules say and read in one way."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from edgepack_runtime.paths import free_bytes, read_text
from edgepack_runtime.words import suggest

NAMES = ("jetson-xavier", "jetson-orin", "cpu-arm64", "jetson-nano", "jetson-thor")


@pytest.mark.parametrize(
    ("word", "said"),
    [
        ("cpu-arm46", "did you mean 'cpu-arm64'?"),
        ("jetson", "did you mean 'jetson-orin' or 'jetson-nano' or 'jetson-thor'?"),
        ("zzz", f"known: {', '.join(NAMES)}"),
        ("", f"known: {', '.join(NAMES)}"),
    ],
)
def test_an_unknown_name_meets_the_near_ones(word: str, said: str) -> None:
    """A typing error and a beginning are told the names they stand for, anything else all names."""
    assert suggest(word, iter(NAMES)) == said


def test_room_is_asked_of_the_folder_that_is_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder that is not made yet, relative or not, has the room of the one it will be in."""
    monkeypatch.chdir(tmp_path)
    asked = []
    real = shutil.disk_usage

    def usage(path: Path) -> object:
        asked.append(Path(path).absolute())
        return real(path)

    monkeypatch.setattr(shutil, "disk_usage", usage)
    for folder in (tmp_path, tmp_path / "a/b", Path("a/b")):
        assert free_bytes(folder) > 0
    assert asked == [tmp_path] * 3


def test_a_file_of_the_system_that_cannot_be_read_is_empty(tmp_path: Path) -> None:
    """Missing or no text, it is no error: a device need not have it."""
    (tmp_path / "odd").write_bytes(b"model \xff")
    assert read_text(tmp_path / "missing") == ""
    assert read_text(tmp_path / "odd").startswith("model ")
