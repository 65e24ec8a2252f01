"""What a device must know about a language model: how its texts end, and how it chats."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from edgepack_runtime.bundle.description import Writing
from edgepack_runtime.errors import InputError
from edgepack_runtime.generation.settings import Asked, PairSettings, Settings, settle

_FILE = "generation_config.json"
_RENAMED = {"stop_strings": "stop"}
_PIPELINE = {"num_beams": 4, "max_new_tokens": 256}  # of transformers, where a model says nothing
_UNSET_LENGTH = 20  # transformers' default of `max_length`


def facts(folder: Path, tokenizer: Any, context: int, *, pairs: bool = False) -> Writing:
    """Read these facts from a model's folder.

    Args:
        folder: the folder of the model.
        tokenizer: its tokenizer, from transformers.
        context: tokens that prompt and answer share; of an answer alone, for `pairs`.
        pairs: whether it reads one text and writes another.

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
    kind = PairSettings if pairs else Settings
    settings = _settings(_pair_settings(declared) if pairs else declared, kind)
    try:
        settle(Asked(), settings, kind)
    except (InputError, TypeError) as exc:
        raise InputError(f"{folder / _FILE}: {exc}") from exc
    return Writing(
        context=context,
        start=_start(declared) if pairs else (),
        eos=tuple(eos) if isinstance(eos, list) else (() if eos is None else (int(eos),)),
        template=template,
        tokens=names,
        declared=settings,
    )


def _declared(folder: Path) -> dict[str, Any]:
    """Read what a model declares of its texts; models of old have that in `config.json`."""
    path = folder / _FILE
    if not path.is_file():
        path = folder / "config.json"
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except ValueError as exc:
        raise InputError(f"{path} is not valid JSON: {exc}") from exc
    return found


def _start(declared: dict[str, Any]) -> tuple[int, ...]:
    """Return the tokens that an answer starts with."""
    names = ("decoder_start_token_id", "forced_bos_token_id")
    found = [declared[name] for name in names if declared.get(name) is not None]
    if declared.get(names[0]) is None:
        raise InputError(f"the model declares no {names[0]}, so no answer can start")
    return tuple(int(token) for token in found)


def _pair_settings(declared: dict[str, Any]) -> dict[str, Any]:
    """Return settings that count the new tokens of an answer, and defaults of the pipelines."""
    banned = [ids[0] for ids in declared.get("bad_words_ids") or [] if len(ids) == 1]
    found = {**_PIPELINE, **declared}
    found["suppress_tokens"] = sorted({*banned, *(declared.get("suppress_tokens") or [])})
    for name in ("max", "min"):
        length = declared.get(f"{name}_length")
        if length and length != _UNSET_LENGTH and not declared.get(f"{name}_new_tokens"):
            found[f"{name}_new_tokens"] = length - 1  # the first token is counted in lengths
    return found


def _settings(declared: dict[str, Any], kind: type[Settings]) -> dict[str, Any]:
    """Return the settings that a model declares, by the names of their kind."""
    known = set(kind.__dataclass_fields__)
    renamed = {_RENAMED.get(name, name): value for name, value in declared.items()}
    return {k: v for k, v in renamed.items() if k in known and v is not None}
