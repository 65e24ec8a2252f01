"""Calls of tools: found in what models write, and checked against what the tools take."""

from __future__ import annotations

import json
from typing import Any

import pytest

from edgepack_runtime import InputError
from edgepack_runtime.generation.tools import functions, message, required

WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "Look up the weather.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer", "maximum": 7}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK = {"name": "clock", "description": "Say the time."}
TOOLS = [WEATHER, CLOCK]
CALL = '{"name": "weather", "arguments": {"city": "Zürich", "days": 2}}'
ARGUMENTS = {"city": "Zürich", "days": 2}
CALLED = {"name": "weather", "arguments": ARGUMENTS}
CLOCKED = '{"name": "clock", "arguments": {}}'
WRITTEN = {
    "hermes and qwen": f"<tool_call>\n{CALL}\n</tool_call>",
    "smollm": f"<tool_call>[{CALL}]</tool_call>",
    "cut at the end token": f"<tool_call>\n{CALL}",
    "llama 3": '{"name": "weather", "parameters": {"city": "Zürich", "days": 2}}',
    "llama 3 with its mark": f"<|python_tag|>{CALL}",
    "llama 3.1 functions": '<function=weather>{"city": "Zürich", "days": 2}</function>',
    "mistral": f"[TOOL_CALLS] [{CALL}]",
    "mistral, its mark left out": f"[{CALL}]",
    "phi 4": f"<|tool_call|>[{CALL}]<|/tool_call|>",
    "arguments as a text": json.dumps({"name": "weather", "arguments": json.dumps(ARGUMENTS)}),
}


@pytest.mark.parametrize("family", WRITTEN)
def test_a_call_is_found_in_each_family_s_own_marks(family: str) -> None:
    """And nothing of it is left in the content."""
    wanted = [{"type": "function", "function": CALLED}]
    assert message(WRITTEN[family], TOOLS) == {
        "role": "assistant",
        "content": "",
        "tool_calls": wanted,
    }


def test_words_around_calls_stay() -> None:
    """Several calls keep their order."""
    text = f"Let me see.<tool_call>{CALL}</tool_call><tool_call>{CLOCKED}</tool_call>"
    found = message(text, TOOLS)
    assert found["content"] == "Let me see."
    assert [call["function"]["name"] for call in found["tool_calls"]] == ["weather", "clock"]


@pytest.mark.parametrize(
    "text", ["It is 12 degrees.", "", ' {"city": "Zürich"} ', "[1, 2]", "null"]
)
def test_a_text_without_calls_is_left_as_it_is(text: str) -> None:
    """JSON that calls nothing is an answer like any other."""
    assert message(text, TOOLS) == {"role": "assistant", "content": text}


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"name": "rain", "arguments": {}}, "there is no tool 'rain'"),
        ({"name": "weather", "arguments": {}}, "arguments: 'city' is a required property"),
        (
            {"name": "weather", "arguments": {"city": 1}},
            "arguments['city']: 1 is not of type 'string'",
        ),
        (
            {"name": "weather", "arguments": {"city": "x", "days": 9}},
            "arguments['days']: 9 is greater than the maximum of 7",
        ),
        (
            {"name": "weather", "arguments": {"city": "x", "colour": 1}},
            "arguments: Additional properties are not allowed ('colour' was unexpected)",
        ),
    ],
)
def test_a_wrong_call_is_not_passed_off_as_one(call: dict[str, Any], said: str) -> None:
    """It is in `invalid_tool_calls`, with what is wrong."""
    found = message(f"<tool_call>{json.dumps(call)}</tool_call>", TOOLS)
    assert "tool_calls" not in found
    assert [wrong["error"] for wrong in found["invalid_tool_calls"]] == [said]
    assert json.loads(found["invalid_tool_calls"][0]["text"]) == call


@pytest.mark.parametrize("said", ["{not json", "", "[" * 100_000, '{"name": 3, "arguments": {}}'])
def test_a_mark_without_a_call_is_told(said: str) -> None:
    """Also text that is nested a hundred thousand times."""
    (wrong,) = message(f"<tool_call>{said}</tool_call>", TOOLS)["invalid_tool_calls"]
    assert wrong == {"text": said, "error": "this is not JSON of a call"}


def test_a_schema_s_address_is_not_fetched() -> None:
    """A schema that points elsewhere is refused, by whoever it was written."""
    there = {"name": "weather", "parameters": {"$ref": "http://127.0.0.1:9/schema.json"}}
    with pytest.raises(InputError, match="are not a JSON schema"):
        message(CALL, [there])


@pytest.mark.parametrize(
    ("tools", "said"),
    [
        (["weather"], "tool 1 is not"),
        ([WEATHER, {"type": "function"}], "tool 2 is not"),
        ([WEATHER, WEATHER], "two tools are called 'weather'"),
    ],
)
def test_tools_of_another_form_are_refused(tools: list[Any], said: str) -> None:
    """Before anything is written."""
    with pytest.raises(InputError, match=said):
        functions(tools)


def test_a_broken_schema_is_the_caller_s_error() -> None:
    """It is named with its tool."""
    with pytest.raises(InputError, match="parameters of tool 'clock' are not a JSON schema"):
        message(
            '{"name": "clock", "arguments": {}}', [{"name": "clock", "parameters": {"type": 1}}]
        )


def test_a_required_call_has_a_schema() -> None:
    """Of one tool, or of any; a name that is no tool is refused."""
    assert required(TOOLS, "clock")["properties"]["name"] == {"const": "clock"}
    names = [one["properties"]["name"]["const"] for one in required(TOOLS)["anyOf"]]
    assert names == ["weather", "clock"]
    with pytest.raises(InputError, match="names 'rain', but the tools are weather, clock"):
        required(TOOLS, "rain")
