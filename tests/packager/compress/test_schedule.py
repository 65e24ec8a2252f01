"""What a recipe without numbers does: length, rate and precision."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any

from edgepack.compress import rates
from edgepack.compress.job import Job
from edgepack.compress.schedule import Course, Facts, Schedule, choose

if TYPE_CHECKING:
    import pytest

MINILM = Facts(rows=15_000, held=750, tokens=12.0, width=384, weights=10_800_000, student=False)


def test_what_a_recipe_says_is_not_chosen() -> None:
    """Numbers win over the rules, and a given length is neither held out for nor stopped early."""
    given = Schedule(epochs=2.0, learning_rate=1e-5, batch_size=7, precision="float32")
    course = choose(given, MINILM)
    assert (course.epochs, course.learning_rate, course.batch_size) == (2.0, 1e-5, 7)
    assert course.patience == 0
    assert not given.holds_out
    assert Schedule().holds_out


def test_the_rate_falls_with_the_width_of_a_model() -> None:
    """MiniLM, BERT-base and BERT-large get the rates that such encoders are known to bear."""
    found = [choose(Schedule(), replace(MINILM, width=w)).learning_rate for w in (384, 768, 1024)]
    assert found == [2e-4, 5e-5, 2.8e-5]
    assert choose(Schedule(), replace(MINILM, width=8)).learning_rate == 1e-3
    assert choose(Schedule(), replace(MINILM, student=True)).learning_rate == 5e-4


def test_few_rows_are_read_more_often_and_in_smaller_steps() -> None:
    """There are enough steps to learn in, whatever the size of the data."""
    for rows in (20, 200, 2000, 15_000, 200_000):
        course = choose(Schedule(), replace(MINILM, rows=rows))
        assert rows * course.epochs / course.batch_size >= min(300, rows * 40 / 8)
        assert 2 <= course.epochs <= 40


def test_the_length_is_bounded_by_counted_time() -> None:
    """Half the minutes are half the epochs; no clock is read, and the course says so."""
    large = replace(MINILM, weights=85_000_000, width=768, tokens=40.0, rows=10_000)
    long, short = (choose(Schedule(max_minutes=m), large) for m in (60.0, 30.0))
    assert long.epochs == 2 * short.epochs + 1
    assert short.bounded
    assert not choose(Schedule(), MINILM).bounded


def test_bfloat16_is_chosen_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A CPU without it, or a model too narrow to gain, trains in float32."""
    import torch

    for native, width, wanted in (
        (True, 384, "bfloat16"),
        (False, 384, "float32"),
        (True, 32, "float32"),
    ):
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda n=native: {"avx512_bf16": n}, raising=False
        )
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert choose(Schedule(), replace(MINILM, width=width)).precision == wanted


class _Line:
    """A model of one weight that a large learning rate throws off."""

    def __init__(self) -> None:
        import torch

        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)

    def job(self) -> Job:
        """Return the job of learning y = x."""
        import torch

        def loss(model: Any, batch: dict[str, Any]) -> Any:
            return ((model(batch["x"]) - batch["x"]) ** 2).mean()

        return Job(
            self.model,
            [1] * 40,
            list(range(30)),
            lambda rows: {"x": torch.ones(len(rows), 1)},
            loss,
            held=list(range(30, 40)),
        )


def test_a_rate_that_does_harm_is_lowered() -> None:
    """A short trial finds a smaller rate better; the model is as before, and a good rate stays."""
    line = _Line()
    course = Course(1.0, 30.0, 8, "float32", 0)
    tried = rates.settle(line.job(), course, list(range(30)))
    assert rates.best(tried) < 30.0
    assert float(line.model.weight.detach()) == 0.0
    kept = rates.settle(line.job(), replace(course, learning_rate=0.1), list(range(30)))
    assert rates.best(kept) == 0.1
