"""Compressing language models: what they learn, what is removed, and that the rest is right."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from languages import make
from lessons import new_folder, plain_schedule
from transformers import AutoModelForCausalLM, AutoTokenizer

from edgepack.compress import distill_language, finetune_language, layers, prune, vocabulary
from edgepack.compress.distill import Settings as Distill
from edgepack.compress.finetune import Settings as Finetune
from edgepack.data.rows import Example
from edgepack.export.decoder.families import read
from edgepack.model.torch_model import open_torch
from edgepack.tasks import Quality, evaluate
from edgepack_runtime import InputError

TASK = "text-generation"
LINES = [
    "turn on the lights in the kitchen",
    "book a table for six at the Blue Lagoon",
    "what's the weather like in Nairobi",
    "the quick brown fox jumps over the lazy dog",
]
FAMILIES = ("llama", "qwen2", "qwen3", "mistral", "gemma")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 160 lines that repeat themselves."""
    path = tmp_path_factory.mktemp("texts") / "train.txt"
    path.write_text("\n".join(LINES * 40))
    return path


@pytest.fixture(scope="module")
def source(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function that makes a small model of a family once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            made[kind] = make(kind, tmp_path_factory.mktemp(kind))
        return made[kind]

    return get


@pytest.fixture(scope="module")
def teacher(
    source: Callable[[str], Path], data: Path, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """Return a model that has learned the lines."""
    out = tmp_path_factory.mktemp("teacher")
    settings = Finetune(TASK, plain_schedule(epochs=20.0), max_length=32)
    finetune_language.finetune(settings, {"model": source("llama-dull"), "data": data}, out)
    return out


def measured(folder: Path) -> Quality:
    """Measure a model on lines in another order."""
    examples = [Example(text, 1) for text in reversed(LINES)]
    return evaluate(open_torch(folder, TASK), examples)


def logits(folder: Path, text: str) -> Any:
    """Return a model's logits [tokens, vocabulary], as any user of transformers gets them."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(**tokenizer(text, return_tensors="pt")).logits[0].numpy()


def test_fine_tuning_teaches_a_language_model(teacher: Path, source: Callable[[str], Path]) -> None:
    """It expects the next token of the lines, and the record says how it was trained."""
    before, after = measured(source("llama-dull")), measured(teacher)
    assert after.value < 2 < before.value / 50
    record = json.loads((teacher / "training.json").read_text())
    assert record["figure"] == "loss"


@pytest.mark.parametrize("transfer", ["none", "hidden"])
def test_a_student_learns_what_its_teacher_expects(
    transfer: str, teacher: Path, data: Path, tmp_path: Path
) -> None:
    """One layer of three comes near, and a student that copies random noise does not."""
    out = new_folder(tmp_path / "student")
    settings = Distill(
        TASK,
        plain_schedule(epochs=20.0),
        layers=1,
        transfer=transfer,
        transfer_weight=0.1,
        max_length=32,
        hard=0.0,
    )
    inputs = {"model": teacher, "teacher": teacher, "unlabelled": data}
    distill_language.distill(settings, inputs, out)
    model = AutoModelForCausalLM.from_pretrained(out)
    assert model.config.num_hidden_layers == len(model.model.layers) == 1
    assert measured(out).value < 2.5


def test_a_student_copies_the_teacher_and_not_the_data(
    source: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    """Without hard labels, a student of a teacher that knows nothing learns nothing of the data."""
    out = new_folder(tmp_path / "student")
    settings = Distill(TASK, plain_schedule(epochs=5.0), max_length=32, hard=0.0)
    ignorant = source("llama-dull")
    inputs = {"model": ignorant, "teacher": ignorant, "unlabelled": data}
    distill_language.distill(settings, inputs, out)
    assert measured(out).value > 0.5 * measured(ignorant).value


@pytest.mark.parametrize("kind", FAMILIES)
def test_pruning_leaves_a_stock_model_that_can_be_exported(
    kind: str, source: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    """Layers, groups of heads and neurons are gone, for transformers and for the exporter."""
    out = new_folder(tmp_path / "pruned")
    settings = prune.Settings(TASK, layers=2, heads=2, feed_forward=32)
    prune.prune(settings, {"model": source(kind), "unlabelled": data}, out)
    model = AutoModelForCausalLM.from_pretrained(out)
    attention, mlp = model.model.layers[1].self_attn, model.model.layers[1].mlp
    width = attention.head_dim
    assert attention.q_proj.weight.shape == (2 * width, 64)
    assert attention.k_proj.weight.shape == (width, 64)
    assert mlp.gate_proj.weight.shape == mlp.up_proj.weight.shape == (32, 64)
    decoder = read(model.eval())
    assert (len(decoder.layers), decoder.sizes.heads, decoder.sizes.width) == (2, 2, width)
    assert model.generate(torch.tensor([[5, 6]]), max_new_tokens=3, min_new_tokens=3).shape[1] == 5


@pytest.mark.parametrize("kind", FAMILIES)
def test_what_did_nothing_is_removed_first(
    kind: str, source: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    """Neurons, a group of heads and a layer that were silenced go, and nothing changes."""
    folder, out = tmp_path / "silenced", new_folder(tmp_path / "pruned")
    shutil.copytree(source(kind), folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    width = model.model.layers[0].self_attn.head_dim
    for number, layer in enumerate(model.model.layers):
        layer.mlp.down_proj.weight.data[:, ::2] = 0
        first = slice(0, 2 * width) if number % 2 else slice(2 * width, None)
        layer.self_attn.o_proj.weight.data[:, first] = 0
    model.model.layers[1].mlp.down_proj.weight.data[:] = 0
    model.model.layers[1].self_attn.o_proj.weight.data[:] = 0
    model.save_pretrained(folder)
    settings = prune.Settings(TASK, layers=2, heads=2, feed_forward=48)
    prune.prune(settings, {"model": folder, "unlabelled": data}, out)
    assert np.allclose(logits(folder, LINES[0]), logits(out, LINES[0]), atol=2e-4)


@pytest.mark.parametrize("head", ["tied", "apart"])
def test_a_trimmed_language_model_expects_the_same(
    head: str, source: Callable[[str], Path], data: Path, tmp_path: Path
) -> None:
    """Logits of the tokens that remain are those of before, and the end of a text is still it."""
    folder, out = tmp_path / "model", new_folder(tmp_path / "trimmed")
    shutil.copytree(source("llama"), folder)
    if head == "apart":
        model = AutoModelForCausalLM.from_pretrained(folder)
        model.config.tie_word_embeddings = False
        model.lm_head.weight = torch.nn.Parameter(torch.randn_like(model.lm_head.weight))
        model.save_pretrained(folder)
    settings = vocabulary.Settings(TASK, general=0.3)
    vocabulary.trim(settings, {"model": folder, "unlabelled": data}, out)
    old, new = (AutoTokenizer.from_pretrained(path) for path in (folder, out))
    assert len(new) < len(old)
    places = [old.get_vocab()[word] for word in new.convert_ids_to_tokens(range(len(new)))]
    assert np.allclose(logits(folder, LINES[0])[:, places], logits(out, LINES[0]), atol=1e-5)
    generation = json.loads((out / "generation_config.json").read_text())
    end = new.convert_ids_to_tokens(generation["eos_token_id"])
    assert end == old.convert_ids_to_tokens(1)  # the end that `make` gave the model
    assert new.chat_template == old.chat_template


def test_a_student_with_fewer_tokens_learns_from_its_teacher(
    teacher: Path, data: Path, tmp_path: Path
) -> None:
    """The teacher reads the same tokens under its own numbers; other tokens are refused."""
    trimmed, out = new_folder(tmp_path / "trimmed"), new_folder(tmp_path / "student")
    settings = vocabulary.Settings(TASK, general=0.1)
    vocabulary.trim(settings, {"model": teacher, "unlabelled": data}, trimmed)
    how = Distill(TASK, plain_schedule(epochs=20.0), layers=1, max_length=32, hard=0.0)
    inputs = {"model": trimmed, "teacher": teacher, "unlabelled": data}
    distill_language.distill(how, inputs, out)
    assert measured(out).value < 3
    with pytest.raises(InputError, match="the teacher does not know the token"):
        distill_language.distill(how, {**inputs, "model": teacher, "teacher": trimmed}, out)


def test_perplexities_of_different_tokens_are_compared_by_bytes(
    source: Callable[[str], Path],
) -> None:
    """More tokens for the same text are less surprise for each, but no gain."""
    same = Quality(
        "perplexity", {"perplexity": 8.0, "bits_per_token": 3.0, "bits_per_byte": 1.0}, 1
    )
    finer = Quality(
        "perplexity", {"perplexity": 4.0, "bits_per_token": 2.0, "bits_per_byte": 1.0}, 1
    )
    worse = Quality(
        "perplexity", {"perplexity": 8.8, "bits_per_token": 3.1375, "bits_per_byte": 1.04584}, 1
    )
    assert same.lost(finer) == pytest.approx(0)
    assert same.lost(worse) == pytest.approx(10, abs=0.1)
    found = measured(source("llama"))
    tokens = len(open_torch(source("llama"), TASK).encoder.ids("\n".join(reversed(LINES))))
    ratio = (tokens - 1) / len("\n".join(LINES))
    assert found.figures["bits_per_byte"] == pytest.approx(found.figures["bits_per_token"] * ratio)


def test_heads_go_in_groups(source: Callable[[str], Path], data: Path, tmp_path: Path) -> None:
    """Heads that share keys and values cannot be parted."""
    settings = prune.Settings(TASK, heads=3)
    with pytest.raises(InputError, match="not a multiple of 2"):
        prune.prune(settings, {"model": source("llama"), "unlabelled": data}, tmp_path)


def test_a_text_of_one_token_teaches_nothing(source: Callable[[str], Path], tmp_path: Path) -> None:
    """There is no next token."""
    path = tmp_path / "a.txt"
    path.write_text("a\n")
    with pytest.raises(InputError, match="fewer than two tokens"):
        finetune_language.finetune(
            Finetune(TASK, plain_schedule()), {"model": source("llama"), "data": path}, tmp_path
        )


def test_every_family_that_can_be_cut_is_tried() -> None:
    """The families of decoders in `layers` are those of these tests."""
    decoders = {name for name, family in layers.FAMILIES.items() if family.stack == "layers"}
    assert decoders == set(FAMILIES)
