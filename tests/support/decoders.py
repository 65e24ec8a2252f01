"""Small decoders of every family, with all that a graph must know of them."""

from __future__ import annotations

from typing import Any

VOCABULARY = 96
SMALL = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 320,
    "bos_token_id": 0,
    "eos_token_id": 95,
    "pad_token_id": 0,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 4.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 128,
}
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
    "granite": {
        "embedding_multiplier": 6.0,
        "residual_multiplier": 0.3,
        "logits_scaling": 4.0,
        "attention_multiplier": 0.2,
    },
    "olmo2": {},
    "olmo2 narrow heads": {"num_attention_heads": 8, "num_key_value_heads": 8},
    "gemma": {"head_dim": 16},
    "gemma2": {
        "head_dim": 32,
        "query_pre_attn_scalar": 24,
        "num_hidden_layers": 4,
        **WINDOWS,
        "attn_logit_softcapping": 6.0,
        "final_logit_softcapping": 20.0,
    },
    "gemma3_text": {
        "head_dim": 32,
        "query_pre_attn_scalar": 24,
        "num_hidden_layers": 4,
        **WINDOWS,
        "rope_theta": 50000.0,
        "rope_local_base_freq": 1000.0,
    },
    "phi": {"partial_rotary_factor": 0.5, "num_key_value_heads": 4},
    "phi odd part": {"partial_rotary_factor": 0.4, "hidden_size": 80, "num_key_value_heads": 4},
    "phi3": {"rope_scaling": None, "sliding_window": 24},
    "phi3 long": {"rope_scaling": LONG, "original_max_position_embeddings": 288},
    "gpt2": {"n_positions": 320, "n_embd": 64, "n_layer": 3, "n_head": 4},
    "gpt2 scaled": {
        "n_positions": 320,
        "n_embd": 64,
        "n_layer": 3,
        "n_head": 8,
        "scale_attn_by_inverse_layer_idx": True,
        "activation_function": "gelu",
    },
    "gpt_neox": {"use_parallel_residual": True, "rotary_pct": 0.25, "num_key_value_heads": 4},
    "gpt_neox in turn": {
        "use_parallel_residual": False,
        "rotary_pct": 0.5,
        "num_key_value_heads": 4,
        "hidden_act": "relu",
    },
}


def make(kind: str) -> Any:
    """Make a model whose random weights make lively texts."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    family = kind.partition(" ")[0]
    sizes = {} if family == "gpt2" else SMALL
    config = AutoConfig.for_model(
        family,
        **{**sizes, "vocab_size": VOCABULARY, "bos_token_id": 0, "eos_token_id": 95, **KINDS[kind]},
    )
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
