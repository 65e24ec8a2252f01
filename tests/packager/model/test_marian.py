"""The fast tokenizer of Marian's models: the tokens and texts of the slow one."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import pytest
from pair_models import SOURCE, TARGET, marian_tokenizer

from edgepack.model import marian
from edgepack_runtime.errors import InputError


@pytest.fixture(scope="module")
def slow(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """Return the tokenizer of transformers."""
    return marian_tokenizer(tmp_path_factory.mktemp("marian"))


def _texts() -> list[str]:
    rng = random.Random(3)  # noqa: S311 (not a secret)
    words = [word for text in SOURCE + TARGET for word in text.split()]
    found = [" ".join(rng.choices(words, k=rng.randint(1, 9))) for _ in range(200)]
    return [
        *found,
        "  two  spaces ",
        "",
        "UPPER case",
        "ﬁne ½ ①",
        "a\tb\nc",
        "x" * 300,
        "日本 frog",
        ">>deu<< the frog",
        ">>nld<< where?",
        "ß",
        "saß",
    ]


def test_tokens_are_those_of_the_slow_tokenizer(slow: Any) -> None:
    """Also of unknown letters, odd spaces, and texts in the other language."""
    fast = marian.fast(slow, Path("m"))
    for text in _texts():
        assert fast.encode(text).ids == slow(text).input_ids, repr(text)


def test_what_is_written_is_joined_like_the_slow_tokenizer_does(slow: Any) -> None:
    """Pieces of the target language that no source text is split into."""
    fast = marian.fast(slow, Path("m"))
    for text in TARGET:
        ids = slow(text_target=text).input_ids
        assert fast.decode(ids, skip_special_tokens=True) == text
        assert slow.decode(ids, skip_special_tokens=True) == text


def test_two_vocabularies_are_refused(slow: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what is not built."""
    monkeypatch.setattr(slow, "separate_vocabs", True)
    with pytest.raises(InputError, match="two vocabularies"):
        marian.fast(slow, Path("m"))
