"""`edgepack cache`: list what the stage cache holds, and make it smaller."""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import click

from edgepack.stages.cache import MARK, RESUMES, StageCache, lock_of, sweep
from edgepack_runtime.errors import EdgepackError, InputError

_SECONDS = {"h": 3600, "d": 86_400, "w": 7 * 86_400}
_BYTES = {"MB": 10**6, "GB": 10**9}


@dataclass(frozen=True)
class Entry:
    """A finished stage, or the rest of an interrupted training."""

    folder: Path
    """Where it is."""
    label: str
    """Its name for people."""
    size: int
    """Its size in bytes."""
    used: float
    """When it was last used, in seconds since the epoch."""


def entries(root: Path) -> list[Entry]:
    """List what the cache holds, the most recently used first."""
    return sorted(_entries(root), key=lambda entry: entry.used, reverse=True)


def _entries(root: Path) -> Iterator[Entry]:
    for folder in root.iterdir() if root.is_dir() else ():
        mark = folder / MARK
        if folder.suffix == f".{RESUMES}":
            yield Entry(folder, "interrupted training", _size(folder), folder.stat().st_mtime)
        elif folder.is_dir() and not folder.name.startswith("."):
            made = mark if mark.exists() else folder
            yield Entry(folder, _label(mark), _size(folder), made.stat().st_mtime)


def _label(mark: Path) -> str:
    try:
        return str(json.loads(mark.read_text())["label"])
    except (OSError, ValueError, KeyError, TypeError):
        return "incomplete, or made by an older edgepack"


def _size(folder: Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def to_remove(
    found: Sequence[Entry], *, oldest: float | None = None, keep: int | None = None
) -> list[Entry]:
    """Pick entries to remove: those last used before `oldest`, then the oldest beyond `keep` bytes.

    Args:
        found: the entries, in the order of `entries`.
        oldest: seconds since the epoch; None for no limit on age.
        keep: bytes that may stay; None for no limit on size.

    """
    gone, total = [], 0
    for entry in found:
        total += entry.size
        if (oldest is not None and entry.used < oldest) or (keep is not None and total > keep):
            gone.append(entry)
            total -= entry.size
    return gone


@contextmanager
def _alone(root: Path) -> Iterator[None]:
    """Lock builds out of the cache; an `EdgepackError` if a build is using it."""
    root.mkdir(parents=True, exist_ok=True)
    with lock_of(root).open("a") as stream:
        try:
            fcntl.flock(stream, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            raise EdgepackError(
                f"a build is using the cache {root}; nothing was removed. Try again when it is done"
            ) from exc
        yield


def prune(root: Path, gone: Sequence[Entry]) -> int:
    """Remove entries and return the bytes; each disappears in one step, so none is half removed."""
    for entry in gone:
        work = root / f".{entry.folder.name.strip('.')[:16]}.{os.getpid()}"
        entry.folder.rename(work)
        shutil.rmtree(work, ignore_errors=True)
    return sum(entry.size for entry in gone)


def _parsed(text: str, option: str, units: dict[str, int], example: str) -> int:
    match = re.fullmatch(rf"(\d+(?:\.\d+)?)\s*({'|'.join(units)})", text.strip())
    if match is None:
        raise InputError(
            f"{option} takes a number and {' or '.join(units)}, for instance "
            f"{example}, not {text!r}"
        )
    return int(float(match[1]) * units[match[2]])


@click.group("cache")
def cache_group() -> None:
    """List and prune the stages that builds have cached."""


@cache_group.command("list")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def list_command(*, as_json: bool) -> None:
    """List stages with their size and the days since their last use."""
    root = StageCache().root
    found = entries(root)
    rows = [
        {
            "label": entry.label,
            "key": entry.folder.name,
            "bytes": entry.size,
            "days": round((time.time() - entry.used) / _SECONDS["d"], 1),
        }
        for entry in found
    ]
    if as_json:
        click.echo(json.dumps(rows, indent=1))
        return
    for entry, row in zip(found, rows, strict=True):
        click.echo(f"{entry.size / 1e6:>9.1f} MB  {row['days']:>6} d  {entry.label}")
    total = sum(entry.size for entry in found)
    click.echo(f"{total / 1e6:>9.1f} MB in {len(found)} stages at {root}")


@cache_group.command("prune")
@click.option("--older", default="", help="Remove what was not used for this long: 12h, 30d, 4w.")
@click.option(
    "--keep", default="", help="Remove the least recently used beyond this size: 500MB, 2GB."
)
@click.option("--all", "everything", is_flag=True, help="Remove everything.")
def prune_command(older: str, keep: str, *, everything: bool) -> None:
    """Remove stages; a build that needs one makes it again."""
    if not (older or keep or everything):
        raise InputError("say what to remove: --older 30d, --keep 2GB or --all")
    age = _parsed(older, "--older", _SECONDS, "30d") if older else None
    oldest = None if age is None else time.time() - age
    most = 0 if everything else _parsed(keep, "--keep", _BYTES, "2GB") if keep else None
    root = StageCache().root
    with _alone(root):
        sweep(root)
        gone = to_remove(entries(root), oldest=oldest, keep=most)
        size = prune(root, gone)
    click.echo(f"{len(gone)} stages removed, {size / 1e6:.1f} MB")
