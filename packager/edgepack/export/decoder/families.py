"""How the families of transformers call the parts of a decoder."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from edgepack.export.decoder.modules import (
    array,
    by_head,
    halves,
    head,
    norm,
    product,
    rotaries,
    rotary,
    sizes,
    split,
    turned,
    window,
)
from edgepack.export.decoder.parts import (
    Attention,
    Decoder,
    FeedForward,
    Layer,
    Rotary,
)
from edgepack_runtime.errors import InputError


def read(model: Any) -> Decoder:
    """Read a causal language model of transformers.

    Raises:
        InputError: its family is not known, or it has traits that are not built.

    """
    family = FAMILIES.get(model.config.model_type)
    if family is None:
        raise InputError(f"no decoder is known for the family {model.config.model_type!r}")
    return family(model)


def _llama(model: Any) -> Decoder:
    """Llama, and those that differ from it by a norm, a bias, a window or a factor."""
    base, config = model.model, model.config
    scale = float(getattr(config, "residual_multiplier", 1.0))
    last = norm(base.norm)
    if divisor := float(getattr(config, "logits_scaling", 0) or 0):
        last = replace(last, weight=last.weight / divisor)
    return Decoder(
        sizes=sizes(config),
        embedding=array(base.embed_tokens.weight),
        layers=[_llama_layer(layer, config, at, scale) for at, layer in enumerate(base.layers)],
        norm=last,
        head=head(model.lm_head, base.embed_tokens),
        rotary=rotaries(base, config),
        embedding_scale=float(getattr(config, "embedding_multiplier", 1.0)),
    )


def _llama_layer(layer: Any, config: Any, at: int, scale: float) -> Layer:
    return Layer(
        attention=_attention(layer.self_attn, config, at, scale),
        feed_forward=_gated(layer.mlp, config, scale),
        norm=norm(layer.input_layernorm),
        second_norm=norm(layer.post_attention_layernorm),
    )


def _attention(attention: Any, config: Any, at: int, scale: float = 1.0) -> Attention:
    """Read attention with a product each for queries, keys and values."""
    norms = [getattr(attention, key, None) for key in ("q_norm", "k_norm")]
    unturned = getattr(config, "no_rope_layers", None)
    return Attention(
        queries=product(attention.q_proj),
        keys=product(attention.k_proj),
        values=product(attention.v_proj),
        output=product(attention.o_proj, scale),
        scale=float(attention.scaling),
        query_norm=norm(norms[0]) if norms[0] is not None else None,
        key_norm=norm(norms[1]) if norms[1] is not None else None,
        rotary="" if unturned and not unturned[at] else "global",
        window=window(config, at),
        softcap=float(getattr(config, "attn_logit_softcapping", 0) or 0),
    )


def _gated(mlp: Any, config: Any, scale: float = 1.0) -> FeedForward:
    return FeedForward(
        up=product(mlp.up_proj),
        down=product(mlp.down_proj, scale),
        activation=getattr(config, "hidden_activation", None) or config.hidden_act,
        gate=product(mlp.gate_proj),
    )


def _olmo2(model: Any) -> Decoder:
    """OLMo 2, which normalizes what it adds and nothing else."""
    base, config = model.model, model.config
    layers = [
        Layer(
            attention=_attention(layer.self_attn, config, at),
            feed_forward=_gated(layer.mlp, config),
            norm=None,
            second_norm=None,
            attended_norm=norm(layer.post_attention_layernorm),
            fed_norm=norm(layer.post_feedforward_layernorm),
        )
        for at, layer in enumerate(base.layers)
    ]
    return replace(_frame(model), layers=layers)


def _gemma(model: Any) -> Decoder:
    """Gemma 1 to 3: norms around both parts; the third has two kinds of rotary positions."""
    base, config = model.model, model.config
    turns = rotaries(base, config)
    if (local := getattr(base, "rotary_emb_local", None)) is not None:
        turns["local"] = rotary(local)
    layers = [_gemma_layer(layer, config, at, turns) for at, layer in enumerate(base.layers)]
    return replace(
        _frame(model),
        layers=layers,
        rotary=turns,
        embedding_scale=float(config.hidden_size) ** 0.5,
        softcap=float(getattr(config, "final_logit_softcapping", 0) or 0),
    )


def _gemma_layer(layer: Any, config: Any, at: int, turns: Mapping[str, Rotary]) -> Layer:
    attention = _attention(layer.self_attn, config, at)
    if attention.window and "local" in turns:
        attention = replace(attention, rotary="local")
    found = Layer(
        attention=attention,
        feed_forward=_gated(layer.mlp, config),
        norm=norm(layer.input_layernorm),
        second_norm=norm(layer.post_attention_layernorm),
    )
    if not hasattr(layer, "pre_feedforward_layernorm"):
        return found
    return replace(
        found,
        attended_norm=found.second_norm,
        second_norm=norm(layer.pre_feedforward_layernorm),
        fed_norm=norm(layer.post_feedforward_layernorm),
    )


def _phi3(model: Any) -> Decoder:
    """Phi 3 and 4, which join queries, keys and values, and gate and up."""
    base, config = model.model, model.config
    layers = []
    for at, layer in enumerate(base.layers):
        queries, keys, values = split(product(layer.self_attn.qkv_proj), config)
        gate, up = halves(product(layer.mlp.gate_up_proj))
        layers.append(
            Layer(
                attention=Attention(
                    queries,
                    keys,
                    values,
                    product(layer.self_attn.o_proj),
                    float(layer.self_attn.scaling),
                    rotary="global",
                    window=window(config, at),
                ),
                feed_forward=FeedForward(up, product(layer.mlp.down_proj), config.hidden_act, gate),
                norm=norm(layer.input_layernorm),
                second_norm=norm(layer.post_attention_layernorm),
            )
        )
    return replace(_frame(model), layers=layers)


def _phi(model: Any) -> Decoder:
    """Phi 1 and 2: both parts of a layer read one norm, and a part of each head is turned."""
    base, config = model.model, model.config
    if config.qk_layernorm:
        raise InputError("phi with norms of queries and keys is not built yet")
    layers = []
    for layer in base.layers:
        attention, mlp = layer.self_attn, layer.mlp
        layers.append(
            Layer(
                attention=Attention(
                    product(attention.q_proj),
                    product(attention.k_proj),
                    product(attention.v_proj),
                    product(attention.dense),
                    float(attention.scaling),
                    rotary="global",
                ),
                feed_forward=FeedForward(product(mlp.fc1), product(mlp.fc2), config.hidden_act),
                norm=norm(layer.input_layernorm),
                second_norm=None,
                parallel=True,
            )
        )
    return replace(_frame(model, last="final_layernorm"), layers=layers)


def _gpt_neox(model: Any) -> Decoder:
    """GPT-NeoX and Pythia: queries, keys and values are joined head by head."""
    base, config = model.gpt_neox, model.config
    width = config.hidden_size // config.num_attention_heads
    layers = []
    for layer in base.layers:
        parts = by_head(product(layer.attention.query_key_value), width)
        up, down = (
            product(layer.mlp.dense_h_to_4h),
            product(layer.mlp.dense_4h_to_h),
        )
        layers.append(
            Layer(
                attention=Attention(
                    *parts,
                    product(layer.attention.dense),
                    float(layer.attention.scaling),
                    rotary="global",
                ),
                feed_forward=FeedForward(up, down, config.hidden_act),
                norm=norm(layer.input_layernorm),
                second_norm=norm(layer.post_attention_layernorm),
                parallel=config.use_parallel_residual,
            )
        )
    return Decoder(
        sizes=sizes(config),
        embedding=array(base.embed_in.weight),
        layers=layers,
        norm=norm(base.final_layer_norm),
        head=head(model.embed_out, base.embed_in),
        rotary=rotaries(base, config),
    )


def _gpt2(model: Any) -> Decoder:
    """GPT-2: learned positions, and weights that lie the other way round."""
    base, config = model.transformer, model.config
    layers = []
    for at, layer in enumerate(base.h):
        parts = split(turned(layer.attn.c_attn), config)
        scale = (config.n_embd // config.n_head) ** -0.5 if config.scale_attn_weights else 1.0
        if config.scale_attn_by_inverse_layer_idx:
            scale /= at + 1
        up, down = turned(layer.mlp.c_fc), turned(layer.mlp.c_proj)
        layers.append(
            Layer(
                attention=Attention(*parts, turned(layer.attn.c_proj), scale),
                feed_forward=FeedForward(up, down, config.activation_function),
                norm=norm(layer.ln_1),
                second_norm=norm(layer.ln_2),
            )
        )
    return Decoder(
        sizes=sizes(config),
        embedding=array(base.wte.weight),
        positions=array(base.wpe.weight),
        layers=layers,
        norm=norm(base.ln_f),
        head=head(model.lm_head, base.wte),
    )


FAMILIES: Mapping[str, Callable[[Any], Decoder]] = {
    "gemma": _gemma,
    "gemma2": _gemma,
    "gemma3_text": _gemma,
    "gpt2": _gpt2,
    "gpt_neox": _gpt_neox,
    "granite": _llama,
    "llama": _llama,
    "mistral": _llama,
    "olmo2": _olmo2,
    "phi": _phi,
    "phi3": _phi3,
    "qwen2": _llama,
    "qwen3": _llama,
    "smollm3": _llama,
}


def _frame(model: Any, last: str = "norm") -> Decoder:
    """Read all but the layers."""
    base, config = model.model, model.config
    return Decoder(
        sizes=sizes(config),
        embedding=array(base.embed_tokens.weight),
        layers=(),
        norm=norm(getattr(base, last)),
        head=head(model.lm_head, base.embed_tokens),
        rotary=rotaries(base, config),
    )
