"""Load a bundle and answer: the session of one variant joined to the task's rules."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, get_args, get_origin, get_type_hints

from edgepack_runtime import engines, tasks, tuned
from edgepack_runtime.bundle import Bundle
from edgepack_runtime.collector import collector_paused
from edgepack_runtime.device import Device, cores, probe
from edgepack_runtime.errors import DeviceError, InputError
from edgepack_runtime.fit import unmet, why_not
from edgepack_runtime.manifest import Task, Variant
from edgepack_runtime.prepare import compiled_folder, distrust, needs_preparing, prepared
from edgepack_runtime.selftest import selftest
from edgepack_runtime.text import INPUTS, TextEncoder, Tokens, batches

if TYPE_CHECKING:
    from tokenizers import Encoding

    from edgepack_runtime.numeric import Array

BATCH_SIZE = 8
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Choice:
    """The variant that was picked, why, and why the others were not: {name: reason}."""

    variant: Variant
    reason: str
    rejected: Mapping[str, str]


class Model:
    """An engine session and a task: call it with what the task takes.

    Attributes:
        task: what it answers and with which labels.
        variant: the variant that runs.
        provider: what really executes it.
        placement: {provider: nodes of the graph}, empty where there is but one.
        choice: how the variant was picked; None when it was opened directly.

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
        self.variant = variant
        self.provider = session.provider
        self.placement = session.placement
        self.choice = choice
        self.encoder = encoder
        self._session = session
        self._rules = tasks.find(task.name)

    def __call__(self, inputs: object, *, batch_size: int = BATCH_SIZE, **options: object) -> Any:
        """Answer one input or a list of them, as `transformers.pipeline` does.

        Args:
            inputs: what the task takes; a list is run in batches of texts of like length.
            batch_size: rows in one run of the graph.
            options: the task's own, see `Options` in `edgepack_runtime.tasks`.

        Raises:
            InputError: not text, text that is not valid Unicode, or an unknown option.

        """
        chosen = self._options(options)
        items = self._rules.items(inputs, chosen)
        if not items:
            return []
        tokens = [self._rules.prepare(self.encoder, item, chosen) for item in items]
        outputs = self._outputs(tokens, batch_size)
        answers = [
            self._rules.finish(tasks.Call(self.task, self.encoder, *row), chosen)
            for row in zip(items, tokens, outputs, strict=True)
        ]
        return self._rules.wrap(answers, inputs, chosen)

    def raw(self, texts: Sequence[str]) -> list[Array]:
        """Return what the graph gives for each text on its own: [labels] or [tokens, width].

        A text beyond `max_length` is cut to its first window.
        """
        return [self._infer([self.encoder.encode(text).first], 1)[0] for text in texts]

    def take_over(self, other: Model) -> None:
        """Answer from now on as `other`, a model of the same bundle; calls under way go on."""
        self._session, self.variant = other._session, other.variant
        self.provider, self.placement = other.provider, other.placement
        self.choice = other.choice or self.choice

    def compile_all(self) -> None:
        """Compile every shape that the session may be asked for, where it compiles at all."""
        self._session.compile_all()

    def _options(self, options: Mapping[str, object]) -> Any:
        if not options:
            return self._rules.Options()
        known = [f.name for f in fields(self._rules.Options)]
        for name in options:
            if name not in known:
                from difflib import get_close_matches

                near = get_close_matches(name, known, 1)
                hint = f"; did you mean {near[0]!r}?" if near else f"; it has {', '.join(known)}"
                raise InputError(f"{self.task.name} has no option {name!r}{hint}")
        hints = get_type_hints(self._rules.Options)
        for name, value in options.items():
            kinds = tuple(
                get_origin(kind) or kind for kind in get_args(hints[name]) or (hints[name],)
            )
            if type(value) not in kinds:
                wanted = " or ".join(kind.__name__ for kind in kinds)
                raise InputError(f"{name} must be {wanted}, not {value!r}")
        return self._rules.Options(**options)

    def _outputs(self, tokens: list[list[Tokens]], batch_size: int) -> list[list[list[Array]]]:
        """Run every window that counts; outputs[item][text][window]."""
        if self._rules.windowed():
            kept = [[text.windows for text in item] for item in tokens]
        else:
            self._warn_if_cut([text for item in tokens for text in item])
            kept = [[text.windows[:1] for text in item] for item in tokens]
        rows = [window for item in kept for text in item for window in text]
        flat = iter(self._infer(rows, batch_size))
        return [[[next(flat) for _ in text] for text in item] for item in kept]

    def _warn_if_cut(self, texts: list[Tokens]) -> None:
        cut = sum(len(text.windows) > 1 for text in texts)
        if cut:
            _log.warning(
                "%d of %d texts are longer than %d tokens; only their beginning was read",
                cut, len(texts), self.task.text.max_length,
            )  # fmt: skip

    def _infer(self, rows: Sequence[Encoding], batch_size: int) -> list[Array]:
        if type(batch_size) is not int or batch_size < 1:
            raise InputError(f"batch_size must be at least 1, not {batch_size}")
        most = self.variant.options.get("max_rows")  # what the engine was compiled for
        batch_size = min(batch_size, most) if type(most) is int and most > 0 else batch_size
        session = self._session  # one for the whole call: `take_over` may put in another
        outputs: list[Array] = [None] * len(rows)  # type: ignore[list-item]
        for group in batches([len(row.ids) for row in rows], batch_size):
            picked = [rows[i] for i in group]
            longest = max(1, *(len(row.ids) for row in picked))
            feeds = self.encoder.batch(picked, session.width(len(picked), longest))
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
    bundle = path if isinstance(path, Bundle) else Bundle.open(path)
    device = probe()
    if lacking := [] if any_device else unmet(bundle.manifest.requires, device):
        raise DeviceError(f"{bundle.path} (for {bundle.manifest.target}) {'; '.join(lacking)}")
    candidates, rejected = rank(
        bundle, device, any_device=any_device, uncompiled=variant is not None
    )
    best_threads = tuned.load(bundle.digest, device).threads
    if variant is not None:
        candidates = [_named(bundle, variant, candidates, rejected)]
    for candidate, reason in candidates:
        try:
            model = open_variant(bundle, candidate, threads or best_threads.get(candidate.name))
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
            model.choice = Choice(candidate, reason, rejected)
            _log.info("%s runs %s on %s: %s", bundle.path, candidate.name, model.provider, reason)
            if prepare and variant is None:
                from edgepack_runtime.background import prepare_behind

                prepare_behind(bundle, model, threads, any_device=any_device)
            return model
    listed = "; ".join(f"{name}: {why}" for name, why in rejected.items())
    raise DeviceError(
        f"{bundle.path} (built for {bundle.manifest.target}) does not run here: {listed}"
    )


def rank(
    bundle: Bundle, device: Device, *, any_device: bool = False, uncompiled: bool = False
) -> tuple[list[tuple[Variant, str]], dict[str, str]]:
    """Order the variants that `device` can run, each with its reason; and say why not the others.

    Args:
        bundle: whose variants.
        device: where they should run.
        any_device: whatever architecture the bundle was built for.
        uncompiled: also those that need compiling first and were not.

    Raises:
        DeviceError: the bundle was built for another architecture.

    """
    manifest = bundle.manifest
    if manifest.arch not in (device.arch, "any") and not any_device:
        raise DeviceError(
            f"{bundle.path} was built for {manifest.target} ({manifest.arch}), "
            f"this is {device.arch}; build it for this machine (edgepack build --target native), "
            "or pass any_device=True (--any-device) to try the variants that could run"
        )
    rejected = {v.name: why for v in manifest.variants if (why := why_not(v, device))}
    rejected |= {
        v.name: f"not compiled here yet (edgepack-runtime prepare {bundle.path})"
        for v in manifest.variants
        if v.name not in rejected
        and not uncompiled
        and needs_preparing(v)
        and not prepared(bundle, v, device)
    }
    fit = [v for v in manifest.variants if v.name not in rejected]
    measured = tuned.load(bundle.digest, device).latency_ms
    if not measured:
        return [
            (v, f"first of {manifest.target} that fits, not measured here") for v in fit
        ], rejected
    fit.sort(key=lambda v: tuned.score(v.name, measured))
    return [
        (v, f"measured here, {tuned.score(v.name, measured):.2f}× the fastest") for v in fit
    ], rejected


def open_variant(bundle: Bundle, variant: Variant, threads: int | None = None) -> Model:
    """Load one variant, whatever the device; every file that is read is hashed first.

    Raises:
        TrustError: a file is missing or differs from its digest.
        DeviceError: the engine is not installed or cannot load the graph.

    """
    if threads is not None and threads < 1:
        raise InputError(f"threads must be at least 1, not {threads}")
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
        return Model(task, variant, session, encoder.result())


def _named(
    bundle: Bundle, name: str, fit: list[tuple[Variant, str]], rejected: Mapping[str, str]
) -> tuple[Variant, str]:
    for candidate, _ in fit:
        if candidate.name == name:
            return candidate, "asked for"
    if name in rejected:
        raise DeviceError(f"{bundle.path}: variant {name}: {rejected[name]}")
    names = ", ".join(v.name for v in bundle.manifest.variants)
    raise InputError(f"{bundle.path} has no variant {name!r}; it has {names}")
