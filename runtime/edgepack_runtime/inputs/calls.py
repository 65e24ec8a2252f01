"""What a call may hold: its inputs, and options as `transformers.pipeline` takes them."""

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
    """batch_size: rows in one run of a graph."""

    batch_size: int = BATCH_SIZE

    def __post_init__(self) -> None:
        if self.batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {self.batch_size}")


@dataclass(frozen=True)
class Cutting(Batching):
    """What becomes of a text that is too long: the options of tasks that read one window.

    max_length: tokens that are read; the model's own limit if left out, which is also the most.
    on_long: `warn` once that a text is cut, `cut` it silently, or refuse it with an `error`.
    truncation: True asks for what happens anyway, and for no warning.
    padding: nothing, for answers do not depend on it.
    """

    max_length: int | None = None
    on_long: str = "warn"
    truncation: bool | str | None = None
    padding: bool | str | None = None

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
            raise InputError(f"padding={self.padding!r} means nothing; leave it out")

    @property
    def when_long(self) -> str:
        """Return `on_long`; who names a length or asks for truncation needs no warning."""
        asked = self.truncation is not None or self.max_length is not None
        return "cut" if asked and self.on_long == "warn" else self.on_long


def listed(inputs: object) -> object:
    """Return the inputs of a call, as a list if they are any other iterable of items.

    Raises:
        InputError: a table or array of more than one dimension.

    """
    if isinstance(inputs, (str, bytes, bytearray, list, Mapping)):
        return inputs
    if getattr(inputs, "ndim", 1) != 1:  # arrays, and tables, which would list their columns
        raise InputError(
            f"expected texts, found {type(inputs).__name__} of {inputs.ndim} "  # type: ignore[attr-defined]
            "dimensions; pass one column of it"
        )
    return list(inputs) if isinstance(inputs, Iterable) else inputs


def read_options(task: str, kind: type[Any], given: Mapping[str, object]) -> Any:
    """Return the options of a task (a dataclass `kind`) that a call gave.

    Raises:
        InputError: an unknown option, with the near one; or a value that it cannot have.

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
