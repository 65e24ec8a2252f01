"""Adapters: base and adapter become one model."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from lessons import TASK, new_folder

from edgepack.compress import adapt
from edgepack.model.adapter import base_of
from edgepack.model.torch_model import load_torch, open_torch


def test_a_lora_adapter_is_merged(teacher: Path, tmp_path: Path) -> None:
    """The merged model answers as base and adapter do together."""
    import torch
    from peft import LoraConfig, TaskType, get_peft_model

    base = load_torch(teacher, TASK)
    wanted = LoraConfig(task_type=TaskType.SEQ_CLS, r=4, target_modules=["query", "value"])
    adapted = get_peft_model(base, wanted)
    torch.manual_seed(0)
    for name, parameter in adapted.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=20.0)
    folder, out = tmp_path / "adapter", new_folder(tmp_path / "merged")
    adapted.save_pretrained(folder)
    declared = json.loads((folder / "adapter_config.json").read_text())
    declared["base_model_name_or_path"] = str(teacher)
    (folder / "adapter_config.json").write_text(json.dumps(declared))
    assert base_of(folder) == str(teacher)
    adapt.adapt(adapt.Settings(TASK), {"base": teacher, "adapter": folder}, out)
    tokens = open_torch(teacher, TASK).encoder.encode("turn on the lights").first
    with torch.inference_mode():
        wanted_logits = adapted.eval()(input_ids=torch.tensor([tokens.ids])).logits[0].numpy()
    assert np.allclose(
        open_torch(out, TASK).outputs(["turn on the lights"])[0], wanted_logits, atol=1e-4
    )
    plain = open_torch(teacher, TASK).outputs(["turn on the lights"])[0]
    assert not np.allclose(plain, wanted_logits, atol=1e-2)
