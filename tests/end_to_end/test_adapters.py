"""Adapters beside a language model: a call chooses one, and an update moves one alone."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from languages import PROMPTS, Made, make
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import AutoModelForCausalLM, AutoTokenizer

from edgepack.cli import main
from edgepack.export.lora import split
from edgepack_runtime import Bundle, InputError, Memory, load
from edgepack_runtime.cli import main as edgepack_runtime_main
from edgepack_runtime.model.selftest import selftest

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters' own
Build = Callable[..., Any]
ALL = "all-linear"


def train(model: Path, out: Path, seed: int = 0, **how: Any) -> Path:
    """Write an adapter of a model with random weights."""
    torch.manual_seed(seed)
    base = AutoModelForCausalLM.from_pretrained(model)
    config = LoraConfig(**{"task_type": "CAUSAL_LM", "target_modules": ALL, "r": 4, **how})
    adapted = get_peft_model(base, config)
    for name, parameter in adapted.named_parameters():
        if "lora_" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    adapted.save_pretrained(out)
    return out


def built(folder: Path, model: Path, adapters: dict[str, Path], **how: Any) -> Any:
    """Build a bundle with adapters; return its path, or the output if it is refused."""
    folder.mkdir(exist_ok=True)
    listed = "\n".join(f'{name} = "{path}"' for name, path in adapters.items())
    precision = how.get("precision", "float32")
    kind = "int8" if precision == "target" else precision
    (folder / "edgepack.toml").write_text(
        f'[model]\nsource = "{model}"\nname = "m"\nrelease = {how.get("release", 1)}\n'
        f'{how.get("more", "")}[adapters]\n{listed}\n[build]\nprecision = "{precision}"\n'
        f'variants = ["{how.get("engine", "onnxruntime")}-{kind}"]\n'
    )
    arguments = ["build", str(folder / "edgepack.toml"), "-t", "cpu-x86-64", "-o", str(folder)]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == how.get("code", 0), done.output
    return done.output if done.exit_code else folder / "m-cpu-x86-64.epk"


def wanted(model: Path, adapter: Path, prompt: str, count: int) -> str:
    """Return what transformers and PEFT write after a prompt."""
    tokenizer = AutoTokenizer.from_pretrained(model)
    base = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    adapted = PeftModel.from_pretrained(base, adapter).eval()
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    with torch.no_grad():
        found = adapted.generate(
            input_ids=ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=count,
            pad_token_id=0,
        )
    return str(tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True))


@pytest.mark.parametrize(
    ("kind", "engine"),
    [
        ("llama", "onnxruntime"),
        ("llama-narrow", "onnxruntime"),
        ("qwen2", "onnxruntime"),
        ("gpt2", "onnxruntime"),
        ("llama", "openvino"),
        ("gpt2", "openvino"),
        pytest.param("qwen2", "openvino", marks=pytest.mark.slow),
    ],
)
def test_each_adapter_writes_what_peft_writes(kind: str, engine: str, tmp_path: Path) -> None:
    """Joined, padded and transposed products too; without one, the model is what it was."""
    model = make(kind, tmp_path / "made")
    adapters = {
        "first": train(model, tmp_path / "first", lora_alpha=8),
        "second": train(model, tmp_path / "second", 1, r=2, use_rslora=True),
    }
    opened = load(built(tmp_path / "out", model, adapters, engine=engine))
    how = {"max_new_tokens": 24, "return_full_text": False, "do_sample": False}
    texts = []
    for name, folder in [*adapters.items(), *adapters.items()]:
        for prompt in PROMPTS[:2]:
            found = opened(prompt, adapter=name, **how)[0]["generated_text"]
            assert found == wanted(model, folder, prompt, 24)
            texts.append(found)
    plain = [opened(prompt, **how)[0]["generated_text"] for prompt in PROMPTS[:2]]
    base = load(built(tmp_path / "plain", model, {}, engine=engine))
    assert plain == [base(prompt, **how)[0]["generated_text"] for prompt in PROMPTS[:2]]
    assert len({*texts, *plain}) == 6


@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
def test_a_memory_belongs_to_an_adapter(engine: str, made: Made, tmp_path: Path) -> None:
    """What was read with one is read again with another, and the answers stay right."""
    model = made("llama").parents[1] / "model"
    adapters = {"one": train(model, tmp_path / "one"), "two": train(model, tmp_path / "two", 1)}
    bundle = built(tmp_path / "out", model, adapters, engine=engine, precision="target")
    opened, memory = load(bundle), Memory()
    selftest(Bundle.open(bundle), opened)
    for adapter in ("one", "one", "two", "", "one"):
        how = {"max_new_tokens": 40, "do_sample": False, "adapter": adapter}
        assert opened(PROMPTS[0], memory=memory, **how) == opened(
            PROMPTS[0], memory=Memory(), **how
        )
    assert opened(PROMPTS[0], adapter="one") != opened(PROMPTS[0], adapter="two")
    with pytest.raises(InputError, match="no adapter 'three'; this bundle has one, two"):
        opened(PROMPTS[0], adapter="three")


def test_a_release_with_another_adapter_has_only_that_as_new_bytes(tmp_path: Path) -> None:
    """Everything else is the same blob, so a device fetches the adapter and the manifest."""
    model = make("llama", tmp_path / "made")
    adapters = {"one": train(model, tmp_path / "one"), "two": train(model, tmp_path / "two", 1)}
    first = Bundle.open(built(tmp_path / "1", model, adapters, precision="target"))
    train(model, tmp_path / "two", 2)
    second = Bundle.open(built(tmp_path / "2", model, adapters, precision="target", release=2))
    old = {entry.sha256 for entry in first.manifest.files}
    new = [entry.path for entry in second.manifest.files if entry.sha256 not in old]
    told = {"provenance.intoto.json", "sbom.cdx.json"}  # they name the release
    assert set(new) - told == {"onnxruntime-int8/adapters/two.npz"}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"use_dora": True}, "DoRA also scales the weights"),
        ({"bias": "all"}, "it also changes biases"),
        ({"modules_to_save": ["embed_tokens"]}, "whole weights of its own"),
        ({"target_modules": ["embed_tokens"]}, "embed_tokens, which is not a product"),
        ({"target_modules": ["lm_head"]}, "changes lm_head"),
    ],
)
def test_an_adapter_that_is_more_than_lora_is_refused(
    how: dict[str, Any], message: str, made: Made, tmp_path: Path
) -> None:
    """With what it does, and with merging as the way out."""
    model = made("llama").parents[1] / "model"
    adapter = train(model, tmp_path / "one", **how)
    assert message in built(tmp_path / "out", model, {"one": adapter}, code=2)


@pytest.mark.parametrize(
    ("more", "adapter", "message"),
    [
        ("", "missing", "no model folder at"),
        ("", "model", "is not an adapter: it has no adapter_config.json"),
        ("[prune]\nlayers = 2\n", "", "adapters: prune changes the model that they were made for"),
    ],
)
def test_adapters_that_cannot_be_are_refused(
    more: str, adapter: str, message: str, made: Made, tmp_path: Path
) -> None:
    """Before anything runs."""
    model = made("llama").parents[1] / "model"
    (tmp_path / "t.txt").write_text("\n".join(PROMPTS))
    named = {"missing": tmp_path / "no", "model": model}
    folder = named[adapter] if adapter else train(model, tmp_path / "one")
    data = f'[data]\ntrain = "{tmp_path / "t.txt"}"\n{more}'
    assert message in built(tmp_path / "out", model, {"one": folder}, more=data, code=2)


def test_a_matrix_is_split_into_as_much_as_it_needs() -> None:
    """The product of the factors is the matrix, and their rank is its rank."""
    rng = np.random.default_rng(1)
    made = rng.standard_normal((60, 5)) @ rng.standard_normal((5, 80))
    first, second = split(made.astype(np.float32), 12)
    assert first.shape == (60, 5)
    assert np.allclose(first @ second, made, atol=1e-4)


def test_inspect_names_the_adapters(
    made: Made, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that who calls it knows what to ask for."""
    model = made("llama").parents[1] / "model"
    bundle = built(tmp_path / "out", model, {"one": train(model, tmp_path / "one")})
    assert edgepack_runtime_main(["inspect", str(bundle)]) == 0
    assert "adapters: one\n" in capsys.readouterr().out
