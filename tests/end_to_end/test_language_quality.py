"""How good a small language model still is, and which ones can be built."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import onnx
import pytest
from click.testing import CliRunner
from languages import PROMPTS, Made
from transformers import AutoModelForCausalLM

from edgepack.cli import main
from edgepack_runtime import Bundle, load
from edgepack_runtime.model.selftest import selftest


def test_four_bits_are_smaller_and_still_the_model(made: Made) -> None:
    """A bundle with int4 weights is smaller than the float one, and agrees with it."""
    small, whole = (Bundle.open(made("qwen2-dull", name)) for name in ("int4", "float32"))
    (variant,) = small.manifest.variants
    assert (variant.name, variant.precision) == ("onnxruntime-int4", "int4")
    sizes = [
        sum(file.size for file in bundle.manifest.files if file.path.endswith((".onnx", ".data")))
        for bundle in (small, whole)
    ]
    assert sizes[0] < 0.6 * sizes[1]
    model = load(small.path)
    selftest(small, model)
    assert model(PROMPTS[0], max_new_tokens=8, return_full_text=False)[0]["generated_text"]


def test_four_bits_are_for_language_models(model: Callable[[str], Path], tmp_path: Path) -> None:
    """A classifier in int4 is refused at once, with what to do instead."""
    arguments = [
        "build",
        str(model("bert-intent")),
        "-t",
        "cpu-x86-64",
        "--precision",
        "int4",
        "-o",
        str(tmp_path),
    ]
    done = CliRunner().invoke(main, arguments)
    assert done.exit_code == 2
    assert "four bits are for models that write text; leave precision at" in done.output


def test_perplexity_of_a_bundle_is_that_of_torch(made: Made, tmp_path: Path) -> None:
    """The float bundle and the torch model are surprised alike, to a thousandth."""
    bundle = made("llama")
    text = tmp_path / "text.txt"
    text.write_text("\n".join(PROMPTS * 8))
    figures = []
    for source in (bundle, bundle.parents[1] / "model"):
        done = CliRunner().invoke(main, ["evaluate", str(source), "--data", str(text), "--json"])
        assert done.exit_code == 0, done.output
        figures.append(json.loads(done.stdout)["figures"]["perplexity"])
    assert figures[0] == pytest.approx(figures[1], rel=1e-3)


def test_a_budget_holds_a_language_model_to_its_perplexity(made: Made, tmp_path: Path) -> None:
    """The table shows it, and a rise beyond the limit refuses the bundle."""
    folder = made("llama").parents[1] / "model"
    own = load(made("llama"))(PROMPTS, max_new_tokens=200)  # what it knows best
    written = [answer[0]["generated_text"] for answer in own]
    texts = ["".join(letter for letter in text if letter.isprintable()) for text in written]
    (tmp_path / "text.txt").write_text("\n".join(texts))
    recipe = tmp_path / "edgepack.toml"
    for limit, code in ((50.0, 0), (0.0001, 3)):
        recipe.write_text(
            f'[model]\nsource = "{folder}"\n[data]\nevaluation = "{tmp_path / "text.txt"}"\n'
            f"[budget]\nquality_drop = {limit}\n"
        )
        done = CliRunner().invoke(
            main, ["build", str(recipe), "-t", "cpu-x86-64", "-o", str(tmp_path / "dist")]
        )
        assert done.exit_code == code, done.output
        assert ("perplexity" if code == 0 else "quality.perplexity rose") in done.output


def test_a_language_model_is_taught_pruned_and_distilled(made: Made, tmp_path: Path) -> None:
    """One recipe: the table has each form, and the bundle writes what it was taught."""
    folder = made("llama-dull").parents[1] / "model"
    lines = ["turn on the lights in the kitchen", "book a table for six at the Blue Lagoon"]
    for name, count in (("train", 200), ("evaluation", 3)):
        (tmp_path / f"{name}.txt").write_text("\n".join(lines * count))
    recipe = tmp_path / "edgepack.toml"
    training = "learning_rate = 5e-3\nbatch_size = 8\nmax_length = 32\n"
    recipe.write_text(
        f'compress = "balanced"\n[model]\nsource = "{folder}"\nname = "m"\n[data]\n'
        'train = "train.txt"\nevaluation = "evaluation.txt"\n'
        f"[finetune]\nepochs = 3\n{training}[distill]\nepochs = 6\n{training}"
        "[budget]\nquality_drop = 60\n[build]\nvariants = ["
        '"onnxruntime-int8", "openvino-int8"]\n'
    )
    arguments = ["build", str(recipe), "-t", "cpu-x86-64", "-o", str(tmp_path / "dist")]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    rows = [line.split()[0] for line in done.output.splitlines() if line.strip()]
    forms = ["teacher,", "pruned,", "distilled,"]
    assert [row for row in rows if row in forms] == forms
    model = load(tmp_path / "dist/m-cpu-x86-64.epk")
    answer = model("turn on the", max_new_tokens=12, return_full_text=False, do_sample=False)
    assert answer[0]["generated_text"].startswith(" lights in the kitchen")


def test_repair_leaves_the_layers_of_a_language_model_that_rounding_hurts(
    made: Made, tmp_path: Path
) -> None:
    """Int4 loses more than it may; the worst layer becomes int8, and the bundle says which."""
    folder = tmp_path / "model"
    shutil.copytree(made("llama").parents[1] / "model", folder)
    model = AutoModelForCausalLM.from_pretrained(folder)
    for name, weight in model.model.layers[1].named_parameters():
        if name.endswith("proj.weight"):
            weight.data[:, ::16] *= 6  # the others of a block get few of the 16 steps
    model.save_pretrained(folder)
    own = load(made("llama"))(PROMPTS, max_new_tokens=200)
    texts = ["".join(x for x in text[0]["generated_text"] if x.isprintable()) for text in own]
    (tmp_path / "text.txt").write_text("\n".join(texts))
    recipe, tried = tmp_path / "edgepack.toml", '"onnxruntime-int4"'
    for limit, said in ((1e-6, "1 layers left in float"), (500.0, "onnxruntime-int4")):
        recipe.write_text(
            f'[model]\nsource = "{folder}"\nname = "m"\n[budget]\nquality_drop = {limit}\n'
            f'[data]\nevaluation = "{tmp_path / "text.txt"}"\n'
            f'[build]\nprecision = "int4"\nvariants = [{tried}]\n'
        )
        arguments = ["build", str(recipe), "-t", "cpu-x86-64", "-o", str(tmp_path / "dist")]
        done = CliRunner().invoke(main, arguments, catch_exceptions=False)
        assert said in " ".join(done.output.split()), done.output


def test_what_cannot_be_built_yet_is_left_out_with_its_reason(made: Made) -> None:
    """On a board with a GPU the variants for it are named, and the CPU's is there."""
    folder = made("llama").parents[1] / "model"
    arguments = ["check", str(folder), "-t", "jetson-orin", "--json"]
    done = CliRunner().invoke(main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    reasons = json.loads(done.stdout)["targets"]["jetson-orin"]
    assert any(not reason for reason in reasons.values())
    assert "and for CUDA in float16 and int4, not for Tensorrt" in reasons["tensorrt-int8"]
    assert not reasons["cuda-fp16"]


@pytest.mark.parametrize(("precision", "name"), [("target", "cuda-fp16"), ("int4", "cuda-int4")])
def test_the_graph_for_a_gpu_is_the_model(
    precision: str, name: str, made: Made, tmp_path: Path
) -> None:
    """Keys, values and activations are float16; this CPU runs the graph, as no GPU is here."""
    folder = made("qwen2-dull").parents[1] / "model"
    arguments = ["build", str(folder), "--name", "m", "-t", "cuda", "--precision", precision]
    done = CliRunner().invoke(main, [*arguments, "-o", str(tmp_path)], catch_exceptions=False)
    assert done.exit_code == 0, done.output
    bundle = Bundle.open(tmp_path / "m-cuda.epk")
    variant = bundle.manifest.variant(name)
    assert variant.measured["cosine"] > (0.999 if precision == "target" else 0.9)
    paths = bundle.files(variant)
    graph = onnx.load_from_string(bytes(paths["model.onnx"]))
    (kind,) = {item.type.tensor_type.elem_type for item in graph.graph.input if "past" in item.name}
    assert kind == onnx.TensorProto.FLOAT16
    floats = [t.name for t in graph.graph.initializer if t.data_type == onnx.TensorProto.FLOAT]
    assert not floats


def test_a_family_without_a_graph_is_refused_within_seconds(tmp_path: Path) -> None:
    """The message names the families that there are."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        ffn_dim=16,
        num_attention_heads=2,
        word_embed_proj_dim=16,
    )
    OPTForCausalLM(config).save_pretrained(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    done = CliRunner().invoke(main, ["build", str(tmp_path), "-t", "cpu-x86-64"])
    assert done.exit_code == 2
    assert "text generation is built for gemma, gemma2," in done.output
    assert "smollm3 so far, not for opt" in done.output
