"""The texts that calibrate and compare: short ones and pairs among them."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepack.build.plan import Plan
from edgepack.data.texts import EVALUATION, SAMPLES, Settings, collect
from edgepack.model.opened import calibration_feeds, read_items
from edgepack.stages.cache import StageCache

Get = Callable[..., Path]
TASK = "text-classification"


@pytest.fixture
def tokenizer(plan: Plan) -> Path:
    """The folder of the stage that describes the model."""
    return _folder(plan.tokenizer)


def _folder(stage: Any) -> Path:
    found = StageCache().lookup(stage)
    assert found is not None
    return found


def _collect(out: Path, content: str, samples: int = 0, *, name: str = "t.jsonl") -> Any:
    (out / name).write_text(content)
    collect(Settings(TASK, samples=samples), {"data": out / name}, out)
    return json.loads((out / "texts.json").read_text())


def _is_short(text: str) -> bool:
    return len(text.split()) <= 3 and len(text) <= 40


def test_generated_texts_have_short_ones_everywhere(tokenizer: Path, tmp_path: Path) -> None:
    """A quarter of those that calibrate and compare, and some golden, have one to three words."""
    collect(Settings(TASK), {"tokenizer": tokenizer}, tmp_path)
    texts = json.loads((tmp_path / "texts.json").read_text())
    assert texts["generated"] is True
    assert len(texts["calibration"]) == SAMPLES
    for kind, share in (("calibration", 0.2), ("evaluation", 0.2), ("golden", 0.2)):
        assert sum(map(_is_short, texts[kind])) >= share * len(texts[kind]), kind
    assert {"yes", "no", "ok", "stop", ".", "...", "?"} & set(texts["calibration"])
    assert all(text.strip() for text in texts["calibration"])


def test_a_classifier_is_asked_about_its_labels(tokenizer: Path, tmp_path: Path) -> None:
    """Generated texts name what the labels name; labels that are only numbered say nothing."""
    found = {}
    for kind, labels in (("named", ["book_flight", "sun"]), ("numbered", ["LABEL_0", "1"])):
        folder = tmp_path / kind
        folder.mkdir()
        task = json.loads((tokenizer / "task.json").read_text()) | {"labels": labels}
        (folder / "task.json").write_text(json.dumps(task))
        (folder / "tokenizer.json").write_bytes((tokenizer / "tokenizer.json").read_bytes())
        collect(Settings(TASK), {"tokenizer": folder}, folder)
        found[kind] = (folder / "texts.json").read_text().lower()
    assert "book flight" in found["named"]
    assert "label" not in found["numbered"]


def test_a_users_texts_calibrate_with_short_ones_of_their_words(tmp_path: Path) -> None:
    """They are added to those that calibrate, and compare nothing."""
    rows = [f"order number {i} has not arrived at the warehouse" for i in range(200)]
    texts = _collect(tmp_path, "\n".join(rows), name="t.txt", samples=40)
    whole = [text for text in texts["calibration"] if text in rows]
    short = [text for text in texts["calibration"] if text not in rows]
    assert (len(whole), len(short)) == (40, 13)
    assert short[10:] == [".", "?", "..."]
    assert all(_is_short(text) and any(text in row for row in rows) for text in short[:10])
    assert set(texts["evaluation"]) - set(rows) == {texts["golden"][0]}
    assert texts["generated"] is False


def test_a_file_of_few_texts_calibrates_with_all_of_them(tmp_path: Path) -> None:
    """Of fifty texts 48 compare, and calibration does not make do with the two that are left."""
    rows = [f"text {i} of a small file" for i in range(50)]
    for samples in (0, 500):
        texts = _collect(tmp_path, "\n".join(rows), samples, name="t.txt")
        assert set(rows) <= set(texts["calibration"])
        assert len([text for text in texts["evaluation"] if text in rows]) == EVALUATION


def test_a_word_proves_a_loaded_model_and_a_full_stop_does_not(tmp_path: Path) -> None:
    """The first golden text is the shortest that says something."""
    texts = _collect(tmp_path, "a longer sentence\n.\nstop\nturn it off\n", name="t.txt")
    assert texts["golden"][0] == "stop"


def test_texts_that_calibrate_need_no_label(tmp_path: Path) -> None:
    """A column of labels that is mostly empty leaves no text out."""
    rows = "".join(f"text {i},{'x' if i == 0 else ''}\n" for i in range(10))
    texts = _collect(tmp_path, f"text,label\n{rows}", name="t.csv")
    assert len(texts["calibration"]) >= 10
    assert {f"text {i}" for i in range(10)} <= set(texts["evaluation"])


def test_no_text_is_made_of_words_that_stand_for_none(tokenizer: Path, tmp_path: Path) -> None:
    """A vocabulary's `[unused7]` says nothing, so no generated text has it."""
    content = json.loads((tokenizer / "tokenizer.json").read_text())
    content["model"]["vocab"] |= {f"[unused{i}]": 400 + i for i in range(400)}
    (tmp_path / "tokenizer.json").write_text(json.dumps(content))
    (tmp_path / "task.json").write_bytes((tokenizer / "task.json").read_bytes())
    collect(Settings(TASK), {"tokenizer": tmp_path}, tmp_path)
    assert "unused" not in (tmp_path / "texts.json").read_text()


def test_pairs_calibrate_and_compare_as_pairs(tokenizer: Path, tmp_path: Path) -> None:
    """Both texts reach the graph, as two segments; golden texts stay single."""
    rows = [{"text": f"is it {i}", "text_pair": f"it is not {i}"} for i in range(80)]
    texts = _collect(tmp_path, "".join(json.dumps(row) + "\n" for row in rows))
    assert ["is it 7", "it is not 7"] in texts["calibration"] + texts["evaluation"]
    assert all(isinstance(text, str) for text in texts["golden"])
    assert ("is it 7", "it is not 7") in [
        *read_items(tmp_path, "calibration"),
        *read_items(tmp_path, "evaluation"),
    ]
    feeds = list(calibration_feeds({"tokenizer": tokenizer, "texts": tmp_path}))
    assert all(feed["token_type_ids"].max() == 1 for feed in feeds)
