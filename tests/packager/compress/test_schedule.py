"""What a recipe without numbers does: length, rate, held-out rows, sizes, early refusals."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import tiny

from edgepack.build.build import plans
from edgepack.compress import (
    augment,
    distill,
    finetune,
    holdout,
    prune,
    rates,
    record,
    teach,
    training,
    vocabulary,
)
from edgepack.compress.batches import ByLength, pack, pack_labels
from edgepack.compress.job import Job
from edgepack.compress.schedule import Course, Facts, Schedule, choose, held_out
from edgepack.data.rows import Columns, Example, read_examples
from edgepack.model.torch_model import load_torch, open_torch
from edgepack.recipe import presets
from edgepack.recipe.compression import Compression
from edgepack.recipe.recipe import Data, Recipe, read_recipe
from edgepack.recipe.target import find_target
from edgepack.stages import progress
from edgepack.tasks import evaluate
from edgepack_runtime import InputError

Get = Callable[..., Path]
TASK = "text-classification"
MINILM = Facts(rows=15_000, held=750, tokens=12.0, width=384, weights=10_800_000, student=False)
BERT = {
    "model_type": "bert", "num_hidden_layers": 6, "num_attention_heads": 12,
    "intermediate_size": 1536,
}  # fmt: skip


@pytest.fixture(scope="module")
def train(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a file of 160 labelled rows, no two alike."""
    path = tmp_path_factory.mktemp("data") / "train.tsv"
    rows = [f"{text} {i}\t{label}" for i in range(40) for label, text in tiny.INTENTS.items()]
    path.write_text("text\tlabel\n" + "\n".join(rows) + "\n")
    return path


def test_what_a_recipe_says_is_not_chosen() -> None:
    """Numbers win over the rules, and a given length is neither held out for nor stopped early."""
    given = Schedule(epochs=2.0, learning_rate=1e-5, batch_size=7, precision="float32")
    course = choose(given, MINILM)
    assert (course.epochs, course.learning_rate, course.batch_size) == (2.0, 1e-5, 7)
    assert course.patience == 0
    assert not given.holds_out
    assert Schedule().holds_out


def test_the_rate_falls_with_the_width_of_a_model() -> None:
    """MiniLM, BERT-base and BERT-large get the rates that such encoders are known to bear."""
    found = [choose(Schedule(), replace(MINILM, width=w)).learning_rate for w in (384, 768, 1024)]
    assert found == [2e-4, 5e-5, 2.8e-5]
    assert choose(Schedule(), replace(MINILM, width=8)).learning_rate == 1e-3
    assert choose(Schedule(), replace(MINILM, student=True)).learning_rate == 5e-4


def test_few_rows_are_read_more_often_and_in_smaller_steps() -> None:
    """There are enough steps to learn in, whatever the size of the data."""
    for rows in (20, 200, 2000, 15_000, 200_000):
        course = choose(Schedule(), replace(MINILM, rows=rows))
        assert rows * course.epochs / course.batch_size >= min(300, rows * 40 / 8)
        assert 2 <= course.epochs <= 40


def test_the_length_is_bounded_by_counted_time() -> None:
    """Half the minutes are half the epochs; no clock is read, and the course says so."""
    large = replace(MINILM, weights=85_000_000, width=768, tokens=40.0, rows=10_000)
    long, short = (choose(Schedule(max_minutes=m), large) for m in (60.0, 30.0))
    assert long.epochs == 2 * short.epochs + 1
    assert short.bounded
    assert not choose(Schedule(), MINILM).bounded


def test_bfloat16_is_chosen_where_the_processor_computes_in_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A CPU without it, or a model too narrow to gain, trains in float32."""
    import torch

    for native, width, wanted in (
        (True, 384, "bfloat16"), (False, 384, "float32"), (True, 32, "float32"),
    ):  # fmt: skip
        monkeypatch.setattr(
            torch.cpu, "get_capabilities", lambda n=native: {"avx512_bf16": n}, raising=False
        )
        monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
        assert choose(Schedule(), replace(MINILM, width=width)).precision == wanted


def _labelled(counts: dict[str, int]) -> list[Example]:
    rows = [(f"{label} {i}", label) for label, count in counts.items() for i in range(count)]
    return [Example(text=text, line=n, label=label) for n, (text, label) in enumerate(rows)]


def test_every_class_gives_its_share_of_held_out_rows() -> None:
    """The split is stratified, the same for a seed, and leaves a rare class its only rows."""
    examples = _labelled({"a": 400, "b": 200, "rare": 1})
    held = holdout.split(examples, 0)
    labels = [examples[i].label for i in held]
    assert len(held) == held_out(601)
    assert labels.count("a") == 2 * labels.count("b")
    assert "rare" not in labels
    assert held == holdout.split(examples, 0) != holdout.split(examples, 1)


def test_equal_texts_are_held_out_together_or_not_at_all() -> None:
    """No held-out text is also learned."""
    examples = _labelled({"a": 90, "b": 90}) * 3
    held = set(holdout.split(examples, 0))
    texts = {examples[i].text for i in held}
    assert held
    assert all(i in held for i, e in enumerate(examples) if e.text in texts)


def test_few_rows_are_all_learned_from() -> None:
    """Below a hundred nothing is held out."""
    assert holdout.split(_labelled({"a": 50, "b": 49}), 0) == []


@pytest.mark.parametrize("side", ["left", "right"])
def test_a_packed_batch_is_what_the_tokenizer_pads(side: str, model: Get) -> None:
    """Texts and pairs of texts: the same ids, mask and types, and labels beside them."""
    from transformers import AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(model("bert-intent"), padding_side=side)
    config = load_torch(model("bert-intent"), TASK).config
    names = list(config.label2id)
    for pair in (None, "in the kitchen"):
        texts = ["lights on", "what's the weather like", "book a table"]
        examples = [Example(t, i, pair, names[i]) for i, t in enumerate(texts)]
        rows, words = pack(tokenizer, examples, 64)
        labels = pack_labels(examples, rows, words, config)
        wanted = tokenizer([texts[2], texts[0]], None if pair is None else [pair] * 2, padding=True)
        found = rows.pad([2, 0])
        assert {name: tensor.tolist() for name, tensor in found.items()} == dict(wanted)
        assert labels is not None
        assert labels.pick([2, 0]).tolist() == [config.label2id[names[i]] for i in (2, 0)]


def test_an_epoch_takes_every_row_once_in_an_order_of_its_own() -> None:
    """Rows of one step are of like length, and the order is the seed's and the epoch's."""
    lengths = list(range(100)) * 2
    order = ByLength(lengths, 10, seed=0)
    first = list(order)
    order.set_epoch(1)
    second = list(order)
    assert sorted(first) == sorted(second) == list(range(200))
    assert first != second
    steps = [first[i : i + 10] for i in range(0, 200, 10)]
    assert max(max(lengths[i] for i in s) - min(lengths[i] for i in s) for s in steps) < 20


class _Line:
    """A model of one weight that a large learning rate throws off."""

    def __init__(self) -> None:
        import torch

        self.model = torch.nn.Linear(1, 1, bias=False)
        torch.nn.init.zeros_(self.model.weight)

    def job(self) -> Job:
        """Return the job of learning y = x."""
        import torch

        def loss(model: Any, batch: dict[str, Any]) -> Any:
            return ((model(batch["x"]) - batch["x"]) ** 2).mean()

        return Job(
            self.model, [1] * 40, list(range(30)),
            lambda rows: {"x": torch.ones(len(rows), 1)}, loss, held=list(range(30, 40)),
        )  # fmt: skip


def test_a_rate_that_does_harm_is_lowered() -> None:
    """A short trial finds a smaller rate better; the model is as before, and a good rate stays."""
    line = _Line()
    course = Course(1.0, 30.0, 8, "float32", 0)
    tried = rates.settle(line.job(), course, list(range(30)))
    assert rates.best(tried) < 30.0
    assert float(line.model.weight.detach()) == 0.0
    kept = rates.settle(line.job(), replace(course, learning_rate=0.1), list(range(30)))
    assert rates.best(kept) == 0.1


@pytest.fixture(scope="module")
def base(model: Get, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a tiny model with weights to learn from."""
    return tiny.redraw(model("bert-intent"), tmp_path_factory.mktemp("base"))


@pytest.fixture(scope="module")
def fitted(base: Path, train: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a teacher that was fine-tuned without a number."""
    out = tmp_path_factory.mktemp("fitted")
    finetune.finetune(finetune.Settings(TASK), {"model": base, "data": train}, out)
    return out


def _weights(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def test_fine_tuning_without_a_number_learns_and_tells_what_it_chose(
    fitted: Path, train: Path
) -> None:
    """The model knows its data; the record has rate, length, and a held-out figure by epoch."""
    told = json.loads((fitted / "training.json").read_text())
    assert evaluate(open_torch(fitted, TASK), read_examples(str(train), TASK)).value > 0.95
    assert (told["rows"], told["held_out"], told["figure"]) == (144, 16, "accuracy")
    assert told["history"][-1]["held_out"] > 0.9
    early = told["stopped"] == "no gain on held-out rows"
    assert early == (told["history"][-1]["epoch"] < told["epochs"])
    assert told["learning_rate"] == 1e-3
    assert 0 <= told["probe"] <= 1


class PowerCutError(Exception):
    """Stands for a kill: nothing cleans up after it."""


@pytest.fixture
def cut() -> Iterator[Callable[[float], None]]:
    """Return a function that has the next training die when so much of it is done."""
    tokens = []

    def at(share: float) -> None:
        def show(done: int, total: int) -> None:
            if done >= total * share:
                raise PowerCutError

        tokens.append(progress._steps.set(show))

    yield at
    for token in reversed(tokens):
        progress._steps.reset(token)


def test_a_killed_training_without_numbers_resumes_to_the_same_weights(
    base: Path, fitted: Path, train: Path, tmp_path: Path, cut: Callable[[float], None]
) -> None:
    """The rate is tried again, the epochs go on, and it stops where an unbroken one stops."""
    settings, inputs = finetune.Settings(TASK), {"model": base, "data": train}
    told = json.loads((fitted / "training.json").read_text())
    cut(0.6 * told["history"][-1]["epoch"] / told["epochs"])
    with pytest.raises(PowerCutError):
        finetune.finetune(settings, inputs, tmp_path)
    assert list((tmp_path / "checkpoints").glob("checkpoint-*"))
    cut(2.0)
    finetune.finetune(settings, inputs, tmp_path)
    assert _weights(tmp_path) == _weights(fitted)
    assert (tmp_path / "training.json").read_bytes() == (fitted / "training.json").read_bytes()


def test_a_training_killed_at_its_end_does_not_go_on(
    base: Path, train: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped early and killed before it wrote its result: no step more, the same best weights."""
    import shutil

    schedule = Schedule(epochs=40.0, learning_rate=5e-3, patience=4)
    settings, inputs = finetune.Settings(TASK, schedule), {"model": base, "data": train}
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    for folder in (whole, broken):
        folder.mkdir()
    finetune.finetune(settings, inputs, whole)
    told = json.loads((whole / "training.json").read_text())
    assert told["stopped"] == "no gain on held-out rows"
    assert told["history"][-1]["epoch"] < 40

    def die(*_: Any, **__: Any) -> None:
        raise PowerCutError

    with monkeypatch.context() as patch:
        patch.setattr(shutil, "rmtree", lambda *_, **__: None)
        patch.setattr(training, "history_of", die)
        with pytest.raises(PowerCutError):
            finetune.finetune(settings, inputs, broken)
    monkeypatch.setattr("transformers.Trainer.train", die)
    finetune.finetune(settings, inputs, broken)
    assert _weights(broken) == _weights(whole)
    assert (broken / "training.json").read_bytes() == (whole / "training.json").read_bytes()


def test_a_student_without_a_number_agrees_with_its_teacher(
    fitted: Path, train: Path, tmp_path: Path
) -> None:
    """Copies, rate and length are chosen; no copy of a held-out row is learned from."""
    rows, lesson, out = tmp_path / "rows", tmp_path / "lesson", tmp_path / "student"
    for folder in (rows, lesson, out):
        folder.mkdir()
    augment.augment(augment.Settings(TASK, copies=None), {"data": train}, rows)
    origins = augment.read_origins(rows)
    assert len(origins) == 160 * 13
    examples = augment.read_rows(rows)
    learn, held = distill._divide(distill.Settings(TASK), examples, origins)
    assert {origins[i] for i in learn}.isdisjoint(held)
    assert {origins[i] for i in learn} | set(held) == set(range(160))
    teach.teach(teach.Settings(TASK), {"teacher": fitted, "rows": rows}, lesson)
    settings = distill.Settings(TASK, Schedule(max_minutes=0.0008), layers=1)
    distill.distill(settings, {"model": fitted, "rows": rows, "lesson": lesson}, out)
    assert evaluate(open_torch(out, TASK), read_examples(str(train), TASK)).value > 0.9
    assert json.loads((out / "training.json").read_text())["figure"] == "loss"


def _record(figures: list[float], **more: Any) -> record.Record:
    history = [{"epoch": i + 1, "held_out": figure} for i, figure in enumerate(figures)]
    return record.Record(
        2e-4, len(figures), 32, "float32", 900, 100, "accuracy", "all epochs were done", history,
        **more,
    )  # fmt: skip


def test_a_training_that_was_too_short_says_so() -> None:
    """One line names both figures and the remedy; a settled training says nothing."""
    (rising,) = record.remarks(_record([0.7, 0.81]), "finetune")
    assert "from 70.0% to 81.0%" in rising
    assert "finetune.max_minutes" in rising
    (below,) = record.remarks(_record([0.81, 0.81], probe=0.9), "finetune")
    assert "81.0%" in below
    assert "90.0%" in below
    assert record.remarks(_record([0.92, 0.921], probe=0.9), "finetune") == []


def test_a_size_becomes_layers_heads_and_neurons() -> None:
    """They follow from the model's own config, and a table of the recipe wins."""
    shapes = {}
    for size in presets.SIZES:
        steps = presets.expand(Compression(size=size), BERT, Columns())
        assert steps.prune
        assert steps.distill
        shapes[size] = (steps.prune.layers, steps.prune.heads, steps.prune.feed_forward)
    assert shapes == {"small": (3, 6, 512), "balanced": (3, 0, 768), "accurate": (4, 0, 0)}
    own = Compression(size="small", prune=prune.Settings("", layers=5))
    assert presets.expand(own, BERT, Columns()).prune == own.prune
    assert presets.expand(Compression(), BERT, Columns()) == Compression()


@pytest.mark.parametrize("size", presets.SIZES)
@pytest.mark.parametrize("depth", [1, 2, 3, 4, 12, 24])
def test_no_size_keeps_more_layers_than_there_are(size: str, depth: int) -> None:
    """Shallow models too are left with a layer, and small is no deeper than balanced."""
    config = {**BERT, "num_hidden_layers": depth}
    kept = {s: presets.expand(Compression(size=s), config, Columns()).prune for s in presets.SIZES}
    found = {s: p.layers for s, p in kept.items() if p}
    assert 1 <= found[size] <= depth
    assert found["small"] <= found["balanced"] <= found["accurate"]


def test_common_words_stay_though_the_data_lacks_them(
    model: Get, train: Path, tmp_path: Path
) -> None:
    """A share of the vocabulary is kept in its own order; none of it where the recipe says 0."""
    sizes = []
    for share in (0.0, 0.5, 1.0):
        out = tmp_path / str(share)
        out.mkdir()
        settings = vocabulary.Settings(TASK, general=share)
        vocabulary.trim(settings, {"model": model("bert-intent"), "data": train}, out)
        sizes.append(open_torch(out, TASK).encoder.tokenizer.get_vocab_size())
    whole = open_torch(model("bert-intent"), TASK).encoder.tokenizer
    assert sizes[0] < sizes[1] < sizes[2] == whole.get_vocab_size()
    kept = open_torch(tmp_path / "0.5", TASK).encoder.tokenizer.get_vocab()
    common = [whole.id_to_token(i) for i in range(whole.get_vocab_size() // 3)]
    assert all(token in kept for token in common)


def _planned(folder: Path, model: Path, text: str) -> None:
    path = folder / "edgepack.toml"
    head = f'[model]\nsource = "{model}"\n[data]\ntrain = "train.tsv"\n'
    path.write_text(text.replace("[model]", head) if "[model]" in text else head + text)
    plans(read_recipe(path), [find_target("cpu-arm64")])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[prune]\nlayers = 7\n", "prune.layers = 7 is more than the model's 2"),
        ("[prune]\nfeed_forward = 9999\n", "prune.feed_forward = 9999 is more than the model's"),
        ("[prune]\nheads = 0\n", "prune.heads: must be at least 1, not 0"),
        ("[prune]\n", "prune: removes nothing"),
        ("[prune]\nlayers = 1\n[distill]\nlayers = 2\n", "distill.layers is 2; the model has 1"),
        ('evaluation = "other.tsv"\n[finetune]\n', "labels that the model does not know: 'lamps'"),
        ('evaluation = "numbers.tsv"\n[finetune]\n', "labels that the model does not know: '0'"),
        ('evaluation = "other.tsv"\n[distill]\n', "labels that the model does not know: 'lamps'"),
    ],
)
def test_what_cannot_work_is_refused_before_any_training(
    text: str, message: str, model: Get, train: Path, tmp_path: Path
) -> None:
    """Sizes and labels are checked when the build is planned, from config.json and the data."""
    rows = train.read_text()
    (tmp_path / "train.tsv").write_text(rows)
    (tmp_path / "other.tsv").write_text(rows.replace("\tlights", "\tlamps"))
    (tmp_path / "numbers.tsv").write_text("text\tlabel\nlights on\t0\nrain\t1\n")
    with pytest.raises(InputError, match=message):
        _planned(tmp_path, model("bert-intent"), text)


def test_one_class_only_is_refused_before_any_training(model: Get, tmp_path: Path) -> None:
    """There is nothing to learn from one label, and the plan says so."""
    (tmp_path / "train.tsv").write_text("text\tlabel\nhello\ta\nyou\ta\n")
    with pytest.raises(InputError, match="only one class: a"):
        _planned(tmp_path, model("bert-intent"), "[finetune]\n")


def test_a_recipe_names_a_size_at_its_top(model: Get, train: Path, tmp_path: Path) -> None:
    """`compress = "small"` plans trimming, pruning and distilling; other words are refused."""
    (tmp_path / "train.tsv").write_text(train.read_text())
    path = tmp_path / "edgepack.toml"
    rest = f'[model]\nsource = "{model("bert-intent")}"\n[data]\ntrain = "train.tsv"\n'
    path.write_text('compress = "small"\n' + rest)
    (plan,) = plans(read_recipe(path), [find_target("cpu-arm64")])
    assert [form.name for form in plan.forms] == ["teacher", "trimmed", "pruned", "distilled"]
    path.write_text('compress = "smal"\n' + rest)
    with pytest.raises(InputError, match="did you mean 'small'"):
        read_recipe(path)


def test_a_model_that_cannot_be_cut_has_no_size(model: Get, train: Path) -> None:
    """ALBERT shares its layers: a size is refused by name of the model's type."""
    recipe = Recipe(
        source=str(model("albert")), data=Data(train=str(train)),
        compression=Compression(size="small"),
    )  # fmt: skip
    with pytest.raises(InputError, match="compress: models of type 'albert' cannot be pruned"):
        plans(recipe, [find_target("cpu-arm64")])
