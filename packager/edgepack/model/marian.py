"""A fast tokenizer for Marian's translation models, which come with none.

They have two SentencePiece models and one vocabulary: `source.spm` splits what is read, and
`target.spm` names pieces of what is written.  The fast tokenizer splits like the first and joins
the pieces of both.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgepack_runtime.errors import InputError

_UNIGRAM = 1  # the kind of model in SentencePiece's format
# Before pieces that are only written, so that nothing that is read is split into them.
_WRITTEN = "\ue000"


FAMILY = "marian"


def is_marian(tokenizer: Any) -> bool:
    """Tell whether a tokenizer of transformers is Marian's."""
    return type(tokenizer).__name__ == "MarianTokenizer"


def fast(tokenizer: Any, folder: Path) -> Any:
    """Return a `tokenizers.Tokenizer` with the same tokens.

    Args:
        tokenizer: the `MarianTokenizer`.
        folder: of the model, for messages.

    Raises:
        InputError: it has two vocabularies, or pieces of another kind.

    """
    from sentencepiece import sentencepiece_model_pb2 as formats
    from tokenizers import AddedToken, Tokenizer, decoders, models, processors

    if tokenizer.separate_vocabs:
        raise InputError(f"{folder}: Marian with two vocabularies is not built yet")
    source = formats.ModelProto()  # type: ignore[attr-defined]
    source.ParseFromString(Path(tokenizer.spm_files[0]).read_bytes())
    if source.trainer_spec.model_type != _UNIGRAM:
        raise InputError(f"{folder}/source.spm is not a unigram model, which Marian's are")
    ids: dict[str, int] = tokenizer.encoder
    scores = {piece.piece: piece.score for piece in source.pieces}
    least = min(scores.values())
    pieces = [""] * (max(ids.values()) + 1)
    for piece, number in ids.items():
        pieces[number] = piece
    special = {*tokenizer.all_special_tokens, *tokenizer.supported_language_codes}
    # A letter that only the other language has is read too, if the vocabulary has it.
    read = {piece for piece in pieces if piece in scores or piece in special or len(piece) < 2}
    rows = [(p if p in read else _WRITTEN + p, scores.get(p, least)) for p in pieces]
    made = Tokenizer(models.Unigram(rows, unk_id=ids[str(tokenizer.unk_token)]))
    made.normalizer = _normalizer(source.normalizer_spec.precompiled_charsmap)
    made.pre_tokenizer = _words()
    made.decoder = decoders.Sequence([decoders.Replace(_WRITTEN, ""), decoders.Metaspace()])
    end = str(tokenizer.eos_token)
    made.post_processor = processors.TemplateProcessing(
        single=f"$A {end}", pair=f"$A $B {end}", special_tokens=[(end, ids[end])]
    )
    made.add_special_tokens(
        [AddedToken(t, normalized=False, special=True) for t in sorted(special & set(ids))]
    )
    return made


def _normalizer(rules: bytes) -> Any:
    from tokenizers import Regex, normalizers

    found = [normalizers.Precompiled(rules)] if rules else []
    return normalizers.Sequence(
        [
            *found,
            normalizers.Strip(),
            normalizers.Replace(Regex(" {2,}"), " "),
        ]
    )


def _words() -> Any:
    from tokenizers import pre_tokenizers

    return pre_tokenizers.Metaspace(prepend_scheme="always")
