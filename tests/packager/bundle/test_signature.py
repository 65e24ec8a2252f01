"""A model signature inside a bundle: of this key, of these files, or refused."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import handmade
import pytest
from click.testing import CliRunner
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec

from edgepack.bundle import signature
from edgepack.bundle.pack import Content, unpack_bundle, write_bundle
from edgepack.cli import main
from edgepack_runtime import load
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.errors import InputError, TrustError

model_signing = pytest.importorskip("model_signing")


def make_keys(folder: Path, name: str) -> tuple[Path, Path]:
    """Write a pair of keys; return the private and the public one."""
    key = ec.generate_private_key(ec.SECP256R1())
    private, public = folder / f"{name}.pem", folder / f"{name}.pub"
    private.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    public.write_bytes(
        key.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
    )
    return private, public


def call(*arguments: str | Path) -> tuple[int, str]:
    """Run the command line; return its exit code and what it said."""
    done = CliRunner().invoke(main, [str(word) for word in arguments])
    return done.exit_code, done.output


@pytest.mark.parametrize("layout", ["epk", "folder"])
def test_a_signed_bundle_is_of_its_key(tmp_path: Path, layout: str) -> None:
    """It runs as before; the right key verifies, another does not, and signing twice is once."""
    path = handmade.bundle(tmp_path / "bundle", layout=layout)
    private, public = make_keys(tmp_path, "ours")
    _, other = make_keys(tmp_path, "theirs")
    assert call("verify", path, "--key", public)[0] == 5
    for _ in (1, 2):
        assert call("sign", path, "--key", private)[0] == 0
    assert call("verify", path, "--key", public)[0] == 0
    assert call("verify", path, "--key", other)[0] == 5
    assert load(path)("turn on")
    names = [entry.path for entry in Bundle.open(path).manifest.files]
    assert names.count(signature.NAME) == 1


def test_the_signature_is_that_of_openssf(tmp_path: Path) -> None:
    """The library's own verifier takes the unpacked folder, and refuses it once a file differs."""
    path = handmade.bundle(tmp_path / "b.epk")
    private, public = make_keys(tmp_path, "ours")
    assert call("sign", path, "--key", private, "-o", tmp_path / "signed.epk")[0] == 0
    assert call("unpack", tmp_path / "signed.epk", tmp_path / "files")[0] == 0
    (tmp_path / "files" / signature.NAME).rename(tmp_path / "model.sig")
    verifier = model_signing.verifying.Config().use_elliptic_key_verifier(public_key=public)
    verifier.verify(tmp_path / "files", tmp_path / "model.sig")
    golden = tmp_path / "files/golden.json"
    golden.write_bytes(golden.read_bytes() + b" ")
    with pytest.raises(ValueError, match="golden"):
        verifier.verify(tmp_path / "files", tmp_path / "model.sig")


def test_a_signature_does_not_cover_other_files(tmp_path: Path) -> None:
    """A bundle with the signature of another one is not what was signed."""
    private, public = make_keys(tmp_path, "ours")
    signature.sign(Bundle.open(handmade.bundle(tmp_path / "a.epk")), private, tmp_path / "a.epk")
    stolen = bytes(Bundle.open(tmp_path / "a.epk").read(signature.NAME))
    forged = handmade.bundle(tmp_path / "f.epk", extra={signature.NAME: stolen, "more.bin": b"x"})
    with pytest.raises(TrustError, match="not what"):
        signature.verify(Bundle.open(forged), public)


@pytest.mark.parametrize(
    "change",
    [
        {"version": "9.9"},
        {"release": 99},
        {"name": "other"},
        {"kit": {"x-1-any.whl": "0" * 64}},
    ],
)
def test_a_signature_covers_the_manifest(tmp_path: Path, change: dict[str, Any]) -> None:
    """With every signed file untouched, a manifest that says something else is refused."""
    private, public = make_keys(tmp_path, "ours")
    path = tmp_path / "a.epk"
    signature.sign(Bundle.open(handmade.bundle(path)), private, path)
    signed = Bundle.open(path)
    signature.verify(signed, public)
    folder = tmp_path / "files"
    names = unpack_bundle(signed, folder)
    content = Content({name: folder / name for name in names})
    forged = replace(signed.manifest, **change)
    write_bundle(forged, content, tmp_path / "forged.epk", layout="epk")
    with pytest.raises(TrustError, match="its manifest is different"):
        signature.verify(Bundle.open(tmp_path / "forged.epk"), public)


def test_bad_keys_are_one_clear_error(tmp_path: Path) -> None:
    """No file, and a file that is not a key; the bundle stays as it was."""
    path = handmade.bundle(tmp_path / "b.epk")
    before = path.read_bytes()
    (tmp_path / "junk.pem").write_text("no key")
    for key in ("nowhere.pem", "junk.pem"):
        with pytest.raises(InputError, match="is not a private key"):
            signature.sign(Bundle.open(path), tmp_path / key, path)
    assert path.read_bytes() == before
    code, output = call("unpack", path, tmp_path)
    assert code == 2
    assert "not empty" in output
