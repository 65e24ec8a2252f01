"""Load a bundle and answer: the session of one variant joined to the task's rules."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from edgepack_runtime import engines, tasks
from edgepack_runtime.bundle.manifest import Task, Variant
from edgepack_runtime.engines._batching import runs
from edgepack_runtime.errors import InputError
from edgepack_runtime.inputs.calls import Cutting, listed, read_options
from edgepack_runtime.inputs.text import TextEncoder, Tokens
from edgepack_runtime.model.ranking import Choice

if TYPE_CHECKING:
    from tokenizers import Encoding
    from typing_extensions import Self

    from edgepack_runtime.numeric import Array

BATCH_SIZE = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Running:
    """What a model answers with, changed as one: a call takes it once and uses nothing else.

    session: None once the model was closed.
    """

    session: engines.Session | None
    variant: Variant
    provider: str
    placement: Mapping[str, int]
    choice: Choice | None = None

    def open_session(self) -> engines.Session:
        """Return the session; an `InputError` if the model was closed."""
        if self.session is None:
            raise InputError("the model was closed; load it again")
        return self.session


class Model:
    """An engine session and a task: call it with what the task takes.

    Attributes:
        task: what it answers and with which labels.
        encoder: makes tokens of its texts.

    """

    def __init__(
        self,
        task: Task,
        variant: Variant,
        session: engines.Session,
        encoder: TextEncoder,
        choice: Choice | None = None,
    ) -> None:
        self.task = task
        self.encoder = encoder
        self._running = Running(session, variant, session.provider, session.placement, choice)
        self._rules = tasks.find(task.name)
        self._said_cut = False

    @property
    def variant(self) -> Variant:
        """The variant that runs."""
        return self._running.variant

    @property
    def provider(self) -> str:
        """What really executes it."""
        return self._running.provider

    @property
    def placement(self) -> Mapping[str, int]:
        """{provider: nodes of the graph}, empty where there is but one."""
        return self._running.placement

    @property
    def choice(self) -> Choice | None:
        """How the variant was picked; None when it was opened directly."""
        return self._running.choice

    def __call__(self, inputs: object, *, batch_size: int = BATCH_SIZE, **options: object) -> Any:
        """Answer one input or a list of them, as `transformers.pipeline` does.

        Args:
            inputs: what the task takes; a list, or any other iterable of texts, is run in
                batches of texts of like length.
            batch_size: rows in one run of the graph.
            options: the task's own, see `Options` in `edgepack_runtime.tasks`.

        Raises:
            InputError: not text, text that is not valid Unicode, or an unknown option.

        """
        chosen = self.options(**options)
        inputs = listed(inputs)
        items = self._rules.items(inputs, chosen)
        if not items:
            return []
        tokens = [self._rules.prepare(self.encoder, item, chosen) for item in items]
        outputs = self._outputs(self._running, tokens, batch_size, chosen)
        answers = [
            self._rules.finish(tasks.Call(self.task, self.encoder, *row), chosen)
            for row in zip(items, tokens, outputs, strict=True)
        ]
        return self._rules.wrap(answers, inputs, chosen)

    def options(self, **given: object) -> Any:
        """Return the task's options as a call would read them; an `InputError` if it would not."""
        return read_options(self.task.name, self._rules.Options, given)

    def raw(self, texts: Sequence[str | tuple[str, str]]) -> list[Array]:
        """Return what the graph gives for each text or pair: [labels] or [tokens, width].

        Each runs on its own; what is beyond `max_length` is cut to its first window.
        """
        items = [(text, None) if isinstance(text, str) else text for text in texts]
        running = self._running
        return [self._infer(running, [self.encoder.encode(*item).first], 1)[0] for item in items]

    def close(self) -> None:
        """Let go of the graph and its memory; calls under way go on, later ones are refused."""
        self._running = replace(self._running, session=None)

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
        if self._running.session is not None:
            self._running = replace(other._running, choice=other.choice or self.choice)

    def compile_all(self) -> None:
        """Compile every shape that the session may be asked for, where it compiles at all."""
        self._running.open_session().compile_all()

    def _outputs(
        self, running: Running, tokens: list[list[Tokens]], batch_size: int, options: Any
    ) -> list[list[list[Array]]]:
        """Run every window that counts; outputs[item][text][window]."""
        if self._rules.windowed():
            kept = [[text.windows for text in item] for item in tokens]
        else:
            self._check_length([text for item in tokens for text in item], options)
            kept = [[text.windows[:1] for text in item] for item in tokens]
        rows = [window for item in kept for text in item for window in text]
        flat = iter(self._infer(running, rows, batch_size))
        return [[[next(flat) for _ in text] for text in item] for item in kept]

    def _check_length(self, texts: list[Tokens], options: Cutting) -> None:
        """Say once that texts are cut, or refuse them, as the options want it."""
        if options.when_long == "cut" or (options.when_long == "warn" and self._said_cut):
            return
        cut = sum(len(text.windows) > 1 for text in texts)
        longer = f"{cut} of {len(texts)} texts are longer than "
        longer += f"{options.max_length or self.task.text.max_length} tokens"
        if cut and options.when_long == "error":
            raise InputError(f"{longer}; shorten them, or leave on_long out to have them cut")
        if cut:
            self._said_cut = True
            _log.warning("%s; only their beginning is read (not said again)", longer)

    def _infer(self, running: Running, rows: Sequence[Encoding], batch_size: int) -> list[Array]:
        if type(batch_size) is not int or batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        session = running.open_session()
        lengths = [max(1, len(row.ids)) for row in rows]
        outputs: list[Array] = [None] * len(rows)  # type: ignore[list-item]
        for group, width in runs(running.variant, session, lengths, batch_size):
            picked = [rows[i] for i in group]
            feeds = self.encoder.batch(picked, width)
            output = session.run(feeds)[0]
            for at, i in enumerate(group):
                row = output[at] if output.ndim == 2 else self.encoder.unpad(output, rows[i], at)
                outputs[i] = row
        return outputs
