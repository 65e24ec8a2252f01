"""Feature extraction: a vector for each token, or one for a text.

The rules are those of `FeatureExtractionPipeline` of transformers; pooling is ours.
"""

from __future__ import annotations

import logging
import math
from pathlib import Path

import numpy as np
import pytest
from vectors import POOLED, open_vectors

from edgepack_runtime import InputError, tasks
from edgepack_runtime.bundle.manifest import Tolerance
from edgepack_runtime.model.model import Model
from edgepack_runtime.tasks._likeness import LEAST_COSINE

TASK = "feature-extraction"
TURN_ON = [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [0.0, 0.0, 1.0], [1.0, 0.0, 0.0]]  # ids 2 4 5 3
A = [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0], [1.0, 0.0, 0.0]]  # ids 2 10 3


@pytest.fixture
def model(tmp_path: Path) -> Model:
    """A model of the null engine that declares no pooling."""
    return open_vectors(tmp_path, TASK)


def test_a_text_gives_the_vectors_of_its_tokens(model: Model) -> None:
    """Lists of [1, tokens, width], special tokens included, without padding."""
    assert model("turn on") == [TURN_ON]
    assert model(["turn on", "a"]) == [[TURN_ON], [A]]
    assert model(["a", "turn on", "a"], batch_size=3) == [[A], [TURN_ON], [A]]
    assert model([]) == []


def test_arrays_instead_of_lists(model: Model) -> None:
    """`return_tensors` gives arrays of the same shape, pooled ones too."""
    found = model("turn on", return_tensors=True)
    assert isinstance(found, np.ndarray)
    assert found.tolist() == [TURN_ON]
    (pooled,) = model(["turn on"], return_tensors=True, pooling=True)
    assert pooled.shape == (3,)


@pytest.mark.parametrize("pooling", POOLED)
def test_a_text_is_pooled_as_the_model_declares(pooling: str, tmp_path: Path) -> None:
    """The mean, the first or the greatest of its tokens' vectors; the mean if it says nothing."""
    model = open_vectors(tmp_path, TASK, pooling)
    assert model("turn on the lights", pooling=True) == pytest.approx(POOLED[pooling])
    both = model(["turn on the lights"] * 2, pooling=True)
    assert both == [pytest.approx(POOLED[pooling])] * 2
    assert model("turn on") == [TURN_ON]  # whatever is declared, tokens are not pooled unasked


def test_a_pooled_vector_has_length_one_where_the_model_says_so(tmp_path: Path) -> None:
    """1, 2 and 3 sixths become 1, 2 and 3 divided by the root of 14; tokens stay as they are."""
    model = open_vectors(tmp_path, TASK, "mean", normalize=True)
    wanted = [number / math.sqrt(14) for number in (1, 2, 3)]
    assert model("turn on the lights", pooling=True) == pytest.approx(wanted)
    assert model("turn on") == [TURN_ON]


def test_a_long_text_is_cut_with_a_warning(model: Model, caplog: pytest.LogCaptureFixture) -> None:
    """Sixteen tokens are read, or as many as are asked for; to refuse it is an option."""
    text = "turn on " * 20
    with caplog.at_level(logging.WARNING):
        assert len(model(text)[0]) == 16
    assert "1 of 1 texts are longer than 16 tokens" in caplog.text
    assert model(text, max_length=4) == [TURN_ON]
    with pytest.raises(InputError, match="longer than 16 tokens; shorten them"):
        model(text, on_long="error")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"pooling": "mean"}, "pooling must be bool, not 'mean'"),
        ({"return_tensors": "pt"}, "return_tensors must be bool, not 'pt'"),
        ({"top_k": 1}, "feature-extraction has no option 'top_k'"),
        ({"max_length": 17}, "max_length must be from 3 to 16 tokens"),
    ],
)
def test_a_senseless_option_is_refused(
    options: dict[str, object], message: str, model: Model
) -> None:
    """The error names the option and what it may be."""
    with pytest.raises(InputError, match=message):
        model("turn on", **options)


@pytest.mark.parametrize("wrong", [3, None, {"text": "a"}, [["a"]]])
def test_what_is_no_text_is_refused(wrong: object, model: Model) -> None:
    """There are no pairs and no lists of words here."""
    with pytest.raises(InputError, match="expected text, found"):
        model(wrong)


def test_vectors_are_compared_pooled_and_decide_nothing(tmp_path: Path) -> None:
    """What is compared is one vector for a text; the mean cosine stands for agreement."""
    model = open_vectors(tmp_path, TASK, "cls")
    (vector,) = model.outputs(["turn on the lights"])
    assert vector.tolist() == [0.0, 0.0, 1.0]
    found = model.compare([vector, vector], [vector * 5, np.array([0.0, 3.0, 4.0])])
    assert found.cosine == pytest.approx(0.8)
    assert found.agreement == found.mean_cosine == pytest.approx(0.9)


def test_a_variant_keeps_near_its_model_whatever_it_tolerates() -> None:
    """Vectors have a least cosine; a stricter tolerance stays."""
    rules = tasks.find(TASK)
    assert rules.least(Tolerance(-1.0, 0.0)) == Tolerance(LEAST_COSINE, 0.0)
    assert rules.least(Tolerance(0.9, 0.8)) == Tolerance(0.9, 0.8)
