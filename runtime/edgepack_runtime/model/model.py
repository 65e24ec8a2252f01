"""Load a bundle and answer: the session of one variant joined to the task's rules."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack_runtime import engines, tasks
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import Task, Variant
from edgepack_runtime.device import measured
from edgepack_runtime.device.facts import check_threads, cores, probe
from edgepack_runtime.engines._batching import runs
from edgepack_runtime.errors import DeviceError, InputError
from edgepack_runtime.fit import unmet
from edgepack_runtime.gc_pause import collector_paused
from edgepack_runtime.inputs.calls import Cutting, listed, read_options
from edgepack_runtime.inputs.text import INPUTS, TextEncoder, Tokens
from edgepack_runtime.model.prepare import compiled_folder, distrust
from edgepack_runtime.model.ranking import Choice, named, rank
from edgepack_runtime.model.selftest import selftest

if TYPE_CHECKING:
    from tokenizers import Encoding
    from typing_extensions import Self

    from edgepack_runtime.numeric import Array

BATCH_SIZE = 8
_log = logging.getLogger(__name__)

__all__ = ["BATCH_SIZE", "Choice", "Model", "load", "open_variant", "rank"]


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


@collector_paused()
def load(
    path: str | Path | Bundle,
    *,
    variant: str | None = None,
    threads: int | None = None,
    any_device: bool = False,
    allow_fallback: bool = False,
    prepare: bool = False,
) -> Model:
    """Load a bundle on this device.

    Args:
        path: a bundle folder, an `.epk`, an open `Bundle`, or the folder of a store, for the
            release that runs there.
        variant: the variant to run; left out, the best one this device can run: by what was
            measured here (`edgepack-runtime tune`), else in the target's order.
        threads: CPU threads; left out, as many as `edgepack-runtime tune` found best, else every
            processor this process may use.
        any_device: try a bundle that was built for another kind of machine.
        allow_fallback: if the best variant does not load, try the next instead of failing.
        prepare: compile in the background what this device could run better (TensorRT, GPU,
            NPU), and switch to it when it has passed the golden inputs; not if `variant` names one.

    Raises:
        InputError: there is no bundle at `path`, or no such variant.
        TrustError: the bundle is truncated, altered, malformed or of a newer format.
        DeviceError: this device cannot run it; the message lists why, variant by variant.
        SelfTestError: it runs, but strays from the first golden output.

    """
    check_threads(threads)
    bundle = path if isinstance(path, Bundle) else Bundle.open(path)
    device = probe()
    if lacking := [] if any_device else unmet(bundle.manifest.requires, device):
        raise DeviceError(f"{bundle.path} (for {bundle.manifest.target}) {'; '.join(lacking)}")
    candidates, rejected = rank(
        bundle, device, any_device=any_device, uncompiled=variant is not None
    )
    best_threads = measured.load(bundle.digest, device).threads
    if variant is not None:
        candidates = [named(bundle, variant, candidates, rejected)]
    for candidate, reason in candidates:
        try:
            count = threads or best_threads.get(candidate.name)
            model = open_variant(bundle, candidate, count, Choice(candidate, reason, rejected))
        except DeviceError as exc:
            rejected[candidate.name] = str(exc)
            distrust(bundle, candidate, device)
            if not allow_fallback:
                raise DeviceError(
                    f"{bundle.path}: variant {candidate.name} does not load: {exc}. "
                    "Pass allow_fallback=True (--allow-fallback) to accept the next best"
                ) from exc
        else:
            selftest(bundle, model, limit=1)
            _log.info("%s runs %s on %s: %s", bundle.path, candidate.name, model.provider, reason)
            if prepare and variant is None:
                from edgepack_runtime.model.background import prepare_behind

                prepare_behind(bundle, model, threads, any_device=any_device)
            return model
    listed = "; ".join(f"{name}: {why}" for name, why in rejected.items())
    raise DeviceError(
        f"{bundle.path} (built for {bundle.manifest.target}) does not run here: {listed}"
    )


def open_variant(
    bundle: Bundle, variant: Variant, threads: int | None = None, choice: Choice | None = None
) -> Model:
    """Load one variant, whatever the device; every file that is read is hashed first.

    Raises:
        TrustError: a file is missing or differs from its digest.
        DeviceError: the engine is not installed or cannot load the graph.

    """
    check_threads(threads)
    task = bundle.manifest.task
    content = bytes(bundle.read(task.text.tokenizer))
    files = bundle.files(variant)
    cache = compiled_folder(bundle, variant, probe())
    try:
        engine = engines.find(variant.engine)
    except ImportError as exc:
        raise DeviceError(f"{variant.engine} is not installed: {exc}") from exc
    with ThreadPoolExecutor(1) as pool:  # the tokenizer loads while the graph does
        encoder = pool.submit(TextEncoder, content, task.text)
        try:
            session = engine.open_session(files, variant, threads or cores(), cache)
        except ImportError as exc:
            raise DeviceError(f"{variant.engine} is not installed: {exc}") from exc
        if unknown := sorted(set(session.inputs) - set(INPUTS)):
            raise DeviceError(
                f"the graph of {variant.name} wants {', '.join(unknown)}, which this runtime "
                f"does not make; it makes {', '.join(INPUTS)}"
            )
        return Model(task, variant, session, encoder.result(), choice)
