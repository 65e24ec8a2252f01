"""A variant is a set of named graphs, and each is what the manifest says of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import handmade
import pytest

from edgepack_runtime import Bundle, DeviceError, InputError, TrustError, load
from edgepack_runtime.bundle.manifest import Graph, canonical_json
from edgepack_runtime.engines import Stateless
from edgepack_runtime.engines.null import NullSession
from edgepack_runtime.model.selftest import read_golden

GRAPH = handmade.graph_of("null/null.json")


def _load(path: Path, *graphs: Graph) -> Any:
    return load(handmade.bundle(path / "b.epk", variants=[{"graphs": graphs}]))


@pytest.mark.parametrize(
    ("graph", "message"),
    [
        (replace(GRAPH, inputs=("input_ids",)), "takes attention_mask, input_ids; the manifest"),
        (replace(GRAPH, outputs=("logits",)), "gives output; the manifest says logits"),
        (replace(GRAPH, name="encoder"), "has no graph 'model', which text-classification needs"),
    ],
)
def test_a_graph_is_what_the_manifest_says(graph: Graph, message: str, tmp_path: Path) -> None:
    """Other inputs, outputs or names than are promised are a damaged bundle, said before a run."""
    with pytest.raises(TrustError, match=message):
        _load(tmp_path, graph)


@pytest.mark.parametrize(
    "graphs", [(), (GRAPH, GRAPH), (replace(GRAPH, name=""),), (replace(GRAPH, name="../x"),)]
)
def test_graphs_have_names_of_their_own(graphs: tuple[Graph, ...], tmp_path: Path) -> None:
    """No graph, two of one name, or a name that is no file's are refused."""
    with pytest.raises(TrustError, match="has no graph, two of one name, or one of an unusable"):
        _load(tmp_path, *graphs)


def test_a_graph_that_wants_more_than_is_made_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names what is wanted and what there is."""
    monkeypatch.setattr(NullSession, "inputs", ("input_ids", "bbox"))
    with pytest.raises(DeviceError, match="needs bbox, which this runtime does not make"):
        _load(tmp_path, replace(GRAPH, inputs=("input_ids", "bbox")))


def test_a_model_without_texts_needs_no_tokenizer(tmp_path: Path) -> None:
    """The manifest says which kinds of input there are; a task that misses one says so."""
    task = {"name": "text-classification", "text": None, "labels": ["a"]}
    path = handmade.bundle(tmp_path / "b.epk", change={"task": task})
    assert Bundle.open(path).manifest.task.text is None
    with pytest.raises(TrustError, match="has no tokenizer, which text-classification needs"):
        load(path)


def test_a_golden_input_may_be_a_file(tmp_path: Path) -> None:
    """What JSON cannot hold lies in the bundle, hashed as all is, and reaches the task as bytes."""
    golden = handmade.golden() | {"inputs": [{"file": "golden/0.wav"}]}
    extra = {"golden.json": canonical_json(golden), "golden/0.wav": b"RIFF"}
    bundle = Bundle.open(handmade.bundle(tmp_path / "b.epk", extra=extra))
    assert read_golden(bundle).inputs == (b"RIFF",)
    missing = {"golden.json": extra["golden.json"]}
    with pytest.raises(TrustError, match=r"no file 'golden/0\.wav'"):
        read_golden(Bundle.open(handmade.bundle(tmp_path / "c.epk", extra=missing)))


def test_a_state_goes_on_where_its_last_run_ended() -> None:
    """Run in pieces, or on what was taken back, the answer is that of the whole text at once."""
    import numpy as np

    session = NullSession(rank=2, size=7)

    def feeds(*ids: int) -> dict[str, Any]:
        row = np.array([ids], dtype=np.int64)
        return {"input_ids": row, "attention_mask": np.ones_like(row)}

    whole = session.run(feeds(1, 2, 3, 4))["output"]
    state = session.begin(4)
    state.run(feeds(1, 2, 9))
    state.truncate(2)
    assert (state.run(feeds(3, 4))["output"] == whole).all()
    assert state.length == 4
    with pytest.raises(InputError, match="holds 4 positions, not 5"):
        state.run(feeds(5))
    state.close()
    with pytest.raises(InputError, match="closed"):
        state.run(feeds(1))


def test_a_graph_without_a_state_says_so() -> None:
    """A task that asks for one gets an error that names what is missing."""
    with pytest.raises(DeviceError, match="holds no state"):
        Stateless().begin(16)
