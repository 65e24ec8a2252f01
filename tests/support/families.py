"""Small models of every encoder family, with a head that was trained: made in seconds, offline.

They are wired like their big kin, their tokenizers are of the real kinds, and their heads have
learned a small task, so that decisions are not ties and int8 can be judged by them.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

TASKS = ("text-classification", "token-classification", "feature-extraction", "sentence-similarity")
WIDTH, LAYERS, HEADS, INNER, VOCABULARY = 64, 2, 4, 128, 2048
POSITIONS = 128
INTENTS = {
    "lights": ("turn on the lights", "it is too dark in here", "lamp off", "dim the bulb"),
    "weather": ("will it rain tomorrow", "how cold is it outside", "is a storm coming", "forecast"),
    "booking": ("book a table for two", "reserve a room in Paris", "I need a flight", "a seat"),
    "music": ("play some jazz", "skip this song", "louder please", "who sings this tune"),
}
FILLERS = (
    "please",
    "now",
    "for my sister",
    "in the kitchen",
    "on Friday",
    "thanks",
    "at 7 am",
    "again",
    "for Dr. Adams",
    "as always",
    "if you can",
    "before dinner",
)
PLACES = ("Paris", "Nairobi", "Berlin", "Tokyo", "Lima")
PEOPLE = ("Adams", "Okoro", "Merkel", "Tanaka", "Silva")
TAGS = ["O", "B-LOC", "B-PER"]
_STEPS, _BATCH, _RATE = 160, 32, 3e-3


@dataclass(frozen=True)
class Family:
    """config: class of the configuration; tokenizer: one of `TOKENIZERS`; extra: of the config."""

    config: str
    tokenizer: str
    tokenizer_class: str
    extra: Mapping[str, Any] = field(default_factory=dict)
    tasks: tuple[str, ...] = TASKS


_SIZES = {
    "hidden_size": WIDTH,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "intermediate_size": INNER,
    "max_position_embeddings": POSITIONS + 2,
}
_DECODER = {"num_key_value_heads": 2, "head_dim": 16, "pad_token_id": 1}
_NO_TOKENS = ("text-classification", "feature-extraction")  # what Optimum exports
_GENERATIVE = ("text-classification", "token-classification", "feature-extraction")

FAMILIES: dict[str, Family] = {
    "bert": Family("BertConfig", "wordpiece", "BertTokenizerFast"),
    "distilbert": Family(
        "DistilBertConfig",
        "wordpiece",
        "DistilBertTokenizerFast",
        {"dim": WIDTH, "n_layers": LAYERS, "n_heads": HEADS, "hidden_dim": INNER},
    ),
    "roberta": Family("RobertaConfig", "bytelevel", "RobertaTokenizerFast"),
    "xlm-roberta": Family("XLMRobertaConfig", "unigram", "XLMRobertaTokenizerFast"),
    "camembert": Family("CamembertConfig", "unigram", "CamembertTokenizerFast"),
    "albert": Family("AlbertConfig", "unigram", "AlbertTokenizerFast", {"embedding_size": 64}),
    "electra": Family("ElectraConfig", "wordpiece", "ElectraTokenizerFast", {"embedding_size": 64}),
    "mpnet": Family("MPNetConfig", "wordpiece", "MPNetTokenizerFast"),
    "deberta": Family(
        "DebertaConfig",
        "bytelevel",
        "DebertaTokenizerFast",
        {
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "type_vocab_size": 0,
            "position_biased_input": False,
            "pooler_hidden_size": WIDTH,
        },
    ),
    "deberta-v2": Family(
        "DebertaV2Config",
        "unigram",
        "DebertaV2TokenizerFast",
        {
            "relative_attention": True,
            "pos_att_type": ["c2p", "p2c"],
            "pooler_hidden_size": WIDTH,
            "type_vocab_size": 0,
            "position_biased_input": False,
        },
    ),
    "deberta-v3": Family(
        "DebertaV2Config",
        "unigram",
        "DebertaV2TokenizerFast",
        {
            "relative_attention": True,
            "pos_att_type": ["p2c", "c2p"],
            "pooler_hidden_size": WIDTH,
            "type_vocab_size": 0,
            "position_biased_input": False,
            "position_buckets": 32,
            "norm_rel_ebd": "layer_norm",
            "share_att_key": True,
        },
    ),
    "mobilebert": Family(
        "MobileBertConfig",
        "wordpiece",
        "MobileBertTokenizerFast",
        {"embedding_size": 32, "true_hidden_size": 32, "intra_bottleneck_size": 32},
    ),
    "squeezebert": Family(
        "SqueezeBertConfig", "wordpiece", "SqueezeBertTokenizerFast", {"embedding_size": WIDTH}
    ),
    "convbert": Family(
        "ConvBertConfig", "wordpiece", "ConvBertTokenizerFast", {"embedding_size": WIDTH}
    ),
    "modernbert": Family(
        "ModernBertConfig",
        "bytelevel",
        "PreTrainedTokenizerFast",
        {
            "local_attention": 32,
            "reference_compile": False,
            "pad_token_id": 1,
            "bos_token_id": 0,
            "eos_token_id": 2,
            "cls_token_id": 0,
            "sep_token_id": 2,
        },
    ),
    "roformer": Family(
        "RoFormerConfig", "wordpiece", "BertTokenizerFast", {"embedding_size": WIDTH}
    ),
    "data2vec-text": Family("Data2VecTextConfig", "bytelevel", "RobertaTokenizerFast"),
    "ernie": Family("ErnieConfig", "wordpiece", "BertTokenizerFast"),
    "megatron-bert": Family("MegatronBertConfig", "wordpiece", "BertTokenizerFast"),
    "big_bird": Family(
        "BigBirdConfig", "unigram", "BigBirdTokenizerFast", {"attention_type": "original_full"}
    ),
    "gpt2": Family(
        "GPT2Config",
        "bytelevel",
        "GPT2TokenizerFast",
        {
            "n_embd": WIDTH,
            "n_layer": LAYERS,
            "n_head": HEADS,
            "n_positions": POSITIONS,
            "pad_token_id": 1,
            "bos_token_id": 2,
            "eos_token_id": 2,
        },
        _GENERATIVE,
    ),
    "qwen2": Family("Qwen2Config", "bytelevel", "Qwen2TokenizerFast", _DECODER, _GENERATIVE),
    "qwen3": Family("Qwen3Config", "bytelevel", "Qwen2TokenizerFast", _DECODER, _NO_TOKENS),
    "llama": Family("LlamaConfig", "unigram", "PreTrainedTokenizerFast", _DECODER, _NO_TOKENS),
}


def rows(count: int, seed: int) -> list[tuple[str, str]]:
    """Return (text, intent) of short commands, none of them twice with one seed."""
    rng = random.Random(seed)  # noqa: S311 (a choice, not a secret)
    found: dict[str, str] = {}
    while len(found) < count:
        intent = rng.choice(sorted(INTENTS))
        words = [rng.choice(INTENTS[intent]), *rng.sample(FILLERS, rng.randint(0, 3))]
        if rng.random() < 0.7:
            words.append(f"{rng.choice(('near', 'with', 'to'))} {rng.choice((*PLACES, *PEOPLE))}")
        rng.shuffle(words)
        found[" ".join(words)] = intent
    return list(found.items())


def tag(word: str) -> str:
    """Return the tag of a word."""
    if word in PLACES:
        return "B-LOC"
    return "B-PER" if word in PEOPLE else "O"


def make(family: str, task: str, folder: Path) -> Path:
    """Write a model of a family for a task to `folder`, its head trained, and return it."""
    import torch

    torch.manual_seed(11)
    spec = FAMILIES[family]
    tokenizer = TOKENIZERS[spec.tokenizer](spec.tokenizer_class)
    model = _model(spec, task, tokenizer)
    for parameter in model.parameters():  # larger than usual: so few layers decide too little
        torch.nn.init.normal_(parameter, std=0.08) if parameter.dim() > 1 else None
    if task.endswith("classification"):
        _train(model, tokenizer, task)
    model.eval().save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    if task == "sentence-similarity":
        _sentence_files(folder)
    return folder


def _model(spec: Family, task: str, tokenizer: Any) -> Any:
    import transformers

    names = {"text-classification": sorted(INTENTS), "token-classification": TAGS}.get(task, [])
    labels: dict[str, Any] = (
        {"id2label": dict(enumerate(names)), "label2id": {n: i for i, n in enumerate(names)}}
        if names
        else {}
    )
    values = {**_SIZES, **spec.extra, **labels, "vocab_size": VOCABULARY}
    values.setdefault("pad_token_id", tokenizer.pad_token_id)
    config = getattr(transformers, spec.config)(**values)
    kinds = {
        "text-classification": "AutoModelForSequenceClassification",
        "token-classification": "AutoModelForTokenClassification",
    }
    return getattr(transformers, kinds.get(task, "AutoModel")).from_config(
        config, attn_implementation="eager"
    )


def _train(model: Any, tokenizer: Any, task: str) -> None:
    """Teach the whole small model its task."""
    import torch

    optimizer = torch.optim.AdamW(model.parameters(), lr=_RATE)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.05, _STEPS)
    data = rows(800, seed=1)
    rng = random.Random(0)  # noqa: S311 (a choice, not a secret)
    model.train()
    for _ in range(_STEPS):
        picked = rng.sample(data, _BATCH)
        batch = _batch(tokenizer, picked, task)
        loss = model(**batch).loss
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()


def _batch(tokenizer: Any, picked: list[tuple[str, str]], task: str) -> dict[str, Any]:
    import torch

    names = sorted(INTENTS)
    texts = [text for text, _ in picked]
    found = tokenizer(texts, padding=True, truncation=True, max_length=64, return_tensors="pt")
    if task == "text-classification":
        labels = torch.tensor([names.index(intent) for _, intent in picked])
    else:
        labels = torch.full(found["input_ids"].shape, -100)
        for i, text in enumerate(texts):
            for at in range(labels.shape[1]):
                span = found.token_to_chars(i, at)
                if span is not None and span.end > span.start:
                    labels[i, at] = TAGS.index(tag(_word_around(text, span.start, span.end)))
    return {**found, "labels": labels}


def _word_around(text: str, start: int, end: int) -> str:
    while start < end and text[start] == " ":
        start += 1
    first = text.rfind(" ", 0, start) + 1
    last = text.find(" ", start)
    return text[first : last if last >= 0 else len(text)]


def _sentence_files(folder: Path) -> None:
    """Write what sentence-transformers adds: mean pooling, then unit length."""
    import json

    kinds = ("Transformer", "Pooling", "Normalize")
    modules = [
        {
            "idx": i,
            "name": str(i),
            "path": "" if i == 0 else f"{i}_{kind}",
            "type": f"sentence_transformers.models.{kind}",
        }
        for i, kind in enumerate(kinds)
    ]
    (folder / "1_Pooling").mkdir(exist_ok=True)
    pooling = {"word_embedding_dimension": WIDTH, "pooling_mode_mean_tokens": True}
    (folder / "1_Pooling" / "config.json").write_text(json.dumps(pooling))
    (folder / "modules.json").write_text(json.dumps(modules))


def _corpus() -> list[str]:
    return [text for text, _ in rows(1200, seed=3)]


_SPECIAL = {
    "wordpiece": ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]"],
    "bytelevel": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    "unigram": ["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
}


def _wordpiece(name: str) -> Any:
    from tokenizers import BertWordPieceTokenizer

    trained = BertWordPieceTokenizer(lowercase=True)
    trained.train_from_iterator(_corpus(), vocab_size=600, min_frequency=1, show_progress=False)
    return _wrapped(name, trained._tokenizer, _SPECIAL["wordpiece"], ("[CLS]", 2), ("[SEP]", 3))


def _bytelevel(name: str) -> Any:
    from tokenizers import ByteLevelBPETokenizer

    trained = ByteLevelBPETokenizer()
    trained.train_from_iterator(
        _corpus(),
        vocab_size=700,
        min_frequency=1,
        special_tokens=_SPECIAL["bytelevel"],
        show_progress=False,
    )
    return _wrapped(name, trained._tokenizer, _SPECIAL["bytelevel"], ("<s>", 0), ("</s>", 2))


def _unigram(name: str) -> Any:
    from tokenizers import SentencePieceUnigramTokenizer

    trained = SentencePieceUnigramTokenizer()
    trained.train_from_iterator(
        _corpus(),
        vocab_size=400,
        special_tokens=_SPECIAL["unigram"],
        unk_token="<unk>",
        show_progress=False,
    )
    return _wrapped(name, trained._tokenizer, _SPECIAL["unigram"], ("<s>", 0), ("</s>", 2))


def _wrapped(
    name: str, backend: Any, special: list[str], first: tuple[str, int], last: tuple[str, int]
) -> Any:
    """Return a fast tokenizer of transformers' class `name` over a trained backend."""
    import transformers
    from tokenizers.processors import TemplateProcessing

    generative = name in ("GPT2TokenizerFast", "Qwen2TokenizerFast")
    if not generative:
        backend.post_processor = TemplateProcessing(
            single=f"{first[0]} $A {last[0]}",
            pair=f"{first[0]} $A {last[0]} $B:1 {last[0]}:1",
            special_tokens=[first, last],
        )
    known = {s.strip("[]<>").upper(): s for s in special}
    tokens = {
        "pad_token": known["PAD"],
        "unk_token": known["UNK"],
        "mask_token": known["MASK"],
        "cls_token": first[0],
        "sep_token": last[0],
        "bos_token": first[0],
        "eos_token": last[0],
    }
    known_names = ["input_ids", "attention_mask"] if name == "PreTrainedTokenizerFast" else None
    names = {"model_input_names": known_names} if known_names else {}
    return getattr(transformers, name)(
        tokenizer_object=backend, model_max_length=POSITIONS, **tokens, **names
    )


TOKENIZERS: dict[str, Callable[[str], Any]] = {
    "wordpiece": _wordpiece,
    "bytelevel": _bytelevel,
    "unigram": _unigram,
}
