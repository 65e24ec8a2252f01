"""Language models: what a bundle writes is what `transformers.generate` writes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from languages import KINDS, PROMPTS, Made
from languages import wanted as transformers_text

from edgepack.cli import main
from edgepack_runtime import Bundle, InputError, load
from edgepack_runtime.model.selftest import selftest


@pytest.mark.parametrize("kind", KINDS)
def test_greedy_text_equals_that_of_transformers(kind: str, made: Made) -> None:
    """Token for token, over 64 tokens, for every family, narrow heads and tied heads included."""
    bundle = made(kind)
    model = load(bundle)
    assert model.task.name == "text-generation"
    folder = bundle.parents[1] / "model"
    for prompt in PROMPTS:
        wanted = transformers_text(folder, prompt, 64)
        assert model(prompt, max_new_tokens=64) == [{"generated_text": prompt + wanted}]
    selftest(Bundle.open(bundle), model)


def test_a_trained_model_tells_the_story_that_it_tells_in_torch(made: Made, data: Path) -> None:
    """stories260K, 256 tokens greedily, in float32; and an int8 bundle that agrees with it."""
    folder = data / "models/stories260K/hf"
    model = load(made("stories", source=folder))
    wanted = transformers_text(folder, PROMPTS[0], 256)
    answer = model(PROMPTS[0], max_new_tokens=256, return_full_text=False)
    assert answer == [{"generated_text": wanted}]
    small = Bundle.open(made("stories", "target", source=folder))
    assert all(v.measured["agreement"] > 0.9 for v in small.manifest.variants)
    assert {v.precision for v in small.manifest.variants} == {"int8"}


@pytest.mark.parametrize(
    "how",
    [
        {"repetition_penalty": 1.3},
        {"no_repeat_ngram_size": 3},
        {"repetition_penalty": 1.1, "no_repeat_ngram_size": 2},
    ],
)
def test_penalties_are_those_of_transformers(how: dict[str, Any], made: Made) -> None:
    """The same text comes of the same penalty, which counts the prompt's tokens too."""
    bundle = made("llama")
    wanted = transformers_text(bundle.parents[1] / "model", PROMPTS[1], 48, **how)
    got = load(bundle)(PROMPTS[1], max_new_tokens=48, return_full_text=False, **how)
    assert got == [{"generated_text": wanted}]


def test_pieces_join_to_the_whole(made: Made) -> None:
    """What is streamed is what is answered at once, and comes in more than one piece."""
    model = load(made("llama"))
    whole = model(PROMPTS[0], max_new_tokens=40, return_full_text=False)[0]["generated_text"]
    pieces = list(model(PROMPTS[0], max_new_tokens=40, stream=True))
    assert "".join(pieces) == whole
    assert len(pieces) > 5


def test_a_dialogue_is_written_as_its_template_says(made: Made) -> None:
    """Messages go through the model's template, and the answer is the next message."""
    from transformers import AutoTokenizer

    bundle = made("qwen2")
    folder = bundle.parents[1] / "model"
    messages = [{"role": "user", "content": "turn on the lights"}]
    prompt = AutoTokenizer.from_pretrained(folder).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    (answer,) = load(bundle)(messages, max_new_tokens=24)
    assert answer["generated_text"][:-1] == messages
    assert answer["generated_text"][-1] == {
        "role": "assistant",
        "content": transformers_text(folder, prompt, 24),
    }


def test_several_inputs_give_several_answers(made: Made) -> None:
    """A list of texts is answered with a list, each as alone."""
    model = load(made("qwen2"))
    assert model(PROMPTS[:2], max_new_tokens=8) == [model(p, max_new_tokens=8) for p in PROMPTS[:2]]


def test_a_seed_makes_draws_the_same(made: Made) -> None:
    """The same seed writes the same text; another one another."""
    model = load(made("llama"))

    def text(seed: int) -> Any:
        return model(PROMPTS[0], max_new_tokens=24, seed=seed, temperature=1.5)

    assert text(1) == text(1) != text(2)


def test_an_answer_tells_how_probable_its_tokens_were(made: Made) -> None:
    """As torch says, whatever the draws; the best ones are named, best first."""
    import torch
    from transformers import AutoModelForCausalLM

    bundle = made("llama")
    model = load(bundle)
    how = {"max_new_tokens": 12, "return_full_text": False, "temperature": 2.0, "seed": 3}
    (answer,) = model(PROMPTS[0], logprobs=2, **how)
    assert answer["generated_text"] == model(PROMPTS[0], **how)[0]["generated_text"]
    prompt = model.encoder.ids(PROMPTS[0])
    ids = [chance["id"] for chance in answer["logprobs"]]
    torch_model = AutoModelForCausalLM.from_pretrained(bundle.parents[1] / "model").eval()
    with torch.no_grad():
        logits = torch_model(torch.tensor([[*prompt, *ids]])).logits[0, len(prompt) - 1 : -1]
    wanted = logits.double().log_softmax(-1)
    for at, chance in enumerate(answer["logprobs"]):
        assert chance["logprob"] == pytest.approx(float(wanted[at, ids[at]]), abs=1e-3)
        assert [top["id"] for top in chance["top"]] == wanted[at].topk(2).indices.tolist()
        assert chance["top"][0]["logprob"] >= chance["top"][1]["logprob"]
    assert "logprobs" not in model(PROMPTS[0], max_new_tokens=1)[0]
    assert model(PROMPTS[0], max_new_tokens=1, logprobs=0)[0]["logprobs"][0]["top"] == []


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("x" * 4000, {}, "the prompt has .* tokens, but this bundle has room for 512"),
        ("", {}, "the prompt has no tokens"),
        (PROMPTS[0], {"temperature": -1.0}, "temperature must be above 0"),
        (PROMPTS[0], {"temperature": 0.5, "do_sample": False}, "leave one of them out"),
        (PROMPTS[0], {"top_p": 1.5}, "top_p must be above 0 and at most 1"),
        (PROMPTS[0], {"stop": ""}, "stop must be a text"),
        (PROMPTS[0], {"min_new_tokens": 9, "max_new_tokens": 8}, "is above max_new_tokens"),
        (PROMPTS[0], {"logprobs": -1}, "logprobs must be at least 0"),
        (PROMPTS[0], {"logprobs": 1, "stream": True}, "leave stream out"),
        (PROMPTS[:2], {"stream": True}, "one text or dialogue at a time"),
        ([{"content": "no role"}], {}, "message 1 is not"),
        (7, {}, "expected a text or messages, found int"),
    ],
)
def test_bad_input_is_one_clear_error(
    inputs: Any, options: dict[str, Any], message: str, made: Made
) -> None:
    """It is said before a token is written."""
    with pytest.raises(InputError, match=message):
        load(made("llama"))(inputs, **options)


def test_a_call_that_is_given_up_frees_its_memory(made: Made) -> None:
    """Closing the iterator closes the state, and the model goes on answering."""
    from edgepack_runtime.engines import onnxruntime as engine

    model = load(made("llama"))
    opened = []
    begin = engine.OrtSession.begin

    def watched(session: engine.OrtSession, capacity: int) -> Any:
        opened.append(begin(session, capacity))
        return opened[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(engine.OrtSession, "begin", watched)
        pieces = model(PROMPTS[0], max_new_tokens=100, stream=True)
        next(pieces)
        pieces.close()
    with pytest.raises(InputError, match="closed"):
        opened[0].run({})
    assert model(PROMPTS[0], max_new_tokens=4)


def test_a_dialogue_in_the_terminal(made: Made) -> None:
    """`chat` answers line by line as the model does, goes on, and starts again when told."""
    bundle = made("qwen2")
    model = load(bundle)

    def said(*messages: str) -> str:
        roles = ("user", "assistant")
        dialogue = [{"role": roles[i % 2], "content": m} for i, m in enumerate(messages)]
        answer = model(dialogue, max_new_tokens=8, return_full_text=False)
        return str(answer[0]["generated_text"])

    first = said("turn on the lights")
    wanted = [first, said("turn on the lights", first, "and off"), said("again")]
    done = subprocess.run(
        [sys.executable, "-m", "edgepack_runtime", "chat", str(bundle), "-o", "max_new_tokens=8"],
        check=True,
        capture_output=True,
        text=True,
        input="turn on the lights\n\nand off\n/reset\nagain\n/exit\nnever\n",
    )
    assert done.stdout == "".join(f"{text}\n" for text in wanted)
    assert done.stderr.count("pieces a second") == 3


def test_a_classifier_does_not_chat(bundle: Callable[..., Path]) -> None:
    """The message says what it answers, and with which command."""
    done = subprocess.run(
        [sys.executable, "-m", "edgepack_runtime", "chat", str(bundle("bert-intent"))],
        check=False,
        capture_output=True,
        text=True,
        input="hello\n",
    )
    assert done.returncode == 2
    assert "answers text-classification, which is not a dialogue; use run" in done.stderr


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("[distill]\naugment = 3", "distill.augment: texts with wrong words"),
        ('[distill]\ntransfer = "relation"', "distill.transfer: 'relation' is for encoders"),
        ("[prune]\nheads = 3", "prune.heads = 3 is not a multiple of 2"),
        ("[prune]\nlayers = 9", "prune.layers = 9 is more than the model's 3"),
    ],
)
def test_a_step_that_a_language_model_cannot_take_is_refused(
    steps: str, message: str, made: Made, tmp_path: Path
) -> None:
    """Before anything runs, and by the name that the recipe has for it."""
    folder = made("llama").parents[1] / "model"
    (tmp_path / "text.txt").write_text("\n".join(PROMPTS))
    recipe = tmp_path / "edgepack.toml"
    data = f'[data]\ntrain = "{tmp_path / "text.txt"}"\n'
    recipe.write_text(f'[model]\nsource = "{folder}"\n{data}{steps}\n')
    done = CliRunner().invoke(main, ["build", str(recipe), "-t", "cpu-x86-64"])
    assert done.exit_code == 2
    assert f"error: {message}" in done.output


@pytest.mark.slow
def test_a_chat_model_says_what_it_says_in_torch(data: Path, made: Made, tmp_path: Path) -> None:
    """SmolLM2-135M-Instruct in float32: 64 tokens of a dialogue, and the capital of France."""
    folder = tmp_path / "smol"
    make = data / "models/smollm2-135m-instruct/make.py"
    subprocess.run([sys.executable, str(make), str(folder)], check=True, capture_output=True)
    model = load(made("smol", source=folder))
    prompt = "The lighthouse keeper woke up and saw"
    answer = model(prompt, max_new_tokens=64, return_full_text=False)
    assert answer == [{"generated_text": transformers_text(folder, prompt, 64)}]
    (said,) = model([{"role": "user", "content": "What is the capital of France?"}])
    assert said["generated_text"][-1]["content"] == "The capital of France is Paris."
