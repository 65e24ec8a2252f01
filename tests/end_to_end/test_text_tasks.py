"""Questions, masks, labels by call and rankings: bundles answer as the pipelines do."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import agreement
import pytest
import tiny
import torch
from click.testing import CliRunner

import edgepack_runtime as er
from edgepack.cli import main
from edgepack.recipe.target import find_target
from edgepack_runtime import InputError

pytestmark = pytest.mark.filterwarnings("ignore")  # of transformers' pipelines and exporters
ENGINES = ["openvino-float32", "onnxruntime-float32"]
NLI = ["contradiction", "neutral", "entailment"]
Get = Callable[[str], tuple[Path, Path]]
QUESTIONS = [
    {"question": question, "context": context}
    for question in ("Where is the Blue Lagoon?", "who met the mayor", "开会 在 哪里")
    for context in (tiny.SENTENCES[0], " ".join(tiny.SENTENCES), "ok", "华为公司在上海。")
]


def _make(kind: str, folder: Path) -> Path:
    """Write a small model of a kind, `family task`, with random weights."""
    import transformers

    family, head = kind.split()
    tokenizer = tiny.wordpiece(folder) if family == "bert" else tiny.bytelevel(folder)
    tokenizer.model_max_length = 384 if head == "qa" else 128
    labels = {"nli": NLI, "rank": ["LABEL_0"]}.get(head, ["LABEL_0", "LABEL_1"])
    config = transformers.AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        max_position_embeddings=386,
        **tiny.SIZES,
        id2label=dict(enumerate(labels)),
        label2id={name: i for i, name in enumerate(labels)},
    )
    if head == "rank":
        config.sentence_transformers = {"activation_fn": "torch.nn.modules.linear.Identity"}
    name = {"qa": "QuestionAnswering", "mlm": "MaskedLM"}.get(head, "SequenceClassification")
    torch.manual_seed(11)
    model = getattr(transformers, f"AutoModelFor{name}").from_config(config).eval()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3) if parameter.dim() > 1 else None
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


TASKS = {
    "qa": "question-answering",
    "mlm": "fill-mask",
    "nli": "zero-shot-classification",
    "rank": "text-ranking",
}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Get:
    """Return a function from a kind to its model and its bundle, made once."""
    found: dict[str, tuple[Path, Path]] = {}

    def get(kind: str) -> tuple[Path, Path]:
        if kind not in found:
            folder = tmp_path_factory.mktemp("model")
            model = _make(kind, folder / "model")
            task = TASKS[kind.split()[1]]
            arguments = [
                "build",
                str(model),
                "--task",
                task,
                "--name",
                "m",
                "-t",
                "native",
                "--precision",
                "float32",
                "-o",
                str(folder),
            ]
            done = CliRunner().invoke(main, arguments, catch_exceptions=False)
            assert done.exit_code == 0, done.output
            found[kind] = model, folder / f"m-{find_target('native').name}.epk"
        return found[kind]

    return get


def _probable(answers: Any) -> list[Any]:
    """Return the answers with a probability.

    Where a text has fewer than `top_k`, the pipeline adds some that end before they start.
    """
    listed = answers if isinstance(answers, list) else [answers]
    return [answer for answer in listed if answer["score"] > 0]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["bert qa", "roberta qa"])
def test_question_answering_equals_the_pipeline(kind: str, engine: str, made: Get) -> None:
    """Score, place and text of every answer, in windows too, with and without whole words."""
    model, bundle = made(kind)
    pipeline = agreement.pipeline_for(model, "question-answering")
    ours = er.load(bundle, variant=engine)
    for item in QUESTIONS:
        agreement.same(pipeline(**item), ours(item))
        for how in (
            {"top_k": 4},
            {"align_to_words": False, "top_k": 3},
            {"handle_impossible_answer": True},
            {"max_seq_len": 40, "doc_stride": 10},
            {"max_answer_len": 3},
        ):
            agreement.same(_probable(pipeline(**item, **how)), _probable(ours(item, **how)))
    agreement.same(pipeline(QUESTIONS), ours(QUESTIONS, batch_size=5))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["bert mlm", "roberta mlm"])
def test_fill_mask_equals_the_pipeline(kind: str, engine: str, made: Get) -> None:
    """Tokens, texts and scores; several masks; words to choose from."""
    model, bundle = made(kind)
    pipeline = agreement.pipeline_for(model, "fill-mask")
    ours = er.load(bundle, variant=engine)
    mask = pipeline.tokenizer.mask_token
    texts = [" ".join([*text.split()[:2], mask, *text.split()[3:]]) for text in tiny.SENTENCES]
    for text in texts:
        agreement.same(pipeline(text), ours(text))
        agreement.same(pipeline(text, top_k=2), ours(text, top_k=2))
        two = f"{mask} {text}"
        agreement.same(pipeline(two), ours(two))
        words = ["the", "table"]
        agreement.same(pipeline(text, targets=words), ours(text, targets=words))
    agreement.same(pipeline(texts), ours(texts))
    with pytest.raises(InputError, match=r"no .*(?i:mask).* in 'nothing is hidden'"):
        ours("nothing is hidden")


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["bert nli", "roberta nli"])
def test_zero_shot_classification_equals_the_pipeline(kind: str, engine: str, made: Get) -> None:
    """Labels of the call, one or several that fit, other sentences, and texts that are cut."""
    model, bundle = made(kind)
    pipeline = agreement.pipeline_for(model, "zero-shot-classification")
    ours = er.load(bundle, variant=engine)
    labels = ["travel", "cooking and food", "light"]
    for text in [*tiny.SENTENCES, " ".join(tiny.SENTENCES * 3)]:
        for how in (
            {},
            {"multi_label": True},
            {"hypothesis_template": "It is about {}!"},
        ):
            agreement.same(
                pipeline(text, labels, **how), ours(text, candidate_labels=labels, **how)
            )
    for given in ("a, b", ["only one"]):
        agreement.same(pipeline("text", given), ours("text", candidate_labels=given))
    agreement.same(pipeline(tiny.SENTENCES, labels), ours(tiny.SENTENCES, candidate_labels=labels))


@pytest.mark.parametrize("engine", ENGINES)
def test_ranking_equals_the_cross_encoder(engine: str, made: Get) -> None:
    """The logits of both texts together, best first, as `CrossEncoder.rank` returns them."""
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    folder, bundle = made("bert rank")
    model = AutoModelForSequenceClassification.from_pretrained(folder).eval()
    tokenizer = AutoTokenizer.from_pretrained(folder)
    ours = er.load(bundle, variant=engine)
    query, documents = "where is the table?", tiny.SENTENCES
    given = tokenizer([query] * len(documents), documents, padding=True, return_tensors="pt")
    with torch.no_grad():
        logits = model(**given).logits[:, 0].numpy()
    found = ours({"query": query, "documents": documents}, return_documents=True)
    assert [row["corpus_id"] for row in found] == sorted(
        range(len(documents)), key=lambda at: -logits[at]
    )
    for row in found:
        assert row["score"] == pytest.approx(logits[row["corpus_id"]], abs=1e-4)
        assert row["text"] == documents[row["corpus_id"]]
    pairs = [(query, text) for text in documents]
    assert ours(pairs) == pytest.approx(list(logits), abs=1e-4)
    assert ours(pairs[:1], function_to_apply="sigmoid")[0] == pytest.approx(
        float(torch.sigmoid(torch.tensor(logits[0]))), abs=1e-4
    )
    assert len(ours({"query": query, "documents": documents}, top_k=3)) == 3


@pytest.mark.parametrize(
    ("kind", "item", "how", "message"),
    [
        ("bert qa", "a text", {}, 'question answering takes {"question"'),
        ("bert qa", {"question": "a", "context": " "}, {}, "the context is empty"),
        ("bert qa", {"question": "a " * 500, "context": "b"}, {}, "must fit in 384 tokens"),
        ("bert qa", QUESTIONS[0], {"top_k": 0}, "top_k must be at least 1"),
        ("bert qa", QUESTIONS[0], {"doc_stride": 500}, "stride must be from 0"),
        ("bert mlm", "[MASK]", {"targets": []}, "at least one word"),
        ("bert nli", "a", {}, "needs candidate_labels"),
        ("bert nli", "a", {"candidate_labels": " , "}, "needs candidate_labels"),
        ("bert nli", "a", {"candidate_labels": "a", "hypothesis_template": "b"}, "has no {}"),
        ("bert rank", "a", {}, 'text ranking takes {"query"'),
        ("bert rank", {"query": "a", "documents": "b"}, {}, 'text ranking takes {"query"'),
    ],
)
def test_a_wrong_call_is_one_clear_error(
    kind: str, item: Any, how: dict[str, Any], message: str, made: Get
) -> None:
    """It says what the task takes."""
    ours = er.load(made(kind)[1])
    with pytest.raises(InputError, match=message.replace("{", r"\{").replace("}", r"\}")):
        ours(item, **how)


DATA: dict[str, list[dict[str, Any]]] = {
    "bert qa": [
        {
            "question": "who met the mayor",
            "context": tiny.SENTENCES[0],
            "answers": {"text": ["Angela Merkel", "Merkel"], "answer_start": [0, 7]},
        },
        {"question": "what is it", "context": tiny.SENTENCES[1], "answers": {"text": ["x"]}},
    ],
    "bert mlm": [{"text": text} for text in tiny.SENTENCES],
    "bert nli": [{"text": text, "label": "light"} for text in tiny.SENTENCES[:3]]
    + [{"text": text, "label": "travel"} for text in tiny.SENTENCES[3:6]],
    "bert rank": [
        {"query": query, "document": text, "relevance": at % 3}
        for query in ("a table", "the lights")
        for at, text in enumerate(tiny.SENTENCES[:5])
    ],
}
FIGURES = {
    "bert qa": "qa_f1",
    "bert mlm": "accuracy",
    "bert nli": "accuracy",
    "bert rank": "ndcg_at_10",
}


@pytest.mark.parametrize("kind", DATA)
def test_a_bundle_and_its_model_have_the_same_quality(kind: str, made: Get, tmp_path: Path) -> None:
    """`evaluate` reads the usual columns, and judges torch and bundle alike."""
    model, bundle = made(kind)
    path = tmp_path / "rows.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in DATA[kind]))
    figures = []
    for source in (bundle, model):
        arguments = ["evaluate", str(source), "--data", str(path), "--json"]
        task = ["--task", TASKS[kind.split()[1]]] if source == model else []
        done = CliRunner().invoke(main, [*arguments, *task], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        figures.append(json.loads(done.stdout)["figures"])
    assert figures[0] == pytest.approx(figures[1], abs=1e-6)
    assert 0 <= figures[0][FIGURES[kind]] <= 1


@pytest.mark.parametrize("kind", DATA)
def test_int8_is_built_and_proves_itself(kind: str, made: Get, tmp_path: Path) -> None:
    """Every variant of a board passes its golden inputs."""
    model, _ = made(kind)
    arguments = [
        "build",
        str(model),
        "--task",
        TASKS[kind.split()[1]],
        "--name",
        "m",
        "-t",
        "cpu-x86-64",
        "-o",
        str(tmp_path),
    ]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    bundle = tmp_path / "m-cpu-x86-64.epk"
    from edgepack_runtime.model.selftest import selftest

    opened = er.Bundle.open(bundle)
    for variant in opened.manifest.variants:
        selftest(opened, er.load(bundle, variant=variant.name, any_device=True))


@pytest.mark.parametrize("steps", ["[finetune]", "[prune]\nlayers = 1", 'compress = "small"'])
def test_a_step_that_is_not_built_for_a_task_is_refused(
    steps: str, made: Get, tmp_path: Path
) -> None:
    """With the task's name, before anything runs."""
    model, _ = made("bert qa")
    (tmp_path / "rows.jsonl").write_text("\n".join(json.dumps(row) for row in DATA["bert qa"]))
    first, rest = (steps, "") if "compress" in steps else ("", steps)
    recipe = tmp_path / "edgepack.toml"
    recipe.write_text(
        f'{first}\n[model]\nsource = "{model}"\n[data]\ntrain = "rows.jsonl"\n{rest}\n'
    )
    done = CliRunner().invoke(main, ["build", str(recipe), "-t", "cpu-x86-64"])
    assert done.exit_code == 2
    assert "models for question-answering are quantized, but not trained" in done.output


@pytest.mark.parametrize("language", ["en", "zh", "ar"])
def test_real_questions_are_answered_as_by_the_pipeline(
    language: str, made: Get, data: Path
) -> None:
    """XQuAD: seventy questions on long texts, which are read in windows."""
    model, bundle = made("bert qa")
    pipeline = agreement.pipeline_for(model, "question-answering")
    ours = er.load(bundle, variant="onnxruntime-float32")
    lines = (data / f"data/xquad/{language}.jsonl").read_text().splitlines()[::17][:70]
    rows = [json.loads(line) for line in lines]
    asked = [{"question": row["question"], "context": row["context"]} for row in rows]
    words = language != "zh"
    for item, found in zip(asked, ours(asked, align_to_words=words), strict=True):
        agreement.same(pipeline(**item, align_to_words=words), found)
