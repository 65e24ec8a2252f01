"""A loaded bundle: the graphs of one variant joined to the rules of the task."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgepack_runtime import tasks
from edgepack_runtime.bundle.manifest import Task, Tolerance, Variant
from edgepack_runtime.engines import Session, State
from edgepack_runtime.errors import InputError
from edgepack_runtime.inputs import Inputs
from edgepack_runtime.inputs.calls import read_options
from edgepack_runtime.inputs.text import TextEncoder
from edgepack_runtime.model.ranking import Choice
from edgepack_runtime.tasks import Agreement, Opened

if TYPE_CHECKING:
    from typing_extensions import Self

    from edgepack_runtime.numeric import Array


@dataclass(frozen=True)
class Running:
    """What a model answers with, changed as one."""

    opened: Opened
    """What a call takes once, and uses nothing else."""
    choice: Choice | None = None
    """How the variant was picked; None when it was opened directly."""
    closed: bool = False
    """Whether the model was closed; then there are no graphs."""


class Model:
    """The graphs of a variant and a task: call it with what the task takes."""

    def __init__(
        self,
        task: Task,
        variant: Variant,
        graphs: Mapping[str, Session],
        inputs: Inputs,
        choice: Choice | None = None,
    ) -> None:
        self._running = Running(Opened(task, variant, graphs, inputs), choice)
        self._rules = tasks.find(task.name)
        self._rules.check(self._running.opened)

    @property
    def task(self) -> Task:
        """What it answers and with which labels."""
        return self._running.opened.task

    @property
    def encoder(self) -> TextEncoder:
        """What makes tokens of its texts; a `TrustError` if it takes none."""
        return self._running.opened.text

    @property
    def variant(self) -> Variant:
        """The variant that runs."""
        return self._running.opened.variant

    @property
    def provider(self) -> str:
        """What really executes it, `closed` once it was closed."""
        found = {session.provider for session in self._running.opened.graphs.values()}
        return ", ".join(sorted(found)) or "closed"

    @property
    def placement(self) -> Mapping[str, int]:
        """{provider: nodes of the graphs}, empty where there is but one."""
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
        """What is timed of its task, by name; see `cell`."""
        return self._rules.CELLS

    def __call__(self, inputs: object, **options: object) -> Any:
        """Answer one input or a list of them, as `transformers.pipeline` does.

        Args:
            inputs: what the task takes; a list, or any other iterable of texts, is run in
                batches of texts of like length.
            options: the task's own, see `Options` in `edgepack_runtime.tasks`; those that read
                texts in batches take `batch_size`, the rows in one run of the graph.

        Raises:
            InputError: not text, text that is not valid Unicode, or an unknown option.

        """
        return self._rules.answer(self._opened(), inputs, self.options(**options))

    def options(self, **given: object) -> Any:
        """Return the task's options as a call would read them; an `InputError` if it would not."""
        return read_options(self.task.name, self._rules.Options, given)

    def outputs(self, inputs: Sequence[Any]) -> list[Array]:
        """Return what of each input is compared with golden outputs, each run on its own.

        Of tasks that decide it is the logits, [labels] or [tokens, labels]; of embeddings the
        pooled vector [width].  What is beyond `max_length` is cut to its first window.
        """
        return self._rules.outputs(self._opened(), inputs)

    def compare(self, wanted: Sequence[Array], got: Sequence[Array]) -> Agreement:
        """Compare such outputs with a reference, as the task has it."""
        return self._rules.compare(self.task, wanted, got)

    def least(self) -> Tolerance:
        """Return what it must reach to be the model that its bundle says it is."""
        return self._rules.least(self.variant.tolerance)

    def cell(self, name: str, samples: Sequence[Any]) -> tuple[Any, dict[str, Any]]:
        """Return the inputs and options of the call that a cell times, made of sample inputs.

        No inputs where the model cannot take them.
        """
        return self._rules.cell(self._opened(), name, samples)

    def begin(self, graph: str, capacity: int) -> State:
        """Open a state of a graph, for what no call of the task does; the caller closes it."""
        return self._opened().graph(graph).begin(capacity)

    def close(self) -> None:
        """Let go of the graphs and their memory; calls under way go on, later ones are refused."""
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
        """Answer from now on as `other`, a model of the same bundle; calls under way go on."""
        if not self._running.closed:
            self._running = replace(other._running, choice=other.choice or self.choice)

    def compile_all(self) -> None:
        """Compile every shape that a graph may be asked for, where it compiles at all."""
        for session in self._opened().graphs.values():
            session.compile_all()

    def _opened(self) -> Opened:
        """Return what runs now; an `InputError` if the model was closed."""
        running = self._running
        if running.closed:
            raise InputError("the model was closed; load it again")
        return running.opened
