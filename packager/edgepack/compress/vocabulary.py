"""Vocabulary trimming: remove the tokens that the domain never uses; every text stays encodable.

The remaining tokens are those of the data, every single character (so that no text gets unknown
tokens that it did not have before), the special tokens, and for BPE all tokens that the remaining
ones are merged from.  The domain's own texts are tokenized as before.
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

from edgepack.compress.folder import copy_sentence_files, load
from edgepack.compress.tensors import read_training, tokenize_all
from edgepack.data.rows import Columns, Example
from edgepack_runtime.errors import InputError

TOOLS = ("edgepack", "torch", "transformers", "tokenizers")
_WHOLE = 1 << 20  # tokens: no text is cut
# The share of the vocabulary that stays whatever the data holds.  With half of BERT's tokens
# CLINC150 lost nothing; with the tokens of the data alone it lost 0.4 points.
GENERAL = 0.5
_CHUNK = 1000  # texts that are tokenized together
_EMPTY = re.compile(r"\[unused\d+\]")
_SPECIAL_IDS = (
    "pad_token_id",
    "bos_token_id",
    "eos_token_id",
    "sep_token_id",
    "cls_token_id",
    "mask_token_id",
    "unk_token_id",
)


@dataclass(frozen=True)
class Settings:
    """Which tokens remain."""

    task: str
    min_count: int = 1
    """How often the data must use a token."""
    general: float = GENERAL
    """The share of the vocabulary that remains even if the data does not use it, the most common
    tokens first: devices are asked about words that the data lacks, and these must not fall to
    pieces."""
    columns: Columns = Columns()


def trim(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the model with fewer token embeddings, and the matching tokenizer.

    Raises:
        InputError: the tokenizer is of a kind that cannot be trimmed.

    """
    model, tokenizer = load(inputs["model"], settings.task)
    examples = read_training(inputs, settings.task, settings.columns)
    description = json.loads(tokenizer.backend_tokenizer.to_str())
    used = _used(tokenizer, examples, settings.min_count)
    used |= _general(description, settings.general)
    kept = _kept(description, used | _special(description, tokenizer))
    places = {old: new for new, old in enumerate(kept)}
    _shrink_embeddings(model, kept, places)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    _write_tokenizer(_renumber(description, places), places, out)
    copy_sentence_files(inputs["model"], out)


def _used(tokenizer: Any, examples: Sequence[Example], least: int) -> set[int]:
    counts: Counter[int] = Counter()
    for at in range(0, len(examples), _CHUNK):
        found = tokenize_all(tokenizer, examples[at : at + _CHUNK], _WHOLE)
        counts.update(chain.from_iterable(found["input_ids"]))
    return {token for token, count in counts.items() if count >= least}


def _general(description: Mapping[str, Any], share: float) -> set[int]:
    """Return the first tokens of a vocabulary; vocabularies list common tokens first.

    Places that its makers left empty (BERT's `[unused…]`) do not count.
    """
    vocab = description["model"]["vocab"]
    names = vocab if isinstance(vocab, dict) else {piece: i for i, (piece, _) in enumerate(vocab)}
    order = sorted((i for name, i in names.items() if not _EMPTY.fullmatch(name)))
    return set(order[: round(share * len(order))])


def _special(description: Mapping[str, Any], tokenizer: Any) -> set[int]:
    added = {entry["id"] for entry in description["added_tokens"]}
    return added | set(tokenizer.all_special_ids)


def _kept(description: Mapping[str, Any], wanted: set[int]) -> list[int]:
    """Return the old ids that remain, in order."""
    model = description["model"]
    if model["type"] == "WordPiece":
        prefix = model["continuing_subword_prefix"]
        characters = {i for word, i in model["vocab"].items() if len(word.removeprefix(prefix)) < 2}
        return sorted(wanted | characters)
    if model["type"] == "Unigram":
        pieces = enumerate(model["vocab"])
        return sorted(
            wanted
            | {
                i
                for i, (piece, _) in pieces
                if len(piece.lstrip("▁")) < 2 or piece.startswith("<0x")
            }
        )
    if model["type"] == "BPE":
        return sorted(_with_parts(model, wanted))
    raise InputError(f"a tokenizer of type {model['type']} cannot be trimmed")


def _with_parts(model: Mapping[str, Any], wanted: set[int]) -> set[int]:
    """Add every token that a remaining one is merged from, and all single characters."""
    vocab: Mapping[str, int] = model["vocab"]
    parts: dict[str, list[tuple[str, str]]] = {}
    for left, right in map(_merge, model["merges"]):
        parts.setdefault(left + right, []).append((left, right))
    names = {i: word for word, i in vocab.items()}
    kept = wanted | {i for word, i in vocab.items() if len(word) == 1 or word.startswith("<0x")}
    todo = [names[i] for i in kept if i in names]
    while todo:
        for pair in parts.get(todo.pop(), ()):
            for part in pair:
                if vocab[part] not in kept:
                    kept.add(vocab[part])
                    todo.append(part)
    return kept


def _merge(entry: Any) -> tuple[str, str]:
    """Read one merge; older files store it as one string."""
    left, right = entry.split(" ", 1) if isinstance(entry, str) else entry
    return left, right


def _shrink_embeddings(model: Any, kept: list[int], places: Mapping[int, int]) -> None:
    import torch

    old = model.get_input_embeddings()
    if max(kept) >= old.num_embeddings:
        raise InputError("the tokenizer has tokens without an embedding in the model")
    padding = None if old.padding_idx is None else places.get(old.padding_idx)
    if old.padding_idx is not None and padding != old.padding_idx:
        raise InputError("the padding token would move, but this architecture does not allow that")
    new = torch.nn.Embedding(len(kept), old.embedding_dim, padding_idx=padding)
    with torch.no_grad():
        new.weight.copy_(old.weight[torch.tensor(kept)])
    tied = model.get_output_embeddings() is not None and (
        model.get_output_embeddings().weight is old.weight
    )
    model.set_input_embeddings(new)
    _shrink_head(model, new if tied else None, kept)
    for config in filter(None, (model.config, getattr(model, "generation_config", None))):
        for name in _SPECIAL_IDS:
            setattr(config, name, _moved(getattr(config, name, None), places))
    model.config.vocab_size = len(kept)


def _shrink_head(model: Any, table: Any, kept: list[int]) -> None:
    """Leave the rows of a language model's head that remain; `table` is what it is tied to."""
    import torch

    head = model.get_output_embeddings()
    if head is None:
        return
    if table is not None:
        head.weight = table.weight
    else:
        head.weight = torch.nn.Parameter(head.weight.detach()[torch.tensor(kept)].clone())
    if getattr(head, "bias", None) is not None:
        head.bias = torch.nn.Parameter(head.bias.detach()[torch.tensor(kept)].clone())
    head.out_features = len(kept)


def _moved(value: Any, places: Mapping[int, int]) -> Any:
    """Return the new number of a token, or of each of several."""
    if isinstance(value, list):
        return [places.get(token, token) for token in value]
    return places.get(value, value) if isinstance(value, int) else value


def _renumber(description: dict[str, Any], places: Mapping[int, int]) -> dict[str, Any]:
    model = description["model"]
    if model["type"] == "Unigram":
        model["vocab"] = [model["vocab"][old] for old in places if old < len(model["vocab"])]
        if model.get("unk_id") is not None:
            model["unk_id"] = places[model["unk_id"]]
    else:
        model["vocab"] = {w: places[i] for w, i in model["vocab"].items() if i in places}
    if model["type"] == "BPE":
        model["merges"] = [entry for entry in model["merges"] if _survives(entry, model["vocab"])]
    for entry in description["added_tokens"]:
        entry["id"] = places[entry["id"]]
    description["post_processor"] = _renumber_ids(description["post_processor"], places)
    return description


def _survives(entry: Any, vocab: Mapping[str, int]) -> bool:
    left, right = _merge(entry)
    return left in vocab and right in vocab and left + right in vocab


def _renumber_ids(value: Any, places: Mapping[int, int]) -> Any:
    """Replace the token ids of a post-processor, wherever its kind stores them."""
    if isinstance(value, dict):
        found = {key: _renumber_ids(item, places) for key, item in value.items()}
        if isinstance(value.get("ids"), list):  # TemplateProcessing
            found["ids"] = [places[i] for i in value["ids"]]
        for key in ("sep", "cls"):  # BertProcessing, RobertaProcessing
            if isinstance(value.get(key), list):
                found[key] = [value[key][0], places[value[key][1]]]
        return found
    return [_renumber_ids(item, places) for item in value] if isinstance(value, list) else value


def _write_tokenizer(description: Mapping[str, Any], places: Mapping[int, int], out: Path) -> None:
    """Write the trimmed tokenizer, and delete the files of the slow one, which are now outdated."""
    for path in out.iterdir():
        if path.name in ("vocab.txt", "vocab.json", "merges.txt") or path.suffix == ".model":
            path.unlink()
    (out / "tokenizer.json").write_text(json.dumps(description, ensure_ascii=False))
    settings_file = out / "tokenizer_config.json"
    settings = json.loads(settings_file.read_text())
    decoder = settings.get("added_tokens_decoder", {})
    settings["added_tokens_decoder"] = {
        str(places[int(old)]): token for old, token in decoder.items() if int(old) in places
    }
    settings_file.write_text(json.dumps(settings, indent=2, ensure_ascii=False))
