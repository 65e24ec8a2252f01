"""From one text to another: what a bundle writes is what transformers writes."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pair_models
import pytest
from click.testing import CliRunner

from edgepack.cli import main
from edgepack_runtime import Bundle, InputError, Model, load
from edgepack_runtime.model.selftest import selftest

TEXTS = ["turn on the lights", "a long story about a little girl", "no"]
Built = Callable[..., Path]


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """Return a function that makes a model and its bundle once."""
    root = tmp_path_factory.mktemp("pairs")

    def get(kind: str, *options: str) -> Path:
        folder = root / kind
        if not folder.exists():
            pair_models.with_tokenizer(kind, folder)
        out = folder / ("-".join(options).replace("/", "") or "plain")
        if not out.exists():
            arguments = ["build", str(folder / "model"), "-t", "cpu-x86-64", "-o", str(out)]
            done = CliRunner().invoke(main, [*arguments, *options], catch_exceptions=False)
            assert done.exit_code == 0, done.output
        return next(out.glob("*.epk"))

    return get


@pytest.fixture(scope="module")
def reader(built: Built) -> Model:
    """A model that rewrites texts, in float32."""
    return load(built("bart", "--precision", "float32"))


def _wanted(folder: Path, text: str, **how: Any) -> str:
    import torch
    from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSeq2SeqLM.from_pretrained(folder).eval()
    ids = torch.tensor([tokenizer(text).input_ids])
    with torch.no_grad():
        mask = torch.ones_like(ids)  # else tokens are taken for padding
        found = model.generate(ids, attention_mask=mask, do_sample=False, **how)[0]
    return str(tokenizer.decode(found, skip_special_tokens=True))


@pytest.mark.parametrize("beams", [1, 4])
def test_a_bundle_writes_what_transformers_writes(reader: Model, built: Built, beams: int) -> None:
    """With a start that the model declares, one beam and several; all inputs at once."""
    bundle = built("bart", "--precision", "float32")
    assert reader.task.name == "text2text-generation"
    wanted = [
        {
            "generated_text": _wanted(
                bundle.parents[1] / "model", text, num_beams=beams, max_new_tokens=40
            )
        }
        for text in TEXTS
    ]
    assert reader(TEXTS, num_beams=beams, max_new_tokens=40) == wanted
    assert reader(TEXTS[0], num_beams=beams, max_new_tokens=40) == wanted[:1]
    selftest(Bundle.open(bundle), reader)


def test_four_beams_are_followed_where_nothing_is_said(reader: Model) -> None:
    """As the pipelines of transformers do."""
    assert reader(TEXTS[0], max_new_tokens=40) == reader(TEXTS[0], max_new_tokens=40, num_beams=4)


def test_a_task_names_its_answer(built: Built) -> None:
    """Marian translates; what else a model does, `--task` says."""
    translator = load(built("marian", "--precision", "float32"))
    assert translator.task.name == "translation"
    assert list(translator("no", max_new_tokens=4)[0]) == ["translation_text"]
    summary = load(built("bart", "--precision", "float32", "--task", "summarization"))
    assert list(summary("no", max_new_tokens=4)[0]) == ["summary_text"]


@pytest.mark.filterwarnings("ignore:Recommended")
def test_marian_is_built_as_it_is_published(tmp_path: Path) -> None:
    """With its two SentencePiece models, and beams; texts are those of transformers."""
    folder = pair_models.marian_with_tokenizer(tmp_path / "opus")
    arguments = [
        "build",
        str(folder),
        "-t",
        "cpu-x86-64",
        "-o",
        str(tmp_path / "dist"),
        "--precision",
        "float32",
    ]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    model = load(next((tmp_path / "dist").glob("*.epk")))
    assert model.task.name == "translation"
    for text in (*pair_models.SOURCE, ">>deu<< the frog"):
        wanted = _wanted(folder, text, num_beams=4, max_new_tokens=24)
        assert model(text, max_new_tokens=24) == [{"translation_text": wanted}]


def test_a_call_names_its_languages(tmp_path: Path) -> None:
    """The answer starts with the language's token, and the input is marked with its own."""
    import torch
    from transformers import AutoTokenizer

    folder = pair_models.with_tokenizer("mbart", tmp_path)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.add_special_tokens({"additional_special_tokens": ["en_XX", "__fr__"]})
    tokenizer.save_pretrained(folder)
    vocabulary = len(tokenizer)
    model = pair_models.make("mbart", folder, vocabulary)
    arguments = [
        "build",
        str(folder),
        "-t",
        "cpu-x86-64",
        "-o",
        str(tmp_path / "dist"),
        "--precision",
        "float32",
    ]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    bundle = load(next((tmp_path / "dist").glob("*.epk")))
    source, target = (tokenizer.convert_tokens_to_ids(t) for t in ("en_XX", "__fr__"))
    ids = tokenizer("turn it on").input_ids
    ids[0] = source
    with torch.no_grad():
        found = model.generate(
            torch.tensor([ids]),
            attention_mask=torch.ones(1, len(ids), dtype=torch.long),
            forced_bos_token_id=target,
            num_beams=4,
            max_new_tokens=20,
        )[0]
    wanted = tokenizer.decode(found, skip_special_tokens=True)
    got = bundle("turn it on", src_lang="en_XX", tgt_lang="fr", max_new_tokens=20)
    assert got == [{"generated_text": wanted}]
    with pytest.raises(InputError, match="this model has no language 'xx'"):
        bundle("turn it on", tgt_lang="xx")


def test_int8_is_smaller_and_agrees(built: Built) -> None:
    """Both graphs are quantized, and the variants say how near they are."""
    small, whole = Bundle.open(built("t5")), Bundle.open(built("t5", "--precision", "float32"))
    assert {variant.precision for variant in small.manifest.variants} == {"int8"}
    graphs = small.manifest.variants[0].graphs
    assert [graph.name for graph in graphs] == ["encoder", "decoder"]
    sizes = [
        sum(bundle.manifest.file(path).size for path in bundle.manifest.variants[0].files)
        for bundle in (small, whole)
    ]
    assert sizes[0] < 0.8 * sizes[1]
    model = load(small.path)
    selftest(small, model)
    assert model(TEXTS, max_new_tokens=8)


def test_pieces_come_as_they_are_written(reader: Model) -> None:
    """They join to what one beam writes, and draws are made by their seed."""
    whole = reader(TEXTS[1], num_beams=1, max_new_tokens=40)[0]["generated_text"]
    pieces = list(reader(TEXTS[1], stream=True, max_new_tokens=40))
    assert "".join(pieces) == whole
    assert len(pieces) > 3
    draws = [
        reader(TEXTS[1], num_beams=1, temperature=1.5, seed=seed, max_new_tokens=20)
        for seed in (1, 1, 2)
    ]
    assert draws[0] == draws[1] != draws[2]


def test_an_answer_has_the_form_that_is_asked_for(reader: Model) -> None:
    """JSON by schema, from a model that has never seen any."""
    answer = reader(TEXTS[0], num_beams=1, json_schema={"enum": ["yes", "no"]})
    assert json.loads(answer[0]["generated_text"]) in ("yes", "no")


@pytest.mark.parametrize(
    ("inputs", "options", "message"),
    [
        ("x " * 400, {}, "the text has .* tokens, but this bundle reads 128"),
        ("no", {"num_beams": 0}, "num_beams must be at least 1"),
        ("no", {"num_beams": 4, "temperature": 0.5}, "draws follow one answer; give num_beams=1"),
        ("no", {"num_beams": 4, "regex": "a"}, "forms and streams follow one answer"),
        ("no", {"num_beams": 2, "early_stopping": "soon"}, 'true, false or "never"'),
        (["no"], {"stream": True}, "one text at a time"),
        (7, {}, "expected a text, found int"),
    ],
)
def test_bad_input_is_one_clear_error(
    reader: Model, inputs: Any, options: dict[str, Any], message: str
) -> None:
    """It is said before a token is written."""
    with pytest.raises(InputError, match=message):
        reader(inputs, **options)


def test_quality_is_that_of_torch(built: Built, tmp_path: Path) -> None:
    """ChrF and equal answers, of a bundle and of the model in torch alike."""
    bundle = built("marian", "--precision", "float32")
    model = load(bundle)
    rows = [
        {"text": t, "target": model(t, max_new_tokens=256)[0]["translation_text"]} for t in TEXTS
    ]
    rows[0]["target"] = "something else"
    data = tmp_path / "rows.jsonl"
    data.write_text("\n".join(map(json.dumps, rows)))
    for source in (bundle, bundle.parents[1] / "model"):
        done = CliRunner().invoke(main, ["evaluate", str(source), "--data", str(data), "--json"])
        assert done.exit_code == 0, done.output
        figures = json.loads(done.stdout)["figures"]
        assert figures["exact_match"] == pytest.approx(2 / 3)
        assert 0.4 < figures["chrf"] < 1
