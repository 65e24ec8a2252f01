"""The stage that reads what a device must know about a model: its inputs, task and labels."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from edgepack.model import marian, pictures, sounds, writing
from edgepack.tasks import find
from edgepack_runtime import tasks
from edgepack_runtime.bundle.description import Task, Text
from edgepack_runtime.bundle.manifest import canonical_json
from edgepack_runtime.errors import InputError

TOOLS = ("edgepack", "transformers", "tokenizers")
_UNLIMITED = 1 << 24
_POSITIONS_AFTER_PADDING = ("roberta", "camembert", "mpnet", "data2vec-text", "longformer")


@dataclass(frozen=True)
class Settings:
    """How to describe a model."""

    task: str
    """The name of the task."""
    max_length: int = 0
    """Tokens of a text; 0 for what the model declares."""


def describe(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write `config.json`, `task.json` (a `description.Task`), and what the inputs are read by.

    That is `tokenizer.json` for texts, and `preprocessor_config.json` for images and sounds.
    """
    from transformers import AutoConfig

    folder = inputs["model"]
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, OSError, TypeError) as exc:
        raise InputError(f"{folder}: transformers cannot read this model: {exc}") from exc
    task = Task(
        name=settings.task,
        labels=_labels(config) if tasks.find(settings.task).DECIDES else (),
        problem_type=getattr(config, "problem_type", None) or "",
        activation=_activation(config),
    )
    kind = find(settings.task).READS
    if kind == "image":
        task = replace(task, image=pictures.facts(folder))
    elif kind == "audio":
        audio, letters = sounds.facts(folder, config)
        task = replace(task, audio=audio, labels=letters or task.labels)
    if kind != "text":
        (out / pictures.FILE).write_bytes((folder / pictures.FILE).read_bytes())
    else:
        task = _with_text(task, settings, folder, config, out)
    (out / "config.json").write_bytes((folder / "config.json").read_bytes())
    (out / "task.json").write_bytes(canonical_json(asdict(task)))


def _with_text(task: Task, settings: Settings, folder: Path, config: Any, out: Path) -> Task:
    """Write `tokenizer.json`; return the task with what its texts are read by."""
    from transformers import AutoTokenizer

    try:
        with warnings.catch_warnings(action="ignore"):  # Marian's recommends what it does not use
            tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True, use_fast=True)
    except (ValueError, KeyError, OSError, TypeError) as exc:  # TypeError: no tokenizer's files
        raise InputError(f"{folder}: transformers cannot read this model: {exc}") from exc
    backend = _fast(tokenizer, folder)
    backend.no_padding()
    backend.no_truncation()
    (out / "tokenizer.json").write_text(backend.to_str())
    pooling = pooling_of(folder)
    length = _chosen_length(settings, _max_length(folder, config, tokenizer))
    facts = find(settings.task)
    told = writing.facts(folder, tokenizer, length, pairs=facts.PAIRS) if facts.DECODES else None
    return replace(
        task,
        text=_text(tokenizer, length),
        pooling=pooling[0],
        normalize=pooling[1],
        writing=told,
    )


def _text(tokenizer: Any, length: int) -> Text:
    return Text(
        tokenizer="tokenizer.json",
        max_length=length,
        pad_id=_pad_id(tokenizer),
        pad_type_id=tokenizer.pad_token_type_id,
        padding_side=tokenizer.padding_side,
        truncation_side=tokenizer.truncation_side,
        unk_id=tokenizer.unk_token_id,
        mask_id=tokenizer.mask_token_id,
        first_id=tokenizer.cls_token_id,
        cleans=bool(tokenizer.clean_up_tokenization_spaces),
    )


def _fast(tokenizer: Any, folder: Path) -> Any:
    """Return the fast tokenizer of a model, which a device can read."""
    if marian.is_marian(tokenizer):
        return marian.fast(tokenizer, folder)
    if not tokenizer.is_fast:
        raise InputError(
            f"{folder} has no fast tokenizer, but the device needs one; convert it first"
        )
    return tokenizer.backend_tokenizer


def _activation(config: Any) -> str:
    """Return what a cross-encoder of sentence-transformers makes its scores by."""
    said = getattr(config, "sentence_transformers", None) or {}
    name = str(said.get("activation_fn", "")) if isinstance(said, dict) else ""
    known = {
        "torch.nn.modules.linear.Identity": "none",
        "torch.nn.modules.activation.Sigmoid": "sigmoid",
    }
    return known.get(name, name)  # the task refuses what it does not know


def _labels(config: Any) -> tuple[str, ...]:
    return tuple(str(config.id2label[i]) for i in range(len(config.id2label)))


def _pad_id(tokenizer: Any) -> int:
    known = (tokenizer.pad_token_id, tokenizer.eos_token_id)
    return next((int(number) for number in known if number is not None), 0)


def _chosen_length(settings: Settings, most: int) -> int:
    least = 8  # room for special tokens and a word
    if settings.max_length and not least <= settings.max_length <= most:
        raise InputError(
            f"max_length must be from {least} to {most} for this model, not {settings.max_length}"
        )
    return settings.max_length or most


def _max_length(folder: Path, config: Any, tokenizer: Any) -> int:
    """Return the smallest limit of the sentence model, the tokenizer and the positions."""
    limits = [int(tokenizer.model_max_length)]
    declared = folder / "sentence_bert_config.json"
    if declared.exists():
        limits.append(int(_object(declared).get("max_seq_length") or _UNLIMITED))
    limits.append(positions_of(config))
    usable = [limit for limit in limits if 0 < limit < _UNLIMITED]
    return min(usable, default=512)


def positions_of(config: Any) -> int:
    """Return how many tokens a model has positions for; 0 if its config does not say."""
    positions = int(getattr(config, "max_position_embeddings", None) or 0)
    # RoBERTa and similar models number positions from padding_idx + 1.
    kin = any(name in config.model_type for name in _POSITIONS_AFTER_PADDING)
    return positions - (config.pad_token_id + 1 if kin and positions else 0)


def pooling_of(folder: Path) -> tuple[str, bool]:
    """Read sentence-transformers' `modules.json`: the pooling mode, and whether to normalise."""
    path = folder / "modules.json"
    if not path.exists():
        return "", False
    try:
        modules = json.loads(path.read_text())
        kinds = {str(m["type"]).rpartition(".")[2]: str(m["path"]) for m in modules}
    except (ValueError, KeyError, TypeError) as exc:
        raise InputError(f"{path} is not a list of modules: {exc!r}") from exc
    unknown = set(kinds) - {"Transformer", "Pooling", "Normalize"}
    if unknown:
        raise InputError(f"{path}: module {min(unknown)} is not supported on devices")
    mode = ""
    if "Pooling" in kinds:
        mode = _pooling_mode(folder / kinds["Pooling"] / "config.json")
    return mode, "Normalize" in kinds


def _pooling_mode(path: Path) -> str:
    """Return the one mode that a pooling module declares, by a flag or by name."""
    settings = _object(path)
    flags = [
        key.removeprefix("pooling_mode_")
        for key, on in settings.items()
        if key.startswith("pooling_mode_") and on is True
    ]
    named = [settings["pooling_mode"]] if settings.get("pooling_mode") else []
    modes = {"mean_tokens": "mean", "cls_token": "cls", "max_tokens": "max"}
    chosen = {modes.get(flag, flag) for flag in flags} | {str(name) for name in named}
    if len(chosen) != 1 or not chosen <= set(modes.values()):
        told = ", ".join(sorted(chosen)) or "nothing"
        raise InputError(f"{path}: its pooling must be one of {', '.join(modes.values())}: {told}")
    return chosen.pop()


def _object(path: Path) -> dict[str, Any]:
    """Read a JSON object.

    Raises:
        InputError: there is none.

    """
    try:
        found = json.loads(path.read_text())
    except (OSError, ValueError) as exc:
        raise InputError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(found, dict):
        raise InputError(f"{path} is not a JSON object")
    return found
