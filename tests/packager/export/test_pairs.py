"""Models that read one text and write another: their two graphs write what transformers writes."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pair_models
import pytest

from edgepack.export import graph, pairs
from edgepack.export.decoder import nbits
from edgepack_runtime.engines.onnxruntime import OrtSession
from edgepack_runtime.generation.beams import Source, search
from edgepack_runtime.generation.loop import write
from edgepack_runtime.generation.pairs import PairChooser, PairReader, encode
from edgepack_runtime.generation.settings import PairSettings

pytestmark = pytest.mark.filterwarnings("ignore")  # of the exporters
TEXTS = ([7, 33, 21, 80, 11, 1], [40, 41, 42, 43, 44, 45, 46, 47, 48, 1], [9, 1])


@pytest.fixture(scope="module", params=pair_models.KINDS)
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the model in torch, and the folder of its graphs."""
    folder = tmp_path_factory.mktemp("pairs")
    model = pair_models.make(request.param, folder / "model")
    (folder / "graphs").mkdir()
    pairs.export(folder / "model", folder / "graphs", 18)
    return model, folder / "graphs"


def _open(path: Path) -> OrtSession:
    import onnxruntime as ort

    return OrtSession(ort.InferenceSession(str(path)), {})


def _wanted(model: Any, ids: Sequence[int], **how: Any) -> list[int]:
    """Return what transformers writes, without what only fills it up."""
    import torch

    with torch.no_grad():
        found: list[int] = model.generate(torch.tensor([list(ids)]), do_sample=False, **how)[
            0
        ].tolist()
    while found and found[-1] == 0:
        found.pop()
    return found


def _written(folder: Path, ids: Sequence[int], start: Sequence[int], settings: Any) -> list[int]:
    """Return what the graphs write."""
    held = encode(_open(folder / "encoder.onnx"), ids)
    state = _open(folder / "decoder.onnx").begin(settings.max_new_tokens + 1)
    if settings.num_beams > 1:
        found = search(state, Source(ids, held), start, settings, [1])  # type: ignore[arg-type]
    else:
        chooser = PairChooser(settings, start, [1], ids)
        rest = replace(settings, max_new_tokens=settings.max_new_tokens + 1 - len(start))
        found = [*start, *write(lambda: PairReader(state, source=held), start, chooser, rest, [1])]
    return [token for token in found if token not in (0, 1)]


@pytest.mark.parametrize(
    "how",
    [
        {"num_beams": 1},
        {"num_beams": 4},
        {"num_beams": 4, "length_penalty": 2.0, "early_stopping": True},
        {"num_beams": 3, "length_penalty": 0.5, "early_stopping": "never", "min_new_tokens": 5},
        {"num_beams": 2, "no_repeat_ngram_size": 2, "encoder_no_repeat_ngram_size": 2},
    ],
)
def test_graphs_write_what_transformers_writes(case: Any, how: dict[str, Any]) -> None:
    """Token for token, with one beam and with several."""
    model, folder = case
    bart = model.config.model_type == "bart"
    settings = PairSettings(max_new_tokens=40, forced_eos_token_id=1 if bart else None, **how)
    for ids in TEXTS:
        wanted = [token for token in _wanted(model, ids, max_new_tokens=40, **how) if token > 1]
        start = [model.config.decoder_start_token_id, *([2] if bart else [])]
        assert _written(folder, ids, start, settings) == wanted


def test_logits_are_those_of_torch(case: Any) -> None:
    """Also in the middle of an answer, and for a second row."""
    import torch

    model, folder = case
    told = [model.config.decoder_start_token_id, 17, 40, 8, 60]
    for ids in TEXTS:
        with torch.no_grad():
            wanted = (
                model(input_ids=torch.tensor([ids]), decoder_input_ids=torch.tensor([told]))
                .logits[0]
                .numpy()
            )
        state = _open(folder / "decoder.onnx").begin(8)
        found = PairReader(state, source=encode(_open(folder / "encoder.onnx"), ids)).logits(told)
        assert np.abs(found - wanted).max() < 1e-3 * np.abs(wanted).max()


def test_int8_is_near(case: Any, tmp_path: Path) -> None:
    """The logits of the int8 graphs point where those of the float graphs do, in half the bytes."""
    _, folder = case
    for name in ("encoder", "decoder"):
        model = nbits.to_int8(graph.load(folder / f"{name}.onnx"))
        assert any(node.op_type == "MatMulNBits" for node in model.graph.node)
        graph.save(model, tmp_path / f"{name}.onnx")
    told = [0, 17, 40, 8, 60]
    both = []
    for place in (folder, tmp_path):
        held = encode(_open(place / "encoder.onnx"), TEXTS[1])
        both.append(PairReader(_open(place / "decoder.onnx").begin(8), source=held).logits(told))
    cosine = (both[0] * both[1]).sum(1) / np.prod([np.linalg.norm(b, axis=1) for b in both], axis=0)
    assert cosine.min() > 0.98


def test_a_trained_transliterator_writes_what_it_writes_in_torch(
    data: Path, tmp_path: Path
) -> None:
    """Arabic names in Latin letters, with one beam and four: a model that was really trained."""
    from transformers import AutoModelForSeq2SeqLM

    folder = data / "models/aren-transliteration"
    letters = (folder / "source.txt").read_text().split("\n")
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    pairs.export(folder, tmp_path, 18)
    held, state = _open(tmp_path / "encoder.onnx"), _open(tmp_path / "decoder.onnx")
    names = ("آتزمون", "كليوباترا", "محمد", "بغداد")
    written = set()
    for name in names:
        ids = [letters.index(letter) for letter in name]
        for beams in (1, 4):
            wanted = _wanted(model, ids, num_beams=beams, max_new_tokens=30)
            settings = PairSettings(max_new_tokens=30, num_beams=beams)
            found = search(
                state.begin(31),  # type: ignore[arg-type]
                Source(ids, encode(held, ids)),
                [52],
                settings,
                [53],
            )
            assert found == wanted
            written.add(tuple(found))
    assert len(written) > len(names), "beams change an answer"
