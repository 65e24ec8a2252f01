"""The bytes of every format, as they were once: written alike today, and still read.

The files beside this module change only where a format is meant to change.  Until the first
release that takes a line in the CHANGELOG.  From then on a device may hold what an older version
wrote: what is here stays and stays readable, and a new format gets files of its own.  `keys.json`
alone may always change; a line in the CHANGELOG then says that stages are made again.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import handmade
import pytest

from edgepack.build.plan import Plan
from edgepack.build.planning import make_plan
from edgepack.channel import delta as deltas
from edgepack.data import texts
from edgepack.data.rows import Columns
from edgepack.model.fetch import ModelInfo
from edgepack.recipe.recipe import Recipe
from edgepack.recipe.target import Target, VariantSpec
from edgepack.stages import cache
from edgepack.stages.cache import Source, Stage
from edgepack_runtime import load
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import Requires
from edgepack_runtime.model.selftest import selftest
from edgepack_runtime.store import record as records
from edgepack_runtime.store.record import Record
from edgepack_runtime.store.storage import Disk
from edgepack_runtime.update import delta

HERE = Path(__file__).parent
BUNDLE = HERE / "bundle.tar"  # an .epk
FIRST = Record(active="a" * 64, floors={"root": 1, "small": 3}, root="b" * 64)
SECOND = Record(
    active="a" * 64,
    previous="c" * 64,
    trial="d" * 64,
    attempts=3,
    bad=("e" * 64, "f" * 64),
    pinned=True,
    floors={"root": 2, "targets@0123": 7, "small@0123": 4},
    root="9" * 64,
)
BASE = bytes(range(256)) * 16
NEW = BASE[:1024] + bytes((x + (i % 50 == 0)) % 256 for i, x in enumerate(BASE[1024:3072])) + b"new"


def agrees(name: str, made: bytes, folder: Path) -> None:
    """Fail unless a file here holds these bytes; what was made is then left in a folder."""
    if made != (HERE / name).read_bytes():
        (folder / name).write_bytes(made)
        pytest.fail(f"{folder / name} is not {HERE / name}, which may change as said above")


def made_bundle(folder: Path) -> bytes:
    """Return the archive of a small bundle, with two variants and a file in a folder.

    The tokenizer is the stored one: how its library writes it is not ours to promise.
    """
    stored = bytes(Bundle.open(BUNDLE).read("tokenizer.json"))
    extra = {"docs/note.txt": b"note", "tokenizer.json": stored}
    variants: list[dict[str, Any]] = [{}, {"name": "needy", "requires": Requires(memory_mb=64)}]
    return handmade.bundle(folder / "made.epk", extra=extra, variants=variants).read_bytes()


def made_delta(folder: Path) -> bytes:
    """Return the delta of two files with one equal tensor, one alike and an end of its own."""
    for name, content in (("base", BASE), ("new", NEW)):
        (folder / f"{name}.bin").write_bytes(content)
        (folder / f"{name}.xml").write_text(
            "".join(
                f'<layer id="{i}" name="w" type="Const">\n<data offset="{at}" size="{size}"/>\n'
                for i, (at, size) in enumerate([(0, 1024), (1024, 2048)])
            )
        )
    return deltas.encode(folder / "base.bin", folder / "new.bin")


@pytest.fixture
def source(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Source:
    """A model without a config worth the name; code and tools count as unchanged."""
    monkeypatch.setattr(cache, "code_digest", lambda _: "code")
    monkeypatch.setattr(cache, "version_of", lambda _: "1.0")
    (tmp_path / "config.json").write_text('{"model_type": "bert"}')
    return Source(tmp_path, "key of the model")


def made_plan(source: Source) -> Plan:
    """Return the plan of a plain conversion for a target with two variants."""
    provider = "CPUExecutionProvider"
    target = Target(
        "box",
        "a box",
        "x86_64",
        {},
        (
            VariantSpec("cpu-int8", "onnxruntime", provider, "int8", "dynamic"),
            VariantSpec("openvino-int8", "openvino", "CPU", "int8", "static"),
        ),
        Requires(memory_mb=100),
    )
    model = ModelInfo(source, "small", "text-classification", "bert")
    return make_plan(Recipe("a/model", max_length=32), model, target)


def test_a_bundle_is_written_as_it_was(tmp_path: Path) -> None:
    """The same content and manifest give the stored archive, byte for byte."""
    agrees("bundle.tar", made_bundle(tmp_path), tmp_path)


def test_a_stored_bundle_answers_as_it_did() -> None:
    """The runtime verifies the stored archive, proves it, and gives the answers recorded for it."""
    bundle = Bundle.open(BUNDLE)
    assert bundle.verify() > 0
    model = load(bundle)
    selftest(bundle, model)
    recorded = json.loads((HERE / "answers.json").read_text())
    assert bundle.digest == recorded["digest"]
    for text, answer in recorded["answers"].items():
        assert model(text) == [
            {"label": label, "score": pytest.approx(score)} for label, score in answer.items()
        ]


def test_a_record_of_a_store_is_written_as_it_was(tmp_path: Path) -> None:
    """Two states written in turn give the two stored files."""
    disk = Disk(tmp_path / "store")
    for state in (FIRST, SECOND):
        records.write(disk, state)
    for name in records.FILES:
        agrees(name, (tmp_path / "store" / name).read_bytes(), tmp_path)


def test_a_stored_record_is_read() -> None:
    """Both files mean what was written, and the newer one counts."""
    found = [records.decode((HERE / name).read_bytes()) for name in records.FILES]
    assert [_fields(each) for each in found] == [
        {**_fields(FIRST), "seq": 1},
        {**_fields(SECOND), "seq": 2},
    ]
    assert records.read(Disk(HERE)).seq == 2


def _fields(state: Record | None) -> Mapping[str, Any]:
    return vars(state) if state else {}


def test_a_delta_is_written_as_it_was(tmp_path: Path) -> None:
    """Two files give the stored delta: a copy, a difference and new bytes."""
    agrees("small.delta", made_delta(tmp_path), tmp_path)


def test_a_stored_delta_makes_its_file() -> None:
    """The runtime makes the new file of the old one and the stored delta."""
    packed = BytesIO((HERE / "small.delta").read_bytes())
    assert b"".join(delta.decode(packed.read, memoryview(BASE), len(NEW))) == NEW


def test_keys_are_what_they_were(source: Source, tmp_path: Path) -> None:
    """With code and tools left alone, a stage and a plan have the stored keys."""
    settings = texts.Settings("text-classification", Columns(text="utterance"), samples=10, seed=3)
    stage = Stage("texts", texts.collect, settings, {"data": source}, ("numpy",))
    plan = made_plan(source)
    found = {"stage": stage.key, "plan": plan.key, "of the plan": plan.as_json()}
    agrees("keys.json", (json.dumps(found, indent=1) + "\n").encode(), tmp_path)
