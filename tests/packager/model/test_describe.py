"""What a device must know of a model is read from its folder: length, padding, labels, pooling."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgepack.model.describe import Settings, describe, pooling_of
from edgepack.model.opened import read_encoder, read_task
from edgepack_runtime import InputError
from edgepack_runtime.bundle.description import Task, Text

Get = Callable[[str], Path]
TASK = "text-classification"


@pytest.fixture
def folder(model: Get, tmp_path: Path) -> Callable[[str], Path]:
    """Return a function that copies a tiny model without its weights, to change its files."""

    def copy(kind: str) -> Path:
        path = tmp_path / kind
        shutil.copytree(model(kind), path, ignore=shutil.ignore_patterns("*.safetensors"))
        return path

    return copy


def _change(path: Path, **values: object) -> None:
    """Set keys of a JSON file; make the file if there is none."""
    found = json.loads(path.read_text()) if path.exists() else {}
    path.write_text(json.dumps({**found, **values}))


def _describe(folder: Path, task: str = TASK, max_length: int = 0) -> Task:
    out = folder.with_name(f"{folder.name}-described")
    out.mkdir(exist_ok=True)
    describe(Settings(task, max_length), {"model": folder}, out)
    return read_task(out)


def _text(folder: Path, **settings: Any) -> Text:
    text = _describe(folder, **settings).text
    assert text is not None
    return text


def test_a_classifier_is_described_by_its_own_files(folder: Get) -> None:
    """Labels in the order of their numbers, the tokenizer's padding, the config as it was."""
    path = folder("bert-intent")
    task = _describe(path)
    names = (path / "vocab.txt").read_text().splitlines()
    assert (task.name, task.problem_type, task.pooling, task.normalize) == (TASK, "", "", False)
    assert task.labels == ("lights", "weather", "booking", "other")
    assert task.text == Text(
        tokenizer="tokenizer.json",
        max_length=64,
        pad_id=names.index("[PAD]"),
        unk_id=names.index("[UNK]"),
        mask_id=names.index("[MASK]"),
        first_id=names.index("[CLS]"),
        cleans=True,
    )
    out = path.with_name("bert-intent-described")
    assert sorted(file.name for file in out.iterdir()) == [
        "config.json",
        "task.json",
        "tokenizer.json",
    ]
    assert (out / "config.json").read_bytes() == (path / "config.json").read_bytes()


def test_labels_belong_to_tasks_that_decide(folder: Get) -> None:
    """A model for vectors has none, though its config names some."""
    assert _describe(folder("bert-intent"), task="feature-extraction").labels == ()


def test_what_a_model_does_with_several_labels_is_kept(folder: Get) -> None:
    """The problem type goes to the device, which chooses the activation by it."""
    assert _describe(folder("bert-multi-label")).problem_type == "multi_label_classification"


def test_the_tokenizer_of_a_device_neither_pads_nor_cuts(folder: Get) -> None:
    """It gives the tokens of transformers; the device pads and cuts by the description."""
    from transformers import AutoTokenizer

    path = folder("bert-intent")
    tokenizer = json.loads((path / "tokenizer.json").read_text())
    tokenizer["padding"] = {
        "strategy": {"Fixed": 20},
        "direction": "Right",
        "pad_id": 0,
        "pad_to_multiple_of": None,
        "pad_type_id": 0,
        "pad_token": "[PAD]",
    }
    tokenizer["truncation"] = {
        "direction": "Right",
        "max_length": 5,
        "stride": 0,
        "strategy": "LongestFirst",
    }
    (path / "tokenizer.json").write_text(json.dumps(tokenizer))
    _describe(path)
    out = path.with_name("bert-intent-described")
    written = json.loads((out / "tokenizer.json").read_text())
    assert (written["padding"], written["truncation"]) == (None, None)
    encoder, theirs = read_encoder(out), AutoTokenizer.from_pretrained(path)
    for text in tiny.SENTENCES:
        assert encoder.encode(text).first.ids == theirs(text, truncation=True)["input_ids"]


def test_the_sides_of_padding_and_cutting_are_the_tokenizers(folder: Get) -> None:
    """Both may be the left one."""
    path = folder("bert-intent")
    _change(path / "tokenizer_config.json", padding_side="left", truncation_side="left")
    text = _text(path)
    assert (text.padding_side, text.truncation_side) == ("left", "left")


@pytest.mark.parametrize(
    ("tokenizer", "sentence", "positions", "wanted"),
    [
        (30, None, 64, 30),
        (100, None, 64, 64),
        (64, 20, 64, 20),
        (20, 64, 64, 20),
        (10**30, None, 40, 40),
        (10**30, None, 0, 512),
        (10**30, 24, 0, 24),
        (50, 0, 64, 50),
    ],
)
def test_the_least_limit_is_the_length(
    tokenizer: int, sentence: int | None, positions: int, wanted: int, folder: Get
) -> None:
    """Tokenizer, sentence model and positions each allow so much; 512 if none says anything."""
    path = folder("bert-intent")
    _change(path / "tokenizer_config.json", model_max_length=tokenizer)
    _change(path / "config.json", max_position_embeddings=positions)
    if sentence is not None:
        _change(path / "sentence_bert_config.json", max_seq_length=sentence)
    assert _text(path).max_length == wanted


@pytest.mark.parametrize(
    ("kind", "task"), [("roberta-ner", "token-classification"), ("xlm-roberta", TASK)]
)
def test_robertas_kin_count_positions_after_the_padding(kind: str, task: str, folder: Get) -> None:
    """With padding at 1 they read two tokens fewer than they have positions; BERT reads all."""
    for name, wanted in ((kind, 64), ("bert-intent", 66)):
        path = folder(name)
        _change(path / "tokenizer_config.json", model_max_length=10**30)
        _change(path / "config.json", max_position_embeddings=66)
        assert _text(path, task=task).max_length == wanted


def test_a_length_can_be_asked_for_within_the_limits(folder: Get) -> None:
    """From room for a word to what the model has positions for."""
    path = folder("bert-intent")
    for length in (8, 64):
        assert _text(path, max_length=length).max_length == length
    for length in (7, 65, -1):
        with pytest.raises(InputError, match=f"from 8 to 64 for this model, not {length}"):
            _text(path, max_length=length)


@pytest.mark.parametrize(
    ("end", "wanted"), [("[SEP]", "[SEP]"), (None, "[PAD]")], ids=["end", "nothing"]
)
def test_a_tokenizer_without_padding_pads_with_what_it_has(
    end: str | None, wanted: str, folder: Get
) -> None:
    """With its end of a text, else with id 0: what stands there is masked anyway."""
    path = folder("bert-intent")
    names = (path / "vocab.txt").read_text().splitlines()
    assert names[0] == "[PAD]"
    (path / "special_tokens_map.json").unlink()
    _change(path / "tokenizer_config.json", pad_token=None, eos_token=end)
    assert _text(path).pad_id == names.index(wanted)


def test_a_model_without_a_fast_tokenizer_is_refused(tmp_path: Path) -> None:
    """ByT5 has none: the error says what the device needs."""
    _change(tmp_path / "config.json", model_type="t5")
    _change(tmp_path / "tokenizer_config.json", tokenizer_class="ByT5Tokenizer")
    with pytest.raises(InputError, match="has no fast tokenizer, but the device needs one"):
        describe(Settings(TASK), {"model": tmp_path}, tmp_path)


def test_a_folder_that_transformers_cannot_read_is_one_clear_error(tmp_path: Path) -> None:
    """An architecture that it does not know is named in the error."""
    _change(tmp_path / "config.json", model_type="no-such-model")
    with pytest.raises(InputError, match=r"transformers cannot read this model: .*no-such-model"):
        describe(Settings(TASK), {"model": tmp_path}, tmp_path)


def _modules(folder: Path, *kinds: str, **pooling: object) -> Path:
    """Write the `modules.json` of a sentence model, and what it says of pooling."""
    modules = [
        {"idx": i, "name": str(i), "path": f"{i}_{kind}", "type": f"sentence_transformers.{kind}"}
        for i, kind in enumerate(kinds)
    ]
    (folder / "modules.json").write_text(json.dumps(modules))
    place = folder / f"{kinds.index('Pooling')}_Pooling" if "Pooling" in kinds else folder
    place.mkdir(exist_ok=True)
    (place / "config.json").write_text(json.dumps(pooling))
    return folder


@pytest.mark.parametrize(
    ("pooling", "wanted"),
    [
        ({"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": False}, "mean"),
        ({"pooling_mode_cls_token": True}, "cls"),
        ({"pooling_mode_max_tokens": True}, "max"),
        ({"pooling_mode": "cls"}, "cls"),
        ({"pooling_mode": "mean", "word_embedding_dimension": 32}, "mean"),
    ],
)
def test_pooling_is_what_the_sentence_model_declares(
    pooling: dict[str, object], wanted: str, tmp_path: Path
) -> None:
    """Flags of old and the mode of today; a module of its own normalises."""
    assert pooling_of(_modules(tmp_path, "Transformer", "Pooling", **pooling)) == (wanted, False)
    whole = _modules(tmp_path, "Transformer", "Pooling", "Normalize", **pooling)
    assert pooling_of(whole) == (wanted, True)


def test_a_model_that_declares_no_pooling_has_none(tmp_path: Path) -> None:
    """Neither without `modules.json` nor with one that names no such module."""
    assert pooling_of(tmp_path) == ("", False)
    assert pooling_of(_modules(tmp_path, "Transformer")) == ("", False)


@pytest.mark.parametrize(
    "pooling",
    [
        {},
        {"pooling_mode": "lasttoken"},
        {"pooling_mode_lasttoken": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_cls_token": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode_lasttoken": True},
        {"pooling_mode_mean_tokens": True, "pooling_mode": "cls"},
    ],
)
def test_another_pooling_is_refused(pooling: dict[str, object], tmp_path: Path) -> None:
    """None, one that devices lack, or two at once: the error names those that there are."""
    folder = _modules(tmp_path, "Transformer", "Pooling", **pooling)
    with pytest.raises(InputError, match="its pooling must be one of mean, cls, max"):
        pooling_of(folder)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("modules.json", "{"),
        ("modules.json", "3"),
        ("modules.json", '[{"type": "x.Pooling"}]'),
        ("1_Pooling/config.json", ""),
        ("1_Pooling/config.json", "[]"),
    ],
)
def test_a_broken_file_of_pooling_is_one_clear_error(
    name: str, content: str, tmp_path: Path
) -> None:
    """The message names the file, whether it is no JSON or holds something else."""
    folder = _modules(tmp_path, "Transformer", "Pooling", pooling_mode="mean")
    next(folder.rglob(name)).write_text(content)
    with pytest.raises(InputError, match=Path(name).name):
        pooling_of(folder)


def test_another_module_is_refused(tmp_path: Path) -> None:
    """A dense layer after the pooling is not run on devices, and is named."""
    folder = _modules(tmp_path, "Transformer", "Pooling", "Dense", pooling_mode="mean")
    with pytest.raises(InputError, match="module Dense is not supported on devices"):
        pooling_of(folder)


def test_a_sentence_model_is_described_with_its_pooling(folder: Get) -> None:
    """What its folder declares goes to the device."""
    task = _describe(folder("sentence"), task="sentence-similarity")
    assert (task.pooling, task.normalize, task.labels) == ("mean", True, ())
