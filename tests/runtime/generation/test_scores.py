"""Scores and draws are those of transformers' own processors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from edgepack_runtime import InputError
from edgepack_runtime.generation.scores import Chooser, draw
from edgepack_runtime.generation.settings import Asked, Settings, settle

VOCABULARY = 60
PROMPT = [5, 9, 5, 9, 7, 5]
DRAWS = 20_000
HOW: list[dict[str, Any]] = [
    {"temperature": 0.7, "top_k": 0},
    {"top_k": 5},
    {"top_k": 0, "top_p": 0.8},
    {"top_k": 0, "min_p": 0.1},
    {"top_k": 0, "typical_p": 0.6},
    {"top_k": 0, "repetition_penalty": 1.7},
    {"top_k": 0, "no_repeat_ngram_size": 2},
    {
        "temperature": 1.4,
        "top_k": 30,
        "top_p": 0.9,
        "min_p": 0.02,
        "typical_p": 0.9,
        "repetition_penalty": 1.2,
        "no_repeat_ngram_size": 3,
    },
]


def _theirs(how: dict[str, Any], logits: Any) -> Any:
    """Return the scores that transformers would draw from."""
    import torch
    from transformers.generation import logits_process as theirs

    made = [
        ("repetition_penalty", theirs.RepetitionPenaltyLogitsProcessor),
        ("no_repeat_ngram_size", theirs.NoRepeatNGramLogitsProcessor),
        ("temperature", theirs.TemperatureLogitsWarper),
        ("top_k", theirs.TopKLogitsWarper),
        ("top_p", theirs.TopPLogitsWarper),
        ("min_p", theirs.MinPLogitsWarper),
        ("typical_p", theirs.TypicalLogitsWarper),
    ]
    scores, ids = torch.from_numpy(logits[None]), torch.tensor([PROMPT])
    for name, kind in made:
        if how.get(name):
            scores = kind(how[name])(ids, scores)
    return scores[0].numpy()


@pytest.mark.parametrize("how", HOW, ids="+".join)
@pytest.mark.parametrize("seed", range(5))
def test_scores_equal_those_of_transformers(how: dict[str, Any], seed: int) -> None:
    """Each processor alone, and all in their order, leave the same tokens with the same scores."""
    logits = np.random.default_rng(seed).normal(scale=3, size=VOCABULARY).astype(np.float32)
    chooser = Chooser(Settings(do_sample=True, **how), PROMPT, [0])
    ours, theirs = chooser.processed(logits), _theirs(how, logits)
    assert (np.isfinite(ours) == np.isfinite(theirs)).all()
    kept = np.isfinite(ours)
    assert np.allclose(ours[kept], theirs[kept], atol=1e-5)


def test_ties_with_the_last_of_the_best_stay() -> None:
    """As in transformers, a token that is as good as the last one is not left out by chance."""
    logits = np.array([1.0, 3.0, 2.0, 2.0, 0.0], dtype=np.float32)
    scores = Chooser(Settings(do_sample=True, top_k=2), [], []).processed(logits)
    assert np.isfinite(scores).tolist() == [False, True, True, True, False]


@pytest.mark.parametrize("how", HOW, ids="+".join)
def test_draws_follow_the_distribution(how: dict[str, Any]) -> None:
    """20,000 draws pass a chi-squared test against the probabilities of transformers' scores."""
    from scipy.stats import chisquare

    logits = np.random.default_rng(3).normal(scale=1, size=VOCABULARY).astype(np.float32)
    scores = Chooser(Settings(do_sample=True, **how), PROMPT, [0]).processed(logits)
    wanted = np.exp(_theirs(how, logits).astype(np.float64))
    wanted *= DRAWS / wanted.sum()
    rng = np.random.default_rng(0)
    found = np.bincount([draw(scores, rng) for _ in range(DRAWS)], minlength=VOCABULARY)
    assert not found[wanted == 0].any()
    often = wanted >= 5
    rest = [found[~often].sum()], [wanted[~often].sum()]
    observed = np.concatenate([found[often], rest[0]])
    expected = np.concatenate([wanted[often], rest[1]])
    inside = expected > 0
    assert chisquare(observed[inside], expected[inside]).pvalue > 1e-3


def test_presence_and_frequency_count_what_was_written() -> None:
    """The prompt does not count; each time a token was written does."""
    settings = Settings(presence_penalty=0.5, frequency_penalty=0.25)
    chooser = Chooser(settings, PROMPT, [])
    first = np.zeros(VOCABULARY, np.float32)
    first[4] = 1.0
    assert [chooser.choose(first), chooser.choose(first)] == [4, 4]
    assert chooser.processed(first)[4] == pytest.approx(1.0 - 0.5 - 2 * 0.25)
    assert chooser.processed(first)[5] == 0.0


def test_a_text_does_not_end_before_its_least_length() -> None:
    """Tokens that end it are not to be had until then."""
    logits = np.array([9.0, 1.0, 0.0], np.float32)
    chooser = Chooser(Settings(min_new_tokens=2), [], eos=[0])
    assert [chooser.choose(logits) for _ in range(3)] == [1, 1, 0]


def test_what_a_call_says_wins_over_what_the_model_declares() -> None:
    """And a sampling option asks for draws, unless the call forbids them."""
    declared = {"temperature": 0.6, "do_sample": True, "pad_token_id": 3, "top_p": None}
    assert settle(Asked(), declared, Settings) == Settings(temperature=0.6, do_sample=True)
    assert settle(Asked(do_sample=False), declared, Settings).do_sample is False
    assert settle(Asked(temperature=2), declared, Settings).temperature == 2
    assert settle(Asked(top_k=7), {}, Settings) == Settings(do_sample=True, top_k=7)
    assert settle(Asked(stop="end"), {}, Settings).stop == ("end",)


@pytest.mark.parametrize(
    "asked",
    [
        {"temperature": 0},
        {"top_p": 0},
        {"min_p": 2},
        {"max_new_tokens": 0},
        {"top_k": -1},
        {"typical_p": 1.1},
        {"repetition_penalty": 0},
        {"stop": [""]},
        {"max_time": -1},
        {"seed": 1, "do_sample": False},
    ],
)
def test_settings_that_mean_nothing_are_refused(asked: dict[str, Any]) -> None:
    """Each by one error that names it."""
    with pytest.raises(InputError, match=next(iter(asked))):
        settle(Asked(**asked), {}, Settings)
