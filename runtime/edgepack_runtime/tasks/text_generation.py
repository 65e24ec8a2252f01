"""Text generation: continue a prompt or a dialogue, at once or piece by piece.

Source of the shapes: `TextGenerationPipeline` of transformers 4.57.  A text that ends an answer
(`stop`) is not part of it, as with OpenAI.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.manifest import Task, Tolerance
from edgepack_runtime.errors import InputError, TrustError
from edgepack_runtime.generation import loop
from edgepack_runtime.generation.grammar import FORMS, Grammar, compile_form
from edgepack_runtime.generation.memory import Memory
from edgepack_runtime.generation.scores import Chooser
from edgepack_runtime.generation.settings import Asked, Settings, settle
from edgepack_runtime.generation.stream import Stream
from edgepack_runtime.generation.text import Pieces
from edgepack_runtime.inputs.calls import listed
from edgepack_runtime.inputs.chat import render
from edgepack_runtime.tasks._likeness import Agreement, compare_vectors
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._texts import text_of

if TYPE_CHECKING:
    from edgepack_runtime.bundle.manifest import Writing
    from edgepack_runtime.numeric import Array

__all__ = ["CELLS", "CELL_UNIT", "DECIDES", "PER_TOKEN", "Options", "answer", "cell", "check",
           "compare", "least", "outputs"]  # fmt: skip
DECIDES = False
PER_TOKEN = False
GRAPH = "model"
_SIZES = {"128+32": (128, 32), "512+32": (512, 32)}  # tokens read + tokens written
CELLS = tuple(_SIZES)
CELL_UNIT = "tokens read + written"
_JUDGED = 256  # how many logits of a position are compared, spread over the vocabulary
_TOKENS = 24  # how many positions of a text are compared


@dataclass(frozen=True)
class Options(Asked):
    """The options of a call."""

    stream: bool = False
    """Yield the text piece by piece."""
    return_full_text: bool = True
    """Put the input before the written text."""
    tools: list[Any] | None = None
    """JSON schemas of functions that the chat template may offer."""
    template_options: dict[str, Any] | None = None
    """More variables of the chat template, such as `enable_thinking`."""
    json_schema: dict[str, Any] | str | None = None
    """Write JSON of this schema."""
    regex: str | None = None
    """Write a text that this regular expression matches as a whole."""
    grammar: str | None = None
    """Write a text of this grammar, in the format of Lark."""
    memory: Memory | None = None
    """What earlier calls of the same dialogue have read; this one reads only what is new."""


def check(opened: Opened) -> None:
    """Check that the graph takes only tokens and the rows whose logits are asked for."""
    opened.check_feeds(GRAPH, ("input_ids", "rows"))


def answer(opened: Opened, inputs: object, options: Options) -> Any:
    """Answer a text or a dialogue with [{"generated_text": …}]; a list of them with a list.

    With `stream`, one text or dialogue is answered with a `Stream` of pieces of text.
    """
    one = isinstance(inputs, str) or _is_dialogue(inputs)
    items = [inputs] if one else listed(inputs)
    if not isinstance(items, list):
        raise InputError(f"expected a text or messages, found {type(inputs).__name__}")
    if options.stream:
        if not one:
            raise InputError("stream=True answers one text or dialogue at a time")
        return Stream(_pieces(opened, inputs, options))
    answers = [[{"generated_text": _whole(opened, item, options)}] for item in items]
    return answers[0] if one else answers


def _is_dialogue(item: object) -> bool:
    return isinstance(item, list) and bool(item) and isinstance(item[0], Mapping)


def _whole(opened: Opened, item: Any, options: Options) -> Any:
    written = "".join(_pieces(opened, item, options))
    if not options.return_full_text:
        return written
    if isinstance(item, str):
        return item + written
    return [*item, {"role": "assistant", "content": written}]


def _pieces(opened: Opened, item: Any, options: Options) -> Generator[str, None, None]:
    """Check everything now, and return an iterator that writes on demand."""
    facts = _facts(opened)
    settings = settle(options, facts.declared)
    prompt = _prompt(opened, facts, item, options)
    room = facts.context - len(prompt)
    if room < 1:
        raise InputError(
            f"the prompt has {len(prompt)} tokens, but this bundle has room for {facts.context} "
            "including the answer; shorten it"
        )
    settings = replace(
        settings,
        max_new_tokens=min(room, settings.max_new_tokens),
        min_new_tokens=min(room, settings.min_new_tokens),
    )
    reader = _reader(opened, prompt, settings, options.memory)
    pieces = Pieces(opened.text.tokenizer, prompt, settings.stop)
    chooser = Chooser(settings, prompt, facts.eos, _grammar(opened, options))
    return _written(loop.write(reader, prompt, chooser, settings, facts.eos), pieces)


def _grammar(opened: Opened, options: Options) -> Grammar | None:
    """Compile the form that the answer is to have, if the options name one."""
    forms = {name: form for name in FORMS if (form := getattr(options, name)) is not None}
    if len(forms) > 1:
        raise InputError(f"an answer has one form; give one of {' and '.join(forms)}")
    for name, form in forms.items():
        return compile_form(opened.text, _facts(opened).eos, name, form)
    return None


def _reader(
    opened: Opened, prompt: Sequence[int], settings: Settings, memory: Memory | None
) -> loop.Reader:
    """Open a state, or take that of a memory, for a prompt and its answer."""
    graph, room = opened.graph(GRAPH), len(prompt) + settings.max_new_tokens
    paired = memory is not None or settings.prompt_lookup_num_tokens > 0
    if memory is None:
        return loop.Reader(graph.begin(room), paired)
    return loop.Reader(memory.begin(graph, opened.identity, prompt, room), paired)


def _written(tokens: Generator[int, None, None], pieces: Pieces) -> Generator[str, None, None]:
    with closing(tokens):
        for token in tokens:
            if piece := pieces.add(token):
                yield piece
            if pieces.stopped:
                break
    if piece := pieces.finish():
        yield piece


def _prompt(opened: Opened, facts: Writing, item: Any, options: Options) -> list[int]:
    if isinstance(item, str):
        return opened.text.ids(item)
    if not _is_dialogue(item):
        raise InputError(f"expected a text or messages, found {type(item).__name__}")
    if not facts.template:
        raise InputError("this bundle has no chat template; give a text instead of messages")
    text = render(
        facts.template, item, facts.tokens, tools=options.tools, options=options.template_options
    )
    return opened.text.ids(text, special=False)


def _facts(opened: Opened) -> Writing:
    if opened.task.writing is None:
        raise TrustError("the bundle does not say how its model writes; build it again")
    return opened.task.writing


def outputs(opened: Opened, inputs: Sequence[Any]) -> list[Array]:
    """Return, for each text, [tokens, 1 + logits]: the most probable next token and some logits.

    The logits are spread over the vocabulary; all of them would take megabytes.
    """
    import numpy as np

    found = []
    for text in inputs:
        ids = opened.text.ids(text if isinstance(text, str) else " ".join(text))[:_TOKENS]
        state = opened.graph(GRAPH).begin(len(ids))
        try:
            logits = loop.all_logits(state, ids)
        finally:
            state.close()
        best = logits.argmax(axis=1)[:, None].astype(np.float32)
        spread = logits[:, :: max(1, logits.shape[1] // _JUDGED)]
        found.append(np.concatenate([best, spread.astype(np.float32)], axis=1))
    return found


def compare(task: Task, wanted: Sequence[Array], got: Sequence[Array]) -> Agreement:  # noqa: ARG001 (the Task protocol)
    """Compare the logits, and the share of positions whose most probable token is the same."""
    like = compare_vectors([w[:, 1:] for w in wanted], [g[:, 1:] for g in got])
    pairs = [(w[:, 0], g[:, 0]) for w, g in zip(wanted, got, strict=True)]
    equal = sum(int((w == g).sum()) if w.shape == g.shape else 0 for w, g in pairs)
    return Agreement(like.cosine, like.mean_cosine, equal / sum(w.size for w, _ in pairs))


def least(tolerance: Tolerance) -> Tolerance:
    """Return the tolerance; a model that writes has no other floor."""
    return tolerance


def cell(opened: Opened, name: str, samples: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
    """Return a prompt and options for the cell's numbers of tokens, written greedily.

    There is no prompt if the context is too short for both.
    """
    read, written = _SIZES[name]
    if read + written > _facts(opened).context:
        return "", {}
    text = text_of(opened.text, [str(sample) for sample in samples], read)
    count = {"max_new_tokens": written, "min_new_tokens": written, "do_sample": False}
    return text, {**count, "return_full_text": False}
