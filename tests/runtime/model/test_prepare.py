"""What was compiled on a device is whole, or it is compiled again."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import handmade
import pytest

from edgepack_runtime import Bundle, DeviceError, InputError, TrustError, load
from edgepack_runtime.cli import main
from edgepack_runtime.device.facts import probe
from edgepack_runtime.model.prepare import compiled_folder, prepare, prepared
from edgepack_runtime.store.find import open_bundle
from edgepack_runtime.store.store import Store


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


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A store whose release has a variant that is to be compiled, and one that is not."""
    monkeypatch.setenv("EDGEPACK_CACHE", str(tmp_path / "cache"))
    variants = [{"name": "compiled", "options": {"prepare": True}}, {}]
    release = Bundle.open(handmade.bundle(tmp_path / "small.epk", variants=variants))
    store = Store.at(tmp_path / "store")
    with store.alone():
        store.install(release)
        assert store.start().on_trial
        store.confirm()
    return tmp_path / "store"


@pytest.mark.parametrize("command", ["prepare", "tune --seconds 0.01"])
def test_a_command_takes_a_store_for_the_release_that_runs(
    store: Path, command: str, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """What works in a process of its own finds the release, though it is a file of no name."""
    verb, *options = command.split()
    assert main([verb, str(store), *options, "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    if verb == "prepare":
        assert said == {"compiled": "ready"}
        assert load(store).variant.name == "compiled"
    assert "not measured" not in caplog.text


def test_a_store_prepares_behind_its_model(store: Path) -> None:
    """`load(store, prepare=True)` answers at once, and by the compiled variant when it is ready."""
    model = load(store, prepare=True)
    assert model("turn on")
    end = time.monotonic() + 30
    while model.variant.name != "compiled" and time.monotonic() < end:
        time.sleep(0.05)
    assert model.variant.name == "compiled"


def test_a_release_of_a_store_has_a_path_of_its_own(store: Path, tmp_path: Path) -> None:
    """It is opened whatever runs, relative or not; one that the store lacks is one clear error."""
    running = open_bundle(store)
    assert running.path == store / running.digest
    assert open_bundle(running.path).digest == running.digest
    Store.at(store).rollback()
    assert open_bundle(running.path).verify() > 0
    with pytest.raises(TrustError, match="no release"):
        open_bundle(store / f"sha256:{'0' * 64}")
    with pytest.raises(InputError, match="no bundle"):
        open_bundle(tmp_path / running.digest)


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
        "edgepack_runtime.model.prepare.os.fsync",
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
        patch.setattr("edgepack_runtime.model.load.open_variant", fail)
        with pytest.raises(DeviceError, match="EP_FAIL"):
            load(bundle)
    assert not ready(bundle)
    assert prepare(bundle) == {"compiled": ""}
    assert load(bundle)("turn on")
