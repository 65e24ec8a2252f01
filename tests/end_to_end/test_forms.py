"""Answers of a given form: whatever the model would rather say, the form is kept."""

from __future__ import annotations

import json
import random
import re
import sys
from typing import Any

import jsonschema
import pytest
from languages import PROMPTS, Made

from edgepack_runtime import HostError, InputError, Memory, Model, load

WORDS = ("name", "room", "level", "on", "kind", "count", "when", "who", "items", "note")
PATTERNS = ("^[a-c]{1,3}$", "^[0-9]{2}:[0-9]{2}$")


def schema(rng: random.Random, depth: int = 0) -> dict[str, Any]:
    """Make a schema of the kinds that people write: nested, bounded, with choices."""
    kinds = ["string", "integer", "boolean", "enum", "const", "null", "pattern"]
    kinds += ["object", "array", "either"] if depth < 2 else []
    kind = rng.choice(kinds) if depth else "object"
    if kind == "object":
        names = rng.sample(WORDS, rng.randint(1, 3))
        return {
            "type": "object",
            "properties": {name: schema(rng, depth + 1) for name in names},
            "required": names[: rng.randint(1, len(names))],
            "additionalProperties": False,
        }
    if kind == "array":
        least = rng.randint(0, 1)
        return {
            "type": "array",
            "items": schema(rng, depth + 1),
            "minItems": least,
            "maxItems": least + rng.randint(1, 2),
        }
    if kind == "either":
        return {"anyOf": [schema(rng, depth + 1) for _ in range(2)]}
    low = rng.randint(-50, 50)
    simple: dict[str, dict[str, Any]] = {
        "string": {"type": "string", "maxLength": rng.randint(1, 8)},
        "integer": {"type": "integer", "minimum": low, "maximum": low + rng.randint(0, 99)},
        "boolean": {"type": "boolean"},
        "enum": {"enum": rng.sample([*WORDS, 1, True, None], 3)},
        "const": {"const": rng.choice(WORDS)},
        "null": {"type": "null"},
        "pattern": {"type": "string", "pattern": rng.choice(PATTERNS)},
    }
    return simple[kind]


@pytest.fixture(scope="module")
def writer(made: Made) -> Model:
    """A model with random weights, which would never write JSON by itself."""
    return load(made("qwen2", "target"))


def _text(model: Model, **options: Any) -> str:
    options = {"max_new_tokens": 400, "return_full_text": False, **options}
    return str(model(PROMPTS[0], **options)[0]["generated_text"])


def test_five_hundred_schemas_are_kept(writer: Model) -> None:
    """Greedily and drawn: each answer is JSON, and valid by an independent validator."""
    rng = random.Random(7)  # noqa: S311 (not a secret)
    for number in range(500):
        wanted = schema(rng)
        how = {"temperature": 1.3, "seed": number} if number % 2 else {}
        answer = _text(writer, json_schema=wanted, **how)
        jsonschema.validate(json.loads(answer), wanted)


@pytest.mark.parametrize("pattern", [r"(yes|no)", r"[0-9]{3}-[0-9]{4}", r"(ab)+c", r"\d{1,2}°C"])
def test_a_regular_expression_is_matched(writer: Model, pattern: str) -> None:
    """As a whole, from the first character to the last."""
    assert re.fullmatch(pattern, _text(writer, regex=pattern, temperature=1.0, seed=1))


def test_a_grammar_is_followed(writer: Model) -> None:
    """Sums in brackets: what a regular expression cannot say."""
    grammar = 'start: sum\nsum: "(" (sum | NUMBER) "+" NUMBER ")"\nNUMBER: /[0-9]/'
    answer = _text(writer, grammar=grammar, temperature=1.0, seed=4)
    assert eval(answer) >= 0  # noqa: S307 (digits, brackets and plus signs)


def test_a_form_goes_with_all_else(writer: Model) -> None:
    """Streams, memories, guesses and penalties change nothing about it."""
    wanted = {"type": "array", "items": {"const": "again"}, "minItems": 3, "maxItems": 3}
    for how in (
        {"memory": Memory()},
        {"prompt_lookup_num_tokens": 4},
        {"no_repeat_ngram_size": 1},
        {"min_new_tokens": 300},
    ):
        assert json.loads(_text(writer, json_schema=wanted, **how)) == ["again"] * 3
    pieces = list(writer(PROMPTS[0], stream=True, json_schema=json.dumps(wanted)))
    assert json.loads("".join(pieces)) == ["again"] * 3


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"json_schema": {"type": 7}}, "json_schema is not valid: type must be a string"),
        ({"json_schema": "{"}, "json_schema is not valid: Expecting property name"),
        ({"json_schema": {"$ref": "http://x/y"}}, "json_schema is not valid: .*not present"),
        ({"json_schema": {"type": "string", "minLength": 5, "maxLength": 2}}, "is not valid"),
        ({"regex": "("}, "regex is not valid: .*unclosed group"),
        ({"grammar": "start: nothing"}, "grammar is not valid: .*unknown name"),
        ({"regex": "a", "grammar": 'start: "a"'}, "one of regex and grammar"),
        ({"json_schema": 7}, "json_schema must be dict or str"),
    ],
)
def test_a_form_that_is_none_is_refused(
    writer: Model, options: dict[str, Any], message: str
) -> None:
    """Before anything is written, and with the reason."""
    with pytest.raises(InputError, match=message):
        _text(writer, **options)


def test_a_missing_extra_is_named(writer: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message says what to install."""
    monkeypatch.setitem(sys.modules, "llguidance", None)
    with pytest.raises(HostError, match=r"pip install 'edgepack-runtime\[grammar\]'"):
        _text(writer, regex="a")


TOOLS = [
    {
        "type": "function",
        "function": {
            "name": "light",
            "parameters": {
                "type": "object",
                "properties": {
                    "room": {"enum": ["hall", "kitchen"]},
                    "level": {"type": "integer", "minimum": 0, "maximum": 9},
                },
                "required": ["room", "level"],
                "additionalProperties": False,
            },
        },
    },
    {
        "type": "function",
        "function": {
            "name": "clock",
            "parameters": {"type": "object", "properties": {}, "additionalProperties": False},
        },
    },
]


@pytest.mark.parametrize("choice", ["required", "light", "clock"])
def test_a_required_call_is_a_valid_one(writer: Model, choice: str) -> None:
    """Whatever the model would rather say, its message calls a tool as the tool wants."""
    dialogue = [{"role": "user", "content": "turn on the lights"}]
    for seed in range(10):
        (answer,) = writer(dialogue, tools=TOOLS, tool_choice=choice, temperature=1.5, seed=seed)
        message = answer["generated_text"][-1]
        assert set(message) == {"role", "content", "tool_calls"}
        (call,) = message["tool_calls"]
        assert choice in ("required", call["function"]["name"])
        if call["function"]["name"] == "light":
            assert call["function"]["arguments"]["room"] in ("hall", "kitchen")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"tool_choice": "required"}, "tool_choice='required' needs tools"),
        ({"tools": TOOLS, "tool_choice": "rain"}, "names 'rain', but the tools are light, clock"),
        ({"tools": TOOLS, "tool_choice": "clock", "json_schema": {}}, "leave json_schema out"),
        ({"tools": ["light"]}, "tool 1 is not"),
    ],
)
def test_contradictory_tools_are_refused(writer: Model, options: dict[str, Any], said: str) -> None:
    """Before anything is written."""
    with pytest.raises(InputError, match=said):
        writer([{"role": "user", "content": "turn on the lights"}], **options)
