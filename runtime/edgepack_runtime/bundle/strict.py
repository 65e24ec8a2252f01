"""Read frozen dataclasses from JSON values, strictly.

An unknown key, a missing key or a wrong type is a `TrustError`: a device must never guess a
meaning.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields
from functools import cache
from types import NoneType
from typing import Any, get_args, get_origin, get_type_hints

from edgepack_runtime.errors import TrustError


def read_record(kind: Any, value: object, where: str) -> Any:
    """Return a value as the dataclass `kind`; `where` names its place for the message.

    Raises:
        TrustError: it is not one.

    """
    if not isinstance(value, dict):
        raise TrustError(f"{where}: expected an object, found {type(value).__name__}")
    hints = _hints(kind)
    unknown = sorted(set(value) - set(hints))
    if unknown:
        raise TrustError(f"{where}: unknown key {unknown[0]!r}")
    try:
        return kind(**{key: _value(hints[key], value[key], f"{where}.{key}") for key in value})
    except TypeError as exc:
        missing = [f.name for f in fields(kind) if f.name not in value]
        raise TrustError(f"{where}: missing one of {', '.join(missing)}") from exc


def _value(hint: Any, value: object, where: str) -> Any:
    if NoneType in get_args(hint) and value is not None:
        hint = next(kind for kind in get_args(hint) if kind is not NoneType)
    if hasattr(hint, "__dataclass_fields__"):
        return read_record(hint, value, where)
    origin = get_origin(hint)
    if origin is tuple:
        if not isinstance(value, list):
            raise TrustError(f"{where}: expected a list")
        inner = get_args(hint)[0]
        return tuple(_value(inner, item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin is Mapping:
        if not isinstance(value, dict):
            raise TrustError(f"{where}: expected an object")
        inner = get_args(hint)[1]
        if inner is Any:
            return value
        return {key: _value(inner, item, f"{where}.{key}") for key, item in value.items()}
    return _scalar(hint, value, where)


def _scalar(hint: Any, value: object, where: str) -> object:
    kinds = get_args(hint) or (hint,)
    if type(value) in kinds:
        return value
    if float in kinds and type(value) is int:
        return float(value)
    raise TrustError(f"{where}: expected {kinds[0].__name__}, found {type(value).__name__}")


@cache
def _hints(kind: Any) -> dict[str, Any]:
    return get_type_hints(kind)
