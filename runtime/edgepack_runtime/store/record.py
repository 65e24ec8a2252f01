"""What a device runs, in one record of fixed size, kept twice.

Two files of 4096 bytes are written in turn, in place.  The one with the higher sequence number
and a right digest counts, so a torn write loses nothing but the write: the other still holds
what was before.  No rename and no new block is needed to commit, so it works on FAT and on a
full disk.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from edgepack_runtime.errors import TrustError
from edgepack_runtime.store.storage import Storage

SIZE = 4096
FILES = ("S0", "S1")
RELEASE = "release:"  # the floor of this name and NAME/BOARD: no older release is taken
MINIMUM = "minimum:"  # likewise: no rollback goes below that release
ROOT = "root"  # the floor of the root metadata's version
TIME = "time"  # the floor below which no clock is believed, in seconds since 1970
_MAGIC = b"edgepack-state-1 "
_MOST_BAD = 16


@dataclass(frozen=True)
class Record:
    """The state of a store.

    seq: counts writes.  active: digest of the release that runs, empty for the factory's.
    previous: what ran before it, to go back to.  trial: a release that is being tried, with
    `attempts` starts left.  bad: releases that failed, newest last, never tried again.  pinned:
    take no update.  floors: the least versions accepted from now on, by name.  root: sha256 of the
    newest root metadata that was accepted, that of the version in floors.
    """

    seq: int = 0
    active: str = ""
    previous: str = ""
    trial: str = ""
    attempts: int = 0
    bad: tuple[str, ...] = ()
    pinned: bool = False
    floors: Mapping[str, int] = field(default_factory=dict)
    root: str = ""

    def raised(self, floors: Mapping[str, int]) -> Record:
        """Return the record with its floors raised; none ever falls.

        A name as `timestamp@KEYS` replaces that of the same role with other keys: its versions
        count anew, which only a newer root can bring about, and the root's floor never goes.
        """
        renewed = {name.partition("@")[0] for name in floors if "@" in name}
        kept = {
            k: v
            for k, v in self.floors.items()
            if "@" not in k or k in floors or k.partition("@")[0] not in renewed
        }
        merged = {k: max(v, self.floors.get(k, 0)) for k, v in {**kept, **floors}.items()}
        return replace(self, floors=merged)

    def floor(self, name: str) -> int:
        """Return the floor of a name, whatever keys it was seen under; 0 for none."""
        return max((v for k, v in self.floors.items() if k.partition("@")[0] == name), default=0)

    def has_floor(self, name: str) -> bool:
        """Tell whether a name was seen, under whatever keys."""
        return any(known.partition("@")[0] == name for known in self.floors)

    def by_keys(self, name: str) -> str:
        """Return a name with the keys that sign releases now, `NAME@KEYS`.

        Its floor goes with them: what a thief set must not outlive the keys that he stole.
        """
        known = (key.partition("@") for key in self.floors)
        return f"{name}@{next((keys for role, _, keys in known if role == 'targets'), '')}"

    def settled(self) -> Record:
        """Return the record without a release on trial."""
        return replace(self, trial="", attempts=0)

    def forgiven(self, *, root: bool) -> Record:
        """Return the record without what failed and what time it was, nor the `root` if asked."""
        gone = {TIME, ROOT} if root else {TIME}
        floors = {name: least for name, least in self.floors.items() if name not in gone}
        return replace(self, bad=(), floors=floors, root="" if root else self.root)

    def with_bad(self, digest: str) -> Record:
        """Return the record with one more release that failed."""
        kept = [known for known in self.bad if known != digest]
        return replace(self, bad=(*kept, digest)[-_MOST_BAD:])


def encode(record: Record) -> bytes:
    """Return the 4096 bytes of a record.

    Raises:
        TrustError: it holds more than that, as only an odd channel can make it.

    """
    body = json.dumps(asdict(record), sort_keys=True, separators=(",", ":")).encode()
    content = _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"
    if len(content) > SIZE:
        raise TrustError(f"a state of {len(content)} bytes does not fit a record of {SIZE}")
    return content.ljust(SIZE, b"\0")


def decode(content: bytes) -> Record | None:
    """Read a record; None if these bytes are none, whatever they are."""
    if len(content) != SIZE or not content.startswith(_MAGIC):
        return None
    head, _, rest = content[len(_MAGIC) :].partition(b"\n")
    body = rest.partition(b"\n")[0]
    if hashlib.sha256(body).hexdigest().encode() != head:
        return None
    try:
        return _read(json.loads(body))
    except (ValueError, TypeError, AttributeError, RecursionError):
        return None


def _read(value: Any) -> Record | None:
    """Check the types; a record of a newer runtime may hold more, which is dropped."""
    known = {item.name for item in fields(Record)}
    found = Record(**{key: item for key, item in value.items() if key in known})
    texts = (found.active, found.previous, found.trial, found.root, *found.bad)
    numbers = (found.seq, found.attempts, *found.floors.values())
    if not all(isinstance(text, str) for text in texts):
        return None
    if not all(type(number) is int and number >= 0 for number in numbers):
        return None
    return replace(found, bad=tuple(found.bad))


def read(storage: Storage) -> Record:
    """Return the state that counts; a fresh one if neither file holds any."""
    return max(_found(storage), key=lambda item: item[1].seq, default=(0, Record()))[1]


def write(storage: Storage, record: Record) -> Record:
    """Write the next state over the older file and make it durable; return it with its number.

    Raises:
        OSError: the disk refuses; the state that counted still does.

    """
    prepare(storage)
    found = dict(_found(storage))
    newest = max(found, key=lambda place: found[place].seq, default=1)
    path = FILES[1 - newest]
    new = replace(record, seq=found[newest].seq + 1 if found else 1)
    content = encode(new)
    try:
        storage.overwrite(path, content)
        storage.sync(path)
    except OSError:
        # What the disk shows now may not be what it keeps: it must not count as the newest.
        with suppress(OSError):
            storage.overwrite(path, bytes(SIZE))
        raise
    return new


def prepare(storage: Storage) -> None:
    """Make the two files, empty of state, if they are not there whole.

    Their names, and that of their folder, must last before the first state is written; their bytes
    become durable with it.
    """
    storage.make_folder("")
    missing = [path for path in FILES if storage.size(path) != SIZE]
    for path in missing:
        storage.create(path)
        storage.append(path, bytes(SIZE))
    if missing or not _found(storage):  # an earlier try may have been killed before it got so far
        storage.sync_folder("")
        storage.sync_folder("..")


def _found(storage: Storage) -> list[tuple[int, Record]]:
    """Return (place, record) of the files that hold one."""
    found = []
    for place, path in enumerate(FILES):
        with suppress(OSError):  # an unreadable one must not take the other with it
            if storage.size(path) == SIZE and (record := decode(storage.read(path, SIZE))):
                found.append((place, record))
    return found
