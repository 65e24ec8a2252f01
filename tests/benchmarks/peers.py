"""The contenders of the benchmarks: each loads once in a process of its own and answers texts.

Run by `latency.py` and `cold_start.py` as `python peers.py CONTENDER FOLDER TASK THREADS`.
It reads requests, one JSON line each, `{"texts": […], "repeat": n}`, and answers each with
`{"ms": median}`.  The first line it prints says that it is ready.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

CONTENDERS = ("edgepack", "eager", "optimum-onnxruntime-int8", "optimum-openvino-int8")
EDGEPACK_ONNXRUNTIME = "edgepack-onnxruntime"  # not its default; for like against like
Answer = Callable[[Any], Any]


def load(contender: str, folder: Path, task: str, threads: int) -> Answer:
    """Return a function from a list of texts to answers, on `threads` CPU threads."""
    if contender in ("edgepack", EDGEPACK_ONNXRUNTIME):
        from edgepack_runtime import load as load_bundle

        variant = None if contender == "edgepack" else "onnxruntime-int8"
        model = load_bundle(next(folder.glob("*.epk")), threads=threads, variant=variant)
        return lambda texts: model(texts, batch_size=len(texts))
    return _pipeline(contender, folder, task, threads)


def _pipeline(contender: str, folder: Path, task: str, threads: int) -> Answer:
    import torch
    from transformers import AutoTokenizer, pipeline

    torch.set_num_threads(threads)
    model: Any
    if contender == "eager":
        import transformers

        name = {
            "text-classification": "AutoModelForSequenceClassification",
            "token-classification": "AutoModelForTokenClassification",
        }
        loader = getattr(transformers, name.get(task, "AutoModel"))
        model = loader.from_pretrained(folder).eval()
    elif contender == "optimum-onnxruntime-int8":
        import onnxruntime
        from optimum import onnxruntime as ort

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        loader = getattr(ort, _class("ORT", task))
        model = loader.from_pretrained(
            folder, file_name="model_quantized.onnx", session_options=options
        )
    else:
        from optimum import intel

        loader = getattr(intel, _class("OV", task))
        model = loader.from_pretrained(folder, ov_config={"INFERENCE_NUM_THREADS": str(threads)})
    kind = "feature-extraction" if task == "sentence-similarity" else task
    pipe = pipeline(kind, model=model, tokenizer=AutoTokenizer.from_pretrained(folder))
    return lambda texts: pipe(texts, batch_size=len(texts))


def _class(prefix: str, task: str) -> str:
    kind = {"text-classification": "Sequence", "token-classification": "Token"}[task]
    return f"{prefix}ModelFor{kind}Classification"


def main() -> None:
    """Serve requests until standard input ends."""
    from statistics import median

    contender, folder, task, threads = sys.argv[1:5]
    os.environ["HF_HUB_OFFLINE"] = "1"
    answer = load(contender, Path(folder), task, int(threads))
    print(json.dumps({"ready": contender}), flush=True)
    for line in sys.stdin:
        request = json.loads(line)
        times = []
        for _ in range(request["repeat"]):
            start = time.perf_counter()
            answer(request["texts"])
            times.append(time.perf_counter() - start)
        print(json.dumps({"ms": median(times) * 1000}), flush=True)


if __name__ == "__main__":
    main()
