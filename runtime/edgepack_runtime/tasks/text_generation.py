"""Text generation: continue a prompt or a dialogue, at once or piece by piece.

Source of the shapes: `TextGenerationPipeline` of transformers 4.57.  A text that ends an answer
(`stop`) is not part of it, as with OpenAI.
"""

from __future__ import annotations

from collections.abc import Generator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import TYPE_CHECKING, Any

from edgepack_runtime.engines._adapted import use_adapter
from edgepack_runtime.errors import InputError
from edgepack_runtime.generation import loop, tools
from edgepack_runtime.generation.guess import Draft, Guesser
from edgepack_runtime.generation.memory import Memory
from edgepack_runtime.generation.reader import Reader, all_logits
from edgepack_runtime.generation.scores import Chooser
from edgepack_runtime.generation.settings import Settings, settle
from edgepack_runtime.generation.stream import Stream
from edgepack_runtime.generation.text import Pieces
from edgepack_runtime.inputs.calls import listed
from edgepack_runtime.tasks import _writing as writing
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._prompts import PromptOptions, is_dialogue, prompt_of
from edgepack_runtime.tasks._texts import text_of
from edgepack_runtime.tasks._writing import compare, least

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
DECIDES = False
PER_TOKEN = False
GRAPH, DRAFT = "model", "draft"
_SIZES = {"chat": (128, 32), "long-prompt": (384, 8), "long-answer": (32, 128)}  # tokens
CELLS = tuple(_SIZES)
CELL_UNIT = "tokens read + written: " + ", ".join(f"{c} {r}+{w}" for c, (r, w) in _SIZES.items())
_JUDGED = 256  # how many logits of a position are compared, spread over the vocabulary
_TOKENS = 24  # how many positions of a text are compared


@dataclass(frozen=True)
class Options(PromptOptions):
    """The options of a call."""

    stream: bool = False
    """Yield the text piece by piece."""
    return_full_text: bool = True
    """Put the input before the written text."""
    tool_choice: str | None = None
    """`required` makes the answer a call of a tool; a tool's name makes it a call of that one."""
    logprobs: int | None = None
    """Also say how probable each token was, and this many of the most probable ones."""
    json_schema: dict[str, Any] | str | None = None
    """Write JSON of this schema."""
    regex: str | None = None
    """Write a text that this regular expression matches as a whole."""
    grammar: str | None = None
    """Write a text of this grammar, in the format of Lark."""
    num_assistant_tokens: int | None = None
    """Let the bundle's draft, a small model, write so many tokens ahead at most; 0 for none.

    The text stays the same; it is written faster where the draft expects the same tokens.  Where it
    does not, fewer tokens are tried.
    """
    adapter: str = ""
    """Which of the bundle's adapters to use; empty for none."""
    memory: Memory | None = None
    """What earlier calls of the same dialogue have read; this one reads only what is new."""


def check(opened: Opened) -> None:
    """Check that the graph takes only tokens and the rows whose logits are asked for."""
    for graph in (GRAPH, DRAFT) if DRAFT in opened.graphs else (GRAPH,):
        opened.check_feeds(graph, ("input_ids", "rows"))


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Answer a text or a dialogue with [{"generated_text": …}]; a list of them with a list.

    With `logprobs`, an answer has them for each token that was chosen, the one that ended the text
    included: [{"token", "id", "logprob", "top": [{"token", "id", "logprob"}]}].

    With `stream`, one text or dialogue is answered with a `Stream` of pieces of text.
    """
    one = isinstance(inputs, str) or is_dialogue(inputs)
    items = [inputs] if one else listed(inputs)
    if not isinstance(items, list):
        raise InputError(f"expected a text or messages, found {type(inputs).__name__}")
    if options.stream:
        if not one:
            raise InputError("stream=True answers one text or dialogue at a time")
        if options.logprobs is not None:
            raise InputError("logprobs come with a whole answer; leave stream out")
        return Stream(_pieces(opened, inputs, options)[0])
    answers = [[_whole(opened, item, options)] for item in items]
    return answers[0] if one else answers


def _whole(opened: Opened, item: Any, options: Options) -> dict[str, Any]:
    pieces, chooser = _pieces(opened, item, options)
    written = "".join(pieces)
    text: Any = written
    if options.return_full_text:
        text = item + written if isinstance(item, str) else [*item, _message(written, options)]
    if options.logprobs is None:
        return {"generated_text": text}
    found = [
        {**_named(opened, c.token, c.logprob), "top": [_named(opened, *pair) for pair in c.best]}
        for c in chooser.chances
    ]
    return {"generated_text": text, "logprobs": found}


def _message(written: str, options: Options) -> dict[str, Any]:
    """Return the model's message, with its calls of tools if there are tools."""
    if options.tools:
        return tools.message(written, options.tools)
    return {"role": "assistant", "content": written}


def _named(opened: Opened, token: int, logprob: float) -> dict[str, Any]:
    text = opened.text.tokenizer.decode([token], skip_special_tokens=False)
    return {"token": text, "id": token, "logprob": logprob}


def _pieces(
    opened: Opened, item: Any, options: Options
) -> tuple[Generator[str, None, None], Chooser]:
    """Check everything now; return an iterator that writes on demand, and what chooses for it."""
    told = writing.facts(opened)
    options = _with_tools(options)
    settings = settle(options, told.declared, Settings)
    prompt = prompt_of(opened, item, options, settings.max_new_tokens)
    room = told.context - len(prompt)
    settings = replace(
        settings,
        max_new_tokens=min(room, settings.max_new_tokens),
        min_new_tokens=min(room, settings.min_new_tokens),
    )
    guesser = _guesser(opened, options, settings, len(prompt) + settings.max_new_tokens)
    paired = options.memory is not None or guesser.guesses
    begin = partial(_reader, opened, prompt, settings.max_new_tokens, options, paired=paired)
    opened.adapters.arrays(options.adapter)  # an unknown one is an error now
    pieces = Pieces(opened.text.tokenizer, prompt, settings.stop)
    chooser = Chooser(settings, prompt, told.eos, writing.form_of(opened, options))
    if options.logprobs is not None:
        if options.logprobs < 0:
            raise InputError(f"logprobs must be at least 0, not {options.logprobs}")
        chooser.record(options.logprobs)
    tokens = loop.write(begin, prompt, chooser, settings, told.eos, guesser)
    return writing.texts(tokens, pieces), chooser


def _with_tools(options: Options) -> Options:
    """Check the tools; if a call must be written, return options that give the answer its form."""
    if options.tools:
        tools.functions(options.tools)
    choice = options.tool_choice
    if choice in (None, "auto"):
        return options
    if not options.tools:
        raise InputError(f"tool_choice={choice!r} needs tools")
    if options.json_schema is not None:
        raise InputError("tool_choice gives the answer its form; leave json_schema out")
    wanted = tools.required(options.tools, "" if choice == "required" else str(choice))
    return replace(options, json_schema=wanted)


def _guesser(opened: Opened, options: Options, settings: Settings, room: int) -> Guesser:
    """Return what guesses tokens; it may never do so."""
    most, there = settings.num_assistant_tokens, DRAFT in opened.graphs
    if options.num_assistant_tokens and not there:
        raise InputError(
            "this bundle has no draft; build it with [draft] in its recipe, or leave "
            "num_assistant_tokens out"
        )
    draft = None
    if most and there:
        draft = Draft(lambda: Reader(opened.graph(DRAFT).begin(room)), most)
    return Guesser(settings.prompt_lookup_num_tokens, draft)


def _reader(
    opened: Opened, prompt: Sequence[int], count: int, options: Options, *, paired: bool
) -> Reader:
    """Open a state, or take that of a memory, for a prompt and an answer of `count` tokens."""
    graph, room, memory = opened.graph(GRAPH), len(prompt) + count, options.memory
    if memory is None:
        state = graph.begin(room)
    else:
        state = memory.begin(graph, f"{opened.identity} {options.adapter}", prompt, room)
    use_adapter(state, opened.adapters.arrays(options.adapter))
    return Reader(state, paired)


def outputs(opened: Opened, inputs: Sequence[Any]) -> list[Array]:
    """Return, for each text, [tokens, 1 + logits]: the most probable next token and some logits.

    The logits are spread over the vocabulary; all of them would take megabytes.
    """
    found = []
    for text in inputs:
        ids = opened.text.ids(text if isinstance(text, str) else " ".join(text))[:_TOKENS]
        state = opened.graph(GRAPH).begin(len(ids))
        try:
            logits = all_logits(state, ids)
        finally:
            state.close()
        found.append(writing.judged(logits))
    return found


def cell(opened: Opened, name: str, samples: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """Return a prompt and options for the cell's numbers of tokens, written greedily.

    There is no prompt if the context is too short for both.
    """
    read, written = _SIZES[name]
    if read + written > writing.facts(opened).context:
        return "", {}
    text = text_of(opened.text, [str(sample) for sample in samples], read)
    count = {"max_new_tokens": written, "min_new_tokens": written, "do_sample": False}
    return text, {**count, "return_full_text": False}
