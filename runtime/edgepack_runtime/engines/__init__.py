"""The engines, one module each; this folder is the registry.

An engine module has `open_session(files, variant, threads, cache) -> Session`, which opens one
graph of a variant.  A name that is not a file in this folder is refused, so a manifest can never
name code to import.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast, runtime_checkable

from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.errors import DeviceError, TrustError

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array


class State(Protocol):
    """What one run leaves for the next run of the same call: keys and values of attention.

    A state belongs to the call that opened it; the call closes it to free its memory.
    """

    @property
    def length(self) -> int:
        """Count the positions that it holds."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on the positions that follow, and add them to the state; else as `Session.run`."""

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on, at no cost."""

    def close(self) -> None:
        """Free the memory; a later run is an `InputError`."""


@runtime_checkable
class LastingState(State, Protocol):
    """A state that can outlive the call that opened it."""

    capacity: int
    """Positions that there is room for."""

    def grow(self, capacity: int) -> None:
        """Make room for at least `capacity` positions; those that it holds stay."""

    def arrays(self) -> dict[str, Array]:
        """Return a copy of what it holds, by name."""

    def restore(self, arrays: Mapping[str, Array]) -> None:
        """Hold what `arrays` returned; an `InputError` if the arrays are of another graph."""


@runtime_checkable
class AdaptedState(State, Protocol):
    """A state of a graph that takes adapters."""

    def adapt(self, arrays: Mapping[str, Array]) -> None:
        """Take the arrays of an adapter, by input, for all runs that follow; none for no adapter.

        An `InputError` if the graph has no such inputs, or others' shapes.
        """


@runtime_checkable
class BeamState(State, Protocol):
    """A state of several rows, which can change places."""

    def reorder(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; one may be there twice."""


class Session(Protocol):
    """A loaded graph.  Safe to call from several threads."""

    @property
    def inputs(self) -> tuple[str, ...]:
        """Name the inputs the graph takes."""

    @property
    def outputs(self) -> tuple[str, ...]:
        """Name the outputs, in the graph's own order."""

    @property
    def provider(self) -> str:
        """Name what really executes the graph."""

    @property
    def placement(self) -> Mapping[str, int]:
        """Count the graph's nodes by provider; empty if one provider executes all of them."""

    def width(self, rows: int, tokens: int) -> int:
        """Return the padded width, at least `tokens`, that runs a batch of `rows` best."""

    def compile_all(self) -> None:
        """Compile now what would otherwise be compiled when a shape is first asked for."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on arrays by name; return the outputs by name, owned by the caller.

        Arrays that the graph does not take are ignored.  Whole numbers arrive as int64.
        """

    def begin(self, capacity: int) -> State:
        """Open a state for at most `capacity` positions; a `DeviceError` if the graph has none."""


class Stateless:
    """A session of a graph without a state: every run starts from scratch."""

    def begin(self, capacity: int) -> State:
        """Refuse."""
        raise DeviceError(f"this graph holds no state, so it cannot hold {capacity} positions")


class Engine(Protocol):
    """What an engine module provides."""

    CPU: str
    """The name of its provider for the CPU."""

    def providers(self) -> tuple[str, ...]:
        """List the providers that it can run on here."""

    def open_session(
        self, files: Mapping[str, memoryview], variant: Variant, threads: int, cache: Path | None
    ) -> Session:
        """Load the files of one graph, named as in the variant's folder, on `threads` threads.

        `cache` is a folder for what the engine compiles from these files; it is made when needed.
        """


def whole_number(variant: Variant, name: str, default: int, *, least: int) -> int:
    """Read an option of a variant that is a whole number; a `TrustError` if it is not one."""
    value = variant.options.get(name, default)
    if type(value) is not int or value < least:
        raise TrustError(
            f"variant {variant.name}: option {name} must be a whole number from {least}, "
            f"not {value!r}"
        )
    return value


def only(files: Mapping[str, memoryview], ending: str) -> str:
    """Name the one file of a graph with this ending; a `TrustError` if there is not exactly one."""
    found = [name for name in files if name.endswith(ending)]
    if len(found) != 1:
        raise TrustError(
            f"a graph has {len(found)} files {ending}, not one; build the bundle again"
        )
    return found[0]


@cache
def known() -> tuple[str, ...]:
    """Name the engines of this runtime: the files of this folder."""
    return tuple(sorted(path.stem for path in Path(__file__).parent.glob("[a-z]*.py")))


def find(name: str) -> Engine:
    """Return the engine module called `name`.

    Raises:
        DeviceError: this runtime has no such engine.

    """
    if name not in known():
        raise DeviceError(f"unknown engine {name!r}; this runtime has {', '.join(known())}")
    return cast("Engine", import_module(f"{__name__}.{name}"))
