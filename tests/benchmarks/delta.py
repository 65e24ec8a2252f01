"""How large is an update of a real model, beside what general programs make of it.

    EDGEPACK_DATA=… python tests/benchmarks/delta.py --work /tmp/bench --out results/delta.json

The CLINC150 teacher is release 1.  Release 2 is its light fine-tune on data it has not seen, or its
head trained anew; with scales of its own, and with those of release 1 kept (`quantize.previous`).
Shares are of the whole bundle, each file packed by xz.  `zstd --patch-from` and bsdiff4 get each
file that changed, and keep the smaller of their patch and the file packed by zstd.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from edgepack.channel import delta
from edgepack.data.rows import read_rows
from edgepack_runtime.bundle.bundle import Bundle

ROWS = 2000  # of the validation data: the rest of it judges
RECIPE = """
[model]
source = "{source}"
name = "clinc150"
release = {release}
[data]
train = "{data}/data/clinc150/train.tsv"
evaluation = "{work}/held.tsv"
[quantize]
{previous}
[build]
targets = ["cpu-x86-64"]
"""


def train(teacher: Path, rows: list[tuple[str, str]], out: Path, *, head: bool) -> None:
    """Train the head for two epochs, or everything for one at a low rate."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    torch.manual_seed(0)
    torch.set_num_threads(2)
    model = AutoModelForSequenceClassification.from_pretrained(teacher, dtype=torch.float32)
    tokenizer = AutoTokenizer.from_pretrained(teacher)
    for name, parameter in model.named_parameters():
        parameter.requires_grad = not head or name.startswith("classifier")
    epochs, rate = (2, 1e-3) if head else (1, 2e-5)
    optimizer = torch.optim.AdamW([p for p in model.parameters() if p.requires_grad], lr=rate)
    model.train()
    steps, done = epochs * (len(rows) // 32) + 1, 0
    for epoch in range(epochs):
        order = list(rows)
        random.Random(epoch).shuffle(order)  # noqa: S311 (an order)
        for at in range(0, len(order), 32):
            texts, labels = zip(*order[at : at + 32], strict=True)
            inputs = tokenizer(
                list(texts), padding=True, truncation=True, max_length=64, return_tensors="pt"
            )
            wanted = torch.tensor([model.config.label2id[label] for label in labels])
            for group in optimizer.param_groups:
                group["lr"] = rate * max(0.0, 1 - done / steps)
            model(**inputs, labels=wanted).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            done += 1
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def build(source: Path, work: Path, name: str, previous: Path | None = None) -> Path:
    """Build a release; return its bundle."""
    folder = work / name
    folder.mkdir(exist_ok=True)
    kept = f'previous = "{previous}"' if previous else ""
    data = Path(os.environ["EDGEPACK_DATA"]).resolve()
    recipe = RECIPE.format(
        source=source, release=2 if name != "first" else 1, data=data, work=work, previous=kept
    )
    (folder / "edgepack.toml").write_text(recipe)
    command = [sys.executable, "-m", "edgepack", "build", "-o", "dist"]
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return folder / "dist/clinc150-cpu-x86-64.epk"


def spill(bundle: Bundle, folder: Path) -> dict[str, Path]:
    """Write the files of a bundle, each content once; return {digest: path}."""
    found: dict[str, Path] = {}
    for entry in bundle.manifest.files:
        path = folder / entry.path
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(bundle.read(entry.path))
        found.setdefault(entry.sha256, path)
    return found


def zstd(path: Path, base: Path | None) -> int:
    """Return the bytes of a file packed by zstd, against another if one is given."""
    command = ["zstd", "-19", "--long=27", "-q", "-f", "-c", str(path)]
    if base is not None:
        command += [f"--patch-from={base}"]
    return len(subprocess.run(command, check=True, capture_output=True).stdout)


def sizes(old: Bundle, new: Bundle, work: Path) -> dict[str, Any]:
    """Return the bytes of the whole bundle and of each kind of update."""
    import bsdiff4

    shutil.rmtree(work, ignore_errors=True)
    spill(old, work / "old")
    unique = spill(new, work / "new")
    before = {entry.path: entry for entry in old.manifest.files}
    total = {"whole": 0, "edgepack": 0, "zstd": 0, "bsdiff4": 0}
    for digest, path in unique.items():
        content = path.read_bytes()
        packed = len(lzma.compress(content, preset=6))
        total["whole"] += packed
        known = before.get(str(path.relative_to(work / "new")))
        if known is not None and known.sha256 == digest:
            continue
        base = work / "old" / known.path if known else None
        ways = {"edgepack": packed, "zstd": zstd(path, None), "bsdiff4": packed}
        if base is not None:
            ways["edgepack"] = min(packed, len(delta.encode(base, path)))
            ways["zstd"] = min(ways["zstd"], zstd(path, base))
            ways["bsdiff4"] = min(packed, len(bsdiff4.diff(base.read_bytes(), content)))
        for name, size in ways.items():
            total[name] += size
    shares = {name: round(size / total["whole"], 4) for name, size in total.items()}
    return {"bytes": total, "share": shares}


APPLY = """
import resource, sys, time
from io import BytesIO
from pathlib import Path
from edgepack_runtime.paths import map_file
from edgepack_runtime.update.delta import decode
def resident():
    lines = Path("/proc/self/status").read_text().splitlines()
    return {l.split(":")[0]: int(l.split()[1]) for l in lines if l.startswith(("VmHWM", "RssAnon"))}
packed, base, size = Path(sys.argv[1]).read_bytes(), map_file(Path(sys.argv[2])), int(sys.argv[3])
most, begin, made = 0, time.perf_counter(), 0
for piece in decode(BytesIO(packed).read, base, size):
    made += len(piece)
    most = max(most, resident()["RssAnon"])
seconds = time.perf_counter() - begin
print(made, seconds, most)
"""


def applying(old: Path, new: Path, work: Path) -> dict[str, float]:
    """Return what applying the delta of one file takes, in a process of its own, on one core."""
    packed = work / "packed"
    packed.write_bytes(delta.encode(old, new))
    command = [sys.executable, "-c", APPLY, str(packed), str(old), str(new.stat().st_size)]
    rates, memory = [], []
    for _ in range(5):
        done = subprocess.run(["taskset", "-c", "0", *command], check=True, capture_output=True)
        made, seconds, most = done.stdout.split()
        rates.append(int(made) / float(seconds) / 1e6)
        memory.append(int(most) / 1e3)
    return {
        "mb_per_s": round(sorted(rates)[2], 1),
        "mb_per_s_least": round(min(rates), 1),
        "anonymous_mb": round(max(memory), 1),
    }


def main() -> None:
    """Train, build, compare, and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--work", type=Path, required=True)
    parser.add_argument("--out", type=Path, required=True)
    args = parser.parse_args()
    work = args.work.resolve()
    work.mkdir(parents=True, exist_ok=True)
    data = Path(os.environ["EDGEPACK_DATA"]).resolve()
    teacher = data / "models/clinc150-teacher"
    rows = [(r["text"], r["intent"]) for _, r in read_rows(str(data / "data/clinc150/val.tsv"))]
    random.Random(0).shuffle(rows)  # noqa: S311 (a split)
    held = "".join(f"{text}\t{label}\n" for text, label in rows[ROWS:])
    (work / "held.tsv").write_text(f"text\tintent\n{held}")
    first = build(teacher, work, "first")
    found: dict[str, Any] = {}
    for name in ("head", "light"):
        if not (work / f"model-{name}").is_dir():
            train(teacher, rows[:ROWS], work / f"model-{name}", head=name == "head")
        for label, previous in ((name, None), (f"{name}, scales kept", first)):
            second = build(work / f"model-{name}", work, label.replace(", ", "-"), previous)
            opened = Bundle.open(second)
            found[label] = sizes(Bundle.open(first), opened, work / "files")
            found[label]["accuracy"] = {
                v.name: v.measured.get("accuracy") for v in opened.manifest.variants
            }
            print(label, json.dumps(found[label]), flush=True)
    path = "openvino-int8/openvino_model.bin"
    found["applying"] = applying(work / "files/old" / path, work / "files/new" / path, work)
    found["measured"] = time.strftime("%Y-%m-%d")
    args.out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found["applying"]))


if __name__ == "__main__":
    main()
