"""Merge a PEFT adapter (LoRA and similar) into its base model, before anything else."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.compress.folder import load, save
from edgepack_runtime.errors import InputError

TOOLS = ("edgepack", "torch", "transformers", "peft")
_HEADS = (".classifier.weight", ".score.weight", ".out_proj.weight")


@dataclass(frozen=True)
class Settings:
    """How to merge an adapter."""

    task: str
    """The task, which decides the head of the base model."""


def adapt(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write the base model (`base`) with the adapter (`adapter`) merged into its weights.

    Raises:
        InputError: the adapter does not fit the base model, or cannot be merged.

    """
    from peft import PeftModel

    folder = inputs["adapter"]
    model, tokenizer = load(
        inputs["base"], settings.task, **_head(folder), ignore_mismatched_sizes=True
    )
    try:
        merged = PeftModel.from_pretrained(model, folder).merge_and_unload()
    except (ValueError, RuntimeError, KeyError, AttributeError) as exc:
        reason = str(exc).partition("\n")[0]
        raise InputError(f"{folder}: the adapter cannot be merged into its base: {reason}") from exc
    save(merged, tokenizer, out, source=inputs["base"])


def _head(folder: Path) -> dict[str, Any]:
    """Return labels from a `config.json` next to the adapter, else their number from its head."""
    config = folder / "config.json"
    if config.is_file():
        labels = json.loads(config.read_text()).get("id2label") or {}
        if labels:
            return {
                "id2label": {int(i): name for i, name in labels.items()},
                "label2id": {name: int(i) for i, name in labels.items()},
                "num_labels": len(labels),
            }
    from safetensors import safe_open

    weights = folder / "adapter_model.safetensors"
    if not weights.is_file():
        raise InputError(f"{folder} has no adapter_model.safetensors")
    with safe_open(str(weights), "pt") as stored:
        sizes = [
            stored.get_slice(name).get_shape()[0]
            for name in stored.keys()  # noqa: SIM118 (safe_open is not a mapping)
            if name.endswith(_HEADS)
        ]
    return {"num_labels": sizes[-1]} if sizes else {}
