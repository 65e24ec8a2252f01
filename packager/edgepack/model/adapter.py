"""Adapters (LoRA and similar): the base model that one belongs to."""

from __future__ import annotations

import json
from pathlib import Path

from edgepack_runtime.errors import InputError

ADAPTER_FILE = "adapter_config.json"


def base_of(folder: Path) -> str:
    """Return the base model that an adapter folder names."""
    path = folder / ADAPTER_FILE
    try:
        base = json.loads(path.read_text()).get("base_model_name_or_path")
    except (OSError, ValueError, AttributeError) as exc:
        raise InputError(f"{path} cannot be read: {exc}") from exc
    if not isinstance(base, str) or not base:
        raise InputError(f"{path} does not name a base_model_name_or_path")
    return base
