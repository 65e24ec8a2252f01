"""OpenVINO on its devices: CPU, GPU and NPU.

With short texts, small graphs spend much of their time on dynamic shapes.  So a variant may name
`static_tokens`: a text is padded to the smallest of these lengths that holds it, and runs on a plan
of fixed shape.  A longer text, and a batch whose answers do not depend on the plan, run on the
dynamic plan; their widths are rounded up to `pad_multiple`, so that shapes recur.  With
`static_only`, which an NPU needs, there is no dynamic plan.  The first plan is compiled at load,
the others on first use.  Compiled plans are cached by OpenVINO version, device and CPU.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING

from edgepack_runtime.bundle.manifest import Variant
from edgepack_runtime.engines import Session, Stateless, whole_number
from edgepack_runtime.engines import _ov as binding
from edgepack_runtime.engines._batching import mixes
from edgepack_runtime.engines._ov_compile import CPU, DYNAMIC, Compiler
from edgepack_runtime.engines._ov_paged import PagedSession, is_paged
from edgepack_runtime.engines._ov_plans import Lanes, Plan
from edgepack_runtime.errors import DeviceError, TrustError

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

__all__ = ["CPU", "open_session", "providers"]


class OpenVinoSession(Stateless):
    """One model, compiled once for each plan.

    Attributes:
        provider: the device, `CPU`, `GPU` or `NPU`.  OpenVINO runs a whole graph on the device it
            was compiled for, or fails.

    """

    def __init__(self, compiler: Compiler, variant: Variant) -> None:
        self._compiler = compiler
        self.provider = compiler.provider
        self.placement: dict[str, int] = {}
        self._static = _static_tokens(variant)
        self._static_only = variant.options.get("static_only") is True
        if self._static_only and not self._static:
            raise TrustError(f"variant {variant.name}: static_only needs static_tokens")
        self._multiple = whole_number(variant, "pad_multiple", 1, least=1)
        self._limit = whole_number(variant, "max_tokens", 0, least=0)
        # A plan of fixed shape takes one row.  A batch of short texts runs on it text by text if
        # the dynamic plan would give different answers.
        self._by_row = self._static_only or not mixes(variant)
        self._lock = Lock()
        first = self._static[0] if self._static else DYNAMIC
        self._plans = {first: self._plan(first)}
        self._lanes: dict[int, Lanes | None] = {}
        self.inputs, self.outputs = self._plans[first].inputs, self._plans[first].outputs

    def width(self, rows: int, tokens: int) -> int:
        """Return the smallest static length that holds the text, else a multiple."""
        fit = next((size for size in self._static if tokens <= size), 0)
        if fit and (rows == 1 or self._by_row):
            return fit
        rounded = -(-tokens // self._multiple) * self._multiple
        return max(tokens, min(rounded, self._limit)) if self._limit else rounded

    def compile_all(self) -> None:
        """Compile every plan, so that no answer waits for one."""
        with self._lock:
            for tokens in (*self._static, *([] if self._static_only else [DYNAMIC])):
                if tokens not in self._plans:
                    self._plans[tokens] = self._plan(tokens)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run arrays by name: int64 [rows, width] of texts, float32 [rows, …] of others."""
        self._compiler.refuse_after_fork()
        rows, width = _shape(feeds)
        if rows > 1 and self._by_row and width in self._static:
            return self._run_by_row(feeds)
        tokens = width if rows == 1 and width in self._static else DYNAMIC
        if self._static_only and tokens == DYNAMIC:
            raise DeviceError(f"no plan of this variant takes {width} tokens")
        with self._lock:
            if tokens not in self._plans:
                self._plans[tokens] = self._plan(tokens)
            try:
                return self._plans[tokens].run(feeds)
            except RuntimeError as exc:
                what = f"{rows}×{width} tokens" if width else f"{rows} inputs"
                raise DeviceError(f"openvino fails on {what}: {exc}") from exc

    def _run_by_row(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run each row on the plan that it has alone; side by side if there are threads for it."""
        import numpy as np

        count, tokens = _shape(feeds)
        with self._lock:
            if tokens not in self._lanes:
                self._lanes[tokens] = self._make_lanes(tokens, feeds)
            try:
                if (lanes := self._lanes[tokens]) is not None:
                    return lanes.run(feeds)
            except RuntimeError as exc:
                raise DeviceError(f"openvino fails on {count}×{tokens} tokens: {exc}") from exc
        rows = [self.run({k: v[i : i + 1] for k, v in feeds.items()}) for i in range(count)]
        return {name: np.concatenate([row[name] for row in rows]) for name in self.outputs}

    def _make_lanes(self, tokens: int, feeds: Mapping[str, Array]) -> Lanes | None:
        """Compile a plan for rows side by side; None if it would not give the same answers."""
        threads = self._compiler.config.get("INFERENCE_NUM_THREADS", 1)
        if threads == 1:
            return None
        if tokens not in self._plans:
            self._plans[tokens] = self._plan(tokens)
        config = {**self._compiler.config, "NUM_STREAMS": threads}
        lanes = Lanes(*self._compiler.compiled(tokens, config), threads)
        row = {name: array[:1] for name, array in feeds.items()}
        pairs = zip(self._plans[tokens].run(row).values(), lanes.run(row).values(), strict=True)
        return lanes if all((a == b).all() for a, b in pairs) else None

    def _plan(self, tokens: int) -> Plan:
        return Plan(*self._compiler.compiled(tokens, self._compiler.config))


def _shape(feeds: Mapping[str, Array]) -> tuple[int, int]:
    """Return the rows, and the tokens of each; 0 for what is no text."""
    if "input_ids" in feeds:
        rows, width = feeds["input_ids"].shape
        return rows, width
    return len(next(iter(feeds.values()))), 0


def providers() -> tuple[str, ...]:
    """List OpenVINO's devices; a kind may be listed more than once."""
    return tuple(name.partition(".")[0] for name in binding.core(os.getpid()).available_devices)


def open_session(
    files: Mapping[str, memoryview], variant: Variant, threads: int, cache: Path | None
) -> Session:
    """Load the one `.xml` file and its `.bin` of weights, or the cached plan made from them.

    Raises:
        DeviceError: OpenVINO cannot read or compile the graph.

    """
    compiler = Compiler(files, variant, threads, cache)
    if is_paged(variant):
        return PagedSession(compiler, variant)
    return OpenVinoSession(compiler, variant)


def _static_tokens(variant: Variant) -> tuple[int, ...]:
    found = variant.options.get("static_tokens", [])
    if not isinstance(found, list) or not all(type(size) is int and size > 0 for size in found):
        raise TrustError(
            f"variant {variant.name}: option static_tokens must be lengths, not {found!r}"
        )
    return tuple(sorted(found))
