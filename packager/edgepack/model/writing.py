"""What a device must know about a language model: how its texts end, and how it chats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgepack_runtime.bundle.manifest import Writing
from edgepack_runtime.errors import InputError
from edgepack_runtime.generation.settings import Asked, Settings, settle

_FILE = "generation_config.json"
_RENAMED = {"stop_strings": "stop"}


def facts(folder: Path, tokenizer: Any, context: int) -> Writing:
    """Read these facts from a model's folder.

    Args:
        folder: the folder of the model.
        tokenizer: its tokenizer, from transformers.
        context: tokens that prompt and answer share.

    Raises:
        InputError: `generation_config.json` is malformed, or a setting is not valid.

    """
    declared = _declared(folder)
    eos = declared.get("eos_token_id", tokenizer.eos_token_id)
    names = {
        name: token if isinstance(token, str) else str(token)
        for name, token in tokenizer.special_tokens_map.items()
        if name.endswith("_token")
    }
    template = tokenizer.chat_template or ""
    if isinstance(template, dict):
        template = template.get("default", "")
    settings = _settings(declared)
    try:
        settle(Asked(), settings)
    except (InputError, TypeError) as exc:
        raise InputError(f"{folder / _FILE}: {exc}") from exc
    return Writing(
        context=context,
        eos=tuple(eos) if isinstance(eos, list) else (() if eos is None else (int(eos),)),
        template=template,
        tokens=names,
        declared=settings,
    )


def _declared(folder: Path) -> dict[str, Any]:
    path = folder / _FILE
    if not path.is_file():
        return {}
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except ValueError as exc:
        raise InputError(f"{path} is not valid JSON: {exc}") from exc
    return found


def _settings(declared: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that a model declares, by the names of `Settings`."""
    known = set(Settings.__dataclass_fields__)
    renamed = {_RENAMED.get(name, name): value for name, value in declared.items()}
    return {k: v for k, v in renamed.items() if k in known and v is not None}
