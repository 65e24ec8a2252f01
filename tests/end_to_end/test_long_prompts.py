"""Prompts that are longer than a model's context: what slides out, and what stays."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from edgepack_runtime import InputError, Memory, Model, load

if TYPE_CHECKING:
    from languages import Made

CONTEXT = 512
SYSTEM = {"role": "system", "content": "You are brief."}
HOW: dict[str, Any] = {"max_new_tokens": 16, "min_new_tokens": 16, "return_full_text": False}


@pytest.fixture(scope="module")
def model(made: Made) -> Model:
    """Return a model with a context of 512 tokens."""
    return load(made("llama"))


def _dialogue(turns: int) -> list[dict[str, str]]:
    found = [SYSTEM]
    for turn in range(turns):
        found.append({"role": "user", "content": f"turn on the lights in room {turn}"})
        found.append({"role": "assistant", "content": f"the lights are on in room {turn}"})
    return [*found, {"role": "user", "content": "and in the kitchen"}]


def _text(model: Model, prompt: Any, **options: Any) -> str:
    return str(model(prompt, **HOW, **options)[0]["generated_text"])


def test_a_dialogue_loses_its_oldest_turns(model: Model) -> None:
    """The answer is that to the system message and the newest turns, with room for all of it."""
    long = _dialogue(60)
    with pytest.raises(InputError, match="or pass on_long='slide'"):
        _text(model, long)
    answer = _text(model, long, on_long="slide")
    rests = [[SYSTEM, *long[at:]] for at in range(1, len(long), 2)]
    fits = [rest for rest in rests if _room(model, rest) >= 16]
    assert len(fits) < len(rests)
    assert answer == _text(model, fits[0])


def _room(model: Model, messages: list[dict[str, str]]) -> int:
    shown = "".join(f"<{item['role']}>{item['content']}</s>" for item in messages)
    return CONTEXT - len(model.encoder.ids(f"{shown}<assistant>", special=False))


def test_a_text_loses_its_beginning(model: Model) -> None:
    """What is left are the last tokens that leave room for the answer."""
    text = " ".join(f"light {number}" for number in range(400))
    ids = model.encoder.ids(text)
    assert len(ids) > CONTEXT
    tail = model.encoder.tokenizer.decode(ids[-(CONTEXT - 16) :])
    assert model.encoder.ids(tail) == ids[-(CONTEXT - 16) :]
    assert _text(model, text, on_long="slide") == _text(model, tail)


def test_a_prompt_that_fits_stays_whole(model: Model) -> None:
    """Then the option changes nothing."""
    assert _text(model, _dialogue(2), on_long="slide") == _text(model, _dialogue(2))


def test_an_answer_may_take_half_of_the_context(model: Model) -> None:
    """Whoever asks for more tokens than there are still has a prompt."""
    options = {**HOW, "max_new_tokens": 4000, "min_new_tokens": 0, "stop": "e"}
    assert model(_dialogue(60), on_long="slide", **options)[0]["generated_text"] is not None


def test_one_message_that_is_too_long_is_refused(model: Model) -> None:
    """Half of a question would be another question."""
    with pytest.raises(InputError, match="shorten its last message"):
        _text(model, [SYSTEM, {"role": "user", "content": "lights " * 900}], on_long="slide")
    with pytest.raises(InputError, match="on_long must be one of error, slide, not 'cut'"):
        _text(model, "lights", on_long="cut")


def test_a_memory_follows_a_dialogue_that_slides(model: Model) -> None:
    """It keeps the system message, and the answers are those of a dialogue without a memory."""
    memory, dialogue = Memory(), _dialogue(40)
    for question in ("and in the hall", "and outside"):
        wanted = _text(model, dialogue, on_long="slide", memory=Memory())
        assert _text(model, dialogue, on_long="slide", memory=memory) == wanted
        dialogue += [
            {"role": "assistant", "content": wanted},
            {"role": "user", "content": question},
        ]
    assert 0 < memory.length <= CONTEXT
