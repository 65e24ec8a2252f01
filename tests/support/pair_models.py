"""Small models with random weights that read one text and write another."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import tiny

# What each family differs by, as far as a graph and a search see it.
KINDS: dict[str, dict[str, Any]] = {
    "t5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    "t5 gated": {
        "d_model": 32,
        "d_kv": 8,
        "d_ff": 48,
        "num_layers": 2,
        "num_heads": 4,
        "feed_forward_proj": "gated-gelu",
        "tie_word_embeddings": False,
    },
    "mt5": {"d_model": 32, "d_kv": 8, "d_ff": 48, "num_layers": 2, "num_heads": 4},
    "bart": {"forced_eos_token_id": 1, "forced_bos_token_id": 2},
    "m2m_100": {"decoder_start_token_id": 1},
    "mbart": {},
    "marian": {},
    "pegasus": {},
    "blenderbot": {},
}
_LAYERS = {
    "d_model": 32,
    "encoder_layers": 2,
    "decoder_layers": 2,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "encoder_ffn_dim": 48,
    "decoder_ffn_dim": 48,
    "max_position_embeddings": 128,
}


def make(kind: str, folder: Path, vocabulary: int = 96) -> Any:
    """Write a model; return it."""
    import torch
    from transformers import AutoConfig, AutoModelForSeq2SeqLM

    family = kind.partition(" ")[0]
    sizes = {} if "t5" in family else _LAYERS
    tokens = {
        "pad_token_id": 0,
        "eos_token_id": 1,
        "bos_token_id": 2,
        "decoder_start_token_id": 0,
        "forced_eos_token_id": None,
    }
    config = AutoConfig.for_model(
        family, vocab_size=vocabulary, **{**tokens, **sizes, **KINDS[kind]}
    )
    spread = 0.2 if "t5" in family else 0.35  # T5 does not scale its attention
    torch.manual_seed(5)
    model = AutoModelForSeq2SeqLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() > 1:
            torch.nn.init.normal_(parameter, std=spread)
    with warnings.catch_warnings(action="ignore"):  # it moves settings to another file
        model.save_pretrained(folder)
    return AutoModelForSeq2SeqLM.from_pretrained(folder).eval()  # some positions are not saved


def with_tokenizer(kind: str, folder: Path) -> Path:
    """Write a model with a byte-level tokenizer; return the folder."""
    from transformers import PreTrainedTokenizerFast

    source = tiny.make("roberta-ner", folder / "tokenizer")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(source / "tokenizer.json"),
        eos_token="</s>",
        pad_token="<pad>",
        bos_token="<s>",
    )
    make(kind, folder / "model", len(tokenizer))
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


SOURCE = [
    "the small frog sat on a green stone",
    "she asked her teacher for advice",
    "nobody knows the trouble i have seen",
    "where is the station, please?",
]
TARGET = [
    "der kleine frosch saß auf einem grünen stein",
    "sie bat ihre lehrerin um rat",
    "niemand kennt den ärger, den ich sah",
    "wo ist bitte der bahnhof?",
]


def marian_tokenizer(folder: Path) -> Any:
    """Train two SentencePiece models, and return the tokenizer of both, as Marian's are."""
    import sentencepiece as spm
    from transformers import MarianTokenizer

    folder.mkdir(exist_ok=True)
    pieces = ["</s>", "<unk>"]
    for name, texts in (("source", SOURCE), ("target", TARGET)):
        spm.SentencePieceTrainer.train(
            sentence_iterator=iter(texts * 30),
            model_prefix=str(folder / name),
            vocab_size=60,
            hard_vocab_limit=False,
            minloglevel=2,
            character_coverage=1.0,
        )
        (folder / f"{name}.model").rename(folder / f"{name}.spm")
        model = spm.SentencePieceProcessor(str(folder / f"{name}.spm"))
        pieces += [model.id_to_piece(i) for i in range(3, model.get_piece_size())]
    pieces += [">>deu<<", ">>nld<<", "<pad>"]
    vocabulary = {piece: at for at, piece in enumerate(dict.fromkeys(pieces))}
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    files = [str(folder / name) for name in ("source.spm", "target.spm", "vocab.json")]
    with warnings.catch_warnings(action="ignore"):  # it recommends a package that it does not use
        return MarianTokenizer(*files)


def marian_with_tokenizer(folder: Path) -> Path:
    """Write a translation model as Marian's are published; return the folder."""
    tokenizer = marian_tokenizer(folder)
    tokenizer.save_pretrained(folder)
    make("marian", folder, len(tokenizer))
    return folder
