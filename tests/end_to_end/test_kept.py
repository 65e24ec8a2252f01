"""What engines compiled is kept: the next start takes it, the answers stay, damage is noticed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

import edgepack_runtime as er
from edgepack_runtime import Bundle
from edgepack_runtime.device.facts import probe
from edgepack_runtime.model.prepare import compiled_folder

Get = Callable[..., Path]
TEXT = "turn on the lights"


@pytest.mark.parametrize("name", ["openvino-int8", "onnxruntime-int8-avx2"])
def test_the_second_start_takes_what_the_first_one_kept(
    bundle: Get, name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whole, it is read in place of the graph; damaged or not to be written, the graph is."""
    opened = Bundle.open(bundle("bert-intent"))
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path))
    folder = compiled_folder(opened, opened.manifest.variant(name), probe())

    def answer() -> object:
        return er.load(opened, variant=name, threads=1)(TEXT)

    wanted = answer()
    kept = [p for p in folder.rglob("*") if p.is_file() and p.stat().st_size > 1000]
    assert kept
    with monkeypatch.context() as patch:
        patch.setattr(type(opened.files(opened.manifest.variant(name))), "__getitem__", _refuse)
        assert answer() == wanted
    damaged = {}
    for path in kept:
        content = bytearray(path.read_bytes())
        content[len(content) // 2] ^= 1
        path.write_bytes(content)
        damaged[path] = content
    assert answer() == wanted
    assert all(path.read_bytes() != content for path, content in damaged.items())
    monkeypatch.setenv("EDGEPACK_CACHE", "/proc/nowhere")
    assert answer() == wanted


def _refuse(*_: object) -> None:
    raise AssertionError("the graph of the bundle was read")
