"""The contenders of `generation.py`: each loads once in a process of its own and writes on demand.

    python generation_peers.py serve CONTENDER PATH VARIANT THREADS

reads requests, one JSON line each, `{"text": …, "ids": […], "new": n}`, and answers each with
`{"seconds": …}`; `{"memory": true}` is answered with `{"anonymous_mb": …, "peak_mb": …}`.  The
packages of the peers have an environment of their own, which needs no edgepack:

    pip install openvino-genai openvino-tokenizers onnxruntime-genai llama-cpp-python gguf
"""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

Write = Callable[[str, Sequence[int], int], None]
CONTEXT = 2048


def edgepack(path: Path, variant: str, threads: int) -> Write:
    """Return a function that writes with one variant of a bundle."""
    from edgepack_runtime import load

    model = load(path, variant=variant, threads=threads)

    def write(text: str, _: Sequence[int], new: int) -> None:
        model(text, max_new_tokens=new, min_new_tokens=new, do_sample=False)

    return write


def openvino_genai(path: Path, _: str, threads: int) -> Write:
    """Return a function that writes with OpenVINO GenAI's own pipeline."""
    import numpy as np
    import openvino as ov
    import openvino_genai as genai

    pipe = genai.LLMPipeline(str(path), "CPU", INFERENCE_NUM_THREADS=threads)

    def write(_: str, ids: Sequence[int], new: int) -> None:
        config = genai.GenerationConfig()
        config.max_new_tokens, config.ignore_eos, config.do_sample = new, True, False
        config.apply_chat_template = False
        row = np.array([ids], dtype=np.int64)
        pipe.generate(genai.TokenizedInputs(ov.Tensor(row), ov.Tensor(np.ones_like(row))), config)

    return write


def onnxruntime_genai(path: Path, _: str, threads: int) -> Write:
    """Return a function that writes with ONNX Runtime GenAI."""
    import onnxruntime_genai as genai

    file = path / "genai_config.json"
    config = json.loads(file.read_text())
    config["model"]["decoder"]["session_options"]["intra_op_num_threads"] = threads
    file.write_text(json.dumps(config))
    model = genai.Model(str(path))

    def write(_: str, ids: Sequence[int], new: int) -> None:
        params = genai.GeneratorParams(model)
        most = len(ids) + new
        params.set_search_options(do_sample=False, max_length=most, min_length=most)
        generator = genai.Generator(model, params)
        generator.append_tokens(list(ids))
        for _step in range(new):
            generator.generate_next_token()

    return write


def llama_cpp(path: Path, _: str, threads: int) -> Write:
    """Return a function that writes with llama.cpp."""
    import numpy as np
    from llama_cpp import Llama

    model = Llama(
        str(next(path.glob("*.gguf"))),
        n_ctx=CONTEXT,
        n_batch=512,
        n_threads=threads,
        n_threads_batch=threads,
        verbose=False,
    )
    size = model.n_vocab()

    def write(_: str, ids: Sequence[int], new: int) -> None:
        model.reset()
        model.eval(list(ids))
        for step in range(new):
            row = np.ctypeslib.as_array(model._ctx.get_logits(), shape=(size,))
            if step < new - 1:
                model.eval([int(row.argmax())])

    return write


CONTENDERS: dict[str, Callable[[Path, str, int], Write]] = {
    "edgepack": edgepack,
    "openvino-genai": openvino_genai,
    "onnxruntime-genai": onnxruntime_genai,
    "llama.cpp": llama_cpp,
}


def serve(contender: str, path: str, variant: str, threads: str) -> None:
    """Answer requests until the input ends."""
    write = CONTENDERS[contender](Path(path), variant, int(threads))
    print("{}", flush=True)
    for line in sys.stdin:
        asked = json.loads(line)
        if asked.get("memory"):
            print(json.dumps(_memory()), flush=True)
            continue
        start = time.perf_counter()
        write(asked["text"], asked["ids"], asked["new"])
        print(json.dumps({"seconds": time.perf_counter() - start}), flush=True)


def _memory() -> dict[str, float]:
    status = Path("/proc/self/status").read_text()
    found = {name: int(re.search(rf"{name}:\s+(\d+)", status)[1]) for name in ("RssAnon", "VmHWM")}  # type: ignore[index]
    return {"anonymous_mb": found["RssAnon"] * 1.024e-3, "peak_mb": found["VmHWM"] * 1.024e-3}


def tokenizer(model: str, out: str) -> None:
    """Write a tokenizer in OpenVINO's form."""
    import openvino as ov
    from openvino_tokenizers import convert_tokenizer
    from transformers import AutoTokenizer

    both = convert_tokenizer(AutoTokenizer.from_pretrained(model), with_detokenizer=True)
    for name, made in zip(("openvino_tokenizer", "openvino_detokenizer"), both, strict=True):
        ov.save_model(made, Path(out, f"{name}.xml"))


def gguf(model: str, out: str, kind: str) -> None:
    """Write a Llama in llama.cpp's form, quantized by llama.cpp."""
    import ctypes

    import llama_cpp
    from gguf import GGUFWriter, TensorNameMap
    from gguf.constants import MODEL_ARCH
    from safetensors.numpy import load_file

    config = json.loads(Path(model, "config.json").read_text())
    Path(out).mkdir()
    exact, small = Path(out, "exact.tmp"), Path(out, "model.gguf")
    writer = GGUFWriter(exact, "llama")
    writer.add_context_length(config["max_position_embeddings"])
    writer.add_embedding_length(config["hidden_size"])
    writer.add_block_count(config["num_hidden_layers"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    writer.add_head_count_kv(config["num_key_value_heads"])
    writer.add_layer_norm_rms_eps(config["rms_norm_eps"])
    writer.add_vocab_size(config["vocab_size"])
    writer.add_tokenizer_model("none")
    names = TensorNameMap(MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    heads = {"q_proj": config["num_attention_heads"], "k_proj": config["num_key_value_heads"]}
    for name, array in load_file(Path(model, "model.safetensors")).items():
        count = next((n for part, n in heads.items() if f"{part}.weight" in name), 0)
        ours = _interleaved(array, count) if count else array  # it rotates neighbours, not halves
        writer.add_tensor(names.get_name(name, (".weight",)), ours)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    how = llama_cpp.llama_model_quantize_default_params()
    how.ftype = getattr(llama_cpp, f"LLAMA_FTYPE_MOSTLY_{kind}")
    done = llama_cpp.llama_model_quantize(
        str(exact).encode(), str(small).encode(), ctypes.byref(how)
    )
    exact.unlink()
    if done:
        sys.exit("llama.cpp cannot quantize the model")


def _interleaved(array: Any, heads: int) -> Any:
    rows, width = array.shape
    return array.reshape(heads, 2, rows // heads // 2, width).swapaxes(1, 2).reshape(rows, width)


if __name__ == "__main__":
    command: Callable[..., None] = globals()[sys.argv[1]]
    command(*sys.argv[2:])
