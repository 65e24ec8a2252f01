"""Turn a dialogue into text of the form that its model was trained on, by its chat template.

The template is Jinja2, as in transformers (`utils/chat_template_utils.py` of 4.57), in a sandbox
where it cannot change anything.  A sandbox does not end a loop, so the size and steps of a template
and the length of its output are bounded as well.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any, NoReturn

from edgepack_runtime.errors import HostError, InputError, TrustError

if TYPE_CHECKING:
    from jinja2 import Template

MOST_TEMPLATE = 1 << 18
"""Characters of a template."""
_MOST_INDENT = 16


def render(
    template: str,
    messages: Sequence[Mapping[str, Any]],
    tokens: Mapping[str, str],
    *,
    tools: Sequence[Mapping[str, Any]] | None = None,
    options: Mapping[str, Any] | None = None,
) -> str:
    """Return the text of a dialogue, up to where the model continues.

    Args:
        template: the model's template.
        messages: each is {"role": …, "content": …}.
        tokens: special tokens by name, such as `bos_token`.
        tools: JSON schemas of functions that the model may call.
        options: more variables of the template, such as `enable_thinking`.

    Raises:
        InputError: a message has another form, or the template refuses the messages.
        TrustError: the template is not usable.

    """
    _check(messages)
    from jinja2 import TemplateError
    from jinja2.exceptions import SecurityError

    compiled = _compile(template)
    values = {**tokens, **(options or {}), "messages": list(messages), "tools": tools}
    try:
        return _run(compiled, {**values, "documents": None, "add_generation_prompt": True})
    except SecurityError as exc:
        raise TrustError(f"the chat template does what no template may: {exc}") from exc
    except (TemplateError, TypeError, ValueError, KeyError, OverflowError, RecursionError) as exc:
        raise InputError(f"the chat template refuses these messages: {exc}") from exc


def _check(messages: Sequence[Mapping[str, Any]]) -> None:
    if not messages:
        raise InputError("a dialogue needs at least one message")
    for number, message in enumerate(messages, 1):
        if not isinstance(message, Mapping) or "role" not in message:
            raise InputError(
                f'message {number} is not {{"role": "user", "content": "…"}}: {message!r:.80}'
            )


@lru_cache(maxsize=4)
def _compile(template: str) -> Template:
    from jinja2 import TemplateError

    if len(template) > MOST_TEMPLATE:
        raise TrustError(f"the chat template has more than {MOST_TEMPLATE} characters")
    try:
        made: Template = _environment().from_string(template)
    except (TemplateError, RecursionError) as exc:  # SecurityError is one of the first
        raise TrustError(f"the chat template cannot be used: {exc}") from exc
    return made


def _run(compiled: Template, values: Mapping[str, Any]) -> str:
    from edgepack_runtime.inputs import _sandbox

    return _sandbox.render(compiled, values)


def _environment() -> Any:
    try:
        from edgepack_runtime.inputs._sandbox import make
    except ImportError as exc:
        raise HostError(
            "a chat needs Jinja2 (pip install 'edgepack-runtime[chat]'); a plain text does not"
        ) from exc
    found = make()
    found.filters["tojson"] = _to_json
    found.globals |= {"raise_exception": _refuse, "strftime_now": _now}
    return found


def _to_json(
    value: Any,
    ensure_ascii: bool = False,  # noqa: FBT001, FBT002 (a filter's own arguments)
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,  # noqa: FBT001, FBT002
) -> str:
    if (indent or 0) > _MOST_INDENT:
        raise ValueError(f"an indent of {indent}")
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _refuse(message: str) -> NoReturn:
    from jinja2 import TemplateError

    raise TemplateError(message)


def _now(how: str) -> str:
    from datetime import datetime

    return datetime.now().strftime(how)  # noqa: DTZ005 (templates expect local time)
