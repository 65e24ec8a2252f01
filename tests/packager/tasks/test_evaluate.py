"""Evaluation: the figures are those of scikit-learn, scipy and seqeval, for torch and bundle."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepack.cli import main
from edgepack.data.rows import Example, read_examples
from edgepack.model.torch_model import open_torch
from edgepack.tasks import Quality, evaluate
from edgepack_runtime import InputError, load

Get = Callable[..., Path]
TEXTS = ["turn on the lights", "what's the weather like", "can you book a table", "the quick fox"]


def _examples(labels: list[str]) -> list[Example]:
    return [
        Example(text, i, label=label)
        for i, (text, label) in enumerate(zip(TEXTS, labels, strict=True), 1)
    ]


def test_accuracy_is_the_share_of_right_answers(model: Get) -> None:
    """Rows labelled with the model's own answers score 1; one wrong label costs a quarter."""
    opened = open_torch(model("bert-intent"), "text-classification")
    answers = [answer["label"] for answer in opened(TEXTS)]
    assert evaluate(opened, _examples(answers)).value == 1.0
    others = [name for name in opened.task.labels if name != answers[0]]
    found = evaluate(opened, _examples([others[0], *answers[1:]]))
    assert found.figures["accuracy"] == 0.75
    assert 0 < found.figures["macro_f1"] < 1


def test_torch_and_float_bundle_have_the_same_quality(model: Get, bundle: Get) -> None:
    """The same code measures both, and a float bundle loses nothing."""
    examples = _examples(["lights", "weather", "booking", "other"])
    before = evaluate(open_torch(model("bert-intent"), "text-classification"), examples)
    after = evaluate(load(bundle("bert-intent", precision="float32")), examples)
    assert before == after


def test_entities_are_scored_as_seqeval_does(model: Get) -> None:
    """The model's own tags score 1; a wrong type costs an entity, not its tokens."""
    opened = open_torch(model("bert-ner"), "token-classification")
    words = ["Angela", "Merkel", "met", "the", "mayor", "of", "New", "York"]
    tokens = opened([words], is_split_into_words=True, ignore_labels=[])[0]
    starts = {sum(len(w) + 1 for w in words[:i]): i for i in range(len(words))}
    tags = ["O"] * len(words)
    for token in tokens:
        if token["start"] in starts:
            tags[starts[token["start"]]] = token["entity"]
    example = Example(" ".join(words), 1, words=tuple(words), tags=tuple(tags))
    found = evaluate(opened, [example])
    assert found.figures["token_accuracy"] == 1.0
    assert found.figures["entity_f1"] in (0.0, 1.0)  # 0 only if the model sees no entity
    wrong = tuple("B-PER" if tag == "O" else tag for tag in tags)
    worse = evaluate(opened, [Example(" ".join(words), 1, words=tuple(words), tags=wrong)])
    assert worse.value <= found.value


def test_several_labels_are_scored_label_by_label(model: Get) -> None:
    """micro, macro and samples F1 and exact match, at a threshold of one half."""
    opened = open_torch(model("bert-multi-label"), "text-classification")
    answers = opened(TEXTS, top_k=None)
    own = [tuple(e["label"] for e in answer if e["score"] > 0.5) for answer in answers]
    examples = [Example(t, 1, label=names) for t, names in zip(TEXTS, own, strict=True)]
    found = evaluate(opened, examples)
    assert found.main == "micro_f1"
    assert found.figures["exact_match"] == 1.0


def test_embeddings_of_pairs_and_of_classes(model: Get) -> None:
    """Pairs with a score are correlated; texts with a label look at their nearest neighbour."""
    opened = open_torch(model("sentence"), "sentence-similarity")
    rows = [(TEXTS[0], TEXTS[0], 1.0), (TEXTS[0], TEXTS[1], 0.1), (TEXTS[2], TEXTS[3], 0.2)]
    pairs = [Example(a, 1, pair=b, label=score) for a, b, score in rows]
    assert set(evaluate(opened, pairs).figures) == {"spearman", "pearson"}
    twice = [Example(text, 1, label=text) for text in TEXTS for _ in range(2)]
    assert evaluate(opened, twice) == Quality("nearest_accuracy", {"nearest_accuracy": 1.0}, 8)


def test_labels_that_the_model_does_not_know_are_refused(model: Get) -> None:
    """The message counts them, shows some, and says what is known."""
    opened = open_torch(model("bert-intent"), "text-classification")
    with pytest.raises(InputError, match=r"2 labels that the model does not know: 'no', 'yes'"):
        evaluate(opened, _examples(["yes", "no", "lights", "other"]))
    with pytest.raises(InputError, match="line 1: no label"):
        evaluate(opened, [Example("a", 1)])


def test_the_teacher_has_the_accuracy_that_was_published(data: Path) -> None:
    """96.17 % on the 3000 rows of CLINC150's val.tsv."""
    examples = read_examples(str(data / "data/clinc150/val.tsv"), "text-classification")
    teacher = open_torch(data / "models/clinc150-teacher", "text-classification")
    found = evaluate(teacher, examples, batch_size=32)
    assert found.rows == 3000
    assert round(found.value, 4) == 0.9617


def test_perplexity_is_that_of_the_whole_text(tmp_path: Path, model: Get) -> None:
    """Windows and one long pass agree, and a uniform model is as surprised as its vocabulary."""
    import torch
    from transformers import AutoTokenizer, GPT2Config, GPT2LMHeadModel

    from edgepack.cli.evaluate import Asked, evaluate_source
    from edgepack.data.rows import Columns

    tokenizer = AutoTokenizer.from_pretrained(model("roberta-ner"))
    tokenizer.save_pretrained(tmp_path / "lm")
    config = GPT2Config(vocab_size=len(tokenizer), n_positions=32, n_embd=16, n_layer=1, n_head=1)
    uniform = GPT2LMHeadModel(config)
    torch.nn.init.zeros_(uniform.transformer.wte.weight)
    uniform.save_pretrained(tmp_path / "lm")
    (tmp_path / "text.txt").write_text("\n".join(TEXTS * 10))
    _, found = evaluate_source(
        str(tmp_path / "lm"), str(tmp_path / "text.txt"), Columns(), Asked(task="text-generation")
    )
    assert found.value == pytest.approx(len(tokenizer), rel=1e-4)


def test_the_figure_that_counts_has_a_name_for_people(model: Get, tmp_path: Path) -> None:
    """`evaluate` says which figure it is, for every task; none is only called quality."""
    data = tmp_path / "d.tsv"
    data.write_text("text\tlabel\n" + "".join(f"{text}\tlights\n" for text in TEXTS))
    data.write_bytes(data.read_text().replace("\t", "~").encode("utf-16-be"))
    args = ["evaluate", str(model("bert-intent")), "--data", str(data)]
    args += ["--encoding", "utf-16-be", "--delimiter", "~"]
    result = CliRunner().invoke(main, args)
    assert result.exit_code == 0, result.output
    assert f"on 4 rows of {data}: accuracy 0." in result.output
    names = {
        "accuracy": "accuracy",
        "micro_f1": "micro-F1",
        "entity_f1": "entity F1",
        "spearman": "Spearman",
    }
    assert {key: Quality(key, {}, 1).name for key in names} == names
