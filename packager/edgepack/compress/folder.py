"""Read and write the model folders that compression stages pass on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgepack.model.torch_model import load_torch
from edgepack_runtime.errors import InputError

# The files that make a folder a sentence-transformers model; they are copied unchanged.
_SENTENCE_FILES = (
    "modules.json",
    "sentence_bert_config.json",
    "config_sentence_transformers.json",
    "*_Pooling/config.json",
    "*_Normalize/config.json",
)


def load(folder: Path, task: str, **overrides: Any) -> tuple[Any, Any]:
    """Return the model in float32 and its fast tokenizer."""
    from transformers import AutoTokenizer

    model = load_torch(folder, task, **overrides)
    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    if not tokenizer.is_fast:
        raise InputError(f"{folder} has no fast tokenizer, but the device needs one")
    return model, tokenizer


def spaced(tokenizer: Any, folder: Path) -> Any:
    """Return a tokenizer for texts split into words: a byte-level one adds a space."""
    from transformers import AutoTokenizer

    if getattr(tokenizer, "add_prefix_space", True):
        return tokenizer
    return AutoTokenizer.from_pretrained(
        folder, local_files_only=True, use_fast=True, add_prefix_space=True
    )


def save(model: Any, tokenizer: Any, out: Path, *, source: Path | None = None) -> None:
    """Write a model and its tokenizer, with the sentence-transformers files of `source`."""
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)
    copy_sentence_files(source, out)


def copy_sentence_files(source: Path | None, out: Path) -> None:
    """Copy the files that say how sentence vectors are pooled, if the source has them."""
    for pattern in _SENTENCE_FILES if source else ():
        for path in sorted(source.glob(pattern)) if source else ():
            final = out / path.relative_to(source)  # type: ignore[arg-type]
            final.parent.mkdir(parents=True, exist_ok=True)
            final.write_bytes(path.read_bytes())
