"""What a device runs, in one record of fixed size, stored twice.

Two files of 4096 bytes are written alternately, in place.  The file with the higher sequence
number and a correct digest counts.  A torn write therefore loses only itself: the other file still
holds the state before.  A commit needs neither a rename nor a new block, so it works on FAT and on
a full disk.
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
RELEASE = "release:"  # prefix of the floor of NAME/BOARD: no older release is taken
MINIMUM = "minimum:"  # likewise: no rollback goes below this release
ROOT = "root"  # the floor of the root metadata's version
TIME = "time"  # the floor of the clock: earlier times are not believed; seconds since 1970
_MAGIC = b"edgepack-state-1 "
_MOST_BAD = 16


@dataclass(frozen=True)
class Record:
    """The state of a store."""

    seq: int = 0
    """Counts the writes."""
    active: str = ""
    """Digest of the release that runs; empty for the factory's."""
    previous: str = ""
    """Digest of the release that ran before it, for a rollback."""
    trial: str = ""
    """Digest of the release on trial."""
    attempts: int = 0
    """How many starts the trial has left."""
    bad: tuple[str, ...] = ()
    """Releases that failed, newest last; they are never tried again."""
    pinned: bool = False
    """Take no updates."""
    floors: Mapping[str, int] = field(default_factory=dict)
    """The lowest versions accepted from now on, by name."""
    root: str = ""
    """The sha256 of the newest accepted root metadata, whose version is in `floors`."""

    def raised(self, floors: Mapping[str, int]) -> Record:
        """Return the record with its floors raised; a floor never falls.

        A name such as `timestamp@KEYS` replaces the floor of the same role under other keys.  Its
        versions then start over, which only a newer root can cause.  The root's own floor is never
        dropped.
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
        """Return the floor of a name under any keys; 0 for none."""
        return max((v for k, v in self.floors.items() if k.partition("@")[0] == name), default=0)

    def has_floor(self, name: str) -> bool:
        """Tell whether a name was seen, under any keys."""
        return any(known.partition("@")[0] == name for known in self.floors)

    def by_keys(self, name: str) -> str:
        """Return a name with the keys that sign releases now: `NAME@KEYS`.

        Its floor is dropped with the keys: a floor set by a thief must not outlive the stolen keys.
        """
        known = (key.partition("@") for key in self.floors)
        return f"{name}@{next((keys for role, _, keys in known if role == 'targets'), '')}"

    def settled(self) -> Record:
        """Return the record without a release on trial."""
        return replace(self, trial="", attempts=0)

    def forgiven(self, *, root: bool) -> Record:
        """Return the record without failed releases and the time; without the `root` if asked."""
        gone = {TIME, ROOT} if root else {TIME}
        floors = {name: least for name, least in self.floors.items() if name not in gone}
        return replace(self, bad=(), floors=floors, root="" if root else self.root)

    def with_bad(self, digest: str) -> Record:
        """Return the record with one more failed release."""
        kept = [known for known in self.bad if known != digest]
        return replace(self, bad=(*kept, digest)[-_MOST_BAD:])


def encode(record: Record) -> bytes:
    """Return the 4096 bytes of a record.

    Raises:
        TrustError: it needs more than that, which only a malformed channel can cause.

    """
    body = json.dumps(asdict(record), sort_keys=True, separators=(",", ":")).encode()
    content = _MAGIC + hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"
    if len(content) > SIZE:
        raise TrustError(f"a state of {len(content)} bytes does not fit a record of {SIZE}")
    return content.ljust(SIZE, b"\0")


def decode(content: bytes) -> Record | None:
    """Read a record; return None if these bytes are not one, whatever they are."""
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
    """Check the types; drop the extra fields that a newer runtime may have written."""
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
    """Return the current state; a fresh one if neither file holds a state."""
    return max(_found(storage), key=lambda item: item[1].seq, default=(0, Record()))[1]


def write(storage: Storage, record: Record) -> Record:
    """Write the next state over the older file and make it durable; return it with its number.

    Raises:
        OSError: the disk reports an error; the state before still counts.

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
        # What can be read now may not be what is on the disk: it must not count as the newest.
        with suppress(OSError):
            storage.overwrite(path, bytes(SIZE))
        raise
    return new


def prepare(storage: Storage) -> None:
    """Make the two files, without a state, if either is missing or has the wrong size.

    Their names, and the name of their folder, must be durable before the first state is written.
    Their bytes become durable with that state.
    """
    storage.make_folder("")
    missing = [path for path in FILES if storage.size(path) != SIZE]
    for path in missing:
        storage.create(path)
        storage.append(path, bytes(SIZE))
    if missing or not _found(storage):  # an earlier attempt may have been killed before this point
        storage.sync_folder("")
        storage.sync_folder("..")


def _found(storage: Storage) -> list[tuple[int, Record]]:
    """Return (place, record) of each file that holds a record."""
    found = []
    for place, path in enumerate(FILES):
        with suppress(OSError):  # an unreadable file must not hide the other one
            if storage.size(path) == SIZE and (record := decode(storage.read(path, SIZE))):
                found.append((place, record))
    return found
