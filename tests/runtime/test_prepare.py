"""What was compiled on a device is whole, or it is compiled again."""

from __future__ import annotations

import sys
from pathlib import Path

import handmade
import pytest

from edgepack_runtime import Bundle, DeviceError, load
from edgepack_runtime.device import probe
from edgepack_runtime.prepare import compiled_folder, prepare, prepared


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Bundle:
    """A bundle whose only variant is to be compiled, and an engine that a compiler made of it."""
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path / "cache"))
    variants = [{"name": "compiled", "options": {"prepare": True}}]
    made = Bundle.open(handmade.bundle(tmp_path / "small.epk", variants=variants))
    engine_of(made).parent.mkdir(parents=True)
    engine_of(made).write_bytes(b"an engine")
    return made


def engine_of(bundle: Bundle) -> Path:
    """Return the file of a compiled engine."""
    return compiled_folder(bundle, bundle.manifest.variants[0], probe()) / "graph.engine"


def ready(bundle: Bundle) -> bool:
    """Tell whether the variant may be loaded."""
    return prepared(bundle, bundle.manifest.variants[0], probe())


@pytest.mark.parametrize("content", [b"an engime", b"an", None], ids=["flipped", "torn", "lost"])
def test_a_damaged_engine_is_not_ready(bundle: Bundle, content: bytes | None) -> None:
    """A power cut may leave the mark and not what it stands for."""
    assert prepare(bundle) == {"compiled": ""}
    assert ready(bundle)
    engine_of(bundle).unlink() if content is None else engine_of(bundle).write_bytes(content)
    assert not ready(bundle)
    assert prepare(bundle) == {"compiled": ""}
    assert ready(bundle)


def test_what_was_compiled_is_durable_before_it_is_marked(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The engine is synced."""
    synced: list[Path] = []
    monkeypatch.setattr(
        "edgepack_runtime.prepare.os.fsync",
        lambda handle: synced.append(Path(f"/proc/self/fd/{handle}").readlink()),
    )
    prepare(bundle)
    assert engine_of(bundle) in synced


def test_an_engine_that_does_not_load_is_compiled_again(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A compiler that fails over a file it cannot read is given an empty folder."""
    compiler = tmp_path / "compiler"
    compiler.write_text(f"#!/bin/sh\ntest ! -e {engine_of(bundle)}\n")
    compiler.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(compiler))
    assert prepare(bundle) == {"compiled": ""}
    assert not engine_of(bundle).exists()


def test_a_variant_that_does_not_load_is_not_ready_any_more(
    bundle: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The load is an error, and the next preparation compiles it."""
    prepare(bundle)

    def fail(*_: object) -> object:
        raise DeviceError("EP_FAIL")

    with monkeypatch.context() as patch:
        patch.setattr("edgepack_runtime.model.open_variant", fail)
        with pytest.raises(DeviceError, match="EP_FAIL"):
            load(bundle)
    assert not ready(bundle)
    assert prepare(bundle) == {"compiled": ""}
    assert load(bundle)("turn on")
