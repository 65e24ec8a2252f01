"""Language models: what a bundle writes is what `transformers.generate` writes."""

from __future__ import annotations

import json
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


def test_four_bits_are_smaller_and_still_the_model(made: Made) -> None:
    """A bundle with int4 weights is smaller than the float one, and agrees with it."""
    small, whole = (Bundle.open(made("qwen2-dull", name)) for name in ("int4", "float32"))
    (variant,) = small.manifest.variants
    assert (variant.name, variant.precision) == ("onnxruntime-int4", "int4")
    sizes = [
        sum(file.size for file in bundle.manifest.files if file.path.endswith(".onnx"))
        for bundle in (small, whole)
    ]
    assert sizes[0] < 0.6 * sizes[1]
    model = load(small.path)
    selftest(small, model)
    assert model(PROMPTS[0], max_new_tokens=8, return_full_text=False)[0]["generated_text"]


def test_four_bits_are_for_language_models(model: Callable[[str], Path], tmp_path: Path) -> None:
    """A classifier in int4 is refused at once, with what to do instead."""
    arguments = ["build", str(model("bert-intent")), "-t", "cpu-x86-64", "--precision", "int4",
                 "-o", str(tmp_path)]  # fmt: skip
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "four bits are for models that write text; leave precision at" in done.output


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
        "role": "assistant", "content": transformers_text(folder, prompt, 24),
    }  # fmt: skip


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


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("x" * 4000, {}, "the prompt has .* tokens, but this bundle has room for 512"),
        (PROMPTS[0], {"temperature": -1.0}, "temperature must be above 0"),
        (PROMPTS[0], {"temperature": 0.5, "do_sample": False}, "leave one of them out"),
        (PROMPTS[0], {"top_p": 1.5}, "top_p must be above 0 and at most 1"),
        (PROMPTS[0], {"stop": ""}, "stop must be a text"),
        (PROMPTS[0], {"min_new_tokens": 9, "max_new_tokens": 8}, "is above max_new_tokens"),
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


def test_perplexity_of_a_bundle_is_that_of_torch(made: Made, tmp_path: Path) -> None:
    """The float bundle and the torch model are surprised alike, to a thousandth."""
    bundle = made("llama")
    text = tmp_path / "text.txt"
    text.write_text("\n".join(PROMPTS * 8))
    figures = []
    for source in (bundle, bundle.parents[1] / "model"):
        done = CliRunner().invoke(main, ["evaluate", str(source), "--data", str(text), "--json"])
        assert done.exit_code == 0, done.output
        figures.append(json.loads(done.stdout)["figures"]["perplexity"])
    assert figures[0] == pytest.approx(figures[1], rel=1e-3)


def test_a_budget_holds_a_language_model_to_its_perplexity(made: Made, tmp_path: Path) -> None:
    """The table shows it, and a rise beyond the limit refuses the bundle."""
    folder = made("llama").parents[1] / "model"
    own = load(made("llama"))(PROMPTS, max_new_tokens=200)  # what it knows best
    written = [answer[0]["generated_text"] for answer in own]
    texts = ["".join(letter for letter in text if letter.isprintable()) for text in written]
    (tmp_path / "text.txt").write_text("\n".join(texts))
    recipe = tmp_path / "edgepack.toml"
    for limit, code in ((50.0, 0), (0.0001, 3)):
        recipe.write_text(
            f'[model]\nsource = "{folder}"\n[data]\nevaluation = "{tmp_path / "text.txt"}"\n'
            f"[budget]\nquality_drop = {limit}\n"
        )
        done = CliRunner().invoke(
            main, ["build", str(recipe), "-t", "cpu-x86-64", "-o", str(tmp_path / "dist")]
        )
        assert done.exit_code == code, done.output
        assert ("perplexity" if code == 0 else "quality.perplexity rose") in done.output


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
        check=True, capture_output=True, text=True,
        input="turn on the lights\n\nand off\n/reset\nagain\n/exit\nnever\n",
    )  # fmt: skip
    assert done.stdout == "".join(f"{text}\n" for text in wanted)
    assert done.stderr.count("pieces a second") == 3


def test_a_classifier_does_not_chat(bundle: Callable[..., Path]) -> None:
    """The message says what it answers, and with which command."""
    done = subprocess.run(
        [sys.executable, "-m", "edgepack_runtime", "chat", str(bundle("bert-intent"))],
        check=False, capture_output=True, text=True, input="hello\n",
    )  # fmt: skip
    assert done.returncode == 2
    assert "answers text-classification, which is not a dialogue; use run" in done.stderr


def test_what_cannot_be_built_yet_is_left_out_with_its_reason(made: Made) -> None:
    """On a board with a GPU the variants for it are named, and the CPU's is there."""
    folder = made("llama").parents[1] / "model"
    arguments = ["check", str(folder), "-t", "jetson-orin", "--json"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    reasons = json.loads(done.stdout)["targets"]["jetson-orin"]
    assert any(not reason for reason in reasons.values())
    assert "built for CPUs in float32, int8 and int4 so far" in reasons["tensorrt-int8"]


def test_a_family_without_a_graph_is_refused_within_seconds(tmp_path: Path) -> None:
    """The message names the families that there are."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, ffn_dim=16,
                       num_attention_heads=2, word_embed_proj_dim=16)  # fmt: skip
    OPTForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    done = CliRunner().invoke(main, ["build", str(tmp_path), "-t", "cpu-x86-64"])
    assert done.exit_code == 2
    assert "text generation is built for gemma, gemma2," in done.output
    assert "smollm3 so far, not for opt" in done.output


@pytest.mark.parametrize(
    ("steps", "name"),
    [('compress = "small"', "compress"), ("[distill]\nlayers = 1", "distill"),
     ("[prune]\nlayers = 1", "prune"), ("[finetune]", "finetune")],
)  # fmt: skip
def test_a_step_for_classifiers_is_refused(
    steps: str, name: str, made: Made, tmp_path: Path
) -> None:
    """Before anything runs, and by the name that the recipe has for it."""
    folder = made("llama").parents[1] / "model"
    (tmp_path / "text.txt").write_text("\n".join(PROMPTS))
    recipe = tmp_path / "edgepack.toml"
    first, rest = (steps, "") if steps.startswith("compress") else ("", steps)
    data = f'[data]\ntrain = "{tmp_path / "text.txt"}"\n'
    recipe.write_text(f'{first}\n[model]\nsource = "{folder}"\n{data}{rest}\n')
    done = CliRunner().invoke(main, ["build", str(recipe), "-t", "cpu-x86-64"])
    assert done.exit_code == 2
    assert f"error: {name}: language models are quantized, but not trained" in done.output


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
