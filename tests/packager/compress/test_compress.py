"""Compression: what comes out is a stock model, smaller, and right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tiny

from edgepack.compress import adapt, augment, distill, finetune, prune, teach, vocabulary
from edgepack.compress.schedule import Schedule
from edgepack.data.rows import read_examples
from edgepack.model.adapter import base_of
from edgepack.model.torch_model import load_torch, open_torch
from edgepack.tasks import evaluate
from edgepack_runtime import InputError

Get = Callable[..., Path]
TASK = "text-classification"
INTENTS = {
    "lights": ["turn on the lights", "lights on in the kitchen", "turn the lights on please"],
    "weather": ["what's the weather like", "weather in Nairobi tomorrow", "the weather tomorrow"],
    "booking": ["book a table for six", "can you book a table", "a table at the Blue Lagoon"],
    "other": ["the quick brown fox", "jumps over the lazy dog", "the mayor of New York"],
}


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 48 labelled rows."""
    path = tmp_path_factory.mktemp("data") / "train.tsv"
    rows = [f"{text}{end}\t{label}" for end in ("", "!", "?", ".") for label, texts in
            INTENTS.items() for text in texts]  # fmt: skip
    path.write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    return path


def _digest(folder: Path) -> str:
    import hashlib

    return hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()


def _new(path: Path) -> Path:
    path.mkdir(parents=True)
    return path


def _stock(folder: Path) -> Any:
    """Load a folder as any user of transformers would."""
    from transformers import AutoModelForSequenceClassification

    return AutoModelForSequenceClassification.from_pretrained(folder)


@pytest.mark.parametrize("kind", ["bert-intent", "roberta-ner", "xlm-roberta"])
def test_a_trimmed_vocabulary_still_encodes_every_text(
    kind: str, model: Get, train: Path, tmp_path: Path
) -> None:
    """The data is tokenized and answered as before; other texts gain no unknown token."""
    task = "token-classification" if kind == "roberta-ner" else TASK
    unlabelled = tmp_path / "texts.txt"
    unlabelled.write_text("\n".join(row.split("\t")[0] for row in train.read_text().splitlines()))
    out = _new(tmp_path / "trimmed")
    vocabulary.trim(
        vocabulary.Settings(task), {"model": model(kind), "unlabelled": unlabelled}, out
    )
    before, after = open_torch(model(kind), task), open_torch(out, task)
    assert after.encoder.tokenizer.get_vocab_size() < before.encoder.tokenizer.get_vocab_size()
    for text in INTENTS["lights"]:
        assert after.encoder.encode(text).first.tokens == before.encoder.encode(text).first.tokens
        assert np.allclose(before.outputs([text])[0], after.outputs([text])[0], atol=1e-5)
    unknown = before.encoder.spec.unk_id
    for text in [*tiny.SENTENCES, "qzx vwkj 9876", "São Öğürçé"]:
        old, new = (opened.encoder.encode(text).first.ids for opened in (before, after))
        assert new.count(after.encoder.spec.unk_id) <= old.count(unknown)


def test_pruning_removes_weights_and_leaves_a_stock_model(
    model: Get, train: Path, tmp_path: Path
) -> None:
    """Layers, heads and neurons are gone from the file, and AutoModel reads what is left."""
    out = _new(tmp_path / "pruned")
    settings = prune.Settings(TASK, layers=1, heads=1, feed_forward=16)
    prune.prune(settings, {"model": model("bert-intent"), "data": train}, out)
    found = _stock(out)
    layer = found.bert.encoder.layer[0]
    assert len(found.bert.encoder.layer) == 1
    assert layer.attention.self.query.weight.shape == (16, 32)
    assert layer.intermediate.dense.weight.shape == (16, 32)
    assert open_torch(out, TASK)("turn on the lights")[0]["label"] in INTENTS


def test_pruning_keeps_what_matters(model: Get, train: Path, tmp_path: Path) -> None:
    """Neurons that were silenced before are the first to go, and nothing changes."""
    folder = tmp_path / "silenced"
    shutil.copytree(model("bert-intent"), folder)
    silenced = load_torch(folder, TASK)
    for layer in silenced.bert.encoder.layer:
        layer.intermediate.dense.weight.data[::2] = 0
        layer.intermediate.dense.bias.data[::2] = 0
        layer.output.dense.weight.data[:, ::2] = 0
    silenced.save_pretrained(folder)
    out = _new(tmp_path / "pruned")
    prune.prune(prune.Settings(TASK, feed_forward=32), {"model": folder, "data": train}, out)
    texts = ["turn on the lights", "book a table"]
    before, after = (open_torch(path, TASK).outputs(texts) for path in (folder, out))
    assert np.allclose(before, after, atol=1e-5)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (prune.Settings(TASK, layers=9), "prune.layers = 9 is more than the model's 2"),
        (prune.Settings(TASK, heads=3), "prune.heads = 3 is more than the model's 2"),
    ],
)
def test_pruning_more_than_there_is_is_refused(
    settings: prune.Settings, message: str, model: Get, train: Path, tmp_path: Path
) -> None:
    """The message names the key and both numbers."""
    with pytest.raises(InputError, match=message):
        prune.prune(settings, {"model": model("bert-intent"), "data": train}, tmp_path)


def test_an_architecture_that_cannot_be_cut_says_so(
    model: Get, train: Path, tmp_path: Path
) -> None:
    """ALBERT shares its layers: there is none to remove."""
    settings = prune.Settings(TASK, layers=1)
    with pytest.raises(InputError, match="'albert' cannot be pruned"):
        prune.prune(settings, {"model": model("albert"), "data": train}, tmp_path)


def _schedule(**changes: Any) -> Schedule:
    plain = {"epochs": 30.0, "learning_rate": 5e-3, "batch_size": 16}
    return Schedule(**{**plain, **changes})


@pytest.fixture(scope="module")
def teacher(model: Get, train: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model that has learned the four intents."""
    base = tiny.redraw(model("bert-intent"), tmp_path_factory.mktemp("base"))
    out = tmp_path_factory.mktemp("teacher")
    settings = finetune.Settings(TASK, _schedule())
    finetune.finetune(settings, {"model": base, "data": train}, out)
    return out


def test_fine_tuning_learns(teacher: Path, train: Path) -> None:
    """The teacher knows its training data, and its labels are those of the data."""
    opened = open_torch(teacher, TASK)
    assert sorted(opened.task.labels) == sorted(INTENTS)
    assert evaluate(opened, read_examples(str(train), TASK)).value > 0.95


def _lesson(teacher: Path, data: dict[str, Path], out: Path, **how: Any) -> dict[str, Path]:
    rows, lesson = _new(out / "rows"), _new(out / "lesson")
    augment.augment(augment.Settings(TASK, copies=1), data, rows)
    inputs = {"teacher": teacher, "rows": rows}
    teach.teach(teach.Settings(TASK, **how), inputs, lesson)
    return {"model": teacher, "rows": rows, "lesson": lesson}


@pytest.mark.parametrize("transfer", teach.TRANSFERS)
def test_a_student_learns_its_teacher_from_unlabelled_text(
    transfer: str, teacher: Path, train: Path, tmp_path: Path
) -> None:
    """One layer of two, no labels at all: the student agrees with the teacher."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(row.split("\t")[0] for row in train.read_text().splitlines()[1:]))
    inputs = _lesson(teacher, {"unlabelled": texts}, tmp_path, transfer=transfer)
    out = _new(tmp_path / "student")
    settings = distill.Settings(
        TASK, _schedule(learning_rate=3e-3), layers=1, transfer=transfer, transfer_weight=0.1
    )
    distill.distill(settings, inputs, out)
    assert len(_stock(out).bert.encoder.layer) == 1
    assert evaluate(open_torch(out, TASK), read_examples(str(train), TASK)).value > 0.9


def test_the_same_seed_gives_the_same_student(teacher: Path, train: Path, tmp_path: Path) -> None:
    """Weights are equal bit by bit; another seed gives others."""
    inputs = _lesson(teacher, {"data": train}, tmp_path)
    digests = []
    for number, seed in enumerate((0, 0, 1)):
        out = _new(tmp_path / str(number))
        settings = distill.Settings(TASK, _schedule(epochs=2.0, seed=seed), layers=1)
        distill.distill(settings, inputs, out)
        digests.append(_digest(out))
    assert digests[0] == digests[1] != digests[2]


def test_two_processes_give_the_result_of_one(teacher: Path, train: Path, tmp_path: Path) -> None:
    """Two CPU processes over gloo share each step's rows and end with the same weights."""
    from safetensors.numpy import load_file

    inputs = _lesson(teacher, {"data": train}, tmp_path)
    found = []
    for processes in (1, 2):
        out = _new(tmp_path / str(processes))
        schedule = _schedule(epochs=2.0, learning_rate=1e-3, processes=processes)
        distill.distill(distill.Settings(TASK, schedule, layers=1, hard=0.0), inputs, out)
        found.append(load_file(out / "model.safetensors"))
    before = load_file(teacher / "model.safetensors")
    apart, moved = (
        max(float(np.abs(found[0][name] - other[name]).max()) for name in found[0])
        for other in (found[1], before)
    )
    assert apart < 1e-3  # one step's worth: Adam makes as much of a rounding as of a gradient
    assert apart < moved / 10
    one, two = (open_torch(tmp_path / str(p), TASK).outputs(["turn on the lights"]) for p in (1, 2))
    assert np.allclose(one, two, atol=1e-2)


def test_a_killed_training_resumes_to_the_same_weights(
    teacher: Path, train: Path, tmp_path: Path
) -> None:
    """Stopped inside an epoch and run again on the same folder: the weights of an unbroken run."""
    inputs = _lesson(teacher, {"data": train}, tmp_path)
    settings = distill.Settings(TASK, _schedule(epochs=3.0, checkpoint_steps=4), layers=1)
    whole, broken = _new(tmp_path / "whole"), _new(tmp_path / "broken")
    distill.distill(settings, inputs, whole)

    class PowerCutError(Exception):
        """Stands for a kill: nothing cleans up after it."""

    def cut(done: int, total: int) -> None:
        if done == total * 2 // 3:
            raise PowerCutError

    from edgepack.stages import progress

    token = progress._steps.set(cut)
    with pytest.raises(PowerCutError):
        distill.distill(settings, inputs, broken)
    progress._steps.reset(token)
    assert list((broken / "checkpoints").glob("checkpoint-*"))
    distill.distill(settings, inputs, broken)
    assert _digest(whole) == _digest(broken)
    assert not (broken / "checkpoints").exists()


def test_mixed_precision_and_trackers(teacher: Path, train: Path, tmp_path: Path) -> None:
    """bfloat16 with accumulation learns too, and TensorBoard finds its events."""
    inputs = _lesson(teacher, {"data": train}, tmp_path)
    out = _new(tmp_path / "student")
    schedule = _schedule(
        precision="bfloat16", accumulate=2, batch_size=8, report_to=("tensorboard",)
    )
    distill.distill(distill.Settings(TASK, schedule), inputs, out)
    assert evaluate(open_torch(out, TASK), read_examples(str(train), TASK)).value > 0.9
    assert list((out / "logs").rglob("events.out.tfevents.*"))


def test_labels_that_the_teacher_does_not_know_are_refused(
    teacher: Path, train: Path, tmp_path: Path
) -> None:
    """Distilling on other labels than the teacher's is one clear error."""
    data = tmp_path / "other.tsv"
    data.write_text(train.read_text().replace("\tlights", "\tlamps"))
    inputs = _lesson(teacher, {"data": data}, tmp_path)
    with pytest.raises(InputError, match="1 labels that the model does not know: 'lamps'"):
        distill.distill(distill.Settings(TASK, _schedule()), inputs, _new(tmp_path / "out"))


def test_one_class_only_is_refused(model: Get, tmp_path: Path) -> None:
    """There is nothing to learn from one label."""
    data = tmp_path / "one.tsv"
    data.write_text("text\tlabel\nhello\ta\nyou\ta\n")
    with pytest.raises(InputError, match="only one class: a"):
        finetune.finetune(
            finetune.Settings(TASK), {"model": model("bert-intent"), "data": data}, tmp_path
        )


def test_a_loss_that_is_no_number_stops_the_training(
    model: Get, train: Path, tmp_path: Path
) -> None:
    """The message says at which step, and what to lower."""
    folder = tmp_path / "broken"
    shutil.copytree(model("bert-intent"), folder)
    broken = load_torch(folder, TASK)
    broken.classifier.weight.data[:] = float("nan")
    broken.save_pretrained(folder)
    with pytest.raises(InputError, match="not a number at step 0; lower learning_rate"):
        finetune.finetune(
            finetune.Settings(TASK, _schedule()), {"model": folder, "data": train},
            _new(tmp_path / "out"),
        )  # fmt: skip


def test_a_lora_adapter_is_merged(teacher: Path, tmp_path: Path) -> None:
    """The merged model answers as base and adapter do together."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    base = load_torch(teacher, TASK)
    wanted = LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=["query", "value"])
    adapted = get_peft_model(base, wanted)
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=20.0)
    folder, out = tmp_path / "adapter", _new(tmp_path / "merged")
    adapted.save_pretrained(folder)
    declared = json.loads((folder / "adapter_config.json").read_text())
    declared["base_model_name_or_path"] = str(teacher)
    (folder / "adapter_config.json").write_text(json.dumps(declared))
    assert base_of(folder) == str(teacher)
    adapt.adapt(adapt.Settings(TASK), {"base": teacher, "adapter": folder}, out)
    tokens = open_torch(teacher, TASK).encoder.encode("turn on the lights").first
    with torch.inference_mode():
        wanted_logits = adapted.eval()(input_ids=torch.tensor([tokens.ids])).logits[0].numpy()
    assert np.allclose(
        open_torch(out, TASK).outputs(["turn on the lights"])[0], wanted_logits, atol=1e-4
    )
    plain = open_torch(teacher, TASK).outputs(["turn on the lights"])[0]
    assert not np.allclose(plain, wanted_logits, atol=1e-2)


def test_a_half_written_checkpoint_is_not_resumed_from(
    teacher: Path, train: Path, tmp_path: Path
) -> None:
    """A kill while a checkpoint was written leaves one without its state: it is dropped."""
    inputs = _lesson(teacher, {"data": train}, tmp_path)
    out = _new(tmp_path / "student")
    _new(out / "checkpoints/checkpoint-5")
    distill.distill(distill.Settings(TASK, _schedule(epochs=1.0)), inputs, out)
    assert (out / "model.safetensors").is_file()


def test_regression_is_distilled_and_evaluated(tmp_path: Path, model: Get) -> None:
    """One output and numbers as labels: squared error, and correlations as figures."""
    import torch
    from transformers import AutoTokenizer, BertForSequenceClassification

    folder = tmp_path / "regressor"
    config = load_torch(model("bert-intent"), TASK).config
    config.num_labels, config.problem_type = 1, "regression"
    torch.manual_seed(0)
    BertForSequenceClassification(config).save_pretrained(folder)
    AutoTokenizer.from_pretrained(model("bert-intent")).save_pretrained(folder)
    data = tmp_path / "scores.csv"
    texts = [text for texts in INTENTS.values() for text in texts]
    data.write_text("text,score\n" + "".join(f"{t},{len(t) / 10}\n" for t in texts))
    fitted, student = _new(tmp_path / "fitted"), _new(tmp_path / "student")
    finetune.finetune(
        finetune.Settings(TASK, _schedule(epochs=150.0)), {"model": folder, "data": data}, fitted
    )
    inputs = _lesson(fitted, {"data": data}, tmp_path)
    distill.distill(distill.Settings(TASK, _schedule(epochs=150.0), layers=1), inputs, student)
    assert evaluate(open_torch(student, TASK), read_examples(str(data), TASK)).value > 0.8
    out = _new(tmp_path / "pruned")
    prune.prune(prune.Settings(TASK, feed_forward=16), {"model": fitted, "data": data}, out)
    assert _stock(out).config.intermediate_size == 16


def test_entities_are_learned_by_a_byte_level_student(tmp_path: Path, model: Get) -> None:
    """A RoBERTa tokenizer takes words with a space before them, in training and on a device."""
    task = "token-classification"
    data = tmp_path / "ner.conll"
    sentences = [
        ("Angela lives in Oslo", "B-PER O O B-LOC"),
        ("the mayor of New York", "O O O B-LOC I-LOC"),
    ]
    data.write_text(
        "\n".join(
            "".join(f"{w}\t{t}\n" for w, t in zip(words.split(), tags.split(), strict=True))
            for words, tags in sentences * 8
        )
    )
    import torch
    from transformers import AutoTokenizer, RobertaForTokenClassification

    base = tmp_path / "base"
    torch.manual_seed(0)
    RobertaForTokenClassification(load_torch(model("roberta-ner"), task).config).save_pretrained(
        base
    )
    AutoTokenizer.from_pretrained(model("roberta-ner")).save_pretrained(base)
    fitted, rows, lesson, student = (_new(tmp_path / n) for n in ("fitted", "rows", "lesson", "s"))
    finetune.finetune(finetune.Settings(task, _schedule()), {"model": base, "data": data}, fitted)
    assert evaluate(open_torch(fitted, task), read_examples(str(data), task)).value > 0.9
    augment.augment(augment.Settings(task, copies=1), {"data": data}, rows)
    teach.teach(
        teach.Settings(task, transfer="relation"), {"teacher": fitted, "rows": rows}, lesson
    )
    settings = distill.Settings(task, _schedule(), transfer="relation", transfer_weight=0.1)
    distill.distill(settings, {"model": fitted, "rows": rows, "lesson": lesson}, student)
    assert evaluate(open_torch(student, task), read_examples(str(data), task)).value > 0.9
