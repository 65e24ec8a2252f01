"""Compile variants while a model runs, and switch the model to a better one."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from threading import Thread
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.device.facts import probe
from edgepack_runtime.errors import EdgepackError
from edgepack_runtime.model.prepare import prepare
from edgepack_runtime.model.ranking import Choice, rank
from edgepack_runtime.model.selftest import selftest
from edgepack_runtime.model.variants import open_variant

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

Ranked = Callable[..., tuple[list[tuple[Any, str]], dict[str, str]]]
_log = logging.getLogger(__name__)


def prepare_behind(
    bundle: Bundle,
    model: Model,
    threads: int | None,
    *,
    any_device: bool = False,
    workload: str | None = None,
) -> Thread:
    """Prepare a bundle's variants in a thread; if the best one changes, `model` switches to it.

    A variant that failed to compile before is not tried again here; `edgepack-runtime prepare`
    tries it again.
    """
    ranked = partial(rank, bundle, any_device=any_device, workload=workload)
    worker = Thread(target=_prepare, args=(bundle, model, threads, ranked), daemon=True)
    worker.start()
    return worker


def _prepare(bundle: Bundle, model: Model, threads: int | None, ranked: Ranked) -> None:
    try:
        for name, state in prepare(bundle, again=False).items():
            _log.info("%s: %s", name, state or "ready")
        candidates, rejected = ranked(device=probe())
        if not candidates or candidates[0][0].name == model.variant.name:
            return
        best, reason = candidates[0]
        other = open_variant(bundle, best, threads, Choice(best, reason, rejected))
        selftest(bundle, other)
    except (EdgepackError, OSError) as exc:
        _log.warning("%s goes on with %s: %s", bundle.path, model.variant.name, exc)
        return
    model.take_over(other)
    _log.info("%s now runs %s on %s", bundle.path, best.name, model.provider)
