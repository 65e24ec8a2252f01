"""Every family of decoders: its graph writes what transformers writes."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from decoders import KINDS, make

from edgepack.export.decoder import export, nbits
from edgepack.export.decoder.families import FAMILIES, read
from edgepack_runtime.engines._ort_state import OrtState
from edgepack_runtime.errors import InputError
from edgepack_runtime.generation.reader import Reader, all_logits

TOKENS = 256


def opened(path: Path) -> OrtState:
    """Open the state of a graph."""
    import onnxruntime as ort

    return OrtState(ort.InferenceSession(str(path)), TOKENS + 16)


def test_every_family_is_tried() -> None:
    """No family is said to be built that is not below."""
    assert {kind.partition(" ")[0] for kind in KINDS} == set(FAMILIES)


@pytest.mark.parametrize("kind", KINDS)
def test_a_family_writes_what_transformers_writes(kind: str, tmp_path: Path) -> None:
    """256 tokens greedily, token for token, and nearly equal logits after each."""
    import torch

    model = make(kind)
    model.save_pretrained(tmp_path / "model")
    export(tmp_path / "model", tmp_path)
    prompt = [5, 17, 40, 3, 80, 22]
    ids = torch.tensor([prompt])
    with torch.no_grad():
        wanted = model.generate(
            ids,
            attention_mask=torch.ones_like(ids),
            do_sample=False,
            max_new_tokens=TOKENS,
            min_new_tokens=TOKENS,
            pad_token_id=0,
        )[0].tolist()
        logits = model(torch.tensor([wanted])).logits[0].numpy()
    reader = Reader(opened(tmp_path / "model.onnx"))
    found = list(prompt)
    latest = reader.read(prompt)
    for _ in range(TOKENS):
        latest = latest.copy()
        latest[95] = -np.inf  # as min_new_tokens has it
        found.append(int(latest.argmax()))
        latest = reader.read(found)
    assert found == wanted
    assert len(set(found)) > 8, "the text is too dull to tell anything"
    at_once = all_logits(opened(tmp_path / "model.onnx"), wanted)
    assert np.abs(at_once - logits).max() < 2e-3 * np.abs(logits).max()


@pytest.mark.parametrize("kind", ["gpt2", "gemma2", "phi", "gpt_neox", "qwen3"])
def test_int8_is_near(kind: str, tmp_path: Path) -> None:
    """The logits of the int8 graph point where the float graph's do."""
    from edgepack.export import graph

    make(kind).save_pretrained(tmp_path / "model")
    export(tmp_path / "model", tmp_path)
    (tmp_path / "int8").mkdir()
    small = nbits.to_int8(graph.load(tmp_path / "model.onnx"))
    graph.save(small, tmp_path / "int8/model.onnx", apart=True)
    ids = list(range(3, 60))
    wanted, got = (
        all_logits(opened(folder / "model.onnx"), ids) for folder in (tmp_path, tmp_path / "int8")
    )
    cosine = (wanted * got).sum(1) / np.linalg.norm(wanted, axis=1) / np.linalg.norm(got, axis=1)
    assert cosine.min() > 0.99
    sizes = [(folder / "model.data").stat().st_size for folder in (tmp_path, tmp_path / "int8")]
    assert sizes[1] < sizes[0] * 0.5


@pytest.mark.parametrize(
    ("kind", "trait", "message"),
    [
        ("llama", {"rope_scaling": {"rope_type": "dynamic", "factor": 2.0}}, "'dynamic'"),
        ("llama", {"hidden_act": "mish"}, "the activation 'mish' is not built yet"),
        ("phi", {"qk_layernorm": True}, "norms of queries and keys"),
    ],
)
def test_a_trait_that_is_not_built_is_refused(
    kind: str, trait: dict[str, Any], message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The message names the trait."""
    monkeypatch.setitem(KINDS, kind, {**KINDS[kind], **trait})
    make(kind).save_pretrained(tmp_path / "model")
    with pytest.raises(InputError, match=message):
        export(tmp_path / "model", tmp_path)


def test_another_family_is_refused() -> None:
    """Reading a model of a family that is not known says so."""
    from transformers import OPTConfig, OPTForCausalLM

    config = OPTConfig(
        vocab_size=64,
        hidden_size=16,
        num_hidden_layers=1,
        ffn_dim=16,
        num_attention_heads=2,
        word_embed_proj_dim=16,
    )
    model = OPTForCausalLM(config)
    with pytest.raises(InputError, match="no decoder is known for the family 'opt'"):
        read(model)
