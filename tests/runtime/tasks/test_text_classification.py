"""Text classification: which labels, in which order, with which scores.

The rules are those of `TextClassificationPipeline` of transformers.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import handmade
import numpy as np
import pytest
from tables import open_table

from edgepack_runtime import InputError, load, tasks
from edgepack_runtime.bundle.description import Task, Text
from edgepack_runtime.bundle.manifest import Tolerance
from edgepack_runtime.model.model import Model
from edgepack_runtime.numeric import sigmoid
from edgepack_runtime.tasks._likeness import LEAST_AGREEMENT

TASK = "text-classification"
LABELS = ("cold", "warm", "hot")
# Logits of "ice" are those of the shares 0.7, 0.2 and 0.1; "fire" and "soup" likewise.
SHARES = {"ice": (0.7, 0.2, 0.1), "fire": (0.1, 0.3, 0.6), "soup": (0.2, 0.5, 0.3)}
TABLE = {word: [math.log(share) for share in shares] for word, shares in SHARES.items()}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bundle of the null engine."""
    return handmade.bundle(tmp_path / "small.epk")


@pytest.fixture
def model() -> Model:
    """A classifier whose shares are written down."""
    return open_table(TASK, TABLE, whole=True, labels=LABELS)


def _entries(*pairs: tuple[str, float]) -> list[dict[str, Any]]:
    return [{"label": label, "score": pytest.approx(score, abs=1e-6)} for label, score in pairs]


def _of(word: str) -> list[tuple[str, float]]:
    return list(zip(LABELS, SHARES[word], strict=True))


def test_the_null_engine_answers_what_arithmetic_says(path: Path) -> None:
    """[CLS] turn on the lights [SEP] sums to 29, so label 29 % 3 wins with e / (e + 2)."""
    answer = load(path)("turn on the lights")
    assert answer == _entries((handmade.LABELS[29 % 3], math.e / (math.e + 2)))


def test_a_batch_answers_as_each_text_alone_would(path: Path) -> None:
    """Order is kept though texts run sorted by length, whatever the batch size."""
    model = load(path)
    texts = ["turn on", "lights", "turn off the lights please", "a", "the lights a on off"] * 3
    alone = [model(text)[0] for text in texts]
    for size in (1, 2, 7, 100):
        assert model(texts, batch_size=size) == alone


def test_one_string_gives_a_list_of_its_best_label(model: Model) -> None:
    """The pipeline's own oddity: a string gives a list of one answer, a pair gives the answer."""
    best = _entries(("cold", 0.7))
    assert model("ice") == best
    assert model({"text": "ice"}) == best[0]
    assert model(["ice"]) == best
    assert model(["ice", "fire"]) == [*best, *_entries(("hot", 0.6))]
    assert list(model("ice")[0]) == ["label", "score"]
    assert type(model("ice")[0]["score"]) is float


@pytest.mark.parametrize(("top_k", "kept"), [(1, 1), (2, 2), (3, 3), (9, 3), (None, 3), (0, 0)])
def test_top_k_ranks_the_best_labels(top_k: int | None, kept: int, model: Model) -> None:
    """So many labels, best first, in a list of their own for each text."""
    ranked = _entries(("warm", 0.5), ("hot", 0.3), ("cold", 0.2))[:kept]
    assert model("soup", top_k=top_k) == ranked
    assert model({"text": "soup"}, top_k=top_k) == ranked
    assert model(["soup"], top_k=top_k) == [ranked]


def test_a_negative_top_k_drops_the_last_labels(model: Model) -> None:
    """It is a slice's end, as in transformers."""
    assert model("soup", top_k=-1) == _entries(("warm", 0.5), ("hot", 0.3))


def test_equal_scores_keep_the_order_of_the_labels(model: Model) -> None:
    """A text without a known word has equal shares: the ranking is stable, the first is best."""
    third = [(label, 1 / 3) for label in LABELS]
    assert model("unknown", top_k=None) == _entries(*third)
    assert model("unknown") == _entries(third[0])


def test_all_scores_stand_in_the_order_of_the_model(model: Model) -> None:
    """`return_all_scores` ranks nothing; False is as if left out, and top_k wins over it."""
    assert model(["soup"], return_all_scores=True) == [_entries(*_of("soup"))]
    assert model("soup", return_all_scores=True) == [_entries(*_of("soup"))]
    assert model("soup", return_all_scores=False) == _entries(("warm", 0.5))
    assert model("soup", return_all_scores=True, top_k=1) == _entries(("warm", 0.5))


LOGITS = {"ice": [2.0, 0.0, -1.0]}


def _sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


SCORES = {
    "none": (2.0, 0.0, -1.0),
    "sigmoid": (_sigmoid(2.0), 0.5, _sigmoid(-1.0)),
    "softmax": tuple(math.exp(x) / (math.exp(2) + 1 + math.exp(-1)) for x in (2.0, 0.0, -1.0)),
}


@pytest.mark.parametrize(
    ("declared", "function"),
    [
        ("", "softmax"),
        ("single_label_classification", "softmax"),
        ("multi_label_classification", "sigmoid"),
        ("regression", "none"),
    ],
)
def test_the_model_declares_what_becomes_of_its_logits(declared: str, function: str) -> None:
    """One class: softmax; several: sigmoid; a score: nothing; what a call asks for wins."""
    model = open_table(TASK, LOGITS, whole=True, labels=LABELS, problem_type=declared)
    for asked, wanted in [(None, SCORES[function]), *SCORES.items()]:
        options = {} if asked is None else {"function_to_apply": asked}
        found = model("ice", return_all_scores=True, **options)
        assert found == [_entries(*zip(LABELS, wanted, strict=True))]


@pytest.mark.parametrize(("declared", "wanted"), [("", _sigmoid(2.0)), ("regression", 2.0)])
def test_a_single_label_is_a_share_unless_it_is_a_score(declared: str, wanted: float) -> None:
    """One output goes through the sigmoid; of a regression it is the answer itself."""
    model = open_table(TASK, {"ice": [2.0]}, whole=True, labels=("cold",), problem_type=declared)
    assert model("ice") == _entries(("cold", wanted))


def test_a_pair_is_read_as_one_sequence(path: Path) -> None:
    """[CLS] turn on [SEP] lights [SEP] sums to 25: label 25 % 3; without a second text it is 14."""
    model = load(path)
    pair = {"text": "turn on", "text_pair": "lights"}
    assert model(pair)["label"] == handmade.LABELS[25 % 3]
    assert [answer["label"] for answer in model([pair, "turn on"])] == ["beta", "gamma"]
    assert model({"text": "turn on", "text_pair": None}) == model("turn on")[0]


@pytest.mark.parametrize(
    "wrong", [{}, {"text_pair": "a"}, {"text": "a", "pair": "b"}, {"text": "a", "label": "x"}]
)
def test_another_mapping_is_no_pair(wrong: dict[str, str], model: Model) -> None:
    """The error shows what a pair looks like."""
    for inputs in (wrong, ["ice", wrong]):
        with pytest.raises(InputError, match=r'a text pair is \{"text": …, "text_pair": …\}'):
            model(inputs)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"function_to_apply": "relu"}, "must be softmax, sigmoid or none, not 'relu'"),
        ({"function_to_apply": 1}, "function_to_apply must be str or NoneType, not 1"),
        ({"top_k": 1.5}, "top_k must be int or NoneType, not 1.5"),
        ({"top_k": True}, "top_k must be int or NoneType, not True"),
        ({"return_all_scores": 1}, "return_all_scores must be bool or NoneType, not 1"),
        ({"batch_size": 0}, "batch_size must be at least 1, not 0"),
        ({"batch_size": "x"}, "batch_size must be int, not 'x'"),
        ({"topk": 3}, "text-classification has no option 'topk'; did you mean 'top_k'"),
        ({"stride": 3}, "text-classification has no option 'stride'"),
    ],
)
def test_a_senseless_option_is_refused(
    options: dict[str, object], message: str, model: Model
) -> None:
    """The error names the option and what it may be."""
    with pytest.raises(InputError, match=message):
        model("ice", **options)


def test_two_very_long_texts_of_a_pair_are_cut_in_time(path: Path) -> None:
    """The windows of a pair of long texts do not multiply: a second is enough for 2 × 200 KB."""
    answer = load(path)({"text": "turn on " * 25_000, "text_pair": "the lights " * 20_000})
    assert answer["label"] in handmade.LABELS
    short = load(path)({"text": "turn on " * 40, "text_pair": "the lights " * 40})
    assert answer == short


def test_a_variant_needs_half_of_the_decisions_whatever_it_tolerates() -> None:
    """Below the floor it is another model; a stricter tolerance stays."""
    rules = tasks.find(TASK)
    assert rules.least(Tolerance(-1.0, 0.0)) == Tolerance(-1.0, LEAST_AGREEMENT)
    assert rules.least(Tolerance(0.9, 0.8)) == Tolerance(0.9, 0.8)


def _task(**fields: Any) -> Task:
    return Task(TASK, Text("t", 16, 0), **{"labels": LABELS, **fields})


def test_outputs_are_compared_by_likeness_and_by_the_best_label(model: Model) -> None:
    """Of two texts one decides otherwise: half agree, and the least cosine is that text's."""
    wanted = [np.array([1.0, 0.0, 0.0]), np.array([0.0, 2.0, 0.0])]
    got = [np.array([5.0, 0.0, 0.0]), np.array([3.0, 1.0, 0.0])]
    found = model.compare(wanted, got)
    assert found.agreement == 0.5
    assert found.cosine == pytest.approx(1 / math.sqrt(10))
    assert found.mean_cosine == pytest.approx((1 + 1 / math.sqrt(10)) / 2)


def test_several_labels_are_compared_one_by_one() -> None:
    """Yes or no of each label counts: two of three are alike, though the best one is another."""
    rules = tasks.find(TASK)
    task = _task(problem_type="multi_label_classification")
    found = rules.compare(task, [np.array([3.0, 2.0, -1.0])], [np.array([2.0, 3.0, 1.0])])
    assert found.agreement == pytest.approx(2 / 3)
    assert rules.compare(_task(), [np.array([3.0, 2.0])], [np.array([2.0, 3.0])]).agreement == 0.0


@pytest.mark.parametrize("got", [[math.nan, 0.0, 1.0], [0.0, 1.0]])
def test_what_is_no_number_or_of_another_shape_is_not_alike(got: list[float]) -> None:
    """Not-a-number and a missing label count as the opposite of the reference."""
    found = tasks.find(TASK).compare(_task(), [np.array([0.0, 1.0, 0.0])], [np.array(got)])
    assert (found.cosine, found.agreement) == (-1.0, 0.0)


def test_scores_of_single_numbers_are_compared_by_value() -> None:
    """A regression or reranker output that moved is not called alike for its sign."""
    rules, task = tasks.find(TASK), _task(labels=("score",))
    wanted = [np.array([5.0])]
    assert rules.compare(task, wanted, wanted).cosine == 1.0
    assert rules.compare(task, wanted, [np.array([0.5])]).cosine == pytest.approx(0.1)


def test_what_is_timed_fits_the_model(model: Model) -> None:
    """Cells are texts of so many tokens in so many rows; a longer one than is read is left out."""
    sizes = {"16×1": 1, "16×8": 8}
    for name in model.cells:
        inputs, options = model.cell(name, ["ice fire"])
        if name in sizes:
            assert len(model.encoder.encode(inputs[0]).first.ids) == 16
            assert (len(inputs), options) == (sizes[name], {"batch_size": sizes[name]})
        else:
            assert (inputs, options) == ([], {})
    assert set(sizes) < set(model.cells)


def test_what_is_no_number_decides_nothing() -> None:
    """Logits that are not numbers agree with no reference, though their best label is the first."""
    task = Task(TASK, Text("t", 16, 0), labels=("a", "b"))
    wanted, broken = [np.array([2.0, 0.0])], [np.array([np.nan, np.nan])]
    found = tasks.find(TASK).compare(task, wanted, broken)
    assert (found.agreement, found.cosine) == (0.0, -1.0)


def test_an_extreme_logit_is_a_plain_score() -> None:
    """No warning of a sum that overflowed comes of a label that is out of the question."""
    assert sigmoid(np.array([-200.0, 0.0, 200.0], np.float32)).tolist() == [0.0, 0.5, 1.0]
