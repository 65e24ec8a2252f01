"""A recipe for a target with nothing left to decide: which stages make which variants."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from edgepack.build.forms import Form
from edgepack.model.fetch import ModelInfo
from edgepack.recipe.recipe import Budget, Recipe
from edgepack.recipe.target import Target, VariantSpec
from edgepack.stages.cache import Stage
from edgepack_runtime.bundle.manifest import canonical_json
from edgepack_runtime.errors import InputError


@dataclass(frozen=True)
class VariantPlan:
    """The stages of one variant."""

    spec: VariantSpec
    """What the target asked for."""
    make: Stage
    """The stage that makes it."""
    assess: Stage
    """The stage that compares it with the float model."""
    quality: Stage | None = None
    """The stage that judges it on the evaluation data; None without evaluation data."""
    kept: tuple[str, ...] = ()
    """Layers that the gate's repair left in float."""

    def stages(self) -> list[Stage]:
        """Return its last stages."""
        return [stage for stage in (self.make, self.assess, self.quality) if stage is not None]


@dataclass(frozen=True)
class Plan:
    """The stages of one bundle.  Its key is the build's identity."""

    recipe: Recipe
    """What was asked for."""
    model: ModelInfo
    """The model that was fetched."""
    target: Target
    """The device to build for."""
    tokenizer: Stage
    """Reads tokenizer, config and task."""
    texts: Stage
    """Collects the texts on which variants are compared."""
    export: Stage
    """Exports the float32 graphs that variants are compared with."""
    golden: Stage
    """Records their outputs."""
    variants: tuple[VariantPlan, ...]
    """The variants, best first."""
    reference: str
    """The engine of `export`."""
    sensitivity: Stage | None
    """Ranks layers by what int8 costs them; None if the engine has no such stage."""
    forms: tuple[Form, ...]
    """The torch model after each step, the teacher first."""
    qualities: Mapping[str, Stage] = field(default_factory=dict)
    """The stages that judge the forms, by form."""
    kit: Mapping[str, str] = field(default_factory=dict)
    """{wheel: sha256} of what is carried to the device with the bundle."""
    left_out: Mapping[str, str] = field(default_factory=dict)
    """{variant: why it cannot be made}."""

    def stages(self) -> Iterator[Stage]:
        """Yield every stage, each after the stages it needs."""
        seen: set[str] = set()
        yield from self._common(seen)
        for variant in self.variants:
            for last in variant.stages():
                yield from _with_inputs(last, seen)

    def optional(self) -> set[str]:
        """Return the keys of the stages that can fail without losing every variant."""
        return {stage.key for stage in self.stages()} - {s.key for s in self._common(set())}

    def _common(self, seen: set[str]) -> Iterator[Stage]:
        """Yield the stages that all variants need."""
        first = (self.tokenizer, self.texts, self.export, self.golden)
        for stage in (*first, *self.qualities.values()):
            yield from _with_inputs(stage, seen)

    def without(self, reasons: Mapping[str, str]) -> Plan:
        """Return the plan without some variants; `reasons` gives the reason for each by name.

        Raises:
            InputError: no variant is left.

        """
        left_out = {**self.left_out, **reasons}
        variants = tuple(v for v in self.variants if v.spec.name not in left_out)
        if not variants:
            told = "; ".join(f"{name}: {reason}" for name, reason in left_out.items())
            raise InputError(f"no variant of {self.target.name} can be made: {told}")
        return replace(self, variants=variants, left_out=left_out)

    def ranking(self) -> Iterator[Stage]:
        """Yield the stages that rank layers, which only a repair needs."""
        if self.sensitivity:
            yield from _with_inputs(self.sensitivity, set())

    @property
    def staged(self) -> bool:
        """Tell whether there is more to report than a plain conversion."""
        return len(self.forms) > 1 or bool(self.qualities) or self.recipe.budget != Budget()

    @property
    def key(self) -> str:
        """Hash everything that the bundle's bytes depend on."""
        return hashlib.sha256(canonical_json(self.as_json())).hexdigest()

    def as_json(self) -> dict[str, Any]:
        """Return the plan as JSON values, the same on every machine."""
        return {
            "name": self.model.name,
            "version": self.recipe.version,
            "release": self.recipe.release,
            "task": self.model.task,
            "target": self.target.name,
            "arch": self.target.arch,
            "requires": asdict(self.target.requires),
            "model": self.model.source.key,
            "golden": self.golden.key,
            "variants": [
                {
                    **asdict(v.spec),
                    "make": v.make.key,
                    "assess": v.assess.key,
                    **({"kept": list(v.kept)} if v.kept else {}),
                }
                for v in self.variants
            ],
            **({"kit": dict(self.kit)} if self.kit else {}),
            **({"left_out": dict(self.left_out)} if self.left_out else {}),
            "stages": [{"label": stage.label, "key": stage.key} for stage in self.stages()],
        }


def _with_inputs(stage: Stage, seen: set[str]) -> Iterator[Stage]:
    if stage.key in seen:
        return
    seen.add(stage.key)
    for needed in stage.inputs.values():
        if isinstance(needed, Stage):
            yield from _with_inputs(needed, seen)
    yield stage
