"""Which families have a decoder."""

from __future__ import annotations

from edgepack.export.decoder.families import FAMILIES


def unknown_family(model_type: str) -> str:
    """Say that a family has no decoder; empty if it has one."""
    if model_type in FAMILIES:
        return ""
    name = model_type or "a model without a type"
    return f"text generation is built for {', '.join(FAMILIES)} so far, not for {name}"
