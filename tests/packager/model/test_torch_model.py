"""A torch model as the runtime sees it: the outputs of transformers, however they are cut."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import languages
import numpy as np
import pair_models
import pytest

from edgepack.model.torch_model import TorchDecoder, TorchSession, load_torch, open_torch
from edgepack.model.torch_pairs import TorchEncoder, TorchPairDecoder
from edgepack_runtime import InputError
from edgepack_runtime.engines import BeamState

Get = Callable[[str], Path]
TASK = "text-classification"
IDS = np.array([[5, 9, 11, 40, 7, 23]], dtype=np.int64)
SEEN, MASK = "encoder_hidden_states", "encoder_attention_mask"


@pytest.fixture(scope="module")
def writer(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder of a small language model."""
    return languages.make("llama", tmp_path_factory.mktemp("writer"))


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return a small model that reads one text and writes another."""
    return pair_models.make("bart", tmp_path_factory.mktemp("pair"))


def _feeds(ids: Any) -> dict[str, Any]:
    return {"input_ids": ids, "rows": np.arange(ids.shape[1])}


def _logits(model: Any, **given: Any) -> Any:
    import torch

    with torch.no_grad():
        return model(**{name: torch.from_numpy(array) for name, array in given.items()}).logits


def _pair_feeds(model: Any, rows: Any) -> dict[str, Any]:
    """Return what the decoder reads: its own tokens, and the encoder's states of one text."""
    mask = np.ones_like(IDS)
    found = TorchEncoder(model).run({"input_ids": IDS, "attention_mask": mask})
    count = len(rows)
    return {"input_ids": rows, SEEN: found[SEEN].repeat(count, 0), MASK: mask.repeat(count, 0)}


# --- models that read -----------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore")
def test_the_answers_are_those_of_a_pipeline(model: Get) -> None:
    """Label and score, for texts of unequal length in one batch."""
    from transformers import pipeline

    texts = ["turn on the lights", "book a table for six people at a nice place tonight"]
    wanted = pipeline(TASK, model=str(model("bert-intent")))(texts)
    got = open_torch(model("bert-intent"), TASK)(texts)
    assert [item["label"] for item in got] == [item["label"] for item in wanted]
    mine, theirs = ([item["score"] for item in items] for items in (got, wanted))
    np.testing.assert_allclose(mine, theirs, atol=1e-6)


def test_a_session_takes_the_inputs_that_its_model_reads(model: Get) -> None:
    """BERT reads token types; DistilBERT and RoBERTa-like models of the same task need not."""
    session = TorchSession(load_torch(model("bert-intent"), TASK))
    assert session.inputs == ("input_ids", "attention_mask", "token_type_ids")
    assert not session._model.training  # dropout would make every answer another one


def test_a_length_that_is_asked_for_cuts_the_text(model: Get) -> None:
    """As `max_length` of a recipe does for the bundle."""
    short = open_torch(model("bert-intent"), TASK, 8)
    assert short.task.text
    assert short.task.text.max_length == 8
    ids = short.encoder.ids("turn on the lights " * 4)
    assert len(ids) > 8
    cut = short.encoder.tokenizer.decode(ids[1:7])
    long = short.outputs(["turn on the lights " * 4])[0]
    np.testing.assert_allclose(long, short.outputs([cut])[0], atol=1e-6)


def test_a_folder_that_transformers_cannot_read_is_named(model: Get, tmp_path: Path) -> None:
    """Weights that are missing, and a config of no known type."""
    shutil.copytree(model("bert-intent"), tmp_path / "empty")
    (tmp_path / "empty/model.safetensors").unlink()
    with pytest.raises(InputError, match="empty: transformers cannot load this model"):
        load_torch(tmp_path / "empty", TASK)
    (tmp_path / "empty/config.json").write_text('{"model_type": "nothing-known"}')
    with pytest.raises(InputError, match="transformers cannot load this model"):
        load_torch(tmp_path / "empty", TASK)


# --- models that write ----------------------------------------------------------------------------


def test_a_text_can_be_read_in_pieces(writer: Path) -> None:
    """All at once, in two pieces and token by token, the logits are those of transformers."""
    model = load_torch(writer, "text-generation")
    session, wanted = TorchDecoder(model), _logits(model, input_ids=IDS)[0].numpy()
    np.testing.assert_allclose(session.run(_feeds(IDS))["logits"], wanted, atol=1e-4)
    for sizes in ((4, 2), (1,) * 6):
        state, found, at = session.begin(6), [], 0
        for size in sizes:
            found.append(state.run(_feeds(IDS[:, at : at + size]))["logits"])
            at += size
            assert state.length == at
        np.testing.assert_allclose(np.concatenate(found), wanted, atol=1e-4)


def test_a_state_can_forget_and_has_its_limits(writer: Path) -> None:
    """After other tokens were forgotten nothing of them is left; a full state refuses more."""
    session = TorchDecoder(load_torch(writer, "text-generation"))
    state = session.begin(6)
    state.run(_feeds(np.array([[5, 9, 33, 34]])))
    state.truncate(2)
    state.truncate(4)  # what is forgotten does not come back
    assert state.length == 2
    again = state.run(_feeds(IDS[:, 2:]))["logits"]
    np.testing.assert_allclose(again, session.run(_feeds(IDS))["logits"][2:], atol=1e-4)
    with pytest.raises(InputError, match="holds 6 positions"):
        state.run(_feeds(IDS[:, :1]))
    state.close()


def test_only_the_rows_asked_for_have_logits(writer: Path) -> None:
    """A long prompt needs those of its last token alone."""
    session = TorchDecoder(load_torch(writer, "text-generation"))
    last = session.run({"input_ids": IDS, "rows": np.array([5])})["logits"]
    np.testing.assert_allclose(last, session.run(_feeds(IDS))["logits"][5:], atol=1e-5)


# --- models that read one text and write another --------------------------------------------------


def test_the_two_halves_are_the_whole(pair: Any) -> None:
    """Encoder and decoder apart, and the decoder in pieces, give the logits of the whole model."""
    answer = np.array([[0, 17, 4, 8]])
    wanted = _logits(pair, input_ids=IDS, decoder_input_ids=answer).numpy()
    feeds = _pair_feeds(pair, answer)
    np.testing.assert_allclose(TorchPairDecoder(pair).run(feeds)["logits"], wanted, atol=1e-4)
    state = TorchPairDecoder(pair).begin(4)
    parts = [state.run({**feeds, "input_ids": answer[:, at : at + 2]})["logits"] for at in (0, 2)]
    np.testing.assert_allclose(np.concatenate(parts, axis=1), wanted, atol=1e-4)


def test_rows_change_places_and_forget(pair: Any) -> None:
    """A beam that goes on twice, and a state that goes back, are as if read anew."""
    rows = np.array([[0, 17], [0, 30]])
    feeds = _pair_feeds(pair, rows)
    state = TorchPairDecoder(pair).begin(3)
    assert isinstance(state, BeamState)
    state.run(feeds)
    state.reorder([1, 1])
    next_ = np.array([[4], [8]])
    found = state.run({**feeds, "input_ids": next_})["logits"]
    whole = np.concatenate([rows[[1, 1]], next_], axis=1)
    wanted = TorchPairDecoder(pair).run({**feeds, "input_ids": whole})["logits"][:, 2:]
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    state.truncate(2)
    again = state.run({**feeds, "input_ids": next_})["logits"]
    np.testing.assert_allclose(again, wanted, atol=1e-4)
    with pytest.raises(InputError, match="holds 3 positions"):
        state.run({**feeds, "input_ids": next_})
