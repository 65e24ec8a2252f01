"""A loaded bundle: the graphs of one variant, and the rules of the task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgepack_runtime import tasks
from edgepack_runtime.bundle.description import Task
from edgepack_runtime.bundle.manifest import Tolerance, Variant
from edgepack_runtime.engines import State
from edgepack_runtime.errors import InputError
from edgepack_runtime.inputs.calls import read_options
from edgepack_runtime.inputs.text import TextEncoder
from edgepack_runtime.model.ranking import Choice
from edgepack_runtime.tasks import Agreement, Opened

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgepack_runtime.numeric import Array


@dataclass(frozen=True)
class Running:
    """The state of a model, replaced in one step."""

    opened: Opened
    """The only thing a call uses; it takes this once."""
    choice: Choice | None = None
    """How the variant was picked; None when it was opened directly."""
    closed: bool = False
    """Whether the model was closed; if so, there are no graphs."""


class Model:
    """The graphs of a variant and a task; call it with the inputs that the task takes."""

    def __init__(self, opened: Opened, choice: Choice | None = None) -> None:
        self._running = Running(opened, choice)
        self._rules = tasks.find(opened.task.name)
        self._rules.check(opened)

    @property
    def task(self) -> Task:
        """The task, with its labels."""
        return self._running.opened.task

    @property
    def encoder(self) -> TextEncoder:
        """The encoder that turns texts into tokens; a `TrustError` if the model takes none."""
        return self._running.opened.text

    @property
    def variant(self) -> Variant:
        """The variant that runs."""
        return self._running.opened.variant

    @property
    def provider(self) -> str:
        """The provider that really executes it; `closed` after it was closed."""
        found = {session.provider for session in self._running.opened.graphs.values()}
        return ", ".join(sorted(found)) or "closed"

    @property
    def placement(self) -> Mapping[str, int]:
        """{provider: nodes of the graphs}; empty if there is only one provider."""
        found: Counter[str] = Counter()
        for session in self._running.opened.graphs.values():
            found.update(session.placement)
        return dict(found)

    @property
    def choice(self) -> Choice | None:
        """How the variant was picked; None when it was opened directly."""
        return self._running.choice

    @property
    def cells(self) -> tuple[str, ...]:
        """The names of what is timed for its task; see `cell`."""
        return self._rules.CELLS

    def __call__(self, inputs: object, **options: object) -> Any:
        """Answer one input or a list of them, as `transformers.pipeline` does.

        Args:
            inputs: the inputs that the task takes; a list, or any other iterable of texts, is run
                in batches of texts of similar length.
            options: the task's own options, see `Options` in `edgepack_runtime.tasks`.  Tasks that
                read texts in batches take `batch_size`, the rows in one run of the graph.

        Raises:
            InputError: an input is not text or not valid Unicode, or an option is unknown.

        """
        return self._rules.answer(self._opened(), inputs, self.options(**options))

    def options(self, **given: object) -> Any:
        """Return the task's options as a call reads them; an `InputError` if one is wrong."""
        return read_options(self.task.name, self._rules.Options, given)

    def outputs(self, inputs: Sequence[Any]) -> list[Array]:
        """Return the outputs that are compared with golden outputs; each input runs on its own.

        For tasks that decide, these are the logits, [labels] or [tokens, labels]; for embeddings,
        the pooled vector [width].  A text longer than `max_length` is cut to its first window.
        """
        return self._rules.outputs(self._opened(), inputs)

    def compare(self, wanted: Sequence[Array], got: Sequence[Array]) -> Agreement:
        """Compare such outputs with a reference, by the task's rules."""
        return self._rules.compare(self.task, wanted, got)

    def least(self) -> Tolerance:
        """Return the agreement it must reach to count as the model that its bundle describes."""
        return self._rules.least(self.variant.tolerance)

    def cell(self, name: str, samples: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
        """Return the inputs and options of the call that a cell times, made from sample inputs.

        There are no inputs if the model cannot take them.
        """
        return self._rules.cell(self._opened(), name, samples)

    def begin(self, graph: str, capacity: int) -> State:
        """Open a state of a graph, for what no call of the task does; the caller closes it."""
        return self._opened().graph(graph).begin(capacity)

    def close(self) -> None:
        """Free the graphs and their memory; running calls finish, later ones are refused."""
        opened = replace(self._running.opened, graphs={})
        self._running = replace(self._running, opened=opened, closed=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise InputError(
            "a loaded model cannot be pickled or copied: pass the path of its bundle and load it "
            "where it is used"
        )

    def take_over(self, other: Model) -> None:
        """Answer like `other`, a model of the same bundle, from now on; running calls finish."""
        if not self._running.closed:
            self._running = replace(other._running, choice=other.choice or self.choice)

    def compile_all(self) -> None:
        """Compile every shape that a graph may be asked for, if its engine compiles at all."""
        for session in self._opened().graphs.values():
            session.compile_all()

    def _opened(self) -> Opened:
        """Return the open variant; an `InputError` if the model was closed."""
        running = self._running
        if running.closed:
            raise InputError("the model was closed; load it again")
        return running.opened
