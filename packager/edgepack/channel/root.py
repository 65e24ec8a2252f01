"""The root of a channel, for the keys that made it: it says which keys sign what.

`root.json` in the key folder is the last root that these keys made.  The channel's roots are
trusted only if they follow from that one.
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

DAYS = 365  # how long a root is valid
_TRUSTED = "root.json"  # in the key folder: the newest root that these keys made


class OwnRoot:
    """The root metadata of a channel, which checks and signs the rest.

    Attributes:
        metadata: the newest root, after `make` or `follow`.

    """

    metadata: Metadata[Any]

    def __init__(self, site: Site, key_folder: Path) -> None:
        self._site = site
        self._folder = site.folder
        self._keys = key_folder

    @property
    def signed(self) -> Any:
        """Return the signed part of the newest root."""
        return self.metadata.signed

    def make(self) -> None:
        """Make the root of a new channel, or resume an interrupted attempt."""
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
        """Resume a channel that has only its root so far, made with these keys."""
        self.metadata = self._remembered()
        path = self._folder / METADATA / "1.root.json"
        if not path.is_file() or path.read_bytes() != self.metadata.to_bytes():
            raise InputError(
                f"no channel at {self._folder}, but the keys in {self._keys} have one: check the "
                "path, or copy that channel there; a new channel needs new keys"
            )

    def follow(self) -> None:
        """Take the channel's newest root, if the chain from our root is signed as TUF requires.

        It is our own root, except after an interrupted rotation.
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
            pass  # it belongs to another chain
        if self.metadata.to_bytes() != last.to_bytes():
            raise InputError(
                f"the root of {self._folder} is not the one that the keys in {self._keys} made; "
                "copy the newest root.json to both, from a place that you trust"
            )
        if self.metadata.to_bytes() != (self._keys / _TRUSTED).read_bytes():
            self._site.write(f"{METADATA}/root.json", self.metadata.to_bytes())
            write(self._keys / _TRUSTED, self.metadata.to_bytes())

    def _remembered(self) -> Metadata[Any]:
        path = self._keys / _TRUSTED
        if not path.is_file():
            raise InputError(f"{path} is missing: copy the root.json made by these keys there")
        return parsed(path, path.read_bytes())

    def checked(self, role: str) -> tuple[Metadata[Any], bytes]:
        """Return a role's newest metadata, checked against its keys, and its bytes."""
        from tuf.api.exceptions import RepositoryError

        path = newest(self._folder, role)
        content = read_plain(path)  # read once: the checked bytes are the ones signed again
        found = parsed(path, content)
        if number(path) not in (-1, found.signed.version):
            raise InputError(f"{path} holds version {found.signed.version}: restore the folder")
        try:
            self.signed.verify_delegate(role, found.signed_bytes, found.signatures)
        except RepositoryError as exc:
            if digest(content) == rotation.under_way(self._keys).signed.get(role):
                return found, content  # it is signed by the key that is being replaced
            raise InputError(
                f"{role} in {self._folder / METADATA} is not signed by its keys: somebody else "
                "wrote it; restore the folder, then publish again"
            ) from exc
        return found, content

    def replace(
        self, role: str, gone: Iterable[str], new: CryptoSigner, old: Sequence[Signer]
    ) -> None:
        """Replace the keys in `gone` with a new one; the old root keys sign for it."""
        for keyid in gone:
            self.signed.revoke_key(keyid, role)
        self.signed.add_key(new.public_key, role)
        self.sign([*old, new] if role == "root" else old)

    def signers(self) -> list[CryptoSigner]:
        """Return the root keys that are here; an `InputError` if they cannot sign a new root."""
        found = [keys.signer(self._keys, name) for name in keys.present(self._keys, keys.ROOTS)]
        if len(found) < keys.ROOT_THRESHOLD:
            raise InputError(f"{self._keys}: a new root needs {keys.ROOT_THRESHOLD} root keys")
        return found

    def sign(self, by: Iterable[Signer] = ()) -> None:
        """Write the next root, signed by these keys, or by all root keys that are here."""
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
        """Renew the root if it expires before `soon`; return a message if keys are missing."""
        if self.signed.expires >= soon:
            return []
        if len(keys.present(self._keys, keys.ROOTS)) < keys.ROOT_THRESHOLD:
            return [f"root expires on {self.signed.expires:%Y-%m-%d}"]
        self.sign()
        return []

    def signer(self, role: str) -> Signer:
        """Return the key of a role; an `InputError` if the root names a different one."""
        found = keys.signer(self._keys, role)
        if found.public_key.keyid not in self.signed.roles[role].keyids:
            raise InputError(f"{self._keys / role}.pem is not the {role} key of this channel")
        return found


def digest(content: bytes) -> str:
    """Hash a file of metadata."""
    return hashlib.sha256(content).hexdigest()
