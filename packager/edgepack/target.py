"""A device as data: one TOML file in `targets/`, or in the folder `$EDGEPACK_TARGETS` names."""

from __future__ import annotations

import os
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from edgepack.schema import Table, check, read_toml
from edgepack_runtime.errors import InputError
from edgepack_runtime.manifest import safe_name

ENGINES = ("onnxruntime", "openvino")
PRECISIONS = ("float32", "float16", "int8")
SCHEMES = ("none", "dynamic", "dynamic-reduced", "static")


@dataclass(frozen=True)
class VariantSpec:
    """One form of the model that a target asks for, and why.

    scheme: how int8 is reached. `dynamic`: activation scales at run time; `dynamic-reduced`:
        the same with 7-bit weights; `static`: calibrated; `none` for float.
    isa_any: CPU flags, any one of which the variant needs.
    """

    name: str
    engine: str
    provider: str
    precision: str
    scheme: str
    why: str = ""
    isa_any: tuple[str, ...] = ()
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Target:
    """A kind of device and the variants to make for it, best first."""

    name: str
    summary: str
    arch: str
    python: str
    detect: tuple[str, ...]
    variants: tuple[VariantSpec, ...]


def find_target(name: str) -> Target:
    """Return the target called `name`; `native` is the one that fits this machine.

    Raises:
        InputError: there is none; the message suggests the nearest.

    """
    paths = _paths()
    if name == "native":
        return native(Path("/"), platform.machine())
    if name not in paths:
        near = get_close_matches(name, paths, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"known: {', '.join(sorted(paths))}"
        raise InputError(f"unknown target {name!r}; {hint}")
    return read_target(paths[name])


def all_targets() -> list[Target]:
    """Return every target, by name."""
    return [read_target(path) for _, path in sorted(_paths().items())]


def native(root: Path, machine: str) -> Target:
    """Return the target for a machine: one whose marker files exist, else the plain CPU one."""
    arch = {"amd64": "x86_64", "arm64": "aarch64"}.get(machine.lower(), machine.lower())
    fit = [target for target in all_targets() if target.arch == arch]
    marked = [t for t in fit if t.detect and all((root / mark).exists() for mark in t.detect)]
    plain = [t for t in fit if not t.detect and t.name.startswith("cpu-")]
    if not marked and not plain:
        raise InputError(f"no target fits this machine ({arch}); see edgepack targets")
    return (marked or plain)[0]


def read_target(path: Path) -> Target:
    """Read a target file; every fault in one `InputError`."""
    faults: list[str] = []
    root = Table(read_toml(path), "", faults)
    target = Target(
        name=path.stem,
        summary=root.required("summary"),
        arch=root.required("arch"),
        python=root.text("python", ">=3.10"),
        detect=root.texts("detect"),
        variants=tuple(_variant(table) for table in root.tables("variants")),
    )
    root.done()
    if not target.variants:
        faults.append("variants: at least one is needed")
    names = [variant.name for variant in target.variants]
    for name in dict.fromkeys([target.name, *names]):
        if not safe_name(name):
            faults.append(f"{name!r} is not usable as a name: letters, digits, '.', '_' and '-'")
        if names.count(name) > 1:
            faults.append(f"variants: two are called {name!r}")
    check(path, faults)
    return target


def _variant(table: Table) -> VariantSpec:
    spec = VariantSpec(
        name=table.required("name"),
        engine=table.text("engine", choices=ENGINES),
        provider=table.required("provider"),
        precision=table.text("precision", choices=PRECISIONS),
        scheme=table.text("scheme", choices=SCHEMES),
        why=table.text("why"),
        isa_any=table.texts("isa_any"),
        options=table.mapping("options"),
    )
    table.done()
    return spec


def _paths() -> dict[str, Path]:
    here = Path(__file__).resolve()
    shipped = here.parent / "targets"
    folders = [shipped if shipped.is_dir() else here.parents[2] / "targets"]
    if extra := os.environ.get("EDGEPACK_TARGETS"):
        folders.append(Path(extra))
    return {path.stem: path for folder in folders for path in sorted(folder.glob("*.toml"))}
