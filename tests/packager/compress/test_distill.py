"""Distilling: a student agrees with its teacher, and a training that was cut goes on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from lessons import INTENTS, TASK, digest_of, lesson_of, new_folder, plain_schedule, stock

from edgepack.compress import augment, distill, finetune, prune, teach
from edgepack.data.rows import read_examples
from edgepack.model.torch_model import load_torch, open_torch
from edgepack.tasks import evaluate
from edgepack_runtime import InputError

Get = Callable[..., Path]


@pytest.mark.parametrize("transfer", teach.TRANSFERS)
def test_a_student_learns_its_teacher_from_unlabelled_text(
    transfer: str, teacher: Path, train: Path, tmp_path: Path
) -> None:
    """One layer of two, no labels at all: the student agrees with the teacher."""
    texts = tmp_path / "texts.txt"
    texts.write_text("\n".join(row.split("\t")[0] for row in train.read_text().splitlines()[1:]))
    inputs = lesson_of(teacher, {"unlabelled": texts}, tmp_path, transfer=transfer)
    out = new_folder(tmp_path / "student")
    settings = distill.Settings(
        TASK, plain_schedule(learning_rate=3e-3), layers=1, transfer=transfer, transfer_weight=0.1
    )
    distill.distill(settings, inputs, out)
    assert len(stock(out).bert.encoder.layer) == 1
    assert evaluate(open_torch(out, TASK), read_examples(str(train), TASK)).value > 0.9


def test_the_same_seed_gives_the_same_student(teacher: Path, train: Path, tmp_path: Path) -> None:
    """Weights are equal bit by bit; another seed gives others."""
    inputs = lesson_of(teacher, {"data": train}, tmp_path)
    digests = []
    for number, seed in enumerate((0, 0, 1)):
        out = new_folder(tmp_path / str(number))
        settings = distill.Settings(TASK, plain_schedule(epochs=2.0, seed=seed), layers=1)
        distill.distill(settings, inputs, out)
        digests.append(digest_of(out))
    assert digests[0] == digests[1] != digests[2]


def test_two_processes_give_the_result_of_one(teacher: Path, train: Path, tmp_path: Path) -> None:
    """Two CPU processes over gloo share each step's rows and end with the same weights."""
    from safetensors.numpy import load_file

    inputs = lesson_of(teacher, {"data": train}, tmp_path)
    found = []
    for processes in (1, 2):
        out = new_folder(tmp_path / str(processes))
        schedule = plain_schedule(epochs=2.0, learning_rate=1e-3, processes=processes)
        distill.distill(distill.Settings(TASK, schedule, layers=1, hard=0.0), inputs, out)
        found.append(load_file(out / "model.safetensors"))
    before = load_file(teacher / "model.safetensors")
    apart, moved = (
        np.concatenate([np.abs(found[0][name] - other[name]).ravel() for name in found[0]])
        for other in (found[1], before)
    )
    # Adam makes as much of a rounding as of a gradient: a weight without one may take a step the
    # other way.  Few do, and most are equal to their last digits.
    assert apart.max() < 2e-3
    assert apart.mean() < moved.mean() / 200
    one, two = (open_torch(tmp_path / str(p), TASK).outputs(["turn on the lights"]) for p in (1, 2))
    assert np.allclose(one, two, atol=1e-2)


def test_a_killed_training_resumes_to_the_same_weights(
    teacher: Path, train: Path, tmp_path: Path
) -> None:
    """Stopped inside an epoch and run again on the same folder: the weights of an unbroken run."""
    inputs = lesson_of(teacher, {"data": train}, tmp_path)
    settings = distill.Settings(TASK, plain_schedule(epochs=3.0, checkpoint_steps=4), layers=1)
    whole, broken = new_folder(tmp_path / "whole"), new_folder(tmp_path / "broken")
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
    assert digest_of(whole) == digest_of(broken)
    assert not (broken / "checkpoints").exists()


def test_mixed_precision_and_trackers(teacher: Path, train: Path, tmp_path: Path) -> None:
    """bfloat16 with accumulation learns too, and TensorBoard finds its events."""
    inputs = lesson_of(teacher, {"data": train}, tmp_path)
    out = new_folder(tmp_path / "student")
    schedule = plain_schedule(
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
    inputs = lesson_of(teacher, {"data": data}, tmp_path)
    with pytest.raises(InputError, match="1 labels that the model does not know: 'lamps'"):
        distill.distill(
            distill.Settings(TASK, plain_schedule()), inputs, new_folder(tmp_path / "out")
        )


def test_a_half_written_checkpoint_is_not_resumed_from(
    teacher: Path, train: Path, tmp_path: Path
) -> None:
    """A kill while a checkpoint was written leaves one without its state: it is dropped."""
    inputs = lesson_of(teacher, {"data": train}, tmp_path)
    out = new_folder(tmp_path / "student")
    new_folder(out / "checkpoints/checkpoint-5")
    distill.distill(distill.Settings(TASK, plain_schedule(epochs=1.0)), inputs, out)
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
    fitted, student = new_folder(tmp_path / "fitted"), new_folder(tmp_path / "student")
    finetune.finetune(
        finetune.Settings(TASK, plain_schedule(epochs=150.0)),
        {"model": folder, "data": data},
        fitted,
    )
    inputs = lesson_of(fitted, {"data": data}, tmp_path)
    distill.distill(distill.Settings(TASK, plain_schedule(epochs=150.0), layers=1), inputs, student)
    assert evaluate(open_torch(student, TASK), read_examples(str(data), TASK)).value > 0.8
    out = new_folder(tmp_path / "pruned")
    prune.prune(prune.Settings(TASK, feed_forward=16), {"model": fitted, "data": data}, out)
    assert stock(out).config.intermediate_size == 16


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
    fitted, rows, lesson, student = (
        new_folder(tmp_path / n) for n in ("fitted", "rows", "lesson", "s")
    )
    finetune.finetune(
        finetune.Settings(task, plain_schedule()), {"model": base, "data": data}, fitted
    )
    assert evaluate(open_torch(fitted, task), read_examples(str(data), task)).value > 0.9
    augment.augment(augment.Settings(task, copies=1), {"data": data}, rows)
    teach.teach(
        teach.Settings(task, transfer="relation"), {"teacher": fitted, "rows": rows}, lesson
    )
    settings = distill.Settings(task, plain_schedule(), transfer="relation", transfer_weight=0.1)
    distill.distill(settings, {"model": fitted, "rows": rows, "lesson": lesson}, student)
    assert evaluate(open_torch(student, task), read_examples(str(data), task)).value > 0.9
