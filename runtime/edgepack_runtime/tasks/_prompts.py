"""The tokens that a language model goes on from: of a text, or of a dialogue by its template."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from edgepack_runtime.errors import InputError
from edgepack_runtime.generation.settings import Asked
from edgepack_runtime.inputs.chat import render
from edgepack_runtime.tasks._opened import Opened
from edgepack_runtime.tasks._writing import facts

ON_LONG = ("error", "slide")
"""What happens to a prompt that leaves no room for its answer."""
Messages = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class PromptOptions(Asked):
    """The options that make a prompt, beside those that make the text after it."""

    tools: list[Any] | None = None
    """JSON schemas of functions that the model may call; its calls are in `tool_calls`."""
    template_options: dict[str, Any] | None = None
    """More variables of the chat template, such as `enable_thinking`."""
    on_long: str = "error"
    """`slide` leaves out the oldest messages, or the beginning of a text, to make room."""

    def __post_init__(self) -> None:
        if self.on_long not in ON_LONG:
            raise InputError(f"on_long must be one of {', '.join(ON_LONG)}, not {self.on_long!r}")


def is_dialogue(item: object) -> bool:
    """Tell whether an item is a list of messages."""
    return isinstance(item, list) and bool(item) and isinstance(item[0], Mapping)


def prompt_of(opened: Opened, item: Any, options: PromptOptions, wanted: int) -> list[int]:
    """Return the tokens of a text or a dialogue, with room for an answer after them.

    With `slide`, a dialogue loses its oldest messages, and a text its beginning, until there is
    room for `wanted` tokens, or for half of the context if that is less.  A system message, the
    last message and the tokens that start every text stay.

    Raises:
        InputError: the item is neither, or it leaves no room.

    """
    context = facts(opened).context
    slides = options.on_long == "slide"
    most = context - min(wanted, context // 2) if slides else context - 1
    if is_dialogue(item):
        ids = _dialogue(opened, item, options, most)
    elif isinstance(item, str):
        ids = opened.text.ids(item)
        ids = _cut(ids, opened.text.ids(""), most) if slides else ids
    else:
        raise InputError(f"expected a text or messages, found {type(item).__name__}")
    if not ids:
        raise InputError("the prompt has no tokens; give a text that the model can go on with")
    if len(ids) > most:
        remedy = "shorten its last message" if slides else "shorten it, or pass on_long='slide'"
        raise InputError(
            f"the prompt has {len(ids)} tokens, but this bundle has room for {context} "
            f"including the answer; {remedy}"
        )
    return ids


def _dialogue(opened: Opened, messages: Messages, options: PromptOptions, most: int) -> list[int]:
    told = facts(opened)
    if not told.template:
        raise InputError("this bundle has no chat template; give a text instead of messages")
    show = partial(
        render,
        told.template,
        tokens=told.tokens,
        tools=options.tools,
        options=options.template_options,
    )
    ids = opened.text.ids(show(messages), special=False)
    while options.on_long == "slide" and len(ids) > most and (fewer := _without_oldest(messages)):
        messages = fewer
        ids = opened.text.ids(show(messages), special=False)
    return ids


def _without_oldest(messages: Messages) -> list[Mapping[str, Any]]:
    """Return a dialogue without its oldest turn; nothing if there is only one.

    A turn begins with a message of the user, so that roles alternate as before.
    """
    head = [item for item in messages[:1] if item.get("role") in ("system", "developer")]
    turns = messages[len(head) :]
    starts = [at for at, item in enumerate(turns) if at and item.get("role") == "user"]
    return [*head, *turns[starts[0] :]] if starts else []


def _cut(ids: list[int], special: Sequence[int], most: int) -> list[int]:
    """Return the end of a text of more than `most` tokens, after what starts every text."""
    if len(ids) <= most:
        return ids
    head = list(special) if ids[: len(special)] == list(special) else []
    return [*head, *ids[len(ids) - most + len(head) :]]
