"""Every family of decoders: its graph writes what transformers writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from edgepack.export.decoder import export, int8
from edgepack.export.decoder.families import FAMILIES, read
from edgepack_runtime.engines._ort_state import OrtState
from edgepack_runtime.errors import InputError
from edgepack_runtime.generation.loop import Reader, all_logits

VOCABULARY, TOKENS = 96, 256
SMALL = {
    "vocab_size": VOCABULARY, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 3,
    "num_attention_heads": 4, "num_key_value_heads": 2, "max_position_embeddings": 320,
    "bos_token_id": 0, "eos_token_id": 95, "pad_token_id": 0,
}  # fmt: skip
LLAMA3 = {"rope_type": "llama3", "factor": 4.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 128}  # fmt: skip
LONG = {"type": "longrope", "short_factor": [1.0] * 4 + [1.5] * 4, "long_factor": [2.0] * 8}
WINDOWS = {"sliding_window": 24, "layer_types": ["sliding_attention", "full_attention"] * 2}
# What each family can do that others cannot, as far as a graph sees it.
KINDS: dict[str, dict[str, Any]] = {
    "llama": {},
    "llama narrow heads": {"num_attention_heads": 8, "num_key_value_heads": 4},
    "llama untied": {"tie_word_embeddings": False, "rope_scaling": LLAMA3},
    "llama biases": {"attention_bias": True, "mlp_bias": True},
    "mistral": {"sliding_window": None},
    "mistral window": {"sliding_window": 24, "head_dim": 24},
    "qwen2": {},
    "qwen2 window": {"use_sliding_window": True, "max_window_layers": 1, "sliding_window": 24},
    "qwen3": {"head_dim": 16},
    "qwen3 narrow heads": {"head_dim": 24},
    "smollm3": {"no_rope_layers": [1, 0, 1]},
    "granite": {"embedding_multiplier": 6.0, "residual_multiplier": 0.3, "logits_scaling": 4.0,
                "attention_multiplier": 0.2},
    "olmo2": {},
    "olmo2 narrow heads": {"num_attention_heads": 8, "num_key_value_heads": 8},
    "gemma": {"head_dim": 16},
    "gemma2": {"head_dim": 32, "query_pre_attn_scalar": 24, "num_hidden_layers": 4, **WINDOWS,
               "attn_logit_softcapping": 6.0, "final_logit_softcapping": 20.0},
    "gemma3_text": {"head_dim": 32, "query_pre_attn_scalar": 24, "num_hidden_layers": 4, **WINDOWS,
                    "rope_theta": 50000.0, "rope_local_base_freq": 1000.0},
    "phi": {"partial_rotary_factor": 0.5, "num_key_value_heads": 4},
    "phi odd part": {"partial_rotary_factor": 0.4, "hidden_size": 80, "num_key_value_heads": 4},
    "phi3": {"rope_scaling": None, "sliding_window": 24},
    "phi3 long": {"rope_scaling": LONG, "original_max_position_embeddings": 288},
    "gpt2": {"n_positions": 320, "n_embd": 64, "n_layer": 3, "n_head": 4},
    "gpt2 scaled": {"n_positions": 320, "n_embd": 64, "n_layer": 3, "n_head": 8,
                    "scale_attn_by_inverse_layer_idx": True, "activation_function": "gelu"},
    "gpt_neox": {"use_parallel_residual": True, "rotary_pct": 0.25,
                 "num_key_value_heads": 4},
    "gpt_neox in turn": {"use_parallel_residual": False, "rotary_pct": 0.5,
                         "num_key_value_heads": 4, "hidden_act": "relu"},
}  # fmt: skip


def make(kind: str) -> Any:
    """Make a model whose random weights make lively texts."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    family = kind.partition(" ")[0]
    sizes = {} if family == "gpt2" else SMALL
    config = AutoConfig.for_model(
        family, **{**sizes, "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 95,
                   **KINDS[kind]}
    )  # fmt: skip
    torch.manual_seed(3)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="eager")
    for name, parameter in model.named_parameters():
        if parameter.dim() > 1:  # Gemma multiplies its embeddings, which are its head too
            torch.nn.init.normal_(
                parameter, std=0.008 if "gemma" in family and "embed" in name else 0.15
            )
        else:
            parameter.data += 0.1 * torch.randn_like(parameter)
    return model.eval()


def opened(path: Path) -> OrtState:
    """Open the state of a graph."""
    import onnxruntime as ort

    return OrtState(ort.InferenceSession(str(path)), TOKENS + 16)


def test_every_family_is_tried() -> None:
    """No family is said to be built that is not below."""
    assert {kind.partition(" ")[0] for kind in KINDS} == set(FAMILIES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_family_writes_what_transformers_writes(kind: str, tmp_path: Path) -> None:
    """256 tokens greedily, token for token, and nearly equal logits after each."""
    import torch

    model = make(kind)
    model.save_pretrained(tmp_path / "model")
    export(tmp_path / "model", tmp_path)
    prompt = [5, 17, 40, 3, 80, 22]
    ids = torch.tensor([prompt])
    with torch.no_grad():
        wanted = model.generate(
            ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=TOKENS,
            min_new_tokens=TOKENS, pad_token_id=0,
        )[0].tolist()  # fmt: skip
        logits = model(torch.tensor([wanted])).logits[0].numpy()
    reader = Reader(opened(tmp_path / "model.onnx"))
    found = list(prompt)
    latest = reader.read(prompt)
    for _ in range(TOKENS):
        latest = latest.copy()
        latest[95] = -np.inf  # as min_new_tokens has it
        found.append(int(latest.argmax()))
        latest = reader.read(found)
    assert found == wanted
    assert len(set(found)) > 8, "the text is too dull to tell anything"
    at_once = all_logits(opened(tmp_path / "model.onnx"), wanted)
    assert np.abs(at_once - logits).max() < 2e-3 * np.abs(logits).max()


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "phi", "gpt_neox", "qwen3"])
def test_int8_is_near(kind: str, tmp_path: Path) -> None:
    """The logits of the int8 graph point where the float graph's do."""
    from edgepack.export import graph

    make(kind).save_pretrained(tmp_path / "model")
    export(tmp_path / "model", tmp_path)
    (tmp_path / "int8").mkdir()
    graph.save(int8.to_int8(graph.load(tmp_path / "model.onnx")), tmp_path / "int8/model.onnx")
    ids = list(range(3, 60))
    wanted, got = (
        all_logits(opened(folder / "model.onnx"), ids) for folder in (tmp_path, tmp_path / "int8")
    )
    cosine = (wanted * got).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(got, axis=1)
    assert cosine.min() > 0.99
    sizes = [(folder / "model.onnx").stat().st_size for folder in (tmp_path, tmp_path / "int8")]
    assert sizes[1] < sizes[0] * 0.5


@pytest.mark.parametrize(
    ("kind", "trait", "message"),
    [
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("llama", {"hidden_act": "mish"}, "the activation 'mish' is not built yet"),
        ("phi", {"qk_layernorm": True}, "norms of queries and keys"),
    ],
)
def test_a_trait_that_is_not_built_is_refused(
    kind: str, trait: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the trait."""
    monkeypatch.setitem(KINDS, kind, {**KINDS[kind], **trait})
    make(kind).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=message):
        export(tmp_path / "model", tmp_path)


def test_another_family_is_refused() -> None:
    """Reading a model of a family that is not known says so."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(vocab_size=64, hidden_size=16, num_hidden_layers=1, ffn_dim=16,
                       num_attention_heads=2, word_embed_proj_dim=16)  # fmt: skip
    model = OPTForCausalLM(config)
    with pytest.raises(InputError, match="no decoder is known for the family 'opt'"):
        read(model)
