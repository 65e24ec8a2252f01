"""The keys of a channel: Ed25519, one PEM file each, readable only by their owner.

There are three root keys, two of which must sign (store them offline and apart from each other);
one for targets, also offline; and one each for snapshot and timestamp, which the publishing machine
uses every day.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.channel.durable import make_folder, write
from edgepack_runtime.errors import InputError, NothingToDoError

if TYPE_CHECKING:
    from securesystemslib.signer import CryptoSigner

ROOTS = ("root-1", "root-2", "root-3")
ROOT_THRESHOLD = 2
ONLINE = ("snapshot", "timestamp")
NAMES = (*ROOTS, "targets", *ONLINE)
_PRIVATE = 0o600


def init(folder: Path) -> list[Path]:
    """Make the keys of a new channel; a key is never overwritten.

    Raises:
        NothingToDoError: there are keys already.

    """
    if existing := [name for name in NAMES if (folder / f"{name}.pem").exists()]:
        raise NothingToDoError(
            f"{folder} holds {existing[0]}.pem already; edgepack keys rotate replaces a key"
        )
    make_folder(folder, 0o700)
    return [make(folder, name) for name in NAMES]


def role(name: str) -> str:
    """Return the role of a key: that of `root-1` is root."""
    return name.partition("-")[0]


@contextmanager
def alone(folder: Path) -> Iterator[None]:
    """Let one command at a time sign with these keys."""
    import fcntl

    if not folder.is_dir():
        raise InputError(f"no keys at {folder}; edgepack keys init makes them")
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def make(folder: Path, name: str) -> Path:
    """Write a new key under a name, whole or not at all; a key of this name is replaced."""
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import (
        Encoding,
        NoEncryption,
        PrivateFormat,
    )

    key = Ed25519PrivateKey.generate()
    content = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
    path = folder / f"{name}.pem"
    write(folder.resolve() / path.name, content, _PRIVATE)
    return path


def signer(folder: Path, name: str) -> CryptoSigner:
    """Load a key.

    Raises:
        InputError: it is not there, or it is not an Ed25519 key in PEM.

    """
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
    from cryptography.hazmat.primitives.serialization import load_pem_private_key
    from securesystemslib.signer import CryptoSigner

    path = folder / f"{name}.pem"
    try:
        content = path.read_bytes()
        open_to_others = path.stat().st_mode & 0o077
        key = load_pem_private_key(content, None)
    except OSError as exc:
        raise InputError(
            f"no key at {path}: {exc.strerror}; edgepack keys init makes them"
        ) from exc
    except (ValueError, TypeError) as exc:
        if b"ENCRYPTED" in content:
            raise InputError(
                f"{path} has a passphrase, but edgepack cannot ask for it: write the key without "
                "one (openssl pkey -in OLD -out NEW) to a fully encrypted disk"
            ) from exc
        raise InputError(f"{path} is not a key: {exc}") from exc
    if open_to_others:
        raise InputError(
            f"{path} can be read or written by others: chmod 600 it, or mount its disk with "
            "umask=077; if others could reach it, edgepack keys rotate replaces it"
        )
    if not isinstance(key, Ed25519PrivateKey):
        raise InputError(f"{path} is not an Ed25519 key")
    return CryptoSigner(key)


def present(folder: Path, names: Sequence[str] = NAMES) -> dict[str, str]:
    """Return {name: key id} of the keys that are in a folder."""
    return {
        name: signer(folder, name).public_key.keyid
        for name in names
        if (folder / f"{name}.pem").exists()
    }
