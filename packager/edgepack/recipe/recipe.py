"""What to build, as people write it: `edgepack.toml`, or the options of the command line."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from edgepack.compress import distill, finetune, prune, training, vocabulary
from edgepack.compress.schedule import PRECISIONS as PRECISIONS_OF_TRAINING
from edgepack.compress.schedule import Schedule
from edgepack.compress.teach import TRANSFERS
from edgepack.data.rows import Columns
from edgepack.model.fetch import ModelInfo, fetch
from edgepack.recipe.compression import Compression
from edgepack.recipe.presets import SIZES
from edgepack.recipe.schema import Table, check, read_toml
from edgepack_runtime.bundle.names import safe_name
from edgepack_runtime.tasks import known

FILE_NAME = "edgepack.toml"
PRECISIONS = ("target", "float32", "int4")
LAYOUTS = ("epk", "folder")


@dataclass(frozen=True)
class Data:
    """Files (or `datasets:` ids) of examples; an empty name for none."""

    train: str = ""
    """Labelled rows to learn from."""
    evaluation: str = ""
    """Labelled rows for the gate to judge by."""
    unlabelled: str = ""
    """More texts for a student."""
    columns: Columns = Columns()
    """How their tables are read."""


@dataclass(frozen=True)
class Budget:
    """What a bundle may cost; None for no limit."""

    quality_drop: float | None = None
    """Points (hundredths) of the task's figure below the teacher's."""
    bundle_mb: float | None = None
    """Size of the bundle in 10⁶ bytes."""
    latency_ms: float | None = None
    """Median of one text of 16 tokens on this host."""
    memory_mb: float | None = None
    """Peak resident memory of a process that loads it, in 10⁶ bytes."""


@dataclass(frozen=True)
class Draft:
    """A small model in the same bundle that writes ahead, so that the large one reads in pieces."""

    source: str = ""
    """A hub id, a folder, or `package:NAME/path`, with the model's tokens; empty for the model."""
    revision: str = ""
    """A hub revision."""
    distill: distill.Settings | None = None
    """How many of its layers to take, and how they learn from the model; None takes it as it is."""


@dataclass(frozen=True)
class Recipe:
    """A model and what to make of it."""

    source: str
    """A hub id, a folder, or `package:NAME/path`."""
    revision: str = ""
    """A hub revision; pin a commit to build the same bundle for ever."""
    task: str = ""
    """One of the runtime's tasks; empty to detect it from the model."""
    name: str = ""
    version: str = "0.1.0"
    release: int = 1
    max_length: int = 0
    calibration: Path | None = None
    """A text, TSV, CSV or JSONL file of typical inputs; None for generated ones."""
    column: str = ""
    samples: int = 0
    """How many of them static quantization uses; 0 for 64, or as many as there are."""
    data: Data = Data()
    compression: Compression = field(default_factory=Compression)
    draft: Draft | None = None
    """A small model that writes ahead; None for none."""
    adapters: Mapping[str, str] = field(default_factory=dict)
    """{name: hub id or folder} of LoRA adapters that a call may choose."""
    budget: Budget = Budget()
    search: int = 1
    """How many settings of static quantization to try for each variant; 1 for NNCF's own."""
    previous: Path | None = None
    """The previous release's bundle, whose scales are retained where quality allows, so that the
    update is small; None for new scales."""
    variants: tuple[str, ...] = ()
    """Which of a target's variants to make, by name; empty for all."""
    targets: tuple[str, ...] = ()
    precision: str = "target"
    """`target` for what each target asks for, `float32` for no quantization."""
    layout: str = "epk"

    @property
    def calibration_columns(self) -> Columns:
        """Return how to read the calibration file: like the data, but with its own columns."""
        return replace(self.data.columns, text=self.column, pair="", label="")


def fetch_model(recipe: Recipe, *, offline: bool = False) -> ModelInfo:
    """Find the model of a recipe; see `fetch`."""
    return fetch(
        recipe.source,
        revision=recipe.revision,
        task=recipe.task,
        name=recipe.name,
        offline=offline,
    )


def read_recipe(path: Path) -> Recipe:
    """Read a recipe; relative paths in it are relative to its folder.

    Raises:
        InputError: every unknown key, wrong type and wrong value, in one message.

    """
    faults: list[str] = []
    root = Table(read_toml(path), "", faults)
    model, calibration, build = (root.table(key) for key in ("model", "calibration", "build"))
    quantize = root.table("quantize")
    source, file = model.required("source"), calibration.text("file")
    previous = quantize.text("previous")
    data = _data(root.table("data"), path)
    recipe = Recipe(
        source=_resolve(path, source),
        revision=model.text("revision"),
        task=model.text("task", choices=("", *known())),
        name=model.text("name"),
        version=model.text("version", "0.1.0"),
        release=model.integer("release", 1, least=1),
        max_length=model.integer("max_length", 0),
        calibration=path.parent / file if file else None,
        column=calibration.text("column"),
        samples=calibration.integer("samples", 0),
        data=data,
        compression=_compression(root, data.columns),
        adapters=_adapters(root.optional("adapters"), path),
        draft=_draft(root.optional("draft"), path, data.columns),
        budget=_budget(root.table("budget")),
        search=quantize.integer("search", 1, least=1),
        previous=path.parent / previous if previous else None,
        variants=build.texts("variants"),
        targets=build.texts("targets"),
        precision=build.text("precision", "target", choices=PRECISIONS),
        layout=build.text("layout", "epk", choices=LAYOUTS),
    )
    for table in (root, model, calibration, build, quantize):
        table.done()
    _check_needs(recipe, faults)
    check(path, faults)
    return recipe


def _data(table: Table, path: Path) -> Data:
    names = ("text", "pair", "label", "encoding", "delimiter")
    columns = Columns(**{name: table.text(name) for name in names})
    files = {key: table.text(key) for key in ("train", "evaluation", "unlabelled")}
    table.done()
    return Data(columns=columns, **{key: _beside(path, name) for key, name in files.items()})


def _budget(table: Table) -> Budget:
    names = ("quality_drop", "bundle_mb", "latency_ms", "memory_mb")
    budget = Budget(**{name: table.optional_number(name) for name in names})
    table.done()
    return budget


def _compression(root: Table, columns: Columns) -> Compression:
    steps: dict[str, Any] = {"size": root.text("compress", choices=("", *SIZES))}
    if table := root.optional("finetune"):
        steps["finetune"] = finetune.Settings(
            "", _schedule(table), columns, max_length=table.integer("max_length", 128, least=8)
        )
        table.done()
    if table := root.optional("vocabulary"):
        least = table.integer("min_count", 1, least=1)
        general = table.number("general", vocabulary.GENERAL, most=1.0)
        steps["vocabulary"] = vocabulary.Settings("", least, general, columns)
        table.done()
    if table := root.optional("prune"):
        sizes = ("layers", "heads", "feed_forward")
        kept = {key: table.optional_integer(key, least=1) or 0 for key in sizes}
        if not any(kept.values()):
            table.fault(
                "removes nothing; set how many layers, heads or feed_forward neurons remain"
            )
        steps["prune"] = prune.Settings("", columns=columns, **kept)
        table.done()
    if table := root.optional("distill"):
        steps["distill"] = _distill(table, columns)
        copies = table.optional_integer("augment")
        fixed = steps["distill"].schedule.epochs is not None
        steps["augment"] = 0 if copies is None and fixed else copies
        table.done()
    return Compression(**steps)


def _adapters(table: Table | None, path: Path) -> dict[str, str]:
    if table is None:
        return {}
    found = {name: _resolve(path, table.required(name)) for name in table.names()}
    for name in found:
        if not safe_name(name):
            table.fault(f"{name!r} is not usable as a name")
    table.done()
    return found


def _draft(table: Table | None, path: Path, columns: Columns) -> Draft | None:
    if table is None:
        return None
    source, layers = table.text("source"), table.optional_integer("layers", least=1)
    if not source and layers is None:
        table.fault("needs a source, or how many layers of the model it is made of")
    revision = table.text("revision")
    learn = None if layers is None else _distill(table, columns)
    table.done()
    return Draft(_resolve(path, source), revision, learn)


def _distill(table: Table, columns: Columns) -> distill.Settings:
    return distill.Settings(
        "",
        _schedule(table),
        layers=table.integer("layers", 0),
        temperature=table.number("temperature", 2.0, least=0.1),
        hard=table.number("hard", 0.1, most=1.0),
        transfer=table.text("transfer", "none", choices=TRANSFERS),
        transfer_weight=table.number("transfer_weight", 1.0),
        dropout=table.number("dropout", 0.0, most=0.9),
        freeze_embeddings=table.flag("freeze_embeddings", default=False),
        max_length=table.integer("max_length", 128, least=8),
        columns=columns,
    )


def _schedule(table: Table) -> Schedule:
    plain = Schedule()
    reporters = table.texts("report_to")
    for name in reporters:
        table.check_choice("report_to", name, training.REPORTERS)
    return Schedule(
        epochs=table.optional_number("epochs", least=0.001),
        learning_rate=table.optional_number("learning_rate", least=1e-9, most=1.0),
        batch_size=table.optional_integer("batch_size", least=1),
        accumulate=table.integer("accumulate", plain.accumulate, least=1),
        warmup=table.number("warmup", plain.warmup, most=1.0),
        weight_decay=table.number("weight_decay", plain.weight_decay),
        precision=table.text("precision", plain.precision, choices=PRECISIONS_OF_TRAINING),
        patience=table.optional_integer("patience"),
        max_minutes=table.number("max_minutes", plain.max_minutes, least=0.01),
        seed=table.integer("seed", plain.seed),
        processes=table.integer("processes", plain.processes, least=1),
        launcher=table.texts("launcher"),
        report_to=reporters,
        checkpoint_steps=table.integer("checkpoint_steps", plain.checkpoint_steps, least=1),
    )


def _check_needs(recipe: Recipe, faults: list[str]) -> None:
    """Record what a step needs but the recipe does not give."""
    steps, data = recipe.compression, recipe.data
    if steps.finetune and not data.train:
        faults.append("finetune: needs data.train")
    faults.extend(
        f"{name}: needs data.train or data.unlabelled"
        for name in ("vocabulary", "prune", "distill")
        if getattr(steps, name) and not (data.train or data.unlabelled)
    )
    if recipe.draft and recipe.draft.distill and not (data.train or data.unlabelled):
        faults.append("draft.layers: needs data.train or data.unlabelled")
    if steps.size and not (data.train or data.unlabelled):
        faults.append("compress: needs data.train or data.unlabelled")
    if recipe.budget.quality_drop is not None and not data.evaluation:
        faults.append("budget.quality_drop: needs data.evaluation")


def _beside(path: Path, name: str) -> str:
    """Make the name of a data file relative to the recipe's folder; leave `datasets:` ids alone."""
    return name if not name or name.startswith("datasets:") else str(path.parent / name)


def _resolve(path: Path, source: str) -> str:
    """Make a source absolute if it is a folder next to the recipe; leave others alone."""
    folder = path.parent / source
    return str(folder.resolve()) if source and folder.is_dir() else source
