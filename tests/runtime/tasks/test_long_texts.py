"""Token classification of texts that fill many windows, and of texts given as words."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import handmade
import pytest
from tables import Table, open_table

from edgepack_runtime import InputError, load
from edgepack_runtime.model.model import Model
from edgepack_runtime.tasks.token_classification import _join_tokens

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

TASK = "token-classification"
LABELS = ("O", "B-LOC", "I-LOC")
TABLE = {
    "new": [0.0, 2.0, 0.0],
    "york": [0.0, 0.0, 2.0],
    "is": [2.0, 0.0, 0.0],
    "##n": [0.0, 0.0, 3.0],
    "far": [1.0, 0.0, 0.0],
}


def _share(logit: float) -> float:
    """Return the share of a label with this logit, where the two others have zero."""
    return math.exp(logit) / (math.exp(logit) + 2)


@pytest.fixture
def short() -> Model:
    """A token classifier that reads four tokens at a time, beside [CLS] and [SEP]."""
    return open_table(TASK, TABLE, pieces=True, max_length=6, labels=LABELS)


def _doubting(model: Model, beginning: float) -> Model:
    """Let a model be less sure of the first token of a window, by this factor."""

    class Doubting(Table):
        def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
            output = super().run(feeds)["output"]
            output[:, 1] *= beginning
            return {"output": output}

    opened = model._running.opened
    table = opened.graphs["model"]
    assert isinstance(table, Table)
    doubting = Doubting(table._rows, whole=False)
    return Model(replace(opened, graphs={"model": doubting}))


def test_a_long_text_is_not_cut(tmp_path: Path) -> None:
    """Every word of a text of many windows has its one place in the answer."""
    model = load(handmade.bundle(tmp_path / "ner.epk", task=TASK))
    text = " ".join(["turn", "on", "the", "lights"] * 40)
    found = model(text, ignore_labels=[])
    assert len(found) == 160
    assert [text[e["start"] : e["end"]] for e in found] == text.split()


def test_of_two_readings_of_a_token_the_surer_one_stays(short: Model) -> None:
    """The fourth word is the last of one window and the first of the next, which doubts it."""
    text = "is is is new york is is"
    (new, york) = _doubting(short, 0.5)(text, stride=1)
    assert (new["score"], new["index"]) == (pytest.approx(_share(2.0)), 4)
    assert (york["score"], york["index"]) == (pytest.approx(_share(2.0)), 2)
    (new, york) = _doubting(short, 2.0)(text, stride=1)
    assert (new["score"], new["index"]) == (pytest.approx(_share(4.0)), 1)


def test_a_reading_that_is_ignored_does_not_count(short: Model) -> None:
    """A window that takes a token for nothing leaves it to the window that does not."""
    found = _doubting(short, -1.0)("x is is new is is", stride=1)  # an unknown word has zeros
    assert [(e["entity"], e["start"]) for e in found] == [("B-LOC", 8)]


def test_an_entity_that_a_window_cuts_is_whole_in_the_next(short: Model) -> None:
    """Of two entities that overlap the longest stays."""
    (found,) = short("is is is new york is", aggregation_strategy="simple", stride=1)
    assert found == {
        "entity_group": "LOC",
        "score": pytest.approx(_share(2.0)),
        "word": "new york",
        "start": 9,
        "end": 17,
    }


@pytest.mark.parametrize("beginning", [0.5, 2.0])
def test_of_entities_of_one_length_the_surer_one_stays(beginning: float, short: Model) -> None:
    """Whichever of the two windows it is in."""
    model = _doubting(short, beginning)
    (found,) = model("is is is new is is", aggregation_strategy="simple", stride=1)
    assert (found["word"], found["start"]) == ("new", 9)
    assert found["score"] == pytest.approx(_share(2.0 * max(1.0, beginning)))


def test_windows_without_a_stride_part_an_entity(short: Model) -> None:
    """With no token in common each window has its part."""
    found = short("is is is new york is", aggregation_strategy="simple", stride=0)
    assert [(e["word"], e["start"], e["end"]) for e in found] == [("new", 9, 12), ("york", 13, 17)]


def test_a_quarter_of_a_window_is_shared_if_nothing_is_said(short: Model) -> None:
    """A quarter of six tokens is one."""
    text = "is is is new york is is new york"
    for strategy in ("none", "simple"):
        options: dict[str, Any] = {"aggregation_strategy": strategy}
        assert short(text, **options) == short(text, stride=1, **options)
    assert len(short(text, aggregation_strategy="simple")) == 2


def test_bytes_of_one_character_all_stay_in_a_long_text() -> None:
    """Tokens that share their offsets are told apart when windows are joined."""

    def token(start: int, end: int, score: float) -> dict[str, Any]:
        return {"start": start, "end": end, "score": score}

    first = [token(0, 1, 0.5), token(1, 2, 0.6), token(1, 2, 0.7), token(1, 2, 0.8)]
    second = [token(1, 2, 0.9), token(1, 2, 0.1), token(1, 2, 0.2), token(2, 3, 0.3)]
    joined = [entity["score"] for entity in _join_tokens([first, second])]
    assert joined == [0.5, 0.9, 0.7, 0.8, 0.3]


def _places(found: list[dict[str, Any]]) -> list[tuple[str, int, int]]:
    return [(e["word"], e["start"], e["end"]) for e in found]


@pytest.mark.parametrize(
    ("options", "starts"),
    [({}, (0, 4)), ({"delimiter": ""}, (0, 3)), ({"delimiter": " - "}, (0, 6))],
)
def test_offsets_of_words_are_those_of_the_joined_text(
    options: dict[str, str], starts: tuple[int, int], short: Model
) -> None:
    """Joined by a space if nothing is said, or by the delimiter."""
    (found,) = short(["new", "yorkn"], is_split_into_words=True, **options)
    first, second = starts
    assert _places(found) == [
        ("new", first, first + 3),
        ("york", second, second + 4),
        ("##n", second + 4, second + 5),
    ]


def test_a_given_word_keeps_its_pieces_together(short: Model) -> None:
    """Of `yorkn` the first piece decides, and the entity is the text between its words' places."""
    (found,) = short(["new", "yorkn"], is_split_into_words=True, aggregation_strategy="first")
    assert _places(found) == [("new yorkn", 0, 9)]


def test_words_of_one_text_and_of_several_are_told_apart(short: Model) -> None:
    """A list of words gives a list of one answer, as the pipeline does; lists of words several."""
    one = short(["new"], is_split_into_words=True)
    assert _places(one[0]) == [("new", 0, 3)]
    assert short([["new"]], is_split_into_words=True) == one
    assert short(("new",), is_split_into_words=True) == one
    both = short([["new"], ["is", "york"]], is_split_into_words=True)
    assert [_places(found) for found in both] == [[("new", 0, 3)], [("york", 3, 7)]]


def test_many_words_fill_many_windows(short: Model) -> None:
    """Offsets go on through all windows."""
    words = ["is"] * 5 + ["new", "york"] + ["is"] * 5
    (found,) = short(words, is_split_into_words=True, aggregation_strategy="simple")
    assert _places(found) == [("new york", 15, 23)]


@pytest.mark.parametrize(
    ("inputs", "message"),
    [
        ("new york", "expected a list of words, found str"),
        ([["new"], "york"], "expected a list of words, found str"),
        ([["new", 3]], "expected text, found int"),
        ([["new", "lone \ud800"]], "not valid Unicode"),
    ],
)
def test_what_is_no_list_of_words_is_refused(inputs: object, message: str, short: Model) -> None:
    """When words are promised, each text is a list of them."""
    with pytest.raises(InputError, match=message):
        short(inputs, is_split_into_words=True)


def test_words_without_a_promise_are_texts(short: Model) -> None:
    """A list is several texts unless it is said that it holds words."""
    assert [_places(found) for found in short(["new", "york"])] == [
        [("new", 0, 3)],
        [("york", 0, 4)],
    ]
    with pytest.raises(InputError, match="expected text, found list"):
        short([["new", "york"]])
