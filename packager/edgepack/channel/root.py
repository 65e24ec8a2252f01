"""The root of a channel, by the keys that made it: it says which keys sign what.

`root.json` in the key folder is the root that these keys made last; what lies in the channel is
believed as far as it follows from that one.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.channel import keys, rotation
from edgepack.channel.durable import read_plain, write
from edgepack.channel.metadata import METADATA, load, newest, number, parsed, root_of
from edgepack.channel.site import Site
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner, Signer
    from tuf.api.metadata import Metadata

DAYS = 365  # for which a root is valid
_TRUSTED = "root.json"  # in the key folder: the newest root that these keys made


class OwnRoot:
    """The root metadata of a channel, and what is checked and signed under it.

    Attributes:
        metadata: the newest root, once it was made or followed.

    """

    metadata: Metadata[Any]

    def __init__(self, site: Site, key_folder: Path) -> None:
        self._site = site
        self._folder = site.folder
        self._keys = key_folder

    @property
    def signed(self) -> Any:
        """Return what the newest root says."""
        return self.metadata.signed

    def make(self) -> None:
        """Make the root of a new channel, or go on where that was interrupted."""
        if (self._keys / _TRUSTED).is_file():
            self._resume()
        else:
            self._begin()

    def _begin(self) -> None:
        from tuf.api.metadata import Metadata, Root

        self.metadata = Metadata(Root(consistent_snapshot=True))
        self.signed.version = 0
        for name in keys.NAMES:
            self.signed.add_key(keys.signer(self._keys, name).public_key, keys.role(name))
        self.signed.roles["root"].threshold = keys.ROOT_THRESHOLD
        self.sign()

    def _resume(self) -> None:
        """Go on with a channel of which there is no more than its root, made with these keys."""
        self.metadata = self._remembered()
        path = self._folder / METADATA / "1.root.json"
        if not path.is_file() or path.read_bytes() != self.metadata.to_bytes():
            raise InputError(
                f"no channel at {self._folder}, and the keys in {self._keys} have one: look at the "
                "path, or copy that channel there; a new channel takes new keys"
            )

    def follow(self) -> None:
        """Take the channel's newest root, if what leads to it from ours is signed as TUF asks.

        That is the same one, but for a rotation that was interrupted.
        """
        from tuf.api.exceptions import RepositoryError

        self.metadata = self._remembered()
        last = load(self._folder, "root")
        try:
            while self.signed.version < last.signed.version:
                version = self.signed.version + 1
                follower, _ = root_of(self._folder, version)
                if follower.signed.version != version:
                    break
                for judge in (self.metadata, follower):
                    judge.signed.verify_delegate("root", follower.signed_bytes, follower.signatures)
                self.metadata = follower
        except (RepositoryError, InputError):
            pass  # it is another's
        if self.metadata.to_bytes() != last.to_bytes():
            raise InputError(
                f"the root of {self._folder} is not the one that the keys in {self._keys} made; "
                "copy the newest root.json to both, from where you trust it"
            )
        if self.metadata.to_bytes() != (self._keys / _TRUSTED).read_bytes():
            self._site.write(f"{METADATA}/root.json", self.metadata.to_bytes())
            write(self._keys / _TRUSTED, self.metadata.to_bytes())

    def _remembered(self) -> Metadata[Any]:
        path = self._keys / _TRUSTED
        if not path.is_file():
            raise InputError(f"{path} is missing: copy the root.json that these keys made there")
        return parsed(path, path.read_bytes())

    def checked(self, role: str) -> tuple[Metadata[Any], bytes]:
        """Return the newest metadata of a role, which its keys signed, and its bytes."""
        from tuf.api.exceptions import RepositoryError

        path = newest(self._folder, role)
        content = read_plain(path)  # once: what is judged is what is signed again
        found = parsed(path, content)
        if number(path) not in (-1, found.signed.version):
            raise InputError(f"{path} holds version {found.signed.version}: restore the folder")
        try:
            self.signed.verify_delegate(role, found.signed_bytes, found.signatures)
        except RepositoryError as exc:
            if digest(content) == rotation.under_way(self._keys).signed.get(role):
                return found, content  # the key that is being replaced has signed it
            raise InputError(
                f"{role} in {self._folder / METADATA} is not signed by its keys: somebody else "
                "wrote it; restore the folder, then publish again"
            ) from exc
        return found, content

    def replace(
        self, role: str, gone: Iterable[str], new: CryptoSigner, old: Sequence[Signer]
    ) -> None:
        """Let a new key take the place of those that are gone; the old root keys sign for it."""
        for keyid in gone:
            self.signed.revoke_key(keyid, role)
        self.signed.add_key(new.public_key, role)
        self.sign([*old, new] if role == "root" else old)

    def signers(self) -> list[CryptoSigner]:
        """Return all root keys that are here; an `InputError` if they cannot sign a new root."""
        found = [keys.signer(self._keys, name) for name in keys.present(self._keys, keys.ROOTS)]
        if len(found) < keys.ROOT_THRESHOLD:
            raise InputError(f"{self._keys}: a new root needs {keys.ROOT_THRESHOLD} root keys")
        return found

    def sign(self, by: Iterable[Signer] = ()) -> None:
        """Write the next root, signed by some keys, or by all root keys that are here."""
        root = self.signed
        found = list(by) or self.signers()
        root.version += 1
        root.expires = datetime.now(UTC).replace(microsecond=0) + timedelta(days=DAYS)
        self.metadata.signatures.clear()
        for signer in found:
            self.metadata.sign(signer, append=True)
        content = self.metadata.to_bytes()
        for path in (f"{root.version}.root.json", "root.json"):
            self._site.write(f"{METADATA}/{path}", content)
        write(self._keys / _TRUSTED, content)

    def renew(self, soon: datetime) -> list[str]:
        """Sign a root anew that expires before `soon`; return what is missing for that."""
        if self.signed.expires >= soon:
            return []
        if len(keys.present(self._keys, keys.ROOTS)) < keys.ROOT_THRESHOLD:
            return [f"root expires on {self.signed.expires:%Y-%m-%d}"]
        self.sign()
        return []

    def signer(self, role: str) -> Signer:
        """Return the key of a role; an `InputError` if it is not the one that the root names."""
        found = keys.signer(self._keys, role)
        if found.public_key.keyid not in self.signed.roles[role].keyids:
            raise InputError(f"{self._keys / role}.pem is not the {role} key of this channel")
        return found


def digest(content: bytes) -> str:
    """Hash a file of metadata."""
    return hashlib.sha256(content).hexdigest()
