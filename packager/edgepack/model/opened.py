"""What one stage passes to the next: how to read the folders that stages fill."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack_runtime import engines, tasks
from edgepack_runtime.bundle.adapters import Adapters
from edgepack_runtime.bundle.description import Task
from edgepack_runtime.bundle.manifest import Graph, Requires, Tolerance, Variant, decode_task
from edgepack_runtime.device.facts import cores
from edgepack_runtime.inputs import Inputs, open_inputs
from edgepack_runtime.inputs.text import TextEncoder
from edgepack_runtime.model.model import Model
from edgepack_runtime.paths import map_file
from edgepack_runtime.tasks import Agreement, Opened

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array


def read_task(tokenizer: Path) -> Task:
    """Read the task written by the describe stage."""
    return decode_task(json.loads((tokenizer / "task.json").read_text()))


def likeness(tokenizer: Path, wanted: Sequence[Array], got: Sequence[Array]) -> Agreement:
    """Compare outputs with the float model's, by the rules of the described task."""
    task = read_task(tokenizer)
    return tasks.find(task.name).compare(task, wanted, got)


def read_inputs(tokenizer: Path) -> Inputs:
    """Open the readers of the inputs that the describe stage found."""
    return open_inputs(read_task(tokenizer), lambda name: (tokenizer / name).read_bytes())


def read_encoder(tokenizer: Path) -> TextEncoder:
    """Open the tokenizer written by the describe stage."""
    encoder = read_inputs(tokenizer).text
    assert encoder is not None  # noqa: S101 (callers have a task that reads texts)
    return encoder


def read_items(texts: Path, kind: str) -> list[Any]:
    """Read one of the lists of the collect stage: calibration, evaluation or golden.

    An item is a text, a pair of texts, or the bytes of a file; golden items are never pairs.
    """
    return [_item(texts, item) for item in _listed(texts, kind)]


def _listed(texts: Path, kind: str) -> list[Any]:
    found: list[Any] = json.loads((texts / "texts.json").read_text())[kind]
    return found


def _item(texts: Path, item: Any) -> Any:
    if isinstance(item, dict):
        return (texts / item["file"]).read_bytes()
    return item if isinstance(item, str) else (item[0], item[1])


def golden_files(texts: Path) -> list[tuple[Any, Path | None]]:
    """Return the golden items as they stand in a bundle's golden file, and the file of each."""
    return [
        (item, texts / item["file"] if isinstance(item, dict) else None)
        for item in _listed(texts, "golden")
    ]


def are_generated(texts: Path) -> bool:
    """Tell whether the texts of the collect stage were generated, not read from a file."""
    return bool(json.loads((texts / "texts.json").read_text())["generated"])


def files_of(folder: Path) -> dict[str, Path]:
    """Return the files of a folder and its subfolders, by relative name."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def move_files(folder: Path, target: Path) -> None:
    """Move the files of a folder to another, replacing files of the same name."""
    for name, path in files_of(folder).items():
        (target / name).parent.mkdir(parents=True, exist_ok=True)
        path.replace(target / name)


def calibration_feeds(inputs: Mapping[str, Path]) -> Iterator[dict[str, Any]]:
    """Make the model's inputs of the calibration items, one by one.

    They are int64 [1, tokens] of texts or pairs, float32 [1, 3, height, width] of images, or
    float32 [1, samples] of sounds.
    """
    readers = read_inputs(inputs["tokenizer"])
    if hear := readers.audio:
        for item in read_items(inputs["texts"], "calibration"):
            yield {"input_values": hear.features(hear.read(item))[None]}
        return
    if readers.image:
        for item in read_items(inputs["texts"], "calibration"):
            yield {"pixel_values": readers.image.read(item)[None]}
        return
    encoder = read_encoder(inputs["tokenizer"])
    for item in read_items(inputs["texts"], "calibration"):
        text, pair = (item, None) if isinstance(item, str) else item
        row = encoder.encode(text, pair).first
        yield encoder.batch([row], len(row.ids))


@dataclass(frozen=True)
class Candidate:
    """An exported model, before it has a name and measurements."""

    engine: str
    """The engine that runs it."""
    precision: str
    """Its precision, as in a target file."""
    graphs: Mapping[str, Sequence[str]]
    """{graph: its files}, as paths relative to its folder."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """The options with which a device would load it."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """{adapter: its file}, as paths relative to its folder."""


def open_model(tokenizer: Path, folder: Path, candidate: Candidate, *, threads: int = 0) -> Model:
    """Open the graphs in a folder on this host's CPU, with the code that devices run.

    Args:
        tokenizer: the folder of the describe stage.
        folder: the folder of the export or variant.
        candidate: what the folder holds.
        threads: CPU threads; 0 for all.

    """
    engine = engines.find(candidate.engine)
    variant = Variant(
        name="candidate",
        engine=candidate.engine,
        provider=engine.CPU,
        precision=candidate.precision,
        scheme="",
        graphs=(),
        requires=Requires(),
        tolerance=Tolerance(0.0, 0.0),
        options=candidate.options,
    )
    sessions = {}
    for name, paths in candidate.graphs.items():
        files = {path: map_file(folder / path) for path in paths}
        sessions[name] = engine.open_session(files, variant, threads or cores(), None)
    graphs = tuple(
        Graph(name, tuple(candidate.graphs[name]), session.inputs, session.outputs)
        for name, session in sessions.items()
    )
    variant = replace(variant, graphs=graphs)
    adapters = Adapters({k: partial(map_file, folder / v) for k, v in candidate.adapters.items()})
    task, inputs = read_task(tokenizer), read_inputs(tokenizer)
    return Model(Opened(task, variant, sessions, inputs, adapters))
