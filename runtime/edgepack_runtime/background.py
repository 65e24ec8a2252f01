"""Compile behind a running model, and let it take over what came out better."""

from __future__ import annotations

import logging
from threading import Thread
from typing import TYPE_CHECKING

from edgepack_runtime.bundle import Bundle
from edgepack_runtime.device import probe
from edgepack_runtime.errors import EdgepackError
from edgepack_runtime.prepare import prepare
from edgepack_runtime.selftest import selftest

if TYPE_CHECKING:
    from edgepack_runtime.model import Model

_log = logging.getLogger(__name__)


def prepare_behind(bundle: Bundle, model: Model, threads: int | None) -> Thread:
    """Prepare a bundle's variants in a thread; when the best one changes, `model` becomes it."""
    worker = Thread(target=_prepare, args=(bundle, model, threads), daemon=True)
    worker.start()
    return worker


def _prepare(bundle: Bundle, model: Model, threads: int | None) -> None:
    from edgepack_runtime.model import Choice, open_variant, rank

    try:
        for name, state in prepare(bundle).items():
            _log.info("%s: %s", name, state)
        candidates, rejected = rank(bundle, probe())
        best, reason = candidates[0]
        if best.name == model.variant.name:
            return
        other = open_variant(bundle, best, threads)
        selftest(bundle, other)
    except (EdgepackError, OSError) as exc:
        _log.warning("%s goes on with %s: %s", bundle.path, model.variant.name, exc)
        return
    other.choice = Choice(best, reason, rejected)
    model.take_over(other)
    _log.info("%s now runs %s on %s", bundle.path, best.name, model.provider)
