"""What the stages of a plan made: the one place that knows which folder holds what."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.build.plan import Plan, VariantPlan
from edgepack.compress.record import read_record
from edgepack.export import find, lora
from edgepack.judge.golden import read_assessment
from edgepack.judge.quality import quality_of
from edgepack.recipe.target import VariantSpec
from edgepack.stages.cache import folder_of
from edgepack.tasks import Quality


@dataclass(frozen=True)
class MadeForm:
    """The torch model after one step."""

    name: str
    """As in the plan: teacher, trimmed, pruned, distilled."""
    folder: Path
    """A folder that transformers can load."""
    quality: Quality | None
    """Its quality on the evaluation data; None without evaluation data."""


@dataclass(frozen=True)
class MadeVariant:
    """One variant, made and judged."""

    plan: VariantPlan
    """What was planned."""
    folder: Path
    """The files of its engine."""
    assessment: Mapping[str, Any]
    """How close its answers are to the float model's."""
    quality: Quality | None
    """Its quality on the evaluation data; None without evaluation data."""

    @property
    def spec(self) -> VariantSpec:
        """Return what the target asked for."""
        return self.plan.spec

    @property
    def graphs(self) -> dict[str, tuple[str, ...]]:
        """Return {graph: its files}, as paths relative to the folder."""
        return find(self.spec.engine).graphs(self.folder)

    @property
    def adapters(self) -> dict[str, str]:
        """Return {adapter: its file}, as paths relative to the folder."""
        return lora.files(self.folder)

    @property
    def files(self) -> dict[str, Path]:
        """Return the files of its graphs and its adapters by these relative paths."""
        paths = [path for paths in self.graphs.values() for path in paths]
        return {path: self.folder / path for path in [*paths, *self.adapters.values()]}

    @property
    def size(self) -> int:
        """Return the total size of its files in bytes."""
        return sum(path.stat().st_size for path in self.files.values())


@dataclass(frozen=True)
class Made:
    """Everything that a bundle is put together from."""

    plan: Plan
    """What was planned, without the variants that could not be made."""
    tokenizer: Path
    """The folder of tokenizer, config and task."""
    texts: Path
    """The folder of the texts on which variants are compared."""
    export: Path
    """The folder of the float graph."""
    golden: Path
    """The folder of the float graph's answers."""
    forms: tuple[MadeForm, ...]
    """The torch model after each step, the teacher first."""
    variants: tuple[MadeVariant, ...]
    """Best first, as in the plan."""
    remarks: tuple[str, ...]
    """Remarks of the trainings."""

    @property
    def export_size(self) -> int:
        """Return the size of the float graph in bytes."""
        graphs = find(self.plan.reference).graphs(self.export).values()
        paths = {path for files in graphs for path in files}
        return sum((self.export / path).stat().st_size for path in paths)


def made_of(plan: Plan, folders: Mapping[str, Path]) -> Made:
    """Return what a plan's stages made; `folders` are their outputs by key."""
    return Made(
        plan=plan,
        tokenizer=folders[plan.tokenizer.key],
        texts=folders[plan.texts.key],
        export=folders[plan.export.key],
        golden=folders[plan.golden.key],
        forms=tuple(_forms(plan, folders)),
        variants=tuple(_variant(variant, folders) for variant in plan.variants),
        remarks=tuple(_remarks(plan, folders)),
    )


def _forms(plan: Plan, folders: Mapping[str, Path]) -> Iterator[MadeForm]:
    for form in plan.forms:
        quality = quality_of(plan.qualities.get(form.name), folders)
        yield MadeForm(form.name, folder_of(form.model, folders), quality)


def _variant(variant: VariantPlan, folders: Mapping[str, Path]) -> MadeVariant:
    return MadeVariant(
        plan=variant,
        folder=folders[variant.make.key],
        assessment=read_assessment(folders[variant.assess.key]),
        quality=quality_of(variant.quality, folders),
    )


def _remarks(plan: Plan, folders: Mapping[str, Path]) -> Iterator[str]:
    """Yield the remarks of trainings: too short, worse than a linear probe."""
    for stage in plan.stages():
        record = read_record(folders[stage.key]) if stage.resumes else None
        for remark in (record or {}).get("remarks", ()):
            yield f"{stage.label}: {remark}"
