"""Small language models with random weights, their bundles, and what transformers writes."""

from __future__ import annotations

import fcntl
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny
from click.testing import CliRunner

from edgepack.cli import main

PROMPTS = ["Once upon a time", "turn on the lights and", "The little girl was"]
CHAT = (
    "{% for message in messages %}<{{ message.role }}>{{ message.content }}"
    "{{ eos_token }}{% endfor %}{% if add_generation_prompt %}<assistant>{% endif %}"
)
KINDS = ("llama", "llama-narrow", "qwen2", "gpt2")
Made = Callable[..., Path]


def config(kind: str, size: int) -> Any:
    """Return the config of a small model with `size` tokens."""
    from transformers import AutoConfig

    sizes: dict[str, Any] = {
        "vocab_size": size,
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "max_position_embeddings": 512,
        "tie_word_embeddings": True,
        "bos_token_id": 0,
        "eos_token_id": 1,
    }
    if kind.endswith("long"):
        sizes["max_position_embeddings"] = 4096
    if kind == "llama-narrow":  # heads that the attention operator does not take as they are
        sizes |= {"num_attention_heads": 8, "num_key_value_heads": 4}
    if kind == "llama":
        sizes["rope_scaling"] = {
            "rope_type": "llama3",
            "factor": 4.0,
            "low_freq_factor": 1.0,
            "high_freq_factor": 4.0,
            "original_max_position_embeddings": 128,
        }
    if kind == "gpt2":
        sizes = {
            "vocab_size": size,
            "n_embd": 64,
            "n_layer": 3,
            "n_head": 4,
            "n_positions": 512,
            "bos_token_id": 0,
            "eos_token_id": 1,
        }
    return AutoConfig.for_model(kind.partition("-")[0], **sizes)


def make(kind: str, folder: Path) -> Path:
    """Write a small causal language model with random weights, and a byte-level tokenizer."""
    import torch
    from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast

    source = tiny.make("roberta-ner", folder / "tokenizer")
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_file=str(source / "tokenizer.json"), bos_token="<s>", eos_token="</s>"
    )
    tokenizer.backend_tokenizer.post_processor = None
    tokenizer.chat_template = CHAT
    torch.manual_seed(3)
    spread = 0.02 if kind.endswith("dull") else 0.2  # a dull model repeats itself
    model = AutoModelForCausalLM.from_config(config(kind, len(tokenizer)))
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=spread) if parameter.dim() > 1 else None
    for name, parameter in model.named_parameters():
        if name.endswith("bias"):
            torch.nn.init.normal_(parameter, std=0.2)
    model.save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    return folder / "model"


@pytest.fixture(scope="session")
def made(common: Path) -> Made:
    """Return a function that makes a model and its bundle once, for all workers."""

    def get(
        kind: str,
        precision: str = "float32",
        source: Path | None = None,
        engine: str = "onnxruntime",
    ) -> Path:
        folder = common / "languages" / kind
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if source is None and not (folder / "model").exists():
                make(kind, folder)
            out = folder / f"{engine}-{precision}"
            if not list(out.glob("*.epk")):
                _build(source or folder / "model", precision, engine, out)
            return next(out.glob("*.epk"))

    return get


def _build(source: Path, precision: str, engine: str, out: Path) -> None:
    out.mkdir(exist_ok=True)
    recipe = out / "edgepack.toml"
    engines = ("onnxruntime", "openvino") if engine == "both" else (engine,)
    variants = [f"{name}-{'int8' if precision == 'target' else precision}" for name in engines]
    recipe.write_text(
        f'[model]\nsource = "{source}"\nname = "m"\n[build]\nprecision = "{precision}"\n'
        f"variants = {json.dumps(variants)}\n"
    )
    arguments = ["build", str(recipe), "-t", "cpu-x86-64", "-o", str(out)]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output


def wanted(folder: Path, prompt: str, count: int, **how: Any) -> str:
    """Return what transformers writes after a prompt, as text."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    ids = tokenizer(prompt, return_tensors="pt").input_ids
    how = {"do_sample": False, "max_new_tokens": count, "pad_token_id": 0, **how}
    with torch.no_grad():
        found = model.generate(ids, attention_mask=torch.ones_like(ids), **how)
    return str(tokenizer.decode(found[0, ids.shape[1] :], skip_special_tokens=True))
