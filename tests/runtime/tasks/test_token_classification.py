"""Token classification: tokens, and the entities that they become.

The rules are those of `TokenClassificationPipeline` of transformers.
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
from edgepack_runtime.tasks._likeness import LEAST_AGREEMENT
from edgepack_runtime.tasks.token_classification import STRATEGIES

TASK = "token-classification"
LABELS = ("O", "B-PER", "I-PER", "B-LOC", "I-LOC")


def _logits(**shares: float) -> list[float]:
    """Return logits whose softmax gives these shares, the rest spread over the other labels."""
    rest = (1 - sum(shares.values())) / (len(LABELS) - len(shares))
    named = {name.replace("_", "-"): share for name, share in shares.items()}
    return [math.log(named.get(label, rest)) for label in LABELS]


TABLE = {
    "anna": _logits(B_PER=0.8),
    "karl": _logits(B_PER=0.7),
    "berg": _logits(I_PER=0.6),
    "york": _logits(I_LOC=0.5),
    "new": _logits(B_LOC=0.9),
    "lives": _logits(O=0.9),
    "in": _logits(O=0.8),
    "os": _logits(B_LOC=0.6),
    "##lo": _logits(I_LOC=0.9),
    "[UNK]": _logits(B_PER=0.4),
}


@pytest.fixture
def ner() -> Model:
    """A token classifier of word pieces whose shares are written down."""
    return open_table(TASK, TABLE, pieces=True, labels=LABELS)


def _token(label: str, score: float, index: int, word: str, start: int) -> dict[str, Any]:
    return {
        "entity": label,
        "score": pytest.approx(score, abs=1e-6),
        "index": index,
        "word": word,
        "start": start,
        "end": start + len(word.removeprefix("##")),
    }


def _entity(kind: str, score: float, word: str, start: int, end: int) -> dict[str, Any]:
    return {
        "entity_group": kind,
        "score": pytest.approx(score, abs=1e-6),
        "word": word,
        "start": start,
        "end": end,
    }


def test_the_null_engine_answers_what_arithmetic_says(tmp_path: Path) -> None:
    """Ids 4, 5, 7 and 8 have the labels 1, 2, 1 and 2, each with a share of e / (e + 2)."""
    model = load(handmade.bundle(tmp_path / "ner.epk", task=TASK))
    found = model("turn on the lights")
    assert [entity["entity"] for entity in found] == ["beta", "gamma", "beta", "gamma"]
    assert [entity["score"] for entity in found] == pytest.approx([math.e / (math.e + 2)] * 4)


def test_each_token_is_told_as_the_pipeline_tells_it(ner: Model) -> None:
    """Word pieces keep their `##`, places are the text's, and what is outside is left out."""
    found = ner("anna lives in oslo")
    assert found == [
        _token("B-PER", 0.8, 1, "anna", 0),
        _token("B-LOC", 0.6, 4, "os", 14),
        _token("I-LOC", 0.9, 5, "##lo", 16),
    ]
    assert list(found[0]) == ["entity", "score", "index", "word", "start", "end"]
    assert type(found[0]["score"]) is float


def test_one_text_gives_a_list_and_several_a_list_of_lists(ner: Model) -> None:
    """A text without entities, or without a word, has an empty list."""
    anna = [_token("B-PER", 0.8, 1, "anna", 0)]
    assert ner(["anna", "lives", ""]) == [anna, [], []]
    assert ner(["anna"]) == [anna]
    assert ner("") == []
    assert ner([]) == []


@pytest.mark.parametrize(
    ("ignored", "kept"),
    [
        (["O"], ["anna", "os", "##lo"]),
        (("O",), ["anna", "os", "##lo"]),
        ([], ["anna", "in", "os", "##lo"]),
        (["B-PER", "I-LOC"], ["in", "os"]),
    ],
)
def test_ignored_labels_are_left_out(ignored: list[str], kept: list[str], ner: Model) -> None:
    """Those that are named, in a list or a tuple; with none every token is told."""
    assert [e["word"] for e in ner("anna in oslo", ignore_labels=ignored)] == kept


def test_ignored_labels_of_entities_are_their_kinds(ner: Model) -> None:
    """Once tokens are joined, an entity goes by its kind, without `B-` or `I-`."""
    options: dict[str, Any] = {"aggregation_strategy": "simple"}
    assert ner("anna in oslo", ignore_labels=["PER", "O"], **options) == [
        _entity("LOC", 0.75, "oslo", 8, 12)
    ]
    assert len(ner("anna in oslo", ignore_labels=["B-PER"], **options)) == 3


def test_simple_joins_neighbours_of_one_kind(ner: Model) -> None:
    """A score is the mean of its tokens'; `B-` opens an entity, and so does another kind."""
    found = ner("anna berg karl york new york", aggregation_strategy="simple")
    assert found == [
        _entity("PER", (0.8 + 0.6) / 2, "anna berg", 0, 9),
        _entity("PER", 0.7, "karl", 10, 14),
        _entity("LOC", 0.5, "york", 15, 19),
        _entity("LOC", (0.9 + 0.5) / 2, "new york", 20, 28),
    ]
    assert list(found[0]) == ["entity_group", "score", "word", "start", "end"]


def test_what_is_outside_parts_two_entities(ner: Model) -> None:
    """Though it is left out of the answer, and though the second has no `B-` of its own."""
    found = ner("anna lives berg", aggregation_strategy="simple")
    assert found == [_entity("PER", 0.8, "anna", 0, 4), _entity("PER", 0.6, "berg", 11, 15)]


def test_labels_without_a_prefix_are_joined_as_they_are(tmp_path: Path) -> None:
    """`beta beta` is one entity: a label that says neither `B-` nor `I-` continues its like."""
    model = load(handmade.bundle(tmp_path / "ner.epk", task=TASK))
    found = model("turn the on lights", aggregation_strategy="simple")
    share = math.e / (math.e + 2)
    assert found == [
        _entity("beta", share, "turn the", 0, 8),
        _entity("gamma", share, "on lights", 9, 18),
    ]


# Of one word the first piece says `hot`, the surest one says `cold`, and the mean says `warm`.
PIECES = {"te": (0.5, 0.45, 0.05), "##pid": (0.1, 0.3, 0.6)}
STATES = ("hot", "warm", "cold")


@pytest.fixture
def torn() -> Model:
    """A model whose word pieces disagree."""
    table = {word: [math.log(share) for share in shares] for word, shares in PIECES.items()}
    return open_table(TASK, table, pieces=True, labels=STATES)


@pytest.mark.parametrize(
    ("strategy", "kind", "score"),
    [("first", "hot", 0.5), ("average", "warm", (0.45 + 0.3) / 2), ("max", "cold", 0.6)],
)
def test_the_pieces_of_a_word_get_one_label(
    strategy: str, kind: str, score: float, torn: Model
) -> None:
    """That of its first piece, of its surest piece, or the best one of the means."""
    found = torn("tepid", aggregation_strategy=strategy)
    assert found == [_entity(kind, score, "tepid", 0, 5)]


def test_without_words_each_piece_has_its_own_label(torn: Model) -> None:
    """`simple` tears the word apart where its pieces disagree."""
    found = torn("tepid", aggregation_strategy="simple")
    assert found == [_entity("hot", 0.5, "te", 0, 2), _entity("cold", 0.6, "##pid", 2, 5)]


@pytest.mark.parametrize(
    ("strategy", "wanted"),
    [
        ("first", [("new", 0.9), ("oslo", 0.6)]),  # `os` says B-LOC, which opens an entity
        (
            "average",
            [("new oslo", (0.9 + (0.1 + 0.9) / 2) / 2)],
        ),  # I-LOC: 0.1 of `os`, 0.9 of `##lo`
        ("max", [("new oslo", 0.9)]),
    ],
)
def test_words_are_joined_to_entities(
    strategy: str, wanted: list[tuple[str, float]], ner: Model
) -> None:
    """A word has one label and one score for all its pieces, and is joined by these."""
    text = "new oslo"
    assert ner(text, aggregation_strategy=strategy) == [
        _entity("LOC", score, word, text.index(word), text.index(word) + len(word))
        for word, score in wanted
    ]


def test_an_unknown_word_is_told_as_it_stands(ner: Model) -> None:
    """Not as [UNK]; and it begins a word of its own, however long it is."""
    wanted = {**_token("B-PER", 0.4, 2, "Zoë", 3), "end": 6}
    assert ner("in Zoë") == [wanted]
    found = ner("lives-Zoë", aggregation_strategy="first", ignore_labels=[])
    assert [entity["word"] for entity in found] == ["lives", "-", "Zoë"]


def test_without_word_pieces_a_space_begins_a_word() -> None:
    """Tokens that touch are one word, as the pipeline guesses; the text is joined by spaces."""
    table = {"on": [2.0, 0.0], ",": [0.0, 1.0], "off": [0.0, 3.0]}
    model = open_table(TASK, table, labels=("a", "b"))
    share = math.exp(2) / (math.exp(2) + 1)
    assert model("on,off off", aggregation_strategy="first") == [
        _entity("a", share, "on , off", 0, 6),
        _entity("b", math.exp(3) / (math.exp(3) + 1), "off", 7, 10),
    ]


def test_old_names_of_grouping_are_understood(ner: Model) -> None:
    """`grouped_entities` and `ignore_subwords` choose the strategies that they chose before."""
    text = "new oslo"
    answers = {s: ner(text, aggregation_strategy=s) for s in STRATEGIES}
    assert answers["none"] != answers["simple"] != answers["first"]
    for old, new in (
        ({"grouped_entities": True}, "simple"),
        ({"grouped_entities": False}, "none"),
        ({"grouped_entities": True, "ignore_subwords": False}, "simple"),
        ({"grouped_entities": True, "ignore_subwords": True}, "first"),
        ({"ignore_subwords": True, "aggregation_strategy": "max"}, "none"),
    ):
        assert ner(text, **old) == answers[new]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"aggregation_strategy": "best"}, "must be one of none, simple, first, average, max"),
        ({"ignore_labels": "O"}, "ignore_labels must be tuple or list, not 'O'"),
        ({"stride": 1.0}, "stride must be int or NoneType, not 1.0"),
        ({"stride": 14}, "stride must be from 0 to 13 tokens, not 14"),
        ({"stride": -1}, "stride must be from 0 to 13 tokens, not -1"),
        ({"is_split_into_words": 1}, "is_split_into_words must be bool, not 1"),
        ({"truncation": True}, "token-classification has no option 'truncation'"),
        ({"batch_size": 0}, "batch_size must be at least 1"),
    ],
)
def test_a_senseless_option_is_refused(
    options: dict[str, object], message: str, ner: Model
) -> None:
    """The error names the option and what it may be."""
    with pytest.raises(InputError, match=message):
        ner("anna", **options)


def test_a_variant_needs_half_of_the_decisions_whatever_it_tolerates() -> None:
    """Below the floor it is another model; a stricter tolerance stays."""
    rules = tasks.find(TASK)
    assert rules.least(Tolerance(-1.0, 0.0)) == Tolerance(-1.0, LEAST_AGREEMENT)
    assert rules.least(Tolerance(0.9, 0.8)) == Tolerance(0.9, 0.8)


def test_outputs_are_compared_token_by_token(ner: Model) -> None:
    """Logits of each token come without padding, and each token's best label counts."""
    wanted = ner.outputs(["anna lives", "new"])
    assert [output.shape for output in wanted] == [(4, 5), (3, 5)]
    np.testing.assert_allclose(wanted[1][1], TABLE["new"], rtol=1e-6)
    got = [wanted[0].copy(), wanted[1]]
    got[0][1] = np.roll(got[0][1], 1)
    found = ner.compare(wanted, got)
    assert found.agreement == pytest.approx(6 / 7)
    assert found.cosine < found.mean_cosine < 1.0
    assert ner.compare(wanted, wanted).agreement == 1.0


def test_another_number_of_tokens_is_not_alike() -> None:
    """A text that was cut into other tokens counts as one wrong decision, and as no likeness."""
    rules = tasks.find(TASK)
    task = Task(TASK, Text("t", 16, 0), labels=LABELS)
    one, two = np.ones((1, 5)), np.ones((2, 5))
    found = rules.compare(task, [one, two], [one, one])
    assert (found.cosine, found.agreement) == (-1.0, 0.5)
