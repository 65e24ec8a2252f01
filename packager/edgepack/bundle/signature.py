"""An OpenSSF model signature inside a bundle, for people and tools that verify models.

It covers every file, and also the manifest, by a copy among the files that `verify` compares.  It
shows who made the files and that they are whole.  It does not show how recent they are, and a
device does not read it: releases are trusted through their channel.  The extra `signing` installs
the library.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from edgepack.bundle.pack import Content, unpack_bundle, write_bundle
from edgepack.host import lacks_extra
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import canonical_json, encode
from edgepack_runtime.errors import InputError, TrustError

NAME = "model.sig"
MANIFEST = "manifest.json"  # a file of the bundle: the signed manifest


def sign(bundle: Bundle, key: Path, out: Path) -> str:
    """Write a bundle with a signature over its files; return the new digest.

    Every signature is different, so the digest is different each time: sign what you publish once.

    Args:
        bundle: the bundle to sign; an existing signature is replaced.
        key: an elliptic curve's private key in PEM (P-256, P-384 or P-521).
        out: the `.epk` or folder to write; it may be the bundle's own path.

    Raises:
        InputError: the file is not a usable key.
        HostError: the extra is not installed.

    """
    library = _library()
    with TemporaryDirectory() as name:
        folder = Path(name, "files")
        files = [path for path in unpack_bundle(bundle, folder) if path != NAME]
        (folder / NAME).unlink(missing_ok=True)
        (folder / MANIFEST).write_bytes(_signed_manifest(bundle))
        files = sorted({*files, MANIFEST})
        made = Path(name, NAME)
        signing = library.signing.Config()
        config = _asked(
            lambda: signing.use_elliptic_key_signer(private_key=key), f"{key} is not a private key"
        )
        config.sign(folder, made)
        content = Content({**{path: folder / path for path in files}, NAME: made})
        manifest = replace(bundle.manifest, files=content.entries())
        layout = "folder" if bundle.path.is_dir() else "epk"
        return write_bundle(manifest, content, out, layout=layout, report=bundle.report)


def verify(bundle: Bundle, public_key: Path) -> None:
    """Check the signature inside a bundle.

    Raises:
        TrustError: there is none, or it was made with another key or for other files.
        InputError: the file is not a usable key.
        HostError: the extra is not installed.

    """
    if NAME not in {entry.path for entry in bundle.manifest.files}:
        raise TrustError(f"{bundle.path} is not signed; edgepack sign signs it")
    library = _library()
    with TemporaryDirectory() as name:
        folder, signature = Path(name, "files"), Path(name, NAME)
        unpack_bundle(bundle, folder)
        (folder / NAME).replace(signature)
        reading = library.verifying.Config()
        config = _asked(
            lambda: reading.use_elliptic_key_verifier(public_key=public_key),
            f"{public_key} is not a public key",
        )
        try:
            config.verify(folder, signature)
        except (ValueError, KeyError) as exc:
            raise TrustError(f"{bundle.path} is not what {public_key} signed: {exc}") from exc
        manifest = folder / MANIFEST
        if not manifest.is_file() or manifest.read_bytes() != _signed_manifest(bundle):
            raise TrustError(
                f"{bundle.path} is not what {public_key} signed: its manifest is different, or an "
                "older edgepack did not sign it; edgepack sign signs it again"
            )


def _signed_manifest(bundle: Bundle) -> bytes:
    """Return the signed part of a manifest: everything except the entries that signing adds."""
    files = tuple(entry for entry in bundle.manifest.files if entry.path not in (NAME, MANIFEST))
    return canonical_json(encode(replace(bundle.manifest, files=files)))


def _library() -> Any:
    try:
        import model_signing
    except ImportError as exc:
        raise lacks_extra(f"a signature ({exc})", "signing") from exc
    return model_signing


def _asked(call: Callable[[], Any], what: str) -> Any:
    """Turn the library's errors about a key into an `InputError`."""
    try:
        return call()
    except (OSError, ValueError, TypeError) as exc:
        raise InputError(f"{what}: {exc}") from exc
