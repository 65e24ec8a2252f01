"""Token classification (NER): entities with character offsets, long texts in windows.

Source of the rules: `TokenClassificationPipeline` of transformers 4.57.  Where that
pipeline cuts a long text, this one runs overlapping windows, so no entity is lost.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from edgepack_runtime.errors import InputError
from edgepack_runtime.inputs.calls import Batching, listed
from edgepack_runtime.inputs.text import TextEncoder, Tokens
from edgepack_runtime.numeric import softmax
from edgepack_runtime.tasks._labels import compare, least, outputs
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._texts import CELL_UNIT, CELLS, Call, cell, check, read_whole

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

__all__ = [
    "CELLS",
    "CELL_UNIT",
    "DECIDES",
    "PER_TOKEN",
    "Options",
    "answer",
    "cell",
    "check",
    "compare",
    "least",
    "outputs",
]

Entity = dict[str, Any]
DECIDES = True
PER_TOKEN = True
STRATEGIES = ("none", "simple", "first", "average", "max")


@dataclass(frozen=True)
class Options(Batching):
    """The options of a call."""

    aggregation_strategy: str = "none"
    """How tokens become entities: one of `STRATEGIES`."""
    ignore_labels: tuple[str, ...] | list[str] = ("O",)
    """Labels left out of the answer."""
    stride: int | None = None
    """Tokens that two windows of a long text share; a quarter of the window if not set."""
    is_split_into_words: bool = False
    """Each input is a list of words."""
    delimiter: str = " "
    """Joins the words, for offsets."""
    grouped_entities: bool | None = None
    """The old name of `simple`."""
    ignore_subwords: bool | None = None
    """With `grouped_entities`, the old name of `first`."""

    @property
    def strategy(self) -> str:
        """Return the strategy; the old names win over the new one, as in transformers."""
        if self.grouped_entities is None and self.ignore_subwords is None:
            return self.aggregation_strategy
        if not self.grouped_entities:
            return "none"
        return "first" if self.ignore_subwords else "simple"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.aggregation_strategy not in STRATEGIES:
            raise InputError(
                f"aggregation_strategy must be one of {', '.join(STRATEGIES)}, "
                f"not {self.aggregation_strategy!r}"
            )


@dataclass(frozen=True)
class _Token:
    """A token that is not special: its scores [labels], and its position in the text."""

    word: str
    scores: Array
    start: int
    end: int
    index: int
    is_subword: bool


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Answer a text with its list of entities, and a list of texts with a list of such lists."""
    inputs = listed(inputs)
    items = _items(inputs, options)
    tokens = [_tokenize(opened.text, item, options) for item in items]
    answers = [_entities(call, options) for call in read_whole(opened, items, tokens, options)]
    words_of_one = options.is_split_into_words and len(answers) == 1
    many = isinstance(inputs, list) and not (words_of_one and items == [inputs])
    return answers if many or words_of_one else answers[0]


def _items(inputs: object, options: Options) -> list[Any]:
    """Return the texts of a call: a list holds several texts, unless it holds one text's words."""
    if not isinstance(inputs, list):
        return [inputs]
    one = (
        options.is_split_into_words
        and bool(inputs)
        and all(isinstance(word, str) for word in inputs)
    )
    return [inputs] if one else inputs


def _tokenize(encoder: TextEncoder, item: object, options: Options) -> list[Tokens]:
    stride = options.stride
    if stride is None:
        stride = encoder.spec.max_length // 4
    if not options.is_split_into_words:
        return [encoder.encode(item, stride=stride)]
    if not isinstance(item, (list, tuple)):
        raise InputError(f"expected a list of words, found {type(item).__name__}")
    return [encoder.encode_words(item, stride=stride)]


def _entities(call: Call, options: Options) -> list[Entity]:
    """Turn the scores of all windows into entities in the order of the text."""
    windows = call.tokens[0].windows
    sentence, shifts = _sentence(call.item, options)
    found: list[list[Entity]] = []
    for encoding, logits in zip(windows, call.outputs[0], strict=True):
        tokens = list(_tokens(call, encoding, softmax(logits), sentence, shifts))
        entities = _aggregate(call, tokens, options.strategy)
        found.append([e for e in entities if _label(e) not in options.ignore_labels])
    if len(found) == 1:
        return found[0]
    if options.strategy == "none":
        return _join_tokens(found)
    return _join_entities([entity for window in found for entity in window])


def _label(entity: Entity) -> str:
    return str(entity["entity"] if "entity" in entity else entity["entity_group"])


def _sentence(item: Any, options: Options) -> tuple[str, list[int] | None]:
    """Return the text that offsets refer to, and where each given word starts in it."""
    if isinstance(item, str):
        return item, None
    starts, at = [], 0
    for word in item:
        starts.append(at)
        at += len(word) + len(options.delimiter)
    return options.delimiter.join(item), starts


def _tokens(
    call: Call,
    encoding: Any,
    scores: Array,
    sentence: str,
    shifts: list[int] | None,
) -> Iterable[_Token]:
    wordpieces = bool(getattr(call.encoder.tokenizer.model, "continuing_subword_prefix", None))
    for index, row in enumerate(scores):
        if encoding.special_tokens_mask[index]:
            continue
        # For an added token, which takes the space before it, an encoding holds the text it read.
        word = call.encoder.tokenizer.id_to_token(encoding.ids[index])
        start, end = encoding.offsets[index]
        if shifts is not None and (given := encoding.word_ids[index]) is not None:
            start, end = start + shifts[given], end + shifts[given]
        text = sentence[start:end]
        if wordpieces:
            is_subword = len(word) != len(text)
        else:
            is_subword = start > 0 and " " not in sentence[start - 1 : start + 1]
        if encoding.ids[index] == call.encoder.spec.unk_id:
            word, is_subword = text, False
        yield _Token(word, row, start, end, index, is_subword)


def _aggregate(call: Call, tokens: list[_Token], strategy: str) -> list[Entity]:
    labels = call.spec.labels
    if strategy in ("none", "simple"):
        entities = [_single(token, labels) for token in tokens]
        return entities if strategy == "none" else _group(call, entities)
    words: list[list[_Token]] = []
    for token in tokens:
        if words and token.is_subword:
            words[-1].append(token)
        else:
            words.append([token])
    return _group(call, [_word(call, word, strategy) for word in words])


def _single(token: _Token, labels: tuple[str, ...]) -> Entity:
    best = int(token.scores.argmax())
    return {
        "entity": labels[best],
        "score": float(token.scores[best]),
        "index": token.index,
        "word": token.word,
        "start": token.start,
        "end": token.end,
    }


def _word(call: Call, tokens: list[_Token], strategy: str) -> Entity:
    import numpy as np

    if strategy == "first":
        scores = tokens[0].scores
    elif strategy == "max":
        scores = max(tokens, key=lambda token: token.scores.max()).scores
    else:
        scores = np.nanmean(np.stack([token.scores for token in tokens]), axis=0)
    best = int(scores.argmax())
    return {
        "entity": call.spec.labels[best],
        "score": float(scores[best]),
        "word": _text(call, [token.word for token in tokens]),
        "start": tokens[0].start,
        "end": tokens[-1].end,
    }


def _text(call: Call, tokens: list[str]) -> str:
    decoder = call.encoder.tokenizer.decoder
    return str(decoder.decode(tokens)) if decoder is not None else " ".join(tokens)


def _tag(entity: str) -> tuple[str, str]:
    return (entity[0], entity[2:]) if entity.startswith(("B-", "I-")) else ("I", entity)


def _group(call: Call, entities: list[Entity]) -> list[Entity]:
    """Join neighbours of the same kind; a `B-` always starts a new entity."""
    groups: list[list[Entity]] = []
    for entity in entities:
        begin, kind = _tag(entity["entity"])
        if groups and begin != "B" and kind == _tag(groups[-1][-1]["entity"])[1]:
            groups[-1].append(entity)
        else:
            groups.append([entity])
    return [_merge(call, group) for group in groups]


def _merge(call: Call, group: list[Entity]) -> Entity:
    return {
        "entity_group": group[0]["entity"].split("-", 1)[-1],
        "score": sum(entity["score"] for entity in group) / len(group),
        "word": _text(call, [entity["word"] for entity in group]),
        "start": group[0]["start"],
        "end": group[-1]["end"],
    }


def _join_entities(entities: list[Entity]) -> list[Entity]:
    """Choose the longest, then the surest, of entities that overlap between windows."""
    joined: list[Entity] = []
    for entity in sorted(entities, key=lambda e: e["start"]):
        if joined and joined[-1]["start"] <= entity["start"] < joined[-1]["end"]:
            kept = joined[-1]
            longer = entity["end"] - entity["start"] - (kept["end"] - kept["start"])
            if longer > 0 or (longer == 0 and entity["score"] > kept["score"]):
                joined[-1] = entity
        else:
            joined.append(entity)
    return joined


def _join_tokens(windows: list[list[Entity]]) -> list[Entity]:
    """Choose the surer of two windows' readings of a token; `index` stays that of its window.

    Byte-level tokens of one character share its offsets, so their order tells them apart.
    """
    best: dict[tuple[int, int, int], Entity] = {}
    for window in windows:
        turns: Counter[tuple[int, int]] = Counter()
        for entity in window:
            place = (entity["start"], entity["end"])
            key = (*place, turns[place])
            turns[place] += 1
            if key not in best or entity["score"] > best[key]["score"]:
                best[key] = entity
    return [best[key] for key in sorted(best)]
