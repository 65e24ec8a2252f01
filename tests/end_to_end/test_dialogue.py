"""What a dialogue has read is read once, and what is guessed changes no text."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from languages import PROMPTS, Made

from edgepack_runtime import InputError, Memory, Model, TrustError, load
from edgepack_runtime.engines import _ort_state, _ov_paged

FIRST = [{"role": "user", "content": "turn on the lights in the kitchen"}]


@pytest.fixture
def rows(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Return the list of how many tokens each run of a graph reads."""
    found: list[int] = []
    for kind in (_ort_state.OrtState, _ov_paged.PagedState):
        monkeypatch.setattr(kind, "run", _counted(kind.run, found))
    return found


def _counted(run: Any, found: list[int]) -> Any:
    def counted(state: Any, feeds: Any) -> Any:
        found.append(feeds["input_ids"].shape[1])
        return run(state, feeds)

    return counted


@pytest.fixture(
    params=[
        ("float32", "onnxruntime"),
        ("target", "onnxruntime"),
        ("target", "openvino"),
    ],
    ids="-".join,
)
def talker(request: pytest.FixtureRequest, made: Made) -> Model:
    """Return a model that talks, in float32 and smaller, on each engine."""
    precision, engine = request.param
    return load(made("qwen2", precision, engine=engine))


def _say(model: Model, dialogue: list[Any], memory: Memory, **options: Any) -> list[Any]:
    options = {"max_new_tokens": 24, **options}
    return list(model(dialogue, memory=memory, **options)[0]["generated_text"])


def _turns(model: Model, memory: Memory | None) -> list[Any]:
    """Talk for three turns, with one memory or with a new one in each turn."""
    dialogue = list(FIRST)
    for more in ("and in the hall", "off again"):
        dialogue = _say(model, dialogue, memory or Memory())
        dialogue.append({"role": "user", "content": more})
    return _say(model, dialogue, memory or Memory())


def test_a_turn_reads_only_what_is_new(talker: Model, rows: list[int]) -> None:
    """It says what it says when it reads everything, bit for bit, and reads less."""
    wanted = _turns(talker, None)
    whole = [count for count in rows if count > 2]
    rows.clear()
    assert _turns(talker, Memory()) == wanted
    some = [count for count in rows if count > 2]
    assert len(whole) == len(some) == 3, "a prompt each, read at once"
    assert some[0] == whole[0]
    # Not all of a turn: the bytes of a random model are no text, and read otherwise than written.
    assert all(new < all_ - 20 for new, all_ in zip(some[1:], whole[1:], strict=True))


def test_a_dialogue_that_changes_is_read_from_there_on(talker: Model) -> None:
    """A memory of another dialogue, or of another turn, changes no answer."""
    memory = Memory()
    _turns(talker, memory)
    other = [{"role": "user", "content": "turn on the radio"}]
    assert _say(talker, other, memory) == _say(talker, other, Memory())
    assert _say(talker, other, memory) == _say(talker, other, Memory()), "the same prompt again"


def test_a_saved_memory_goes_on_in_another_process(
    made: Made, rows: list[int], tmp_path: Path
) -> None:
    """The model reads the prompt once, saves it, and another load reads only the answer's place."""
    bundle = made("qwen2", "target")
    memory = Memory()
    dialogue = [*_say(load(bundle), FIRST, memory), {"role": "user", "content": "off again"}]
    memory.save(tmp_path / "memory")
    wanted = _say(load(bundle), dialogue, memory)
    rows.clear()
    again = Memory.load(tmp_path / "memory")
    assert again.length > 20
    assert _say(load(bundle), dialogue, again) == wanted
    assert rows[0] < 20
    memory.close()
    assert memory.length == 0
    assert _say(load(bundle), dialogue, memory) == wanted


def test_a_memory_of_another_model_is_read_again(
    made: Made, rows: list[int], tmp_path: Path
) -> None:
    """The saved positions are not used, and the answer is the model's own."""
    memory = Memory()
    _say(load(made("qwen2")), FIRST, memory)
    memory.save(tmp_path / "memory")
    other = load(made("llama"))
    wanted = _say(other, FIRST, Memory())
    rows.clear()
    assert _say(other, FIRST, Memory.load(tmp_path / "memory")) == wanted
    assert rows[0] > 20
    assert _say(other, FIRST, memory) == wanted, "a hot switch under one memory"


def test_a_damaged_memory_is_refused(made: Made, tmp_path: Path) -> None:
    """One flipped bit, half a file, another file: one clear error each."""
    path = tmp_path / "memory"
    with pytest.raises(InputError, match="No such file"):
        Memory.load(path)
    with pytest.raises(InputError, match="nothing that can be saved"):
        Memory().save(path)
    memory = Memory()
    _say(load(made("qwen2")), FIRST, memory)
    memory.save(path)
    whole = path.read_bytes()
    for content in (whole[:-1] + bytes([whole[-1] ^ 1]), whole[: len(whole) // 2], b"", b"x" * 99):
        path.write_bytes(content)
        with pytest.raises(TrustError, match="damaged"):
            Memory.load(path)


def test_a_memory_serves_one_call_at_a_time(made: Made) -> None:
    """A second call is refused while the first one writes; then it may go on."""
    model, memory = load(made("qwen2")), Memory()
    pieces = model(FIRST, stream=True, memory=memory, max_new_tokens=40)
    next(pieces)
    with pytest.raises(InputError, match="another call uses this memory"):
        model(FIRST, memory=memory)
    with pytest.raises(InputError, match="a call uses this memory"):
        memory.save("never")
    pieces.close()
    assert model(FIRST, memory=memory, max_new_tokens=4)


def test_a_call_that_fails_or_never_starts_frees_the_memory(made: Made) -> None:
    """Wrong options, and a stream that nobody reads."""
    model, memory = load(made("qwen2")), Memory()
    with pytest.raises(InputError, match="regex is not valid"):
        model(FIRST, memory=memory, regex="(")
    model(FIRST, stream=True, memory=memory).close()
    unread = model(FIRST, stream=True, memory=memory)
    assert model(FIRST, memory=memory, max_new_tokens=4)
    del unread


@pytest.mark.parametrize("how", [{}, {"temperature": 0.8, "seed": 7}, {"repetition_penalty": 1.2}])
def test_guesses_change_no_text(talker: Model, how: dict[str, Any]) -> None:
    """Greedily, drawn or penalized: with guesses the text is what it is without."""
    text = "the lights and the lights and the lights and the music and the"
    options = {"max_new_tokens": 300, "return_full_text": False, **how}
    wanted = talker(text, memory=Memory(), **options)
    got = talker(text, prompt_lookup_num_tokens=4, **options)
    assert got == wanted


def test_a_text_that_repeats_itself_takes_few_runs(made: Made, rows: list[int]) -> None:
    """Nearly all guesses are right, and the text is what it is without them."""
    model = load(made("qwen2-dull", "target"))
    rows.clear()
    wanted = model(PROMPTS[1], max_new_tokens=200, memory=Memory())
    assert len(rows) == 200
    rows.clear()
    assert model(PROMPTS[1], max_new_tokens=200, prompt_lookup_num_tokens=4) == wanted
    assert len(rows) < 60


def test_guesses_and_a_memory_end_at_the_context(made: Made) -> None:
    """The last position of the context is written, and none after it."""
    model = load(made("qwen2"))
    ids = model.encoder.ids(PROMPTS[0] * 400)[:500]
    text = model.encoder.tokenizer.decode(ids)
    room = 512 - len(model.encoder.ids(text))
    assert 0 < room < 20
    wanted = model(text, max_new_tokens=99)
    assert model(text, max_new_tokens=99, memory=Memory()) == wanted
    assert model(text, max_new_tokens=99, prompt_lookup_num_tokens=8) == wanted


def test_pieces_come_to_an_event_loop(made: Made) -> None:
    """`async for` gives the same pieces, and other tasks run meanwhile."""
    model = load(made("qwen2"))
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    async def read() -> list[str]:
        other = asyncio.create_task(tick())
        pieces = [piece async for piece in model(PROMPTS[0], stream=True, max_new_tokens=24)]
        other.cancel()
        stream = model(PROMPTS[0], stream=True)
        await anext(stream)
        await stream.aclose()
        with pytest.raises(StopAsyncIteration):
            await anext(stream)
        return pieces

    assert asyncio.run(read()) == list(model(PROMPTS[0], stream=True, max_new_tokens=24))
    assert ticks > 5


def test_a_dialogue_in_the_terminal_goes_on(made: Made, tmp_path: Path) -> None:
    """`/save` writes what was read; `--memory` reads it; a damaged file ends with exit code 5."""
    command = [
        sys.executable,
        "-m",
        "edgepack_runtime",
        "chat",
        str(made("qwen2")),
        "--system",
        "be short",
        "-o",
        "max_new_tokens=8",
    ]

    def talk(*arguments: str, text: str) -> Any:
        return subprocess.run(
            [*command, *arguments],
            check=False,
            capture_output=True,
            text=True,
            input=text,
            cwd=tmp_path,
        )

    done = talk(text="hello\n/save\n/save said\n")
    assert done.returncode == 0, done.stderr
    assert "name a file" in done.stderr
    assert "tokens are in said" in done.stderr
    again = talk("--memory", "said", text="hello\n")
    assert (again.returncode, again.stdout) == (0, done.stdout)
    (tmp_path / "said").write_bytes(b"else")
    assert talk("--memory", "said", text="hello\n").returncode == 5
