"""Where the parts of a layer are, for each family, and how to remove them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack_runtime.errors import InputError


@dataclass(frozen=True)
class Family:
    """Module paths inside one layer, and the config's names of its sizes."""

    query: str
    key: str
    value: str
    attention_out: str
    widen: str
    narrow: str
    depth: str = "num_hidden_layers"
    width: str = "intermediate_size"
    gate: str = ""
    """A second product that widens, whose neurons go with those of `widen`; empty for none."""
    stack: str = "layer"
    """The name of the list of layers."""

    @property
    def wideners(self) -> tuple[str, ...]:
        """Return the products whose rows are the feed-forward neurons."""
        return (self.widen, self.gate) if self.gate else (self.widen,)


_BERT = Family(
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_DISTIL = Family(
    "attention.q_lin",
    "attention.k_lin",
    "attention.v_lin",
    "attention.out_lin",
    "ffn.lin1",
    "ffn.lin2",
    "n_layers",
    "hidden_dim",
)
_LLAMA = Family(
    "self_attn.q_proj",
    "self_attn.k_proj",
    "self_attn.v_proj",
    "self_attn.o_proj",
    "mlp.up_proj",
    "mlp.down_proj",
    gate="mlp.gate_proj",
    stack="layers",
)
FAMILIES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "distilbert": _DISTIL,
    "llama": _LLAMA,
    "mistral": _LLAMA,
    "qwen2": _LLAMA,
    "qwen3": _LLAMA,
    "gemma": _LLAMA,
}


def family_of(model: Any) -> Family:
    """Return the family of a model; an `InputError` if its layers cannot be cut."""
    kind = model.config.model_type
    if kind not in FAMILIES:
        raise InputError(cannot_cut(kind))
    return FAMILIES[kind]


def cannot_cut(kind: str) -> str:
    """Return the message for a model whose layers cannot be cut."""
    return (
        f"models of type {kind!r} cannot be pruned or made shallower; "
        f"edgepack can do this for {', '.join(FAMILIES)}"
    )


def parted_heads(count: int, group: int) -> str:
    """Return the message for a number of heads that would part those that share keys."""
    return (
        f"prune.heads = {count} is not a multiple of {group}: so many heads of this model share "
        "keys and values"
    )


def sizes_of(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the sizes given in a `config.json`.

    They are the layers, heads and feed-forward neurons, and how many heads share keys and values
    (`group`).
    """
    family = FAMILIES[str(config["model_type"])]
    heads = config.get("num_attention_heads") or config.get("n_heads")
    return {
        "layers": int(config[family.depth]),
        "heads": int(heads or 0),
        "group": int(heads or 0) // int(config.get("num_key_value_heads") or heads or 1) or 1,
        "feed_forward": int(config[family.width]),
    }


def stack(model: Any) -> tuple[Any, str]:
    """Return the module that holds the list of layers, and the name of the list in it."""
    from torch.nn import ModuleList

    family = family_of(model)
    depth = getattr(model.config, family.depth)
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, ModuleList) and len(child) == depth and name == family.stack:
                return module, name
    raise InputError(f"no list of {depth} layers in {type(model).__name__}")


def layer_list(model: Any) -> Any:
    """Return the ModuleList of layers."""
    holder, name = stack(model)
    return getattr(holder, name)


def keep_layers(model: Any, kept: Sequence[int]) -> None:
    """Remove all layers except those in `kept`, in that order; pruned heads stay pruned."""
    from torch.nn import ModuleList

    holder, name = stack(model)
    layers = getattr(holder, name)
    pruned = dict(model.config.pruned_heads or {})
    setattr(holder, name, ModuleList(layers[i] for i in kept))
    setattr(model.config, family_of(model).depth, len(kept))
    if kinds := getattr(model.config, "layer_types", None):
        model.config.layer_types = [kinds[i] for i in kept]
    for place, layer in enumerate(getattr(holder, name)):
        if hasattr(layer, "self_attn"):  # a decoder's layer knows its place in the cache
            layer.self_attn.layer_idx = place
    model.config.pruned_heads = {
        new: sorted(pruned[old]) for new, old in enumerate(kept) if old in pruned
    }


def keep_neurons(model: Any, kept: Sequence[Sequence[int]]) -> None:
    """Remove all feed-forward neurons except those in `kept`, the same number for each layer."""
    import torch

    family = family_of(model)
    for layer, neurons in zip(layer_list(model), kept, strict=True):
        index = torch.tensor(sorted(neurons))
        for widen in map(layer.get_submodule, family.wideners):
            _keep_outputs(widen, index)
        _keep_inputs(layer.get_submodule(family.narrow), index)
    setattr(model.config, family.width, len(kept[0]))


def keep_groups(model: Any, kept: Sequence[Sequence[int]]) -> None:
    """Remove all heads of a decoder except those of some groups, the same number for each layer.

    A group is one head of keys and values with the query heads that share it.
    """
    import torch

    family, config = family_of(model), model.config
    group = config.num_attention_heads // config.num_key_value_heads
    for layer, groups in zip(layer_list(model), kept, strict=True):
        width = layer.self_attn.head_dim
        shared = torch.tensor(sorted(groups))
        queries = (shared[:, None] * group + torch.arange(group)).flatten()
        for name, heads in ((family.query, queries), (family.key, shared), (family.value, shared)):
            _keep_outputs(layer.get_submodule(name), _numbers(heads, width))
        _keep_inputs(layer.get_submodule(family.attention_out), _numbers(queries, width))
    config.head_dim = width  # else it follows from the number of heads
    config.num_key_value_heads = len(kept[0])
    config.num_attention_heads = len(kept[0]) * group


def _numbers(heads: Any, width: int) -> Any:
    """Return the places of the numbers of some heads."""
    import torch

    return (heads[:, None] * width + torch.arange(width)).flatten()


def _keep_outputs(product: Any, index: Any) -> None:
    import torch

    product.weight = torch.nn.Parameter(product.weight.detach()[index].clone())
    if product.bias is not None:
        product.bias = torch.nn.Parameter(product.bias.detach()[index].clone())
    product.out_features = len(index)


def _keep_inputs(product: Any, index: Any) -> None:
    import torch

    product.weight = torch.nn.Parameter(product.weight.detach()[:, index].clone())
    product.in_features = len(index)


def spread(count: int, depth: int) -> list[int]:
    """Pick `count` of `depth` layers, evenly spread, including the first and the last."""
    if count == 1:
        return [0]
    return [round(i * (depth - 1) / (count - 1)) for i in range(count)]
