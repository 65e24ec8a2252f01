"""What a call may contain: its inputs, and the options that `transformers.pipeline` takes."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass, fields
from functools import cache
from typing import Any, cast, get_args, get_origin, get_type_hints

from edgepack_runtime.errors import InputError
from edgepack_runtime.words import suggest

_ON_LONG = ("warn", "cut", "error")
_PADDING = (None, True, False, "longest", "max_length", "do_not_pad")


BATCH_SIZE = 8


@dataclass(frozen=True)
class Batching:
    """The options of tasks that read texts in batches."""

    batch_size: int = BATCH_SIZE
    """Rows in one run of a graph."""

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {self.batch_size}")


@dataclass(frozen=True)
class Cutting(Batching):
    """The options of tasks that read one window: what happens to a text that is too long."""

    max_length: int | None = None
    """Tokens to read; by default the model's own limit, which is also the maximum."""
    on_long: str = "warn"
    """`warn` once that a text is cut, `cut` it silently, or refuse it with an `error`."""
    truncation: bool | str | None = None
    """Texts are cut anyway; True also turns the warning off."""
    padding: bool | str | None = None
    """Has no effect: answers do not depend on padding."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.on_long not in _ON_LONG:
            raise InputError(f"on_long must be one of {', '.join(_ON_LONG)}, not {self.on_long!r}")
        if self.truncation not in (None, True, "longest_first"):
            raise InputError(
                f"truncation={self.truncation!r} is not possible: a text that is too long is cut "
                "at its end. Leave it out, or pass on_long='error' to refuse such texts"
            )
        if self.padding not in _PADDING:
            raise InputError(f"padding={self.padding!r} has no meaning; leave it out")

    @property
    def when_long(self) -> str:
        """Return `on_long`; a caller who sets a length or asks for truncation needs no warning."""
        asked = self.truncation is not None or self.max_length is not None
        return "cut" if asked and self.on_long == "warn" else self.on_long


def listed(inputs: object) -> object:
    """Return the inputs of a call; other iterables of items are returned as a list.

    Raises:
        InputError: they are a table, or an array of more than one dimension.

    """
    if isinstance(inputs, (str, bytes, bytearray, list, Mapping)):
        return inputs
    if (
        getattr(inputs, "ndim", 1) != 1
    ):  # arrays, and tables, whose iteration would give column names
        raise InputError(
            f"expected texts, found {type(inputs).__name__} of {inputs.ndim} "  # type: ignore[attr-defined]
            "dimensions; pass one column of it"
        )
    return list(inputs) if isinstance(inputs, Iterable) else inputs


def read_options(task: str, kind: type[Any], given: Mapping[str, object]) -> Any:
    """Return the options of a task (a dataclass `kind`) that a call gave.

    Raises:
        InputError: an option is unknown (the message names a similar one), or its value is wrong.

    """
    if not given:
        return kind()
    known = [field.name for field in fields(kind)]
    hints = _hints(cast("Hashable", kind))
    for name, value in given.items():
        if name not in known:
            raise InputError(f"{task} has no option {name!r}; {suggest(name, known)}")
        kinds = tuple(get_origin(one) or one for one in get_args(hints[name]) or (hints[name],))
        if type(value) not in kinds:
            wanted = " or ".join(one.__name__ for one in kinds)
            raise InputError(f"{name} must be {wanted}, not {value!r}")
    return kind(**given)


@cache
def _hints(kind: Hashable) -> dict[str, Any]:
    return get_type_hints(kind)
