"""Tiny models of real architectures, made in a second: random weights, trained tokenizers.

They are wired like their big kin (`BertForTokenClassification` and so on) and their
tokenizers are of the real kinds (WordPiece, byte-level BPE, Unigram, Chinese characters),
so whatever depends on wiring is tested on real input.
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

INTENTS = {
    "lights": "turn on the lights",
    "weather": "what's the weather like",
    "booking": "book a table for six",
    "other": "the quick brown fox",
}
SENTENCES = [
    "Angela Merkel met the mayor of New York on Friday.",
    "can you book a table for six at the Blue Lagoon?",
    "turn on the lights in the kitchen, please",
    "what's the weather like in Nairobi tomorrow",
    "ACME Corp. bought Widgets & Co. for $49.90",
    "I'm flying to São Paulo — again — with Dr. O'Neill!",
    "the quick brown fox jumps over the lazy dog",
    "明天下午三点在北京开会，请不要迟到。",
    "张伟在上海的华为公司工作。",
    "Привет, как дела? Это тест.",
    "مرحبا كيف حالك اليوم",
    "emoji 😀 and 👩‍👩‍👧 in a text",
]
LABELS = ["O", "B-PER", "I-PER", "B-LOC", "I-LOC", "B-ORG", "I-ORG"]
SIZES = {
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 64,
}


def corpus() -> list[str]:
    """Return text enough to train a tokenizer on."""
    return [sentence for sentence in SENTENCES for _ in range(20)]


def wordpiece(folder: Path, *, chinese: bool = False) -> Any:
    """Return a BERT tokenizer trained on the corpus; characters for Chinese."""
    from tokenizers import BertWordPieceTokenizer
    from transformers import BertTokenizerFast

    trained = BertWordPieceTokenizer(lowercase=not chinese, handle_chinese_chars=True)
    trained.train_from_iterator(corpus(), vocab_size=400, min_frequency=1, show_progress=False)
    folder.mkdir(parents=True, exist_ok=True)
    trained.save_model(str(folder))
    return BertTokenizerFast(
        str(folder / "vocab.txt"), do_lower_case=not chinese, model_max_length=64
    )


def bytelevel(folder: Path) -> Any:
    """Return a RoBERTa tokenizer (byte-level BPE) trained on the corpus."""
    from tokenizers import ByteLevelBPETokenizer
    from transformers import RobertaTokenizerFast

    trained = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(
        corpus(), vocab_size=500, min_frequency=1, special_tokens=special, show_progress=False
    )
    folder.mkdir(parents=True, exist_ok=True)
    trained.save_model(str(folder))
    return RobertaTokenizerFast(
        str(folder / "vocab.json"), str(folder / "merges.txt"), model_max_length=64
    )


def unigram(folder: Path) -> Any:
    """Return an XLM-R tokenizer (Unigram with metaspace) trained on the corpus."""
    from tokenizers import SentencePieceUnigramTokenizer
    from tokenizers.processors import TemplateProcessing
    from transformers import XLMRobertaTokenizerFast

    trained = SentencePieceUnigramTokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    trained.train_from_iterator(
        corpus(), vocab_size=300, special_tokens=special, unk_token="<unk>", show_progress=False
    )
    trained.post_processor = TemplateProcessing(
        single="<s> $A </s>",
        pair="<s> $A </s> </s> $B </s>",
        special_tokens=[("<s>", 0), ("</s>", 2)],
    )
    folder.mkdir(parents=True, exist_ok=True)
    return XLMRobertaTokenizerFast(
        tokenizer_object=trained._tokenizer,
        model_max_length=64,
    )


def make(kind: str, folder: Path) -> Path:
    """Write a tiny model of a kind (see `KINDS`) to `folder` and return it."""
    import torch

    torch.manual_seed(7)
    model, tokenizer = KINDS[kind](folder)
    for parameter in model.parameters():  # random weights decide too little otherwise
        torch.nn.init.normal_(parameter, std=0.4) if parameter.dim() > 1 else None
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def redraw(source: Path, folder: Path) -> Path:
    """Copy a tiny BERT with weights to learn from, and return the copy.

    BERT draws weights with a deviation of 0.02, for vectors of 768.  Ours have 32: drawn as small,
    a model learns on one processor and stays where it is on another.

    """
    import torch
    from transformers import AutoModelForSequenceClassification, BertForSequenceClassification

    shutil.copytree(source, folder, dirs_exist_ok=True)
    config = AutoModelForSequenceClassification.from_pretrained(source).config
    config.initializer_range = 0.1
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    return folder


def _labels(names: list[str]) -> dict[str, Any]:
    return {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}


def _bert_intent(folder: Path) -> Any:
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = wordpiece(folder)
    names = ["lights", "weather", "booking", "other"]
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, **SIZES, **_labels(names)
    )
    return BertForSequenceClassification(config), tokenizer


def _bert_multi_label(folder: Path) -> Any:
    model, tokenizer = _bert_intent(folder)
    model.config.problem_type = "multi_label_classification"
    return model, tokenizer


def _bert_ner(folder: Path) -> Any:
    from transformers import BertConfig, BertForTokenClassification

    tokenizer = wordpiece(folder)
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, **SIZES, **_labels(LABELS)
    )
    return BertForTokenClassification(config), tokenizer


def _chinese_ner(folder: Path) -> Any:
    from transformers import BertConfig, BertForTokenClassification

    tokenizer = wordpiece(folder, chinese=True)
    config = BertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, **SIZES, **_labels(LABELS)
    )
    return BertForTokenClassification(config), tokenizer


def _distilbert(folder: Path) -> Any:
    from transformers import (
        DistilBertConfig,
        DistilBertForSequenceClassification,
        DistilBertTokenizerFast,
    )

    wordpiece(folder)
    tokenizer = DistilBertTokenizerFast(str(folder / "vocab.txt"), model_max_length=64)
    config = DistilBertConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=64,
        dim=32,
        n_layers=2,
        n_heads=2,
        hidden_dim=64,
        **_labels(["no", "yes"]),
    )
    return DistilBertForSequenceClassification(config), tokenizer


def _roberta_ner(folder: Path) -> Any:
    from transformers import RobertaConfig, RobertaForTokenClassification

    tokenizer = bytelevel(folder)
    config = RobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=66,
        pad_token_id=1,
        **SIZES,
        **_labels(LABELS),
    )
    return RobertaForTokenClassification(config), tokenizer


def _xlm_roberta(folder: Path) -> Any:
    from transformers import XLMRobertaConfig, XLMRobertaForSequenceClassification

    tokenizer = unigram(folder)
    config = XLMRobertaConfig(
        vocab_size=len(tokenizer),
        max_position_embeddings=66,
        pad_token_id=1,
        **SIZES,
        **_labels(["no", "yes", "maybe"]),
    )
    return XLMRobertaForSequenceClassification(config), tokenizer


def _albert(folder: Path) -> Any:
    from transformers import AlbertConfig, AlbertModel

    tokenizer = wordpiece(folder)
    config = AlbertConfig(
        vocab_size=len(tokenizer), max_position_embeddings=64, embedding_size=16, **SIZES
    )
    return AlbertModel(config), tokenizer


def _sentence(folder: Path) -> Any:
    """A sentence-transformers folder: mean pooling, normalised."""
    import json

    from transformers import BertConfig, BertModel

    tokenizer = wordpiece(folder)
    modules = [
        {"idx": 0, "name": "0", "path": "", "type": "sentence_transformers.models.Transformer"},
        {
            "idx": 1,
            "name": "1",
            "path": "1_Pooling",
            "type": "sentence_transformers.models.Pooling",
        },
        {
            "idx": 2,
            "name": "2",
            "path": "2_Normalize",
            "type": "sentence_transformers.models.Normalize",
        },
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": 32, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "modules.json").write_text(json.dumps(modules))
    config = BertConfig(vocab_size=len(tokenizer), max_position_embeddings=64, **SIZES)
    return BertModel(config), tokenizer


KINDS = {
    "bert-intent": _bert_intent,
    "bert-multi-label": _bert_multi_label,
    "bert-ner": _bert_ner,
    "chinese-ner": _chinese_ner,
    "distilbert": _distilbert,
    "roberta-ner": _roberta_ner,
    "xlm-roberta": _xlm_roberta,
    "albert": _albert,
    "sentence": _sentence,
}
