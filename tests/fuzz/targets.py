"""What a device reads from strangers, one function for each kind: any bytes may come.

A target raises nothing outside of the error family, whatever it is given; what breaks that is a
finding.  `SEEDS` are real inputs to start from.  Run as a program, one target is fuzzed by
coverage (atheris), with a cap on memory:

    python tests/fuzz/targets.py TARGET -runs=200000
"""

from __future__ import annotations

import functools
import hashlib
import importlib
import io
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).parents[1] / "support"))
    import atheris

    with atheris.instrument_imports(include=["edgepack_runtime", "tuf", "securesystemslib"]):
        for module in ("bundle.bundle", "store.record", "update.trust", "engines.onnxruntime"):
            importlib.import_module(f"edgepack_runtime.{module}")

import fleet
import handmade

from edgepack.channel import keys, releases
from edgepack_runtime.bundle import manifest as manifests
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import Requires, Tolerance, Variant
from edgepack_runtime.bundle.names import safe_path
from edgepack_runtime.engines import onnxruntime as engine
from edgepack_runtime.errors import EdgepackError, LinkError
from edgepack_runtime.store import record
from edgepack_runtime.update import delta, source, trust

BASE = bytes(range(256)) * 64


@functools.cache
def folder() -> Path:
    """Return a folder of this process, in memory where there is such a place."""
    memory = Path("/dev/shm")  # noqa: S108 (one folder of its own below it)
    return Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else None))


@functools.cache
def site() -> dict[str, bytes]:
    """Return the files of a signed channel with one release, and the release itself."""
    place = folder() / "site"
    place.mkdir()
    keys.init(place / "keys")
    bundle = Bundle.open(handmade.bundle(place / "r1.epk"))
    releases.publish(bundle, place / "channel", place / "keys", releases.Rollout())
    files = {
        str(path.relative_to(place / "channel")): path.read_bytes()
        for path in sorted((place / "channel").rglob("*"))
        if path.is_file()
    }
    return {**files, "epk": (place / "r1.epk").read_bytes()}


def manifest(data: bytes) -> None:
    """The manifest of a bundle."""
    with suppress(ValueError, RecursionError):
        value = json.loads(data)
        with suppress(EdgepackError):
            manifests.decode(value)


def epk(data: bytes) -> None:
    """A bundle in one file, opened and hashed to its end."""
    path = folder() / "fuzzed.epk"
    path.write_bytes(data)
    with suppress(EdgepackError):
        Bundle.open(path).verify()


def deltas(data: bytes) -> None:
    """The decoder of EPD1; the first bytes say how large the result is to be."""
    size = int.from_bytes(data[:3], "little")
    made = 0
    with suppress(EdgepackError):
        for piece in delta.decode(io.BytesIO(data[3:]).read, memoryview(BASE), size):
            made += len(piece)
    assert made <= size


def state(data: bytes) -> None:
    """A state record: as it is, and with the digest that makes its body count."""
    record.decode(data)
    body = data.replace(b"\n", b" ")
    signed = b"edgepack-state-1 " + hashlib.sha256(body).hexdigest().encode() + b"\n" + body + b"\n"
    found = record.decode(signed.ljust(record.SIZE, b"\0"))
    if found is not None:
        with suppress(EdgepackError):
            assert record.decode(record.encode(found)) == found


class _Fuzzed:
    """A channel of which one file is what the fuzzer says."""

    def __init__(self, path: str, content: bytes) -> None:
        self._files = {**site(), path: content}

    def fetch(self, path: str, start: int = 0) -> Iterator[bytes]:
        """Yield a file."""
        if path not in self._files:
            raise source.MissingError(path)
        yield self._files[path][start:]


def metadata(data: bytes) -> None:
    """The metadata of a channel: the first byte says which file is replaced."""
    names = [name for name in site() if name.startswith("metadata/")]
    name = names[data[0] % len(names)] if data else names[0]
    root = site()["metadata/1.root.json"]
    with suppress(EdgepackError):
        trust.offered(_Fuzzed(name, data[1:]), root, fleet.NAME, record.Record(), lambda *_: None)


def ranges(data: bytes) -> None:
    """What a server answers to a request for a range: status, header, start."""
    status, start = int.from_bytes(data[:2], "little"), int.from_bytes(data[2:6], "little")
    header = data[6:].decode("latin-1")
    try:
        first = source._first_byte("http://x", status, header, start)
    except LinkError:
        return
    assert (status, first) in ((200, 0), (206, start))
    assert status == 200 or header.startswith(f"bytes {start}-")


@functools.cache
def graph() -> bytes:
    """Return a small ONNX graph whose weights lie in another file."""
    import numpy as np
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    weight = numpy_helper.from_array(np.ones((2, 2), np.float32), "w")
    made = helper.make_model(
        helper.make_graph(
            [helper.make_node("MatMul", ["x", "w"], ["y"])],
            "g",
            [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 2])],
            [helper.make_tensor_value_info("y", TensorProto.FLOAT, [1, 2])],
            [weight],
        ),
        opset_imports=[helper.make_opsetid("", 18)],
        ir_version=9,
    )
    place = folder() / "external.onnx"
    onnx.save(made, place, save_as_external_data=True, location="weights", size_threshold=0)
    return place.read_bytes()


def onnx_variant() -> Variant:
    """Return a variant of ONNX Runtime on the CPU."""
    return Variant(
        name="x",
        engine="onnxruntime",
        provider="CPUExecutionProvider",
        precision="float32",
        scheme="none",
        graphs=(),
        requires=Requires(),
        tolerance=Tolerance(0.9, 0.9),
    )


def external_data(data: bytes) -> None:
    """An ONNX graph that names files: none is read, wherever it points."""
    graph()  # its weights lie there to be read
    with suppress(EdgepackError):
        engine.open_session({"model.onnx": memoryview(data)}, onnx_variant(), 1, None)


def paths(data: bytes) -> None:
    """The path of a file in a bundle: what is accepted stays below its folder."""
    text = data.decode("utf-8", "surrogateescape")
    if safe_path(text):
        assert os.path.normpath(f"/a/b/{text}").startswith("/a/b/")
        assert os.path.normpath(text) == text
        assert "\0" not in text


TARGETS: dict[str, Callable[[bytes], None]] = {
    "manifest": manifest,
    "epk": epk,
    "delta": deltas,
    "state": state,
    "metadata": metadata,
    "ranges": ranges,
    "external_data": external_data,
    "paths": paths,
}


def run(name: str, data: bytes) -> None:
    """Give a target these bytes, or a real input changed as they say."""
    if not data or data[0] % 2:
        TARGETS[name](data[1:])
        return
    known = seeds(name)
    TARGETS[name](changed(known[data[0] // 2 % len(known)], data[1:]))


def changed(content: bytes, program: bytes) -> bytes:
    """Overwrite, insert, delete and repeat, as each five bytes of a program say."""
    out = bytearray(content)
    for step in range(0, len(program) - 4, 5):
        kind, size, value = program[step : step + 3]
        at = int.from_bytes(program[step + 3 : step + 5], "little") % (len(out) + 1)
        if kind % 4 == 0:
            out[at : at + 1] = bytes([value])
        elif kind % 4 == 1:
            out[at:at] = bytes([value]) * size
        elif kind % 4 == 2:
            del out[at : at + size]
        else:
            out[at:at] = out[value : value + size]
    return bytes(out)


@functools.cache
def seeds(name: str) -> list[bytes]:
    """Return real inputs of a target."""
    return _SEEDS[name]()


def _manifests() -> list[bytes]:
    opened = Bundle.open(_spilled("r.epk", site()["epk"]))
    return [json.dumps(manifests.encode(opened.manifest)).encode()]


def _deltas() -> list[bytes]:
    size = len(BASE).to_bytes(3, "little")
    light = bytes((b + (i % 50 == 0)) % 256 for i, b in enumerate(BASE))
    return [size + _delta(new) for new in (light, BASE, BASE[::-1])]


def _states() -> list[bytes]:
    full = record.Record(
        3, "a", "b", "c", 2, ("d",), pinned=True, floors={"root": 1, "x@y": 2}, root="e"
    )
    content = record.encode(full)
    return [content, content.partition(b"\n")[2].rstrip(b"\0")]


def _metadata() -> list[bytes]:
    files = [item for key, item in site().items() if key.startswith("metadata/")]
    return [bytes([i]) + item for i, item in enumerate(files)]


_SEEDS: dict[str, Callable[[], list[bytes]]] = {
    "manifest": _manifests,
    "epk": lambda: [site()["epk"]],
    "delta": _deltas,
    "state": _states,
    "metadata": _metadata,
    "ranges": lambda: [b"\xce\x00\x64\x00\x00\x00bytes 100-199/200", b"\xc8\x00\0\0\0\0"],
    "external_data": lambda: [graph()],
    "paths": lambda: [b"a/b.json", b"../x", b"a//b", b"C:\\x", "é/漢".encode()],
}


def _delta(new: bytes) -> bytes:
    from edgepack.channel.delta import encode

    return encode(_spilled("base", BASE), _spilled("new", new))


def _spilled(name: str, content: bytes) -> Path:
    path = folder() / name
    path.write_bytes(content)
    return path


def _main(name: str, *options: str) -> Any:
    corpus = folder() / "corpus"
    corpus.mkdir()
    for i, content in enumerate(seeds(name)):
        (corpus / str(i)).write_bytes(b"\1" + content)
        (corpus / f"{i}-changed").write_bytes(bytes([2 * i]))
    run(name, b"\1")  # what is made once is made outside of the first measurement
    limits = ("-rss_limit_mb=1024", "-malloc_limit_mb=512", "-max_len=20000", "-len_control=0")
    atheris.Setup([sys.argv[0], *limits, *options, str(corpus)], functools.partial(run, name))
    atheris.Fuzz()


if __name__ == "__main__":
    _main(*sys.argv[1:])
