"""Strict reading of the TOML files that people write: all faults at once, with suggestions."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from edgepack_runtime.bundle.names import is_version
from edgepack_runtime.errors import InputError
from edgepack_runtime.words import suggest


class Table:
    """One table of a TOML file.  Faults are collected; `check` raises them together."""

    def __init__(self, values: Mapping[str, Any], where: str, faults: list[str]) -> None:
        self._values = dict(values)
        self._where = where
        self._faults = faults
        self._known: list[str] = []

    def table(self, key: str) -> Table:
        """Take a sub-table; an empty one if it is not there."""
        value = self._take(key, {}, dict, "a table")
        return Table(value, f"{self._where}{key}.", self._faults)

    def tables(self, key: str) -> list[Table]:
        """Take an array of tables."""
        found = self._take(key, [], list, "an array of tables")
        wrong = [i for i, item in enumerate(found) if not isinstance(item, dict)]
        self._faults.extend(f"{self._where}{key}[{i}]: expected a table" for i in wrong)
        return [
            Table(item, f"{self._where}{key}[{i}].", self._faults)
            for i, item in enumerate(found)
            if i not in wrong
        ]

    def text(self, key: str, default: str = "", *, choices: tuple[str, ...] = ()) -> str:
        """Take a string, one of `choices` if any are given."""
        value: str = self._take(key, default, str, "a string")
        if choices:
            self.check_choice(key, value, choices)
        return value

    def check_choice(self, key: str, value: str, choices: tuple[str, ...]) -> None:
        """Record a fault if a value is not one of `choices`."""
        if value not in choices:
            hint = suggest(value, choices)
            self._faults.append(f"{self._where}{key}: unknown value {value!r}; {hint}")

    def check_version(self, key: str) -> None:
        """Record a fault if a value is not a version of numbers and dots; it may be missing."""
        value = self._values.get(key, "")
        if value and not (isinstance(value, str) and is_version(value)):
            self._faults.append(
                f"{self._where}{key}: expected a version such as '2.28', not {value!r}"
            )

    def required(self, key: str) -> str:
        """Take a string that must be there."""
        if key not in self._values:
            self._known.append(key)
            self._faults.append(f"{self._where}{key}: missing")
            return ""
        return self.text(key)

    def texts(self, key: str) -> tuple[str, ...]:
        """Take a list of strings."""
        value = self._take(key, [], list, "a list of strings")
        if not all(isinstance(item, str) for item in value):
            self._faults.append(f"{self._where}{key}: expected a list of strings")
            return ()
        return tuple(value)

    def integers(self, key: str) -> tuple[int, ...]:
        """Take a list of positive whole numbers."""
        value = self._take(key, [], list, "a list of whole numbers")
        if not all(type(item) is int and item > 0 for item in value):
            self._faults.append(f"{self._where}{key}: expected a list of positive whole numbers")
            return ()
        return tuple(value)

    def integer(self, key: str, default: int, *, least: int = 0) -> int:
        """Take a whole number of at least `least`."""
        value: int = self._take(key, default, int, "a whole number")
        if value < least:
            self._faults.append(f"{self._where}{key}: must be at least {least}, not {value}")
        return value

    def number(
        self, key: str, default: float, *, least: float = 0.0, most: float = float("inf")
    ) -> float:
        """Take a number from `least` to `most`; whole ones are numbers too."""
        if type(self._values.get(key)) is int:
            self._values[key] = float(self._values[key])
        value: float = self._take(key, float(default), float, "a number")
        if not least <= value <= most:
            bound = f"from {least:g} to {most:g}" if most < float("inf") else f"at least {least:g}"
            self._faults.append(f"{self._where}{key}: must be {bound}, not {value:g}")
        return value

    def optional_number(
        self, key: str, *, least: float = 0.0, most: float = float("inf")
    ) -> float | None:
        """Take a number from `least` to `most`; None if it is not there."""
        self._known.append(key)
        return self.number(key, 0.0, least=least, most=most) if key in self._values else None

    def optional_integer(self, key: str, *, least: int = 0) -> int | None:
        """Take a whole number of at least `least`; None if it is not there."""
        self._known.append(key)
        return self.integer(key, 0, least=least) if key in self._values else None

    def flag(self, key: str, *, default: bool) -> bool:
        """Take true or false."""
        value: bool = self._take(key, default, bool, "true or false")
        return value

    def optional(self, key: str) -> Table | None:
        """Take a sub-table; None if it is not there."""
        self._known.append(key)
        return self.table(key) if key in self._values else None

    def mapping(self, key: str) -> dict[str, Any]:
        """Take a table whose keys are not checked."""
        value: dict[str, Any] = self._take(key, {}, dict, "a table")
        return value

    def names(self) -> list[str]:
        """Return the keys that are there, for a table whose keys a person chooses."""
        return list(self._values)

    def fault(self, message: str) -> None:
        """Record a fault of the table as a whole."""
        self._faults.append(f"{self._where.rstrip('.')}: {message}")

    def done(self) -> None:
        """Record a fault for every unknown key."""
        for key in self._values:
            if key not in self._known:
                hint = suggest(key, self._known)
                self._faults.append(f"{self._where}{key}: unknown key; {hint}")

    def _take(self, key: str, default: Any, kind: type, name: str) -> Any:
        self._known.append(key)
        value = self._values.get(key, default)
        if type(value) is not kind:
            self._faults.append(f"{self._where}{key}: expected {name}, found {value!r}")
            return default
        return value


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file; an `InputError` says where it is not valid."""
    try:
        return tomllib.loads(path.read_bytes().decode())
    except OSError as exc:
        raise InputError(f"cannot read {path}: {exc.strerror}") from exc
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise InputError(f"{path} is not valid TOML: {exc}") from exc


def check(path: Path, faults: list[str]) -> None:
    """Raise all faults of a file as one `InputError`."""
    if faults:
        count = "1 fault" if len(faults) == 1 else f"{len(faults)} faults"
        raise InputError(f"{path}: {count}\n" + "\n".join(f"  {fault}" for fault in faults))
