"""Text comes in pieces: whole characters, and no part of a stop text."""

from __future__ import annotations

from typing import Any

import pytest

from edgepack_runtime.generation.text import Pieces

TEXTS = [
    "the quick brown fox",
    "naïve café — 日本語 and 👩‍👩‍👧 emoji",
    "नमस्ते दुनिया",
    "  two  spaces ",
    "line\nbreaks\n\n",
    "🇫🇷🇩🇪",
    "a",
    "",
]


@pytest.fixture(scope="module")
def byte_level() -> Any:
    """A byte-level tokenizer whose tokens are single bytes, or nearly."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

    made = Tokenizer(models.BPE())
    made.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    made.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(vocab_size=262, initial_alphabet=alphabet, show_progress=False)
    made.train_from_iterator(["the the quick"], trainer)
    return made


@pytest.fixture(scope="module")
def metaspace() -> Any:
    """A tokenizer that writes spaces as a mark and unknown characters as bytes, as Llama's does."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers

    pieces = ["<unk>", *(f"<0x{i:02X}>" for i in range(256)), "▁the", "▁quick", "▁", "t", "h", "e"]
    made = Tokenizer(
        models.BPE({p: i for i, p in enumerate(pieces)}, [], unk_token="<unk>", byte_fallback=True)
    )
    made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first")
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    return made


@pytest.mark.parametrize("kind", ["byte_level", "metaspace"])
@pytest.mark.parametrize("text", TEXTS)
def test_pieces_join_to_what_the_tokenizer_decodes(
    kind: str, text: str, request: pytest.FixtureRequest
) -> None:
    """No piece holds a broken character, and all of them are the text after the prompt."""
    tokenizer = request.getfixturevalue(kind)
    prompt, ids = tokenizer.encode("the").ids, tokenizer.encode("the " + text).ids
    written = Pieces(tokenizer, prompt)
    rest = ids[len(prompt) :]
    pieces = [written.add(token) for token in rest]
    assert not any("\N{REPLACEMENT CHARACTER}" in piece for piece in pieces)
    whole = "".join([*pieces, written.finish()])
    assert whole == written.text == tokenizer.decode(ids)[len(tokenizer.decode(prompt)) :]


def test_a_character_that_is_not_finished_shows_at_the_end(byte_level: Any) -> None:
    """A text that ends inside of a character says so, and nothing is lost."""
    ids = byte_level.encode("a日").ids
    written = Pieces(byte_level, [])
    assert "".join(written.add(token) for token in ids[:-1]) == "a"
    assert written.finish() == "\N{REPLACEMENT CHARACTER}"


@pytest.mark.parametrize(
    ("stops", "wanted"),
    [
        (["brown"], "the quick "),
        (["k b"], "the quic"),
        (["quick", "the"], ""),
        (["foxes"], "the quick brown fox"),
        (["ownx", "own fox"], "the quick br"),
        (["x"], ("the quick brown fo")),
    ],
)
def test_a_stop_text_is_seen_across_tokens(stops: list[str], wanted: str, byte_level: Any) -> None:
    """The text ends before it, and no part of it was given out."""
    written = Pieces(byte_level, [], stops)
    given = ""
    for token in byte_level.encode("the quick brown fox").ids:
        given += written.add(token)
        assert wanted.startswith(given)
        if written.stopped:
            break
    assert given + written.finish() == wanted
    assert written.stopped == (wanted != "the quick brown fox")
