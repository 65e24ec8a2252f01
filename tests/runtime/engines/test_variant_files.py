"""How an engine knows the files of its variant."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import handmade
import pytest

from edgepack.export.previous_scales import spill
from edgepack.model.opened import Candidate, files_of, move_files, open_model
from edgepack_runtime import Bundle, TrustError, load
from edgepack_runtime.engines import null

TWO = {"encoder/model.onnx": b"one", "decoder/model.onnx": b"two"}


def _bundle(path: Path, *files: str, extra: Mapping[str, bytes]) -> Bundle:
    """Write a bundle whose variant `v` has these files beside the null engine's."""
    variant = {"name": "v", "graphs": (handmade.graph_of("v/null.json", *files),)}
    return Bundle.open(handmade.bundle(path / "b.epk", extra=dict(extra), variants=[variant]))


def test_two_graphs_of_one_file_name_are_two_files(tmp_path: Path) -> None:
    """An engine finds each by its path in the variant's folder, and one from elsewhere by all."""
    extra = {f"v/{name}": content for name, content in TWO.items()} | {"shared/model.onnx": b"s"}
    bundle = _bundle(tmp_path, *extra, extra=extra)
    files = bundle.files(bundle.manifest.variant("v"))
    found = {name: bytes(content) for name, content in files.items() if name != "null.json"}
    assert found == {**TWO, "shared/model.onnx": b"s"}
    assert load(bundle)("turn on")


@pytest.mark.parametrize("second", ["v/null.json", "null.json"])
def test_two_files_of_one_name_are_refused(second: str, tmp_path: Path) -> None:
    """A file that is listed twice, or that hides another, is no bundle's of ours."""
    with pytest.raises(TrustError, match="variant v has two files of the same name"):
        load(_bundle(tmp_path, second, extra={"null.json": b"{}"}))


def test_a_variant_without_its_graph_is_not_trusted(tmp_path: Path) -> None:
    """A file that the engine looks for and the variant does not list is an error, not a crash."""
    variant = {"graphs": (handmade.graph_of("other.bin"),)}
    path = handmade.bundle(tmp_path / "b.epk", variants=[variant], extra={"other.bin": b""})
    with pytest.raises(TrustError, match=r"a graph has 0 files \.json, not one"):
        load(path)


def test_content_is_named_by_its_files_too(tmp_path: Path) -> None:
    """Two graphs that changed places are another content: what was compiled is not taken."""
    keys = set()
    for number, names in enumerate((list(TWO), list(reversed(TWO)))):
        files = [f"v/{name}" for name in names]
        extra = dict(zip(files, TWO.values(), strict=True))
        (tmp_path / str(number)).mkdir()
        bundle = _bundle(tmp_path / str(number), *files, extra=extra)
        keys.add(bundle.files(bundle.manifest.variant("v")).key)
    assert len(keys) == 2


def test_the_host_keeps_the_folders_of_a_variant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Written out, moved and opened on the build host, two graphs of one name stay two."""
    extra = {f"v/{name}": content for name, content in TWO.items()}
    bundle = _bundle(tmp_path, *extra, extra=extra)
    spill(bundle, "v", tmp_path / "old")
    move_files(tmp_path / "old", tmp_path / "new")
    assert set(files_of(tmp_path / "new")) == {*TWO, "null.json"}
    assert not files_of(tmp_path / "old")
    tokenizer = tmp_path / "tokenizer"
    tokenizer.mkdir()
    (tokenizer / "tokenizer.json").write_bytes(handmade.tokenizer())
    (tokenizer / "task.json").write_text(json.dumps(asdict(bundle.manifest.task)))
    seen: dict[str, bytes] = {}

    def opened(files: Mapping[str, memoryview], *_: Any) -> null.NullSession:
        seen.update({name: bytes(content) for name, content in files.items()})
        return null.NullSession(2, 3)

    monkeypatch.setattr(null, "open_session", opened)
    found = Candidate("null", "float32", {"model": sorted(files_of(tmp_path / "new"))})
    open_model(tokenizer, tmp_path / "new", found)
    assert {name: seen[name] for name in TWO} == TWO
