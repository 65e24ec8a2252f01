"""A draft in the bundle: the same text, whatever the draft expects."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from languages import PROMPTS, Made, make

from edgepack.cli import main
from edgepack_runtime import Bundle, InputError, Memory, load
from edgepack_runtime.model.selftest import selftest

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters' own
Build = Callable[..., Any]


@pytest.fixture
def build(made: Made, tmp_path: Path) -> Build:
    """Return a function that builds a bundle with a draft for one engine."""

    def get(draft: str, engine: str = "onnxruntime", more: str = "", code: int = 0) -> Any:
        made("llama")
        model = made("llama").parents[1] / "model"
        (tmp_path / "train.txt").write_text("\n".join(PROMPTS * 40))
        (tmp_path / "edgepack.toml").write_text(
            f'[model]\nsource = "{model}"\nname = "m"\n[data]\ntrain = "train.txt"\n{more}'
            f'[draft]\n{draft}\n[build]\nvariants = ["{engine}-int8"]\n'
        )
        arguments = ["build", str(tmp_path / "edgepack.toml"), "-t", "cpu-x86-64"]
        done = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path)], catch_exceptions=False)
        assert done.exit_code == code, done.output
        return done.output if code else tmp_path / "m-cpu-x86-64.epk"

    return get


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_the_text_is_what_it_is_without_a_draft(engine: str, build: Build) -> None:
    """Greedy and drawn, token for token, in a dialogue too; the draft is tried by its own graph."""
    path = build("layers = 2\nepochs = 1\nlearning_rate = 1e-3", engine)
    bundle = Bundle.open(path)
    assert [graph.name for graph in bundle.manifest.variants[0].graphs] == ["model", "draft"]
    model = load(path)
    selftest(bundle, model)
    ways: list[dict[str, Any]] = [{"do_sample": False}, {"temperature": 1.5, "seed": 4}]
    for how in ways:
        for prompt in PROMPTS:
            plain = model(prompt, max_new_tokens=64, memory=Memory(), **how)
            assert model(prompt, max_new_tokens=64, num_assistant_tokens=4, **how) == plain
    memory = Memory()
    turns: list[dict[str, str]] = []
    for prompt in PROMPTS:
        turns.append({"role": "user", "content": prompt})
        how = {"max_new_tokens": 16, "do_sample": False}
        plain = model(turns, memory=Memory(), **how)
        assert model(turns, memory=memory, num_assistant_tokens=3, **how) == plain
        turns = plain[0]["generated_text"]


def test_the_draft_of_another_model_may_be_wrong_all_the_time(build: Build, tmp_path: Path) -> None:
    """A draft that expects other tokens costs time and changes nothing."""
    other = make("qwen2", tmp_path / "other")
    model = load(build(f'source = "{other}"\nlayers = 1\nepochs = 1'))
    plain = model(PROMPTS[0], max_new_tokens=64, memory=Memory(), do_sample=False)
    how = {"max_new_tokens": 64, "do_sample": False, "num_assistant_tokens": 5}
    assert model(PROMPTS[0], **how) == plain


def test_a_draft_with_other_tokens_is_refused(build: Build, made: Made, tmp_path: Path) -> None:
    """At once for a model as it is; after the step for one whose vocabulary is trimmed."""
    other = make("llama", tmp_path / "other")
    tokens = json.loads((other / "tokenizer.json").read_text())
    vocabulary = tokens["model"]["vocab"]
    vocabulary["a"], vocabulary["b"] = vocabulary["b"], vocabulary["a"]
    (other / "tokenizer.json").write_text(json.dumps(tokens))
    output = build(f'source = "{other}"', code=2)
    assert "error: draft: the draft has another number for the token 'a' of the model" in output
    whole = made("llama").parents[1] / "model"
    output = build(f'source = "{whole}"', more="[vocabulary]\ngeneral = 0.2\n", code=2)
    assert "the draft has another number for the token" in output


@pytest.mark.parametrize(
    ("draft", "message"),
    [
        ("", "draft: needs a source, or how many layers"),
        ('source = "a"\nepochs = 2', "draft.epochs: unknown key"),
        ("layers = 9", "draft.layers is 9; the model has 3"),
    ],
)
def test_a_draft_that_cannot_be_made_is_refused(draft: str, message: str, build: Build) -> None:
    """When the recipe is read or planned, with the key and the limit."""
    assert message in build(draft, code=2)


def test_a_bundle_without_a_draft_says_so(made: Made) -> None:
    """The message names the recipe's table; zero asks for nothing."""
    model = load(made("llama"))
    with pytest.raises(InputError, match=r"no draft; build it with \[draft\]"):
        model(PROMPTS[0], num_assistant_tokens=3)
    assert model(PROMPTS[0], num_assistant_tokens=0, max_new_tokens=2)
