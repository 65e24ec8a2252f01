"""Calls of tools: what a model asks its caller to run, found in the text that it wrote.

Models write a call as JSON, each family with marks of its own around it.  A call is checked against
the JSON schema of its tool (extra `tools`), since a model can name a tool that does not exist, or
leave out what the tool needs.

Sources of the marks: the chat templates of Hermes, Qwen, SmolLM, Llama 3, Mistral and Phi 4.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from edgepack_runtime.errors import HostError, InputError

_MARKED = re.compile(
    r"<tool_call>(?P<hermes>.*?)(?:</tool_call>|\Z)"
    r"|<\|tool_call\|>(?P<phi>.*?)(?:<\|/tool_call\|>|\Z)"
    r"|<function=(?P<name>[^>\s]+)>(?P<llama>.*?)(?:</function>|\Z)"
    r"|\[TOOL_CALLS\](?P<mistral>.*)\Z"
    r"|<\|python_tag\|>(?P<python>.*)\Z",
    re.DOTALL,
)
_ARGUMENTS = ("arguments", "parameters")
Call = dict[str, Any]


def functions(tools: Sequence[Any]) -> dict[str, Mapping[str, Any]]:
    """Return {name: JSON schema of its arguments} of tools as a chat template takes them.

    Raises:
        InputError: a tool has another form, or two have one name.

    """
    found: dict[str, Mapping[str, Any]] = {}
    for number, tool in enumerate(tools, 1):
        function = tool.get("function", tool) if isinstance(tool, Mapping) else None
        if not isinstance(function, Mapping) or not isinstance(function.get("name"), str):
            raise InputError(
                f'tool {number} is not {{"type": "function", "function": {{"name": "…", '
                f'"description": "…", "parameters": {{…}}}}}}: {tool!r:.80}'
            )
        if function["name"] in found:
            raise InputError(f"two tools are called {function['name']!r}")
        found[function["name"]] = function.get("parameters") or {"type": "object"}
    return found


def required(tools: Sequence[Any], name: str = "") -> dict[str, Any]:
    """Return the JSON schema of a call: of the tool called `name`, or of any of them.

    Raises:
        InputError: there is no such tool.

    """
    known = functions(tools)
    if name and name not in known:
        raise InputError(f"tool_choice names {name!r}, but the tools are {', '.join(known)}")
    calls = [
        {
            "type": "object",
            "properties": {"name": {"const": tool}, "arguments": schema},
            "required": ["name", "arguments"],
            "additionalProperties": False,
        }
        for tool, schema in known.items()
        if name in ("", tool)
    ]
    return calls[0] if len(calls) == 1 else {"anyOf": calls}


def message(text: str, tools: Sequence[Any]) -> dict[str, Any]:
    """Return the assistant's message of a text, with the calls that it makes of tools.

    Returns:
        {"role", "content"}, and if there are any, `tool_calls`, each {"type": "function",
        "function": {"name", "arguments"}}, and `invalid_tool_calls`, each {"text", "error"}.  A
        valid call is no part of the content.

    Raises:
        InputError: a tool has another form than chat templates take.
        HostError: jsonschema is not installed.

    """
    known = functions(tools)
    check = _validator()
    calls: list[Call] = []
    refused: list[dict[str, str]] = []
    content, end = "", 0
    for start, stop, said, name in _candidates(text):
        content, end = content + text[end:start], stop
        found = _read(said, name)
        if found is None:
            refused.append({"text": said.strip(), "error": "this is not JSON of a call"})
        for call in found or ():
            if error := check(call, known):
                refused.append({"text": json.dumps(call, ensure_ascii=False), "error": error})
            else:
                calls.append({"type": "function", "function": call})
    made: dict[str, Any] = {"role": "assistant", "content": (content + text[end:]).strip()}
    if not calls and not refused:
        made["content"] = text
    if calls:
        made["tool_calls"] = calls
    if refused:
        made["invalid_tool_calls"] = refused
    return made


def _candidates(text: str) -> Iterator[tuple[int, int, str, str]]:
    """Yield (start, end, JSON, name of the tool) of what looks like calls."""
    marked = list(_MARKED.finditer(text))
    for found in marked:
        parts = found.groupdict()
        said = next(part for key, part in parts.items() if part is not None and key != "name")
        yield found.start(), found.end(), said, found["name"] or ""
    if not marked and _read(text, ""):  # some models put no marks around a call
        yield 0, len(text), text, ""


def _read(said: str, name: str) -> list[Call] | None:
    """Return the calls in a piece of JSON; None if it is no JSON of calls."""
    found = _parsed(said)
    if name:
        found = {"name": name, "arguments": found}
    calls = []
    for item in found if isinstance(found, list) else [found]:
        if not isinstance(item, Mapping) or not isinstance(item.get("name"), str):
            return None
        arguments = next((item[key] for key in _ARGUMENTS if key in item), None)
        if isinstance(arguments, str):  # JSON in JSON, as in OpenAI's interface
            arguments = _parsed(arguments)
        if not isinstance(arguments, Mapping):
            return None
        calls.append({"name": item["name"], "arguments": dict(arguments)})
    return calls or None


def _parsed(said: str) -> Any:
    """Return what a piece of JSON says; None if it is none."""
    try:
        return json.loads(said)
    except (ValueError, RecursionError):
        return None


def _validator() -> Any:
    """Return a function that says what is wrong with a call; empty if nothing is."""
    try:
        from jsonschema import SchemaError
        from jsonschema.exceptions import best_match
        from jsonschema.validators import validator_for
        from referencing import Registry
        from referencing.exceptions import Unresolvable
    except ImportError as exc:
        raise HostError("tools need jsonschema: pip install 'edgepack-runtime[tools]'") from exc
    nothing: Any = Registry()  # a schema that refers to an address must not have it fetched

    def check(call: Call, known: Mapping[str, Mapping[str, Any]]) -> str:
        if call["name"] not in known:
            return f"there is no tool {call['name']!r}"
        schema = known[call["name"]]
        kind = validator_for(schema)
        try:
            kind.check_schema(schema)
            error = best_match(kind(schema, registry=nothing).iter_errors(call["arguments"]))
        except (SchemaError, Unresolvable) as exc:
            raise InputError(
                f"the parameters of tool {call['name']!r} are not a JSON schema: {exc}"
            ) from exc
        where = "".join(f"[{part!r}]" for part in error.absolute_path) if error else ""
        return f"arguments{where}: {error.message}" if error else ""

    return check
