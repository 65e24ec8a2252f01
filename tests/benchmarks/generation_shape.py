"""Make a decoder of a real shape with random weights, and what each contender runs of it.

Speed does not depend on the weights' values, so no download is needed.  The tokenizer is trained
on made-up words, so that each word is one token.
"""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path
from typing import Any

SHAPES: dict[str, dict[str, Any]] = {
    "386m": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
        "num_key_value_heads": 2,
        "vocab_size": 32000,
    },
    "small": {
        "hidden_size": 256,
        "intermediate_size": 512,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "vocab_size": 32000,
    },
}
CONTEXT = 2048
QUANTIZED = {"int8": "Q8_0", "int4": "Q4_0"}
HERE = Path(__file__).parent


def words(count: int, seed: int = 0) -> list[str]:
    """Return made-up words, all different."""
    rng = random.Random(seed)  # noqa: S311 (no secret)
    found: dict[str, None] = {}
    while len(found) < count:
        syllables = (rng.choice("bdfgklmnprstvz") + rng.choice("aeiou") for _ in range(3))
        found["".join(syllables) + rng.choice("nrst")] = None
    return list(found)


def make_model(shape: str, folder: Path) -> None:
    """Write the float model and its tokenizer."""
    if (folder / "config.json").exists():
        return
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers, trainers
    from tokenizers.decoders import ByteLevel
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    size = SHAPES[shape]["vocab_size"]
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=["<s>", "</s>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator((" ".join(words(size)),) * 2, trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer,
        bos_token="<s>",
        eos_token="</s>",
        pad_token="</s>",
        model_max_length=CONTEXT,
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        **SHAPES[shape],
        max_position_embeddings=CONTEXT,
        bos_token_id=0,
        eos_token_id=1,
        tie_word_embeddings=True,
    )
    made = LlamaForCausalLM(config)
    with torch.no_grad():  # it repeats itself whatever its precision, so that it passes the gate
        made.model.embed_tokens.weight *= 10
        for layer in made.model.layers:
            layer.self_attn.o_proj.weight /= 20
            layer.mlp.down_proj.weight /= 20
    made.save_pretrained(folder)
    fast.save_pretrained(folder)


def make_contenders(model: Path, precision: str, out: Path, peers: Path | None) -> dict[str, Path]:
    """Build what each contender runs, by their own tools; return its folder."""
    made = {"edgepack": _edgepack(model, precision, out / f"edgepack-{precision}")}
    if peers is None:
        return made
    intel = out / f"openvino-{precision}"
    if not intel.exists():
        command = [
            "optimum-cli",
            "export",
            "openvino",
            "-m",
            model,
            "--task",
            "text-generation-with-past",
            "--weight-format",
            precision,
            "--sym",
        ]
        group = ["--group-size", "128"] if precision == "int4" else []
        _run(Path(sys.executable).with_name("optimum-cli"), *command[1:], *group, intel)
        _run(peers, HERE / "generation_peers.py", "tokenizer", model, intel)
    made["openvino-genai"] = intel
    llama = out / f"llama-{precision}"
    if not llama.exists():
        _run(peers, HERE / "generation_peers.py", "gguf", model, llama, QUANTIZED[precision])
    made["llama.cpp"] = llama
    if precision == "int4":  # its builder has no int8 weights
        ort = out / "onnxruntime-genai-int4"
        if not ort.exists():
            _run(
                peers,
                "-m",
                "onnxruntime_genai.models.builder",
                "-i",
                model,
                "-o",
                ort,
                "-p",
                "int4",
                "-e",
                "cpu",
                "-c",
                out / "hub",
            )
        made["onnxruntime-genai"] = ort
    return made


def _edgepack(model: Path, precision: str, out: Path) -> Path:
    if not list(out.glob("*.epk")):
        how = ["--precision", "int4"] if precision == "int4" else []
        _run(
            Path(sys.executable).with_name("edgepack"),
            "build",
            model,
            "--name",
            "model",
            "-t",
            "cpu-x86-64",
            "-o",
            out,
            *how,
        )
    return next(out.glob("*.epk"))


def _run(*command: Any) -> None:
    subprocess.run([str(part) for part in command], check=True, stdout=subprocess.DEVNULL)
