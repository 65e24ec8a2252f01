"""What the tasks share whose models read one text and write another.

Graphs: `encoder`, from a text to what the decoder looks back at; `decoder`, one token at a time.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgepack_runtime.engines import BeamState
from edgepack_runtime.errors import DeviceError, InputError, TrustError
from edgepack_runtime.generation import loop
from edgepack_runtime.generation.beams import Source, search
from edgepack_runtime.generation.grammar import FORMS
from edgepack_runtime.generation.pairs import MASK, PairChooser, PairReader, encode
from edgepack_runtime.generation.settings import Asked, PairSettings, settle
from edgepack_runtime.generation.stream import Stream
from edgepack_runtime.generation.text import Pieces
from edgepack_runtime.inputs.calls import listed
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._texts import text_of
from edgepack_runtime.tasks._writing import facts, form_of, judged, texts

if TYPE_CHECKING:
    from edgepack_runtime.bundle.description import Writing
    from edgepack_runtime.numeric import Array

ENCODER, DECODER = "encoder", "decoder"
_SIZES = {"32+32": (32, 32), "128+32": (128, 32)}  # tokens read + tokens written
CELLS = tuple(_SIZES)
CELL_UNIT = "tokens read + written"
_TOKENS = 16  # how many positions of an answer are compared


@dataclass(frozen=True)
class PairOptions(Asked):
    """The options of a call."""

    num_beams: int | None = None
    """How many answers are followed at once; the most probable one is given."""
    length_penalty: float | int | None = None
    """Power of the length that a score is divided by; above 0, long answers gain."""
    early_stopping: bool | str | None = None
    """End when there are `num_beams` answers; False guesses by scores, "never" waits longest."""
    encoder_no_repeat_ngram_size: int | None = None
    """No run of this many tokens of the input is repeated; 0 allows that."""
    src_lang: str | None = None
    """The language of the input, by the model's own code, such as `fr_XX` or `fra_Latn`."""
    tgt_lang: str | None = None
    """The language of the answer, by the model's own code."""
    stream: bool = False
    """Yield the text piece by piece; this follows one answer."""
    json_schema: dict[str, Any] | str | None = None
    """Write JSON of this schema."""
    regex: str | None = None
    """Write a text that this regular expression matches as a whole."""
    grammar: str | None = None
    """Write a text of this grammar, in the format of Lark."""


def check(opened: Opened) -> None:
    """Check that the graphs take only what is made here."""
    opened.check_feeds(ENCODER, ("input_ids", "attention_mask"))
    seen = set(opened.graph(ENCODER).outputs)
    opened.check_feeds(DECODER, ("input_ids", MASK, *sorted(seen)))


def answer(opened: Opened, inputs: object, options: PairOptions, key: str) -> Any:
    """Answer a text with {key: text} in a list, or a list of texts with a list of {key: text}."""
    if options.tgt_lang is not None:
        opened = _towards(opened, options.tgt_lang)
    one = isinstance(inputs, str)
    items = [inputs] if one else listed(inputs)
    if not isinstance(items, list):
        raise InputError(f"expected a text, found {type(inputs).__name__}")
    if options.stream:
        if not one:
            raise InputError("stream=True answers one text at a time")
        return Stream(_pieces(opened, items[0], options))
    return [{key: _text(opened, item, options)} for item in items]


def _text(opened: Opened, item: Any, options: PairOptions) -> str:
    """Write one answer, by beams if more than one is followed."""
    settings = _settings(opened, options)
    if settings.num_beams == 1:
        return "".join(_pieces(opened, item, options))
    if options.stop or any(getattr(options, name) for name in FORMS):
        raise InputError("stop, forms and streams follow one answer; give num_beams=1")
    ids = _read(opened, item, options)
    known = _facts(opened)
    source = Source(ids, encode(opened.graph(ENCODER), ids))
    found = search(_begin(opened, settings), source, known.start, settings, known.eos)
    return str(opened.text.tokenizer.decode(found, skip_special_tokens=True))


def _pieces(opened: Opened, item: Any, options: PairOptions) -> Generator[str, None, None]:
    """Check everything now, and return an iterator that writes on demand."""
    known = _facts(opened)
    settings = replace(_settings(opened, options), num_beams=1)
    grammar = form_of(opened, options)
    ids = _read(opened, item, options)

    def begin() -> PairReader:
        return PairReader(_begin(opened, settings), source=encode(opened.graph(ENCODER), ids))

    chooser = PairChooser(settings, known.start, known.eos, ids, grammar)
    count = settings.max_new_tokens - len(known.start) + 1  # the start's other tokens are counted
    rest = replace(settings, max_new_tokens=max(1, count), min_new_tokens=0)
    pieces = Pieces(opened.text.tokenizer, (), settings.stop)
    return texts(loop.write(begin, known.start, chooser, rest, known.eos), pieces)


def _settings(opened: Opened, options: PairOptions) -> PairSettings:
    known = _facts(opened)
    declared = dict(known.declared)
    if options.stream and options.num_beams is None:
        declared["num_beams"] = 1
    settings = settle(options, declared, PairSettings)
    most = min(settings.max_new_tokens, known.context - 1)
    least = min(settings.min_new_tokens, most)
    return replace(settings, max_new_tokens=most, min_new_tokens=least)


def _towards(opened: Opened, language: str) -> Opened:
    """Return the model with answers that start with the token of a language."""
    known = _facts(opened)
    start = (known.start[0], _language(opened, language))
    return replace(opened, task=replace(opened.task, writing=replace(known, start=start)))


def _language(opened: Opened, language: str) -> int:
    """Return the token of a language, which models write as it is or between underscores."""
    for name in (language, f"__{language}__"):
        token = opened.text.tokenizer.token_to_id(name)
        if token is not None and token in opened.text.tokenizer.get_added_tokens_decoder():
            return int(token)
    raise InputError(
        f"this model has no language {language!r}; use the codes of its tokenizer, such as "
        "fr_XX or fra_Latn.  Marian takes the language at the start of the text: >>fra<<"
    )


def _read(opened: Opened, item: Any, options: PairOptions) -> list[int]:
    """Return the tokens of an input."""
    ids = opened.text.ids(item)
    if options.src_lang is not None:  # the tokenizer puts a language first
        ids[0] = _language(opened, options.src_lang)
    if not ids:
        raise InputError("the text has no tokens; give one that the model can read")
    if len(ids) > (most := opened.text.spec.max_length):
        raise InputError(
            f"the text has {len(ids)} tokens, but this bundle reads {most}; give its parts one by "
            "one"
        )
    return ids


def _begin(opened: Opened, settings: PairSettings) -> BeamState:
    state = opened.graph(DECODER).begin(settings.max_new_tokens + 1)
    if not isinstance(state, BeamState):
        raise DeviceError(f"{opened.variant.name}: its engine holds no rows for beams")
    return state


def _facts(opened: Opened) -> Writing:
    found = facts(opened)
    if not found.start:
        raise TrustError("the bundle does not say how answers start; build it again")
    return found


def outputs(opened: Opened, inputs: Sequence[Any]) -> list[Array]:
    """Return, for each text, [tokens, 1 + logits] of an answer that repeats the text.

    Each row is what `judged` returns.
    """
    known = _facts(opened)
    found = []
    for text in inputs:
        ids = opened.text.encode(text if isinstance(text, str) else " ".join(text)).first.ids
        told = [*known.start, *ids][:_TOKENS]
        state = opened.graph(DECODER).begin(len(told))
        try:
            reader = PairReader(state, source=encode(opened.graph(ENCODER), ids))
            found.append(judged(reader.logits(told)))
        finally:
            state.close()
    return found


def cell(opened: Opened, name: str, samples: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """Return a text and options for the cell's numbers of tokens, following one answer.

    There is no text if the model cannot read or write as much.
    """
    read, written = _SIZES[name]
    if read > opened.text.spec.max_length or written >= _facts(opened).context:
        return "", {}
    text = text_of(opened.text, [str(sample) for sample in samples], read)
    count = {"max_new_tokens": written, "min_new_tokens": written}
    return text, {**count, "do_sample": False, "num_beams": 1}
