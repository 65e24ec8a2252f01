"""A language model on a device for long: its memory, its updates, and what runs meanwhile."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner
from languages import PROMPTS, Made

from edgepack.channel import delta as deltas
from edgepack.cli import main
from edgepack_runtime import Bundle, load

# Prints the resident memory in KiB: at the start of what is measured, and at its end.
_MEASURE = """
import json, sys
from edgepack_runtime import load

def resident():
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS"))

model = load(sys.argv[1])
if sys.argv[2] == "long":
    found = []
    how = {"max_new_tokens": 2000, "min_new_tokens": 2000}
    for number, _ in enumerate(model("Once", stream=True, **how)):
        if number % 100 == 50:
            found.append(resident())
    assert number > 1000
else:
    for number in range(1001):
        model("Once upon", max_new_tokens=4)
        if number in (100, 1000):
            found = [*(found if number > 100 else []), resident()]
print(json.dumps([found[0], found[-1]]))
"""


@pytest.mark.filterwarnings("ignore")  # the exporters' own
@pytest.mark.parametrize("engine", ["onnxruntime", "openvino"])
@pytest.mark.parametrize("way", ["long", "short"])
def test_memory_stays_flat(made: Made, way: str, engine: str) -> None:
    """Over two thousand tokens of one text, and over a thousand short texts: within 2 %."""
    bundle = made("qwen2-long", "target", engine=engine)
    done = subprocess.run(
        [sys.executable, "-c", _MEASURE, str(bundle), way],
        check=True,
        capture_output=True,
        text=True,
    )
    before, after = json.loads(done.stdout)
    assert after < 1.02 * before + 512, f"{before} KiB, then {after} KiB"


def test_a_text_ends_on_the_model_that_began_it(made: Made) -> None:
    """A switch in the middle of a stream changes the next call, and not this one."""
    model, other = load(made("qwen2")), load(made("qwen2-dull"))
    wanted = [m(PROMPTS[0], max_new_tokens=40, return_full_text=False) for m in (model, other)]
    assert wanted[0] != wanted[1]
    pieces = model(PROMPTS[0], stream=True, max_new_tokens=40)
    text = next(pieces)
    model.take_over(other)
    assert text + "".join(pieces) == wanted[0][0]["generated_text"]
    assert model(PROMPTS[0], max_new_tokens=40, return_full_text=False) == wanted[1]


def test_a_light_fine_tune_is_a_small_update(made: Made, tmp_path: Path) -> None:
    """One layer trained on: a device downloads a part of the int8 weights, and gets all of them."""
    import torch
    from transformers import AutoModelForCausalLM

    first = made("qwen2", "target")
    folder = first.parents[1] / "model"
    model = AutoModelForCausalLM.from_pretrained(folder)
    torch.manual_seed(1)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "layers.2.mlp" in name:
                weight.add_(0.001 * torch.randn_like(weight))
    tuned = tmp_path / "tuned"
    tuned.mkdir()
    for path in folder.glob("*.json"):
        (tuned / path.name).write_bytes(path.read_bytes())
    model.save_pretrained(tuned)
    done = CliRunner().invoke(
        main, ["build", str(tuned), "--name", "m", "-t", "cpu-x86-64", "-o", str(tmp_path / "dist")]
    )
    assert done.exit_code == 0, done.output
    second = next((tmp_path / "dist").glob("*.epk"))
    old, new = Bundle.open(first), Bundle.open(second)
    sizes = {delta.blob: len(delta.content) for delta in deltas.between(old, new)}
    weights = {f.sha256: f.size for f in new.manifest.files if f.path.endswith(".onnx")}
    assert sum(sizes[blob] for blob in weights) < 0.4 * sum(weights.values())
