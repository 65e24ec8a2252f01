"""What a call may hold: options as transformers has them, iterables, and odd inputs."""

from __future__ import annotations

import copy
import logging
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import handmade
import numpy as np
import pytest

from edgepack_runtime import InputError, load
from edgepack_runtime.model.model import Model

LONG = "turn on the lights please " * 9


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A classifier of the null engine, for texts of 16 tokens."""
    return load(handmade.bundle(tmp_path / "small.epk"))


class _Column:
    """A table's column as pandas has it: iterable, one dimension, no sequence."""

    ndim = 1

    def __init__(self, *items: object) -> None:
        self._items = items

    def __iter__(self) -> Any:
        return iter(self._items)


TEXTS = ["turn on", "the lights", "a"]


@pytest.mark.parametrize(
    "make",
    [
        tuple,
        iter,
        lambda texts: (text for text in texts),
        np.array,
        lambda texts: _Column(*texts),
        lambda texts: dict.fromkeys(texts).keys(),
    ],
)
def test_any_iterable_of_texts_is_a_list(make: Callable[[list[str]], Any], model: Model) -> None:
    """A tuple, a generator, an array and a column answer as a list does."""
    assert model(make(TEXTS)) == model(TEXTS)


@pytest.mark.parametrize(
    "wrong", [np.array([["a", "b"]]), np.array("a"), _Column("a", float("nan"))]
)
def test_tables_and_missing_texts_are_refused(wrong: object, model: Model) -> None:
    """An array of two dimensions or of none, and a column with a hole, are no texts."""
    with pytest.raises(InputError, match="expected text"):
        model(wrong)


@pytest.mark.parametrize("options", [{"truncation": True}, {"max_length": 8}, {"on_long": "cut"}])
def test_who_asks_for_truncation_is_not_warned(
    options: dict[str, Any], model: Model, caplog: pytest.LogCaptureFixture
) -> None:
    """A text is cut to the length that was asked for, or the model's, and the log is silent."""
    answer = model(LONG, **options)
    words = LONG.split()[: options.get("max_length", 16) - 2]
    assert answer == model(" ".join(words))
    assert not caplog.records


def test_a_length_holds_for_one_call_only(model: Model) -> None:
    """The next call reads as far as the model can."""
    before = model(LONG, top_k=None)
    model(LONG, max_length=5)
    assert model(LONG, top_k=None) == before


def test_a_long_text_may_be_an_error(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """`on_long="error"` refuses what would be cut, each time, and nothing else."""
    for _ in range(2):
        with caplog.at_level(logging.WARNING), pytest.raises(InputError, match="1 of 2 texts"):
            model(["turn on", LONG], on_long="error")
    assert not caplog.records
    assert model("turn on", on_long="error")


@pytest.mark.parametrize("padding", [True, False, "longest", "max_length", "do_not_pad"])
def test_padding_is_taken_and_changes_nothing(padding: object, model: Model) -> None:
    """An answer does not depend on padding, so that every kind of it is right."""
    assert model(TEXTS, padding=padding) == model(TEXTS)


@pytest.mark.parametrize(
    ("options", "remedy"),
    [
        ({"truncation": False}, "on_long='error'"),
        ({"truncation": "only_second"}, "on_long"),
        ({"max_length": 17}, "from 3 to 16 tokens.*model.max_length"),
        ({"max_length": 0}, "from 3 to 16"),
        ({"padding": "wide"}, "leave it out"),
        ({"on_long": "split"}, "warn, cut, error"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_remedy(
    options: dict[str, Any], remedy: str, model: Model
) -> None:
    """An option that asks for something else than happens is an error that says what helps."""
    with pytest.raises(InputError, match=remedy):
        model("turn on", **options)


@pytest.mark.parametrize(
    "wrong", [{"text": ["turn", "on"]}, ["turn on", ["the"]], {"text": "a", "text_pair": ["b"]}]
)
def test_a_list_of_words_is_no_text(wrong: object, model: Model) -> None:
    """Only token classification takes words, and only when it is told to."""
    with pytest.raises(InputError, match="expected text, found list"):
        model(wrong)


@pytest.mark.parametrize("threads", [0, -1, 9999, "2", True, 1.0])
def test_a_senseless_number_of_threads_is_refused(threads: Any, tmp_path: Path) -> None:
    """Zero, thousands, texts and truth values are one clear error before anything is loaded."""
    path = handmade.bundle(tmp_path / "small.epk")
    with pytest.raises(
        InputError, match=r"threads must be a whole number from 1 to .*leave it out"
    ):
        load(path, threads=threads)


def test_a_closed_model_says_so(tmp_path: Path) -> None:
    """A model is open inside its `with` and refuses calls after it, whatever takes over."""
    path = handmade.bundle(tmp_path / "small.epk")
    with load(path) as model:
        assert model("turn on")
    model.take_over(load(path))
    for call in (lambda: model("turn on"), lambda: model.outputs(["turn on"]), model.compile_all):
        with pytest.raises(InputError, match="was closed; load it again"):
            call()


@pytest.mark.parametrize("copied", [pickle.dumps, copy.copy, copy.deepcopy])
def test_a_model_is_not_copied(copied: Callable[[Model], object], model: Model) -> None:
    """Pickling or copying a model is one error that says to pass the path."""
    with pytest.raises(InputError, match="pass the path of its bundle"):
        copied(model)
