"""Where the parts of an encoder layer are, for each family, and how to remove them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from edgepack_runtime.errors import InputError


@dataclass(frozen=True)
class Family:
    """Module paths inside one encoder layer, and the config's names of its sizes."""

    query: str
    key: str
    value: str
    attention_out: str
    widen: str
    narrow: str
    depth: str = "num_hidden_layers"
    width: str = "intermediate_size"


_BERT = Family(
    "attention.self.query",
    "attention.self.key",
    "attention.self.value",
    "attention.output.dense",
    "intermediate.dense",
    "output.dense",
)
_DISTIL = Family(
    "attention.q_lin", "attention.k_lin", "attention.v_lin", "attention.out_lin",
    "ffn.lin1", "ffn.lin2", "n_layers", "hidden_dim",
)  # fmt: skip
FAMILIES = {
    "bert": _BERT,
    "roberta": _BERT,
    "xlm-roberta": _BERT,
    "camembert": _BERT,
    "electra": _BERT,
    "distilbert": _DISTIL,
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


def sizes_of(config: Mapping[str, Any]) -> dict[str, int]:
    """Return the layers, heads and feed-forward neurons given in a `config.json`."""
    family = FAMILIES[str(config["model_type"])]
    heads = config.get("num_attention_heads") or config.get("n_heads")
    return {
        "layers": int(config[family.depth]),
        "heads": int(heads or 0),
        "feed_forward": int(config[family.width]),
    }


def encoder(model: Any) -> tuple[Any, str]:
    """Return the module that holds the list of layers, and the name of the list in it."""
    from torch.nn import ModuleList

    family = family_of(model)
    depth = getattr(model.config, family.depth)
    for module in model.modules():
        for name, child in module.named_children():
            if isinstance(child, ModuleList) and len(child) == depth and name == "layer":
                return module, name
    raise InputError(f"no list of {depth} layers in {type(model).__name__}")


def layer_list(model: Any) -> Any:
    """Return the ModuleList of encoder layers."""
    holder, name = encoder(model)
    return getattr(holder, name)


def keep_layers(model: Any, kept: Sequence[int]) -> None:
    """Remove all layers except those in `kept`, in that order; pruned heads stay pruned."""
    from torch.nn import ModuleList

    holder, name = encoder(model)
    layers = getattr(holder, name)
    pruned = dict(model.config.pruned_heads or {})
    setattr(holder, name, ModuleList(layers[i] for i in kept))
    setattr(model.config, family_of(model).depth, len(kept))
    model.config.pruned_heads = {
        new: sorted(pruned[old]) for new, old in enumerate(kept) if old in pruned
    }


def keep_neurons(model: Any, kept: Sequence[Sequence[int]]) -> None:
    """Remove all feed-forward neurons except those in `kept`, the same number for each layer."""
    import torch

    family = family_of(model)
    for layer, neurons in zip(layer_list(model), kept, strict=True):
        index = torch.tensor(sorted(neurons))
        widen, narrow = layer.get_submodule(family.widen), layer.get_submodule(family.narrow)
        with torch.no_grad():
            widen.weight = torch.nn.Parameter(widen.weight[index].clone())
            widen.bias = torch.nn.Parameter(widen.bias[index].clone())
            narrow.weight = torch.nn.Parameter(narrow.weight[:, index].clone())
        widen.out_features = narrow.in_features = len(index)
    setattr(model.config, family.width, len(kept[0]))


def spread(count: int, depth: int) -> list[int]:
    """Pick `count` of `depth` layers, evenly spread, including the first and the last."""
    if count == 1:
        return [0]
    return [round(i * (depth - 1) / (count - 1)) for i in range(count)]
