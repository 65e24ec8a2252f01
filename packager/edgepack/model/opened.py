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
from edgepack_runtime.bundle.manifest import Graph, Requires, Task, Tolerance, Variant, decode_task
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


def read_texts(texts: Path, kind: str) -> list[str | tuple[str, str]]:
    """Read one of the lists of the collect stage: calibration, evaluation or golden.

    An item is a text or a pair of texts; golden items are always texts.
    """
    found = json.loads((texts / "texts.json").read_text())[kind]
    return [item if isinstance(item, str) else (item[0], item[1]) for item in found]


def read_golden_texts(texts: Path) -> list[str]:
    """Read the golden texts of the collect stage."""
    return [item for item in read_texts(texts, "golden") if isinstance(item, str)]


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
    """Tokenize the calibration texts or pairs one by one, as int64 arrays [1, tokens]."""
    encoder = read_encoder(inputs["tokenizer"])
    for item in read_texts(inputs["texts"], "calibration"):
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
