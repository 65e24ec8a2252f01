"""Sentence similarity: the vector of a text, and how near sentences are to a source."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from vectors import POOLED, open_vectors

from edgepack_runtime import InputError, tasks
from edgepack_runtime.bundle.manifest import Tolerance
from edgepack_runtime.model.model import Model
from edgepack_runtime.tasks._likeness import LEAST_COSINE

TASK = "sentence-similarity"
SHAPE = r'a comparison is \{"source_sentence": "…", "sentences": \["…", …\]\}'


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A model of the null engine that takes the mean of its tokens' vectors."""
    return open_vectors(tmp_path, TASK, "mean")


@pytest.mark.parametrize("pooling", POOLED)
def test_a_text_gives_its_vector(pooling: str, tmp_path: Path) -> None:
    """Pooled as the model declares, one for each text of a list."""
    model = open_vectors(tmp_path, TASK, pooling)
    assert model("turn on the lights") == pytest.approx(POOLED[pooling])
    assert model(["turn on the lights"]) == [pytest.approx(POOLED[pooling])]
    assert model([]) == []


def test_a_vector_has_length_one_where_the_model_says_so(tmp_path: Path) -> None:
    """1, 2 and 3 sixths become 1, 2 and 3 divided by the root of 14."""
    model = open_vectors(tmp_path, TASK, "mean", normalize=True)
    wanted = [number / math.sqrt(14) for number in (1, 2, 3)]
    assert model("turn on the lights") == pytest.approx(wanted)


def test_an_array_instead_of_a_list(model: Model) -> None:
    """`return_tensors` holds for vectors; similarities are numbers anyway."""
    found = model("turn on", return_tensors=True)
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [0.25, 0.25, 0.5]
    asked = {"source_sentence": "turn on", "sentences": ["turn on"]}
    assert [type(number) for number in model(asked, return_tensors=True)] == [float]


# Twelfths of "turn on" 3 3 6, of "a" 4 4 4, of "turn on the lights" 2 4 6.
NEAR = [
    1.0,
    (3 + 3 + 6) * 4 / (math.sqrt(54) * math.sqrt(48)),
    (3 * 2 + 3 * 4 + 6 * 6) / (math.sqrt(54) * math.sqrt(56)),
]
ASKED = {"source_sentence": "turn on", "sentences": ["turn on", "a", "turn on the lights"]}


@pytest.mark.parametrize("normalize", [False, True])
def test_a_comparison_gives_the_cosine_to_each_sentence(tmp_path: Path, *, normalize: bool) -> None:
    """In the order of the sentences, as plain numbers; the length of a vector changes nothing."""
    model = open_vectors(tmp_path, TASK, "mean", normalize=normalize)
    found = model(ASKED)
    assert found == pytest.approx(NEAR)
    assert {type(number) for number in found} == {float}


def test_texts_and_comparisons_stand_in_one_list(model: Model) -> None:
    """Each has its own kind of answer, in its place, whatever the batches are."""
    found = model(["turn on", ASKED, "a"], batch_size=2)
    assert found[0] == [0.25, 0.25, 0.5]
    assert found[1] == pytest.approx(NEAR)
    assert found[2] == pytest.approx([1 / 3, 1 / 3, 1 / 3])


def test_sentences_may_be_any_iterable(model: Model) -> None:
    """A tuple, an array and a generator are lists of sentences."""
    for sentences in (("turn on", "a"), np.array(["turn on", "a"]), (t for t in ["turn on", "a"])):
        asked = {"source_sentence": "turn on", "sentences": sentences}
        assert model(asked) == pytest.approx(NEAR[:2])


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({}, SHAPE),
        ({"source_sentence": "a"}, SHAPE),
        ({**ASKED, "top_k": 1}, SHAPE),
        ({"source_sentence": "a", "sentences": []}, "must be a list of at least one text"),
        ({"source_sentence": "a", "sentences": "b"}, "must be a list of at least one text"),
        ({"source_sentence": "a", "sentences": 3}, "must be a list of at least one text"),
        ({"source_sentence": "a", "sentences": ["b", 3]}, "expected text, found int"),
        ({"source_sentence": ["a"], "sentences": ["b"]}, "expected text, found list"),
        (3, "expected text, found int"),
    ],
)
def test_what_is_no_comparison_is_refused(wrong: object, message: str, model: Model) -> None:
    """The error shows what one looks like, alone or in a list."""
    for inputs in (wrong, ["turn on", wrong]):
        with pytest.raises(InputError, match=message):
            model(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"return_tensors": "pt"}, "return_tensors must be bool, not 'pt'"),
        ({"pooling": True}, "sentence-similarity has no option 'pooling'"),
        ({"on_long": "split"}, "on_long must be one of warn, cut, error"),
    ],
)
def test_a_senseless_option_is_refused(
    options: dict[str, object], message: str, model: Model
) -> None:
    """The error names the option and what it may be."""
    with pytest.raises(InputError, match=message):
        model("turn on", **options)


def test_long_sentences_are_counted_one_by_one(model: Model) -> None:
    """Of the source and its three sentences one is too long, and the error says so."""
    asked = {"source_sentence": "a", "sentences": ["turn on " * 20, "a", "on"]}
    with pytest.raises(InputError, match="1 of 4 texts are longer than 16 tokens"):
        model(asked, on_long="error")


def test_vectors_are_compared_and_decide_nothing(model: Model) -> None:
    """The mean cosine stands for agreement."""
    (vector,) = model.outputs(["turn on"])
    assert vector.tolist() == [0.25, 0.25, 0.5]
    one, other = np.array([3.0, 4.0]), np.array([4.0, 3.0])
    found = model.compare([vector, one], [vector, other])
    assert found.cosine == pytest.approx(24 / 25)
    assert found.agreement == found.mean_cosine == pytest.approx(49 / 50)


def test_a_variant_keeps_near_its_model_whatever_it_tolerates() -> None:
    """Vectors have a least cosine; a stricter tolerance stays."""
    rules = tasks.find(TASK)
    assert rules.least(Tolerance(-1.0, 0.0)) == Tolerance(LEAST_COSINE, 0.0)
    assert rules.least(Tolerance(0.9, 0.8)) == Tolerance(0.9, 0.8)
