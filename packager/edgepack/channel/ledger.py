"""A record of what these keys have signed, stored next to the keys, where no host can change it.

A signature says who signed, but not when, so the host of a channel can restore an older state with
a valid signature.  The key folder remembers, for each role, the newest version in the channel and
the highest number that was ever signed.  An older state is refused, and no number is signed twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from edgepack.channel.durable import write
from edgepack_runtime.bundle.manifest import canonical_json
from edgepack_runtime.errors import InputError, TrustError

NAME = "signed.json"  # in the key folder


@dataclass(frozen=True)
class Entry:
    """What is remembered for a role."""

    version: int = 0
    """The version of its metadata in the channel."""
    sha256: str = ""
    """The digest of that metadata."""
    signed: int = 0
    """The highest version that was signed."""


class Ledger:
    """The memory of a key folder.

    Raises:
        InputError: its file is damaged.

    """

    def __init__(self, key_folder: Path) -> None:
        self._path = key_folder / NAME
        self._entries: dict[str, Entry] = {}
        if self._path.is_file():
            try:
                found = json.loads(self._path.read_bytes())
                self._entries = {role: Entry(**said) for role, said in found.items()}
            except (ValueError, TypeError, AttributeError) as exc:
                raise InputError(f"{self._path} is damaged: restore it: {exc}") from exc

    def check(self, role: str, version: int, content: bytes, where: Path) -> None:
        """Refuse metadata that is older than the channel's last, or differs at the same version."""
        known = self._entries.get(role, Entry())
        if version > known.version:
            return
        remedy = (
            f"restore {where} as it was last published; if you brought this older state back "
            f"yourself, remove {self._path}"
        )
        if version < known.version:
            raise TrustError(
                f"{where} shows version {version} of {role}, but version {known.version} was "
                f"published with these keys: it was rolled back; {remedy}"
            )
        if hashlib.sha256(content).hexdigest() != known.sha256:
            raise TrustError(
                f"{where} shows a version {version} of {role} that was not published from "
                f"here: another machine signed with the same keys at the same time; {remedy}"
            )

    def names(self) -> Iterator[str]:
        """Yield the numbered files that were last written with these keys, or about to be."""
        for role, entry in self._entries.items():
            if role != "timestamp":
                for version in {entry.version, entry.signed} - {0}:
                    yield f"{version}.{role}.json"

    def after(self, role: str, version: int) -> int:
        """Return the next version to sign: above the channel's, and never signed before."""
        return 1 + max(version, self._entries.get(role, Entry()).signed)

    def reserve(self, versions: Mapping[str, int]) -> None:
        """Remember what is signed, before anybody else can see it."""
        for role, version in versions.items():
            self._entries[role] = replace(self._entries.get(role, Entry()), signed=version)
        self._write()

    def confirm(self, there: Mapping[str, tuple[int, bytes]]) -> None:
        """Remember what is in the channel now."""
        for role, (version, content) in there.items():
            digest = hashlib.sha256(content).hexdigest()
            signed = max(version, self._entries.get(role, Entry()).signed)
            self._entries[role] = Entry(version, digest, signed)
        self._write()

    def _write(self) -> None:
        said = {role: asdict(entry) for role, entry in self._entries.items()}
        write(self._path, canonical_json(said))
