"""The stage cache: a stage with the same inputs is not made twice.

A stage is a pure function of its settings, its inputs, its code and the tools it uses; the hash of
these is its key.  Its output folder appears under that key in one rename, so a build that is killed
at any moment leaves either a whole stage or none.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from functools import cached_property, lru_cache
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from edgepack.host import lacks_disk
from edgepack.stages.sources import code_digest
from edgepack_runtime.bundle.manifest import canonical_json
from edgepack_runtime.errors import EdgepackError, HostError
from edgepack_runtime.paths import cache_folder, free_bytes

Run = Callable[[Any, Mapping[str, Path], Path], None]
MARK = "artifact.json"
RESUMES = "resumes"
_held: dict[Path, int] = {}  # the open locks of the caches that this process uses
_MONTH = 30 * 86_400  # seconds
_LEAST_FREE = 32 << 20


@dataclass(frozen=True)
class Source:
    """A folder or file that was not made by a stage: the original model or data."""

    path: Path
    """Where it is."""
    key: str
    """The digest of its content."""


@dataclass(frozen=True)
class Stage:
    """One step of a build."""

    label: str
    """Its name in the progress view."""
    run: Run
    """`run(settings, inputs, out)` fills the folder `out` and changes nothing else."""
    settings: Any
    """A frozen dataclass."""
    inputs: Mapping[str, Stage | Source]
    """What `run` needs; each is a source or another stage."""
    tools: tuple[str, ...] = ()
    """Distributions whose version affects the result."""
    resumes: bool = False
    """`run` can resume from what it left in `out`, so a killed run's folder is not removed."""

    @cached_property
    def key(self) -> str:
        """Hash everything that the output depends on."""
        identity = {
            "stage": f"{self.run.__module__}.{self.run.__name__}",
            "code": code_digest(self.run.__module__),
            "settings": asdict(self.settings),
            "inputs": {name: stage.key for name, stage in self.inputs.items()},
            "tools": {name: version_of(name) for name in self.tools},
        }
        return hashlib.sha256(canonical_json(identity)).hexdigest()


class StageCache:
    """Finished stages on disk, `$EDGEPACK_CACHE/stages/<key>/`.  Any of them may be deleted."""

    def __init__(self, root: Path | None = None) -> None:
        self.root = (root or cache_folder()) / "stages"

    def lookup(self, stage: Stage) -> Path | None:
        """Return the folder of a finished stage, if it is present and whole."""
        folder = self.root / stage.key
        try:
            _hold(self.root)
            sizes = json.loads((folder / MARK).read_text())["files"]
            whole = all((folder / name).stat().st_size == size for name, size in sizes.items())
            if whole:
                with contextlib.suppress(OSError):  # the cache is read-only
                    os.utime(folder / MARK)  # when it was last used
        except (OSError, ValueError, KeyError, TypeError):
            return None
        return folder if whole else None

    def run(self, stage: Stage, inputs: Mapping[str, Path]) -> Path:
        """Run a stage in a folder of its own, then rename the folder into place.

        Raises:
            HostError: the disk is full.
            EdgepackError: the cache cannot be written.

        """
        final = self.root / stage.key
        with _disk_errors(self.root), self._work(stage) as work:
            _hold(self.root)
            if self.lookup(stage) is None:  # another build may have been faster
                stage.run(stage.settings, inputs, work)
                mark = {"label": stage.label, "files": _sizes(work)}
                (work / MARK).write_text(json.dumps(mark))
                self._publish(stage, work, final)
        return final

    @contextlib.contextmanager
    def _work(self, stage: Stage) -> Iterator[Path]:
        """Yield a stage's work folder; a stage that resumes finds what a killed run left."""
        if stage.resumes:
            work = self.root / f".{stage.key[:16]}.{RESUMES}"
            with _locked(work.with_suffix(".lock")):
                work.mkdir(parents=True, exist_ok=True)
                yield work
        else:
            with work_folder(self.root, stage.key[:16]) as work:
                yield work

    def _publish(self, stage: Stage, work: Path, final: Path) -> None:
        """Rename a finished stage into place, unless another build was faster."""
        if self.lookup(stage) is not None:
            shutil.rmtree(work, ignore_errors=True)
            return
        shutil.rmtree(final, ignore_errors=True)
        try:
            work.rename(final)
        except OSError as exc:
            if exc.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise


def _hold(root: Path) -> None:
    """Mark the cache as in use until this process ends, so that it is not pruned meanwhile."""
    import fcntl

    if root in _held:
        return
    with contextlib.suppress(OSError):  # not there yet, or read-only: nothing can be removed
        lock = os.open(lock_of(root), os.O_RDWR | os.O_CREAT, 0o644)
        fcntl.flock(lock, fcntl.LOCK_SH)  # waits for a prune
        _held[root] = lock


def lock_of(root: Path) -> Path:
    """Return the lock that builds share, and that a prune holds exclusively."""
    return root.with_suffix(".lock")


def folder_of(needed: Stage | Source, folders: Mapping[str, Path]) -> Path:
    """Return where a source or the output of a finished stage is; `folders` are by stage key."""
    return needed.path if isinstance(needed, Source) else folders[needed.key]


def file_source(path: Path) -> Source:
    """Return a file as a source, named by its content; an unchanged file is hashed only once."""
    found = path.stat()
    return _file_source(path, (found.st_ino, found.st_size, found.st_mtime_ns))


@lru_cache
def _file_source(path: Path, state: tuple[int, ...]) -> Source:  # noqa: ARG001 (a change means another file)
    return Source(path, joint_hash(hash_files(path.parent, [path])))


@contextlib.contextmanager
def work_folder(root: Path, name: str = "edgepack") -> Iterator[Path]:
    """Yield a temporary hidden folder below `root`; `sweep` recognises it by our pid."""
    work = root / f".{name}.{os.getpid()}"
    shutil.rmtree(work, ignore_errors=True)
    work.mkdir(parents=True)
    try:
        yield work
    finally:
        shutil.rmtree(work, ignore_errors=True)


def sweep(root: Path, name: str = "*") -> None:
    """Remove the work folders called `name` of processes that are no longer alive.

    What a training left to resume from is removed if it was not used for a month.
    """
    for work in root.glob(f".{name}.{RESUMES}"):
        if time.time() - work.stat().st_mtime > _MONTH:
            shutil.rmtree(work, ignore_errors=True)
    for work in root.glob(f".{name}.*"):
        pid = int(work.suffix[1:]) if work.suffix[1:].isdigit() else 0
        if pid and work.is_dir() and not Path(f"/proc/{pid}").exists():
            shutil.rmtree(work, ignore_errors=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a lock that the system releases when this process dies."""
    import fcntl

    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open(
        "w"
    ) as stream:  # the file is not removed: a lock on a removed file would lock nobody out
        fcntl.flock(stream, fcntl.LOCK_EX)
        yield


def hash_files(folder: Path, files: Iterable[Path]) -> dict[str, str]:
    """Return {relative name: sha256} of files, ordered by name."""
    found = {}
    for path in sorted(files):
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256").hexdigest()
        found[path.relative_to(folder).as_posix()] = digest
    return found


def joint_hash(digests: Mapping[str, str]) -> str:
    """Hash {name: digest}; this is the key of an original folder."""
    lines = "".join(f"{digest}  {name}\n" for name, digest in digests.items())
    return hashlib.sha256(lines.encode()).hexdigest()


def _sizes(folder: Path) -> dict[str, int]:
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path.stat().st_size for path in files}


def version_of(name: str) -> str:
    """Return the version of an installed distribution; empty if it is not there."""
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


@contextlib.contextmanager
def _disk_errors(root: Path) -> Iterator[None]:
    """Turn a full or read-only disk into one clear error, whichever library noticed it."""
    try:
        yield
    except (OSError, RuntimeError) as exc:
        if getattr(exc, "errno", None) in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOTDIR):
            raise EdgepackError(f"cannot write the stage cache {root}; set EDGEPACK_CACHE") from exc
        if lacks_disk(exc) or free_bytes(root) < _LEAST_FREE:
            raise HostError(
                f"the disk is full: {free_bytes(root) >> 20} MB left at {root}. Free some space, "
                "or set EDGEPACK_CACHE to a larger disk; finished stages are not lost"
            ) from exc
        raise
