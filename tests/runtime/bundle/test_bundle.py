"""A bundle that was damaged, altered or forged is refused, and nothing of it is trusted."""

from __future__ import annotations

import io
import json
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import handmade
import pytest

from edgepack_runtime import Bundle, InputError, TrustError, load
from edgepack_runtime.errors import EdgepackError

Get = Callable[..., Path]


def test_every_flipped_byte_is_detected_or_harmless(tmp_path: Path) -> None:
    """With any one byte altered the bundle is refused, or answers as before."""
    path = handmade.bundle(tmp_path / "small.epk")
    original = path.read_bytes()
    expected = _answer(path)
    broken = tmp_path / "broken.epk"
    detected = 0
    for at in range(len(original)):
        broken.write_bytes(original[:at] + bytes([original[at] ^ 0x41]) + original[at + 1 :])
        try:
            assert _answer(broken) == expected, f"byte {at} changed the answer unnoticed"
        except (TrustError, InputError):
            detected += 1
    payload = sum(size for _, size in handmade.spans(path).values())
    assert detected >= 0.95 * payload


def _answer(path: Path) -> object:
    bundle = Bundle.open(path)
    bundle.verify()
    return load(bundle)("turn on the lights")


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_a_truncated_bundle_is_refused(share: float, tmp_path: Path) -> None:
    """A file that ends early is a TrustError, wherever it ends."""
    path = handmade.bundle(tmp_path / "small.epk")
    whole = path.read_bytes()
    end = max(at + size for at, size in handmade.spans(path).values())
    path.write_bytes(whole[: int(end * share)])
    with pytest.raises(TrustError):
        Bundle.open(path).verify()


@pytest.mark.parametrize(
    "name", ["../evil", "/etc/evil", "blobs/sha256/../../evil", "blobs/sha256/short", "evil"]
)
def test_a_member_outside_the_layout_is_refused(name: str, tmp_path: Path) -> None:
    """A path with .., an absolute path or any other stranger among the members is refused."""
    path = handmade.bundle(tmp_path / "small.epk")
    _append(path, tarfile.TarInfo(name))
    with pytest.raises(TrustError, match="does not belong"):
        Bundle.open(path)


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_devices_are_refused(kind: bytes, tmp_path: Path) -> None:
    """A member that is not a plain file is refused, whatever its name."""
    path = handmade.bundle(tmp_path / "small.epk")
    info = tarfile.TarInfo("blobs/sha256/" + "0" * 64)
    info.type, info.linkname = kind, "/etc/passwd"
    _append(path, info)
    with pytest.raises(TrustError, match="does not belong"):
        Bundle.open(path)


def test_a_member_that_stands_twice_is_refused(tmp_path: Path) -> None:
    """Two members of one name could show two readers two contents."""
    path = handmade.bundle(tmp_path / "small.epk")
    _append(path, tarfile.TarInfo("index.json"))
    with pytest.raises(TrustError, match="does not belong"):
        Bundle.open(path)


def test_a_link_in_a_folder_is_refused(tmp_path: Path) -> None:
    """A blob of a bundle folder that is a symbolic link is refused."""
    folder = handmade.bundle(tmp_path / "folder", layout="folder")
    blob = next((folder / "blobs/sha256").iterdir())
    moved = tmp_path / "moved"
    shutil.move(blob, moved)
    blob.symlink_to(moved)
    with pytest.raises(TrustError, match="plain file"):
        Bundle.open(folder).verify()


@pytest.mark.parametrize("link", ["blobs", "blobs/sha256"])
def test_a_link_on_the_way_is_refused(link: str, tmp_path: Path) -> None:
    """A folder of a bundle folder that is a symbolic link is refused."""
    folder = handmade.bundle(tmp_path / "folder", layout="folder")
    moved = tmp_path / "moved"
    shutil.move(folder / link, moved)
    (folder / link).symlink_to(moved)
    with pytest.raises(TrustError, match="plain file"):
        Bundle.open(folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"format": 2}, "format 2, this runtime reads up to 1"),
        ({"format": "1"}, "no usable format"),
        ({"surprise": 1}, "unknown key 'surprise'"),
        ({"release": "one"}, "expected int"),
        ({"variants": []}, "no variant"),
        ({"golden": "elsewhere.json"}, "names no file"),
        ({"name": "../x"}, "unusable name"),
    ],
)
def test_a_manifest_that_says_too_much_or_too_little_is_refused(
    change: dict[str, object], message: str, tmp_path: Path
) -> None:
    """A newer format, an unknown key or a wrong type is one clear TrustError."""
    with pytest.raises(TrustError, match=message):
        Bundle.open(handmade.bundle(tmp_path / "small.epk", change=change))


def test_a_measurement_that_is_no_number_is_refused(tmp_path: Path) -> None:
    """What was measured is numbers, whatever the name of the figure."""
    path = handmade.bundle(tmp_path / "small.epk", variants=[{"measured": {"agreement": "x"}}])
    with pytest.raises(TrustError, match="agreement: expected float"):
        Bundle.open(path)


@pytest.mark.parametrize("path", ["../model.onnx", "/model.onnx", "a/../../b", "c:\\x", "a//b", ""])
def test_an_unsafe_path_in_the_manifest_is_refused(path: str, tmp_path: Path) -> None:
    """No file of a manifest may point out of its folder."""
    bad = handmade.bundle(tmp_path / "small.epk", extra={path: b"x"})
    with pytest.raises(TrustError, match="unsafe path"):
        Bundle.open(bad)


def test_duplicate_json_keys_are_refused(tmp_path: Path) -> None:
    """JSON with a key twice means two things to two readers."""
    folder = handmade.bundle(tmp_path / "folder", layout="folder")
    (folder / "oci-layout").write_text(
        '{"imageLayoutVersion":"1.0.0","imageLayoutVersion":"1.0.0"}'
    )
    with pytest.raises(TrustError, match="duplicate key"):
        Bundle.open(folder)


def test_what_is_no_bundle_says_so(tmp_path: Path) -> None:
    """Nothing, an empty file and some other file are three clear errors."""
    with pytest.raises(InputError, match="no bundle at"):
        Bundle.open(tmp_path / "missing.epk")
    for content in (b"", b"\x00" * 2048, b"PK\x03\x04 some zip file", b"x" * 600):
        path = tmp_path / "other"
        path.write_bytes(content)
        with pytest.raises(EdgepackError):
            Bundle.open(path)


def test_folder_and_archive_are_the_same_bundle(tmp_path: Path) -> None:
    """Both layouts of the same content have one digest."""
    archive = Bundle.open(handmade.bundle(tmp_path / "a.epk"))
    folder = Bundle.open(handmade.bundle(tmp_path / "b", layout="folder"))
    assert archive.digest == folder.digest
    assert json.loads(bytes(archive.read("golden.json"))) == json.loads(
        bytes(folder.read("golden.json"))
    )


def _append(path: Path, info: tarfile.TarInfo) -> None:
    with tarfile.open(path, "a", format=tarfile.USTAR_FORMAT) as archive:
        archive.addfile(info, io.BytesIO(b""))


def test_hostile_tar_headers_are_refused(tmp_path: Path) -> None:
    """A chain of long-name headers, or one of absurd size, is a TrustError and no crash."""
    path = tmp_path / "hostile.epk"
    header = tarfile.TarInfo("././@LongLink")
    header.type = tarfile.GNUTYPE_LONGNAME
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) * 3000)
    with pytest.raises(TrustError):
        Bundle.open(path)
    header.size = 1 << 60
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT))
    with pytest.raises(TrustError):
        Bundle.open(path)


def test_a_name_too_long_for_the_disk_is_no_bundle() -> None:
    """A path that no file system takes is said not to be there."""
    with pytest.raises(InputError, match="no bundle at"):
        Bundle.open("x" * 5000)


def test_an_altered_graph_is_not_trusted_whatever_the_engine(
    bundle: Get, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One byte changed in a weight blob is a TrustError, and no fall back passes over it.

    Where the sound graph was kept by an earlier load, that one answers.
    """
    source = bundle("bert-intent", "cpu-arm64")
    entry = Bundle.open(source).manifest.file("onnxruntime-int8/model.onnx")
    content = bytearray(source.read_bytes())
    at, size = handmade.spans(source)[f"blobs/sha256/{entry.sha256}"]
    content[at + size // 2] ^= 1
    path = tmp_path / "altered.epk"
    path.write_bytes(content)
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path))
    with pytest.raises(TrustError, match="does not match its digest"):
        load(path, any_device=True, allow_fallback=True)
    wanted = load(source, any_device=True, variant="onnxruntime-int8")("turn on")
    assert load(path, any_device=True, variant="onnxruntime-int8")("turn on") == wanted
