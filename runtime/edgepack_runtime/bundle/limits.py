"""The most that a device reads of what others made, so that memory and time are bounded first."""

from __future__ import annotations

MEMBERS = 10_000
"""Members of an `.epk`."""
TOP_BYTES = 1 << 20
"""Of `oci-layout` and `index.json`, which nobody signs."""
JSON_BYTES = 4 << 20
"""Of any other JSON of a bundle; what is parsed takes up to 30 times as much memory."""
DELTA_MEMORY = 32 << 20
"""Bytes that a delta's decompressor may take."""
