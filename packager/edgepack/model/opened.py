"""What one stage hands to the next: how to read the folders that stages fill."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from edgepack_runtime import engines
from edgepack_runtime.bundle.manifest import Requires, Task, Tolerance, Variant, decode_task
from edgepack_runtime.device.facts import cores
from edgepack_runtime.inputs.text import TextEncoder
from edgepack_runtime.model.model import Model
from edgepack_runtime.paths import map_file


def read_task(tokenizer: Path) -> Task:
    """Read the task that the describe stage wrote."""
    return decode_task(json.loads((tokenizer / "task.json").read_text()))


def read_encoder(tokenizer: Path) -> TextEncoder:
    """Open the tokenizer that the describe stage wrote."""
    return TextEncoder((tokenizer / "tokenizer.json").read_bytes(), read_task(tokenizer).text)


def read_texts(texts: Path, kind: str) -> list[str | tuple[str, str]]:
    """Read one of the lists of the collect stage: calibration, evaluation or golden.

    An item is a text, or a pair of texts; golden ones are all texts.
    """
    found = json.loads((texts / "texts.json").read_text())[kind]
    return [item if isinstance(item, str) else (item[0], item[1]) for item in found]


def read_golden_texts(texts: Path) -> list[str]:
    """Read the golden texts of the collect stage."""
    return [item for item in read_texts(texts, "golden") if isinstance(item, str)]


def are_generated(texts: Path) -> bool:
    """Tell whether the texts of the collect stage were made up, not read from a file."""
    return bool(json.loads((texts / "texts.json").read_text())["generated"])


def files_of(folder: Path) -> dict[str, Path]:
    """Return the files of a folder and of those inside it, by relative name."""
    found = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): path for path in found}


def move_files(folder: Path, target: Path) -> None:
    """Move the files of a folder into another, in place of those of the same name."""
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


def open_model(
    tokenizer: Path,
    folder: Path,
    engine: str,
    precision: str = "float32",
    *,
    threads: int = 0,
    options: Mapping[str, Any] | None = None,
) -> Model:
    """Open the files of one variant on this host's CPU, in the code that devices run."""
    files = {name: map_file(path) for name, path in files_of(folder).items()}
    variant = Variant(
        name="candidate",
        engine=engine,
        provider=engines.find(engine).CPU,
        precision=precision,
        scheme="",
        files=tuple(sorted(files)),
        requires=Requires(),
        tolerance=Tolerance(0.0, 0.0),
        options=options or {},
    )
    session = engines.find(engine).open_session(files, variant, threads or cores(), None)
    return Model(read_task(tokenizer), variant, session, read_encoder(tokenizer))
