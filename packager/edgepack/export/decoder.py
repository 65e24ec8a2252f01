"""The ONNX graph of a decoder, written from its weights in ONNX Runtime's own operators.

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
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.export import decoder_heads as heads
from edgepack.export.decoder_shape import Shape, shape_of
from edgepack.recipe.target import VariantSpec
from edgepack_runtime.errors import InputError

OPSET = 18
FAMILIES = ("llama", "mistral", "qwen2", "qwen3", "smollm3")
_CPU = "CPUExecutionProvider"
_MICROSOFT = "com.microsoft"


def why_not(model_type: str, spec: VariantSpec | None = None) -> str:
    """Say why a family has no decoder graph, or none for a variant; empty if it has one."""
    if model_type not in FAMILIES:
        name = model_type or "a model without a type"
        return f"text generation is built for {', '.join(FAMILIES)} so far, not for {name}"
    if spec and (spec.provider != _CPU or spec.precision not in ("float32", "int8")):
        return (
            "text generation is built for CPUs in float32 and int8 so far, not for "
            f"{spec.provider} in {spec.precision}"
        )
    return ""


def export(folder: Path, out: Path) -> None:
    """Write the float32 graph of a causal language model as `model.onnx`.

    Raises:
        InputError: it has traits that the graph does not support.

    """
    import torch
    from transformers import AutoModelForCausalLM

    from edgepack.export import graph

    try:
        model = AutoModelForCausalLM.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True
        ).eval()
    except (ValueError, KeyError, OSError) as exc:
        raise InputError(f"{folder}: transformers cannot load this model: {exc}") from exc
    with torch.no_grad():
        graph.save(write(model), out / "model.onnx")


def write(model: Any) -> Any:
    """Return the `ModelProto` of a model of transformers."""
    shape = shape_of(model.config)
    made = _Graph(shape)
    _rotary(made, model)
    base = model.model
    made.weight("embedding", base.embed_tokens.weight)
    hidden = made.node("Gather", ["embedding", "input_ids"], name="embed")
    added = ""
    for number, layer in enumerate(base.layers):
        hidden, added = _layer(made, f"layers.{number}", layer, (hidden, added))
    normed, _ = _norm(made, "norm", base.norm, (hidden, added))
    wanted = made.node("Gather", [normed, "rows"], axis=1, name="wanted")
    rows = made.node("Squeeze", [wanted, made.ints("first", [0])])
    _head(made, model, rows)
    return made.finish(model.config.vocab_size)


@dataclass
class _Graph:
    """A graph under construction."""

    shape: Shape
    nodes: list[Any] = field(default_factory=list)
    weights: dict[str, Any] = field(default_factory=dict)

    def node(self, kind: str, inputs: Sequence[str], *, name: str = "", **how: Any) -> str:
        """Add a node with one output; return the output."""
        return self.nodes_of(kind, inputs, [name or f"{kind}_{len(self.nodes)}"], **how)[0]

    def nodes_of(
        self, kind: str, inputs: Sequence[str], outputs: Sequence[str], **how: Any
    ) -> Sequence[str]:
        """Add a node; return its outputs."""
        from onnx import helper

        domain = how.pop("domain", "")
        label = next(name for name in outputs if name)
        self.nodes.append(helper.make_node(kind, inputs, outputs, label, domain=domain, **how))
        return outputs

    def weight(self, name: str, value: Any) -> str:
        """Add a weight: a torch tensor or an array."""
        import numpy as np
        from onnx import numpy_helper

        array = value.detach().numpy() if hasattr(value, "detach") else value
        self.weights[name] = numpy_helper.from_array(np.ascontiguousarray(array), name)
        return name

    def ints(self, name: str, values: Sequence[int]) -> str:
        """Add a constant of whole numbers."""
        import numpy as np

        return self.weight(name, np.array(values, dtype=np.int64))

    def finish(self, vocabulary: int) -> Any:
        """Return the model."""
        from onnx import TensorProto, helper

        kind, shape = TensorProto.FLOAT, self.shape
        inputs = [
            helper.make_tensor_value_info("input_ids", TensorProto.INT64, [1, "tokens"]),
            helper.make_tensor_value_info("rows", TensorProto.INT64, ["k"]),
            helper.make_tensor_value_info("seqlens_k", TensorProto.INT32, [1]),
            helper.make_tensor_value_info("total_sequence_length", TensorProto.INT32, []),
        ]
        outputs = [helper.make_tensor_value_info("logits", kind, ["k", vocabulary])]
        held = [1, shape.kv_heads, "capacity", shape.padded]
        for number in range(shape.layers):
            for part in ("key", "value"):
                names = (f"past_key_values.{number}.{part}", f"present.{number}.{part}")
                inputs.append(helper.make_tensor_value_info(names[0], kind, held))
                outputs.append(helper.make_tensor_value_info(names[1], kind, held))
        made = helper.make_graph(
            self.nodes, "decoder", inputs, outputs, list(self.weights.values())
        )
        opsets = [helper.make_opsetid("", OPSET), helper.make_opsetid(_MICROSOFT, 1)]
        return helper.make_model(made, opset_imports=opsets)


def _rotary(made: _Graph, model: Any) -> None:
    """Add the cosines and sines of all positions, [context, padded width ÷ 2]."""
    import numpy as np

    shape = made.shape
    kind = (getattr(model.config, "rope_scaling", None) or {}).get("rope_type", "default")
    if kind not in ("default", "linear", "llama3", "yarn"):
        raise InputError(f"rotary positions of the kind {kind!r} are not built yet")
    rotary = model.model.rotary_emb
    angles = np.outer(np.arange(shape.context), rotary.inv_freq.numpy().astype(np.float64))
    scale = float(getattr(rotary, "attention_scaling", 1.0))
    fill = [(0, 0), (0, (shape.padded - shape.width) // 2)]
    cos, sin = np.cos(angles) * scale, np.sin(angles) * scale
    made.weight("cos", np.pad(cos, fill, constant_values=1.0).astype(np.float32))
    made.weight("sin", np.pad(sin, fill).astype(np.float32))


def _layer(made: _Graph, name: str, layer: Any, state: tuple[str, str]) -> tuple[str, str]:
    """Add one layer; `state` and the result are the residual and what is to be added to it."""
    normed, hidden = _norm(made, f"{name}.input_norm", layer.input_layernorm, state)
    attended = _attention(made, f"{name}.self_attn", layer.self_attn, normed)
    normed, hidden = _norm(
        made, f"{name}.post_norm", layer.post_attention_layernorm, (hidden, attended)
    )
    return hidden, _feed_forward(made, f"{name}.mlp", layer.mlp, normed)


def _norm(made: _Graph, name: str, norm: Any, state: tuple[str, str]) -> tuple[str, str]:
    """Add what is to be added, and normalize; return the normalized value and the sum."""
    hidden, added = state
    weight = made.weight(f"{name}.weight", norm.weight)
    how: dict[str, Any] = {"epsilon": made.shape.epsilon}
    if not added:
        found = made.node(
            "SimplifiedLayerNormalization", [hidden, weight], name=name, axis=-1, **how
        )
        return found, hidden
    outputs = [name, "", "", f"{name}.sum"]
    how["domain"] = _MICROSOFT
    made.nodes_of("SkipSimplifiedLayerNormalization", [hidden, added, weight], outputs, **how)
    return name, outputs[3]


def _attention(made: _Graph, name: str, attention: Any, normed: str) -> str:
    shape = made.shape
    parts = [
        heads.widen_out(projection, count, shape)
        for projection, count in (
            (attention.q_proj, shape.heads),
            (attention.k_proj, shape.kv_heads),
            (attention.v_proj, shape.kv_heads),
        )
    ]
    norms = [getattr(attention, key, None) for key in ("q_norm", "k_norm")]
    if norms[0] is None:
        queries = [_product(made, f"{name}.qkv_proj", parts, normed), "", ""]
    else:
        labels = ("q_proj", "k_proj", "v_proj")
        queries = [
            _product(made, f"{name}.{key}", [p], normed)
            for key, p in zip(labels, parts, strict=True)
        ]
        for at, (key, count) in enumerate((("q", shape.heads), ("k", shape.kv_heads))):
            queries[at] = _head_norm(made, f"{name}.{key}_norm", norms[at], (queries[at], count))
    past, present = (
        [f"{side}.{name.split('.')[1]}.{part}" for part in ("key", "value")]
        for side in ("past_key_values", "present")
    )
    inputs = [*queries, *past, "seqlens_k", "total_sequence_length", "cos", "sin"]
    made.nodes_of(
        "GroupQueryAttention", inputs, [name, *present], domain=_MICROSOFT, do_rotary=1,
        num_heads=shape.heads, kv_num_heads=shape.kv_heads, scale=float(attention.scaling),
    )  # fmt: skip
    return _product(made, f"{name}.o_proj", [heads.widen_in(attention.o_proj, shape)], name)


def _head_norm(made: _Graph, name: str, norm: Any, given: tuple[str, int]) -> str:
    """Normalize each head of queries or keys [1, tokens, heads × width]."""
    value, count = given
    width = made.shape.width
    if made.shape.padded != width:
        raise InputError(f"heads of width {width} with their own norms are not built yet")
    split = made.node("Reshape", [value, made.ints(f"{name}.split", [0, 0, count, width])])
    weight = made.weight(f"{name}.weight", norm.weight)
    normed = made.node(
        "SimplifiedLayerNormalization", [split, weight], name=name, axis=-1,
        epsilon=made.shape.epsilon,
    )  # fmt: skip
    return made.node("Reshape", [normed, made.ints(f"{name}.join", [0, 0, count * width])])


def _feed_forward(made: _Graph, name: str, mlp: Any, normed: str) -> str:
    both = [(mlp.gate_proj.weight, mlp.gate_proj.bias), (mlp.up_proj.weight, mlp.up_proj.bias)]
    joined = _product(made, f"{name}.gate_up_proj", [heads.plain(*pair) for pair in both], normed)
    gate, up = made.nodes_of(
        "Split", [joined], [f"{name}.gate", f"{name}.up"], axis=-1, num_outputs=2
    )
    opened = made.node("Mul", [gate, made.node("Sigmoid", [gate])])
    return _product(
        made, f"{name}.down_proj", [heads.plain(mlp.down_proj.weight, mlp.down_proj.bias)],
        made.node("Mul", [opened, up]),
    )  # fmt: skip


def _head(made: _Graph, model: Any, rows: str) -> None:
    """Add the logits; a head that is tied to the embedding reads the embedding's table."""
    head = model.lm_head
    if head.weight.data_ptr() == model.model.embed_tokens.weight.data_ptr():
        made.nodes_of("Gemm", [rows, "embedding"], ["logits"], transB=1)
        return
    weight = made.weight("lm_head.weight", head.weight.t())
    made.nodes_of("MatMul", [rows, weight], ["logits"])


def _product(made: _Graph, name: str, parts: Sequence[heads.Part], value: str) -> str:
    """Multiply by several weights [out, in] at once, and add their biases."""
    import numpy as np

    weight = made.weight(f"{name}.weight", np.concatenate([w for w, _ in parts]).T)
    found = made.node("MatMul", [value, weight], name=name)
    if all(bias is None for _, bias in parts):
        return found
    biases = [np.zeros(len(w), np.float32) if b is None else b for w, b in parts]
    return made.node("Add", [found, made.weight(f"{name}.bias", np.concatenate(biases))])


def is_decoder(model: Any) -> bool:
    """Tell whether a graph was written by this module."""
    return any(node.op_type == "GroupQueryAttention" for node in model.graph.node)
