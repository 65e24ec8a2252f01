"""The most that a device reads of foreign data, so that memory and time are bounded."""

from __future__ import annotations

MEMBERS = 10_000
"""Members of an `.epk`."""
TOP_BYTES = 1 << 20
"""Bytes of `oci-layout` and of `index.json`, which are not signed."""
JSON_BYTES = 4 << 20
"""Bytes of any other JSON in a bundle; parsed, it takes up to 30 times as much memory."""
DELTA_MEMORY = 32 << 20
"""Bytes of memory that a delta's decompressor may use."""
