"""One model takes over from another while calls run."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from itertools import cycle
from pathlib import Path
from random import Random
from types import FrameType
from typing import Any

import handmade
import pytest

from edgepack_runtime import load, tasks
from edgepack_runtime import model as models
from edgepack_runtime.engines.null import NullSession
from edgepack_runtime.inputs import Inputs
from edgepack_runtime.model.model import Model
from edgepack_runtime.tasks import Opened

FOLDERS = tuple(str(Path(str(package.__file__)).parent) for package in (models, tasks))
TEXTS = ["turn on", "the lights", "turn off", "the a"]


class _Compiled(NullSession):
    """A graph that was compiled for so many rows, as its variant's `max_rows` says."""

    def __init__(self, rows: int) -> None:
        super().__init__(rank=2, size=len(handmade.LABELS))
        self.provider = str(rows)
        self.placement = {self.provider: rows}
        self._rows = rows
        self.runs = self.wrong = 0

    def run(self, feeds: Mapping[str, Any]) -> dict[str, Any]:
        """Count the runs, and those of another number of rows."""
        self.runs += 1
        self.wrong += len(feeds["input_ids"]) != self._rows
        return super().run(feeds)


def _model(plain: Model, rows: int) -> tuple[Model, _Compiled]:
    variant = replace(plain.variant, name=str(rows), options={"max_rows": rows})
    session = _Compiled(rows)
    return Model(Opened(plain.task, variant, {"model": session}, Inputs(plain.encoder))), session


@contextmanager
def _between_steps(act: Callable[[], object]) -> Iterator[None]:
    """Do what another thread may do between any two steps of the model's code in this one."""

    def trace(frame: FrameType, event: str, _: object) -> Any:
        if not frame.f_code.co_filename.startswith(FOLDERS):
            return None
        frame.f_trace_opcodes = True
        if event == "opcode":
            act()  # itself not traced
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)


@pytest.mark.parametrize("interrupted", ["call", "take_over"])
def test_no_call_sees_the_session_of_one_variant_and_the_rules_of_another(
    interrupted: str, tmp_path: Path
) -> None:
    """At whichever step one model takes over from another, every run has its own variant's rows."""
    plain = load(handmade.bundle(tmp_path / "small.epk"))
    (one, first), (two, second) = _model(plain, 1), _model(plain, 2)
    turns = Random(0)  # noqa: S311 (no secret); at every step by lot, so that no number of steps hides a swap

    def swap() -> None:
        plain.take_over(turns.choice((one, two)))

    def call() -> None:
        plain(TEXTS)

    swap()
    work, between = (call, swap) if interrupted == "call" else (swap, call)
    with _between_steps(between):
        for _ in range(8):
            work()
    assert first.runs
    assert second.runs
    assert first.wrong == second.wrong == 0


def test_a_call_of_many_runs_ends_with_the_session_it_began_with(tmp_path: Path) -> None:
    """`outputs`, which runs text by text, does not change models between two of them."""
    plain = load(handmade.bundle(tmp_path / "small.epk"))
    (one, first), (two, second) = _model(plain, 1), _model(plain, 1)
    turns = cycle((two, one))
    plain.take_over(one)
    with _between_steps(lambda: plain.take_over(next(turns))):
        plain.outputs(TEXTS)
    assert {first.runs, second.runs} == {0, len(TEXTS)}


def test_what_a_model_says_of_itself_is_of_what_runs(tmp_path: Path) -> None:
    """Variant, provider, placement and choice are the other model's once it took over."""
    path = handmade.bundle(tmp_path / "small.epk")
    model = load(path)
    choice = model.choice
    other, _ = _model(model, 2)
    model.take_over(other)
    assert (model.variant, model.provider) == (other.variant, "2")
    assert (model.placement, model.choice) == ({"2": 2}, choice)
    model.take_over(again := load(path))
    assert (model.variant, model.choice) == (again.variant, again.choice)
