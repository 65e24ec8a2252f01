"""A device as data: one TOML file in `targets/`, or in the folder named by `$EDGEPACK_TARGETS`.

A target may extend another: it inherits what it leaves out, including variants.
"""

from __future__ import annotations

import os
import platform
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from edgepack.recipe.schema import Table, check, read_toml
from edgepack_runtime import engines
from edgepack_runtime.bundle.manifest import Requires
from edgepack_runtime.bundle.names import safe_name
from edgepack_runtime.device.facts import probe
from edgepack_runtime.errors import InputError
from edgepack_runtime.fit import unmet
from edgepack_runtime.words import suggest

PRECISIONS = ("float32", "float16", "int8")
SCHEMES = ("none", "dynamic", "dynamic-reduced", "static")
_DEPTH = 8


@dataclass(frozen=True)
class VariantSpec:
    """One form of the model that a target asks for."""

    name: str
    engine: str
    provider: str
    precision: str
    scheme: str
    """How int8 is reached.  `dynamic`: activation scales at run time; `dynamic-reduced`: the same
    with 7-bit weights; `static`: calibrated; `none` for float."""
    why: str = ""
    """Why the target asks for it."""
    requires: Requires = Requires()
    """What a device needs for this variant, in addition to the target's requirements."""
    options: Mapping[str, Any] = field(default_factory=dict)
    """Options for the runtime's engine."""


@dataclass(frozen=True)
class Kit:
    """The contents of an offline wheelhouse for the device."""

    python: str = ""
    """The version of Python on its system, such as `3.11`."""
    glibc: str = ""
    """Its newest glibc symbol version, such as `2.36`."""
    packages: tuple[str, ...] = ()
    """Requirements for pip."""
    index: str = ""
    """Where to get those that PyPI lacks, by hand or with --wheels."""


@dataclass(frozen=True)
class Target:
    """A kind of device and the variants to make for it."""

    name: str
    summary: str
    arch: str
    detect: Mapping[str, str]
    """{file pattern below the root: regular expression for its content}; an empty expression if the
    file only has to exist."""
    variants: tuple[VariantSpec, ...]
    """The variants to make, best first."""
    requires: Requires = Requires()
    kit: Kit = Kit()
    install: tuple[str, ...] = ()
    """What a person installs on the device, one line each."""
    memory_gb: tuple[int, ...] = ()
    """GB of memory that such devices are sold with: the GPU's own, where it has its own."""
    depth: int = 0
    """How many targets it extends; of the targets that fit a machine, the deepest is used."""


def find_target(name: str) -> Target:
    """Return the target called `name`; `native` is the one for this machine.

    Raises:
        InputError: there is none; the message suggests similar names.

    """
    paths = _paths()
    if name == "native":
        return native(Path("/"), platform.machine())
    if name not in paths:
        raise InputError(f"unknown target {name!r}; {suggest(name, sorted(paths))}")
    return read_target(paths[name])


def all_targets() -> list[Target]:
    """Return all targets, ordered by name."""
    return [read_target(path) for _, path in sorted(_paths().items())]


def explain_target(target: Target) -> list[str]:
    """Return lines that describe a target: its variants, their reasons, and what they need."""
    lines = []
    if needs := demands(target.requires):
        lines.append(f"needs {', '.join(needs)}")
    for variant in target.variants:
        needs = demands(variant.requires)
        lines += [
            f"{variant.name}: {variant.engine}, {variant.provider}, {variant.precision}"
            + (f"; needs {', '.join(needs)}" if needs else ""),
            f"  {variant.why}",
        ]
    return [*lines, "on the device:", *(f"  {line}" for line in target.install)]


def as_markdown(targets: Sequence[Target]) -> str:
    """Return the table of `targets/README.md`."""
    lines = [
        "# Targets",
        "",
        "Made from the files beside it by `edgepack targets --markdown`. The sources of what they",
        "say stand in them as comments. A board is one file: here, or in a folder named by",
        "`$EDGEPACK_TARGETS`; with `extends` it says only what differs.",
        "",
        "| target | device | variants, best first | needs | Python of its kit |",
        "|---|---|---|---|---|",
    ]
    for target in targets:
        variants = ", ".join(f"`{variant.name}`" for variant in target.variants)
        cells = [
            f"`{target.name}`",
            target.summary,
            variants,
            ", ".join(demands(target.requires)) or "–",
            target.kit.python or "–",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def demands(requires: Requires) -> list[str]:
    """Return requirements in words."""
    words = {
        "isa_any": " or ".join(requires.isa_any),
        "memory_mb": f"{requires.memory_mb} MB of memory" if requires.memory_mb else "",
        "compute_capability": f"compute capability {requires.compute_capability}",
        "jetpack": f"JetPack {' or '.join(requires.jetpack)}",
        "glibc": f"glibc {requires.glibc}",
    }
    return [text for name, text in words.items() if getattr(requires, name)]


def native(root: Path, machine: str) -> Target:
    """Return the target for a machine: the most specific one whose marks are all found."""
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())
    fit = [
        target
        for target in all_targets()
        if target.arch == arch
        and (target.detect or target.name.startswith("cpu-"))
        and all(_marked(root, pattern, text) for pattern, text in target.detect.items())
        and not _too_old_a_gpu(target, root)
    ]
    if not fit:
        raise InputError(f"no target fits this machine ({arch}); see edgepack targets")
    return max(fit, key=lambda target: (len(target.detect), target.depth))


def _too_old_a_gpu(target: Target, root: Path) -> bool:
    least = target.variants[0].requires.compute_capability
    return bool(least) and bool(unmet(Requires(compute_capability=least), probe(root)))


def _marked(root: Path, pattern: str, text: str) -> bool:
    return any(re.search(text, path.read_text(errors="replace")) for path in root.glob(pattern))


def read_target(path: Path) -> Target:
    """Read a target file and what it extends; raise all faults as one `InputError`."""
    values, depth = _extended(path)
    faults: list[str] = []
    root = Table(values, "", faults)
    target = Target(
        name=path.stem,
        summary=root.required("summary"),
        arch=root.required("arch"),
        detect=root.mapping("detect"),
        variants=tuple(_variant(table) for table in root.tables("variants")),
        requires=_requires(root.table("requires")),
        kit=_kit(root.table("kit")),
        install=root.texts("install"),
        memory_gb=root.integers("memory_gb"),
        depth=depth,
    )
    root.done()
    if not target.variants:
        faults.append("variants: at least one is needed")
    faults.extend(
        f"detect.{pattern}: expected a regular expression, found {text!r}"
        for pattern, text in target.detect.items()
        if not _is_expression(text)
    )
    names = [variant.name for variant in target.variants]
    for name in dict.fromkeys([target.name, *names]):
        if not safe_name(name):
            faults.append(
                f"{name!r} is not usable as a name: use letters, digits, '.', '_' and '-'"
            )
        if names.count(name) > 1:
            faults.append(f"variants: two are called {name!r}")
    check(path, faults)
    return target


def _is_expression(text: object) -> bool:
    try:
        return isinstance(text, str) and bool(re.compile(text))
    except re.error:
        return False


def _extended(path: Path) -> tuple[dict[str, Any], int]:
    """Return a file's values merged over those it extends, and how many targets it extends."""
    values, depth = read_toml(path), 0
    while parent := values.pop("extends", None):
        paths = _paths()
        if not isinstance(parent, str) or parent not in paths or depth == _DEPTH:
            raise InputError(f"{path}: extends: no usable target {parent!r}")
        # Marks of the parent are not inherited: a board is recognised by its own.
        values = {**read_toml(paths[parent]), "detect": {}, **values}
        depth += 1
    return values, depth


def _requires(table: Table) -> Requires:
    for key in ("compute_capability", "glibc"):
        table.check_version(key)
    found = Requires(
        isa_any=table.texts("isa_any"),
        memory_mb=table.integer("memory_mb", 0),
        compute_capability=table.text("compute_capability"),
        jetpack=table.texts("jetpack"),
        glibc=table.text("glibc"),
    )
    table.done()
    return found


def _kit(table: Table) -> Kit:
    found = Kit(
        python=table.text("python"),
        glibc=table.text("glibc"),
        packages=table.texts("packages"),
        index=table.text("index"),
    )
    table.done()
    return found


def _variant(table: Table) -> VariantSpec:
    spec = VariantSpec(
        name=table.required("name"),
        engine=table.text("engine", choices=engines.known()),
        provider=table.required("provider"),
        precision=table.text("precision", choices=PRECISIONS),
        scheme=table.text("scheme", choices=SCHEMES),
        why=table.text("why"),
        requires=_requires(table.table("requires")),
        options=table.mapping("options"),
    )
    table.done()
    return spec


def _paths() -> dict[str, Path]:
    here = Path(__file__).resolve()
    shipped = here.parents[1] / "targets"
    folders = [shipped if shipped.is_dir() else here.parents[3] / "targets"]
    if extra := os.environ.get("EDGEPACK_TARGETS"):
        folders.append(Path(extra))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}
