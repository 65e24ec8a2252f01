"""The ONNX graph of a decoder, written from its parts in ONNX Runtime's own operators.

Optimum's export concatenates the cache for every token, and nothing fuses it into attention that
writes in place.  So the graph is written here: GroupQueryAttention with rotary positions inside,
one product for queries, keys and values, one for gate and up, and logits only for the rows that
are asked for.

Inputs: `input_ids` int64 [1, tokens]; `rows` int64 [k], the positions among them whose logits are
asked for; `past_key_values.N.key|value` [1, heads, capacity, width], which is also
`present.N.key|value`; `seqlens_k` int32 [1] and `total_sequence_length` int32.  Output: `logits`
[k, vocabulary].
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from edgepack.export.decoder import heads
from edgepack.export.decoder.onnx_graph import MICROSOFT, OnnxGraph
from edgepack.export.decoder.parts import Attention, Decoder, FeedForward, Layer, Norm, Product
from edgepack_runtime.errors import InputError

_TANH = ("gelu_new", "gelu_pytorch_tanh", "gelu_fast", "gelu_python_tanh")
State = tuple[str, str]
"""The residual, and what is to be added to it; empty for nothing."""


def write(decoder: Decoder) -> Any:
    """Return the `ModelProto` of a decoder."""
    made = OnnxGraph()
    made.takes("input_ids", "INT64", [1, "tokens"])
    made.takes("rows", "INT64", ["k"])
    made.takes("seqlens_k", "INT32", [1])
    made.takes("total_sequence_length", "INT32", [])
    made.gives("logits", "FLOAT", ["k", len(decoder.embedding)])
    _rotary(made, decoder)
    state = _embed(made, decoder)
    for number, layer in enumerate(decoder.layers):
        state = _layer(made, f"layers.{number}", (decoder, layer), state)
    normed, _ = _norm(made, "norm", decoder.norm, state)
    wanted = made.node("Gather", [normed, "rows"], axis=1, name="wanted")
    _head(made, decoder, made.node("Squeeze", [wanted, made.ints("first", [0])]))
    return made.finish("decoder")


def _rotary(made: OnnxGraph, decoder: Decoder) -> None:
    """Add the cosines and sines of all positions, [context, padded width ÷ 2]."""
    import numpy as np

    half = heads.padded(decoder.sizes.width) // 2
    for name, rotary in decoder.rotary.items():
        angles = np.outer(np.arange(decoder.sizes.context), rotary.frequencies)
        fill = [(0, 0), (0, half - angles.shape[1])]
        cos, sin = np.cos(angles) * rotary.scale, np.sin(angles) * rotary.scale
        made.weight(f"{name}.cos", np.pad(cos, fill, constant_values=1.0).astype(np.float32))
        made.weight(f"{name}.sin", np.pad(sin, fill).astype(np.float32))


def _embed(made: OnnxGraph, decoder: Decoder) -> State:
    table = made.weight("embedding", decoder.embedding)
    hidden = made.node("Gather", [table, "input_ids"], name="embed")
    if decoder.embedding_scale != 1.0:
        hidden = made.node("Mul", [hidden, made.number(decoder.embedding_scale)])
    if decoder.positions is None:
        return hidden, ""
    size = made.node("Shape", ["input_ids"], start=1)
    total = made.node("Cast", ["total_sequence_length"], to=7)
    end = made.node("Reshape", [total, made.ints("one", [1])])
    learned = made.weight("positions", decoder.positions)
    start = made.node("Sub", [end, size])
    places = made.node("Slice", [learned, start, end, made.ints("first", [0])])
    return hidden, made.node("Unsqueeze", [places, made.ints("first", [0])])


def _layer(made: OnnxGraph, name: str, part: tuple[Decoder, Layer], state: State) -> State:
    decoder, layer = part
    normed, hidden = _norm(made, f"{name}.input_norm", layer.norm, state)
    attended = _attention(made, f"{name}.self_attn", (decoder, layer.attention), normed)
    attended, _ = _norm(made, f"{name}.attended_norm", layer.attended_norm, (attended, ""))
    if layer.parallel:
        if layer.second_norm:
            normed, _ = _norm(made, f"{name}.post_norm", layer.second_norm, (hidden, ""))
        fed = _feed_forward(made, f"{name}.mlp", layer.feed_forward, normed)
        return hidden, made.node("Add", [attended, fed])
    normed, hidden = _norm(made, f"{name}.post_norm", layer.second_norm, (hidden, attended))
    fed = _feed_forward(made, f"{name}.mlp", layer.feed_forward, normed)
    return hidden, _norm(made, f"{name}.fed_norm", layer.fed_norm, (fed, ""))[0]


def _norm(made: OnnxGraph, name: str, norm: Norm | None, state: State) -> State:
    """Add what is to be added, and normalize; return the normalized value and the sum."""
    hidden, added = state
    if norm is None:
        total = made.node("Add", [hidden, added]) if added else hidden
        return total, total
    weights = [made.weight(f"{name}.weight", norm.weight)]
    if norm.bias is not None:
        weights.append(made.weight(f"{name}.bias", norm.bias))
    kind = "SimplifiedLayerNormalization" if norm.bias is None else "LayerNormalization"
    if not added:
        how: dict[str, Any] = {"axis": -1, "epsilon": norm.epsilon}
        return made.node(kind, [hidden, *weights], name=name, **how), hidden
    outputs = [name, "", "", f"{name}.sum"]
    how = {"domain": MICROSOFT, "epsilon": norm.epsilon}
    made.nodes_of(f"Skip{kind}", [hidden, added, *weights], outputs, **how)
    return name, outputs[3]


def _attention(made: OnnxGraph, name: str, part: tuple[Decoder, Attention], normed: str) -> str:
    decoder, attention = part
    count, kv, where = (
        decoder.sizes.heads,
        decoder.sizes.kv_heads,
        heads.places(decoder, attention.rotary),
    )
    past, present = _cache(made, decoder, name.split(".")[1])
    inputs = [*_queries(made, name, part, normed), *past, "seqlens_k", "total_sequence_length"]
    how: dict[str, Any] = {"num_heads": count, "kv_num_heads": kv, "scale": attention.scale}
    if attention.rotary:
        inputs += [f"{attention.rotary}.cos", f"{attention.rotary}.sin"]
        how["do_rotary"] = 1
    if attention.window:
        how["local_window_size"] = attention.window
    if attention.softcap:
        how["softcap"] = attention.softcap
    made.nodes_of("GroupQueryAttention", inputs, [name, *present], domain=MICROSOFT, **how)
    output = heads.widen_in(attention.output, count, where)
    return _product(made, f"{name}.o_proj", [output], name)


def _queries(made: OnnxGraph, name: str, part: tuple[Decoder, Attention], normed: str) -> list[str]:
    """Return queries, keys and values; or all in one, and twice nothing."""
    decoder, attention = part
    where = heads.places(decoder, attention.rotary)
    counts = (decoder.sizes.heads, decoder.sizes.kv_heads, decoder.sizes.kv_heads)
    products = [
        heads.widen_out(product, count, where)
        for product, count in zip(
            (attention.queries, attention.keys, attention.values), counts, strict=True
        )
    ]
    norms = (attention.query_norm, attention.key_norm, None)
    if not any(norms):
        return [_product(made, f"{name}.qkv_proj", products, normed), "", ""]
    found = []
    for key, product, norm, count in zip("qkv", products, norms, counts, strict=True):
        value = _product(made, f"{name}.{key}_proj", [product], normed)
        if norm is not None:
            each = len(norm.weight) == decoder.sizes.width
            wide = heads.widen_norm(norm, 1 if each else count, where)
            value = _head_norm(made, f"{name}.{key}_norm", wide, (value, count if each else 1))
        found.append(value)
    return found


def _cache(made: OnnxGraph, decoder: Decoder, number: str) -> tuple[list[str], list[str]]:
    """Declare a layer's keys and values, past and present."""
    shape: list[int | str] = [
        1,
        decoder.sizes.kv_heads,
        "capacity",
        heads.padded(decoder.sizes.width),
    ]
    past = [f"past_key_values.{number}.{part}" for part in ("key", "value")]
    present = [f"present.{number}.{part}" for part in ("key", "value")]
    for name in past:
        made.takes(name, "FLOAT", shape)
    for name in present:
        made.gives(name, "FLOAT", shape)
    return past, present


def _head_norm(made: OnnxGraph, name: str, norm: Norm, given: tuple[str, int]) -> str:
    """Normalize each head of queries or keys [1, tokens, heads × width]."""
    value, count = given
    width = len(norm.weight)
    split = made.node("Reshape", [value, made.ints(f"{name}.split", [0, 0, count, width])])
    normed, _ = _norm(made, name, norm, (split, ""))
    return made.node("Reshape", [normed, made.ints(f"{name}.join", [0, 0, count * width])])


def _feed_forward(made: OnnxGraph, name: str, part: FeedForward, normed: str) -> str:
    if part.gate is None:
        up = _product(made, f"{name}.up_proj", [part.up], normed)
        return _product(made, f"{name}.down_proj", [part.down], _activate(made, part, up))
    joined = _product(made, f"{name}.gate_up_proj", [part.gate, part.up], normed)
    gate, up = made.nodes_of(
        "Split", [joined], [f"{name}.gate", f"{name}.up"], axis=-1, num_outputs=2
    )
    opened = made.node("Mul", [_activate(made, part, gate), up])
    return _product(made, f"{name}.down_proj", [part.down], opened)


def _activate(made: OnnxGraph, part: FeedForward, value: str) -> str:
    if part.activation == "silu":
        return made.node("Mul", [value, made.node("Sigmoid", [value])])
    if part.activation == "gelu":
        return made.node("Gelu", [value], domain=MICROSOFT)
    if part.activation in _TANH:
        return made.node("FastGelu", [value], domain=MICROSOFT)
    if part.activation == "relu":
        return made.node("Relu", [value])
    raise InputError(f"the activation {part.activation!r} is not built yet")


def _head(made: OnnxGraph, decoder: Decoder, rows: str) -> None:
    """Add the logits; a head that is tied to the embedding reads the embedding's table."""
    name = "" if decoder.softcap else "logits"
    if decoder.head is None:
        found = made.node("Gemm", [rows, "embedding"], transB=1, name=name)
    else:
        found = _product(made, "lm_head", [decoder.head], rows, output=name)
    if decoder.softcap:
        cap = made.number(decoder.softcap)
        bounded = made.node("Tanh", [made.node("Div", [found, cap])])
        made.node("Mul", [bounded, cap], name="logits")


def _product(
    made: OnnxGraph, name: str, parts: Sequence[Product], value: str, output: str = ""
) -> str:
    """Multiply by several weights [out, in] at once, and add their biases."""
    import numpy as np

    weight = made.weight(f"{name}.weight", np.concatenate([part.weight for part in parts]).T)
    if all(part.bias is None for part in parts):
        return made.node("MatMul", [value, weight], name=output or name)
    found = made.node("MatMul", [value, weight], name=name)
    biases = [
        np.zeros(len(part.weight), np.float32) if part.bias is None else part.bias for part in parts
    ]
    bias = made.weight(f"{name}.bias", np.concatenate(biases))
    return made.node("Add", [found, bias], name=output)
