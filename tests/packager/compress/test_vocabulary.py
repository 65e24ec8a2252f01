"""A trimmed vocabulary: what is kept, and that every text is still read."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import tiny
from lessons import INTENTS, TASK, new_folder

from edgepack.compress import vocabulary
from edgepack.model.torch_model import open_torch

Get = Callable[..., Path]


@pytest.mark.parametrize("kind", ["bert-intent", "roberta-ner", "xlm-roberta"])
def test_a_trimmed_vocabulary_still_encodes_every_text(
    kind: str, model: Get, train: Path, tmp_path: Path
) -> None:
    """The data is tokenized and answered as before; other texts gain no unknown token."""
    task = "token-classification" if kind == "roberta-ner" else TASK
    unlabelled = tmp_path / "texts.txt"
    unlabelled.write_text("\n".join(row.split("\t")[0] for row in train.read_text().splitlines()))
    out = new_folder(tmp_path / "trimmed")
    vocabulary.trim(
        vocabulary.Settings(task), {"model": model(kind), "unlabelled": unlabelled}, out
    )
    before, after = open_torch(model(kind), task), open_torch(out, task)
    assert after.encoder.tokenizer.get_vocab_size() < before.encoder.tokenizer.get_vocab_size()
    for text in INTENTS["lights"]:
        assert after.encoder.encode(text).first.tokens == before.encoder.encode(text).first.tokens
        assert np.allclose(before.outputs([text])[0], after.outputs([text])[0], atol=1e-5)
    unknown = before.encoder.spec.unk_id
    for text in [*tiny.SENTENCES, "qzx vwkj 9876", "São Öğürçé"]:
        old, new = (opened.encoder.encode(text).first.ids for opened in (before, after))
        assert new.count(after.encoder.spec.unk_id) <= old.count(unknown)


def test_common_words_stay_though_the_data_lacks_them(
    model: Get, train: Path, tmp_path: Path
) -> None:
    """A share of the vocabulary is kept in its own order; none of it where the recipe says 0."""
    sizes = []
    for share in (0.0, 0.5, 1.0):
        out = tmp_path / str(share)
        out.mkdir()
        settings = vocabulary.Settings(TASK, general=share)
        vocabulary.trim(settings, {"model": model("bert-intent"), "data": train}, out)
        sizes.append(open_torch(out, TASK).encoder.tokenizer.get_vocab_size())
    whole = open_torch(model("bert-intent"), TASK).encoder.tokenizer
    assert sizes[0] < sizes[1] < sizes[2] == whole.get_vocab_size()
    kept = open_torch(tmp_path / "0.5", TASK).encoder.tokenizer.get_vocab()
    common = [whole.id_to_token(i) for i in range(whole.get_vocab_size() // 3)]
    assert all(token in kept for token in common)
