"""What a bundle is made of and how, for people and their tools: CycloneDX and SLSA.

Both documents are JSON inside the bundle.  They have the same bytes for the same plan: they contain
no time and no host.  A device reads neither.  CycloneDX's own Python library has no model card, so
the document is written here, and the tests check it against the schema.
"""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.stages.cache import version_of
from edgepack_runtime.bundle.description import Task
from edgepack_runtime.bundle.manifest import File, Manifest, Variant, canonical_json

if TYPE_CHECKING:
    from edgepack.build.plan import Plan

BILL = "sbom.cdx.json"
PROVENANCE = "provenance.intoto.json"
LICENCE = "LICENSE"
_MOST_LICENCE = 1 << 20
_HUB_ID = re.compile(r"[\w.-]+/[\w.-]+")
_LICENCES = ("LICENSE", "LICENSE.txt", "LICENSE.md", "LICENCE", "COPYING")
_CARD_LICENCE = re.compile(r"^license:\s*([\w.+-]+)\s*$", re.MULTILINE)


def documents(plan: Plan, manifest: Manifest) -> dict[str, bytes]:
    """Return {name: content} of the documents to add to a bundle's files.

    Args:
        plan: what was built.
        manifest: the bundle's manifest, whose files do not include these documents.

    """
    found = {
        BILL: canonical_json(bill(plan, manifest)),
        PROVENANCE: canonical_json(provenance(plan, manifest)),
    }
    if text := _licence_text(plan.model.source.path):
        found[LICENCE] = text
    return found


def bill(plan: Plan, manifest: Manifest) -> dict[str, Any]:
    """Return a CycloneDX 1.6 bill of materials with a model card."""
    name = f"{manifest.name}-{manifest.target}"
    model: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": name,
        "name": name,
        "version": manifest.version,
        "modelCard": _card(manifest),
    }
    source = _source(plan)
    parts = [source, *map(_file, manifest.files), *_wheels(manifest)]
    tools = [_tool(tool, found) for tool, found in _tools(plan).items()]
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "serialNumber": f"urn:uuid:{uuid.uuid5(uuid.NAMESPACE_OID, plan.key)}",
        "version": 1,
        "metadata": {"component": model, "tools": {"components": tools}},
        "components": parts,
        "dependencies": [{"ref": name, "dependsOn": [part["bom-ref"] for part in parts]}],
    }


def provenance(plan: Plan, manifest: Manifest) -> dict[str, Any]:
    """Return an in-toto statement with SLSA 1 provenance of the bundle's files."""
    source = _source(plan)
    origin = source.get("purl", f"file:{source['name']}")
    materials = [
        *(
            {"uri": origin, "name": name, "digest": {"sha256": digest}}
            for name, digest in plan.model.files.items()
        ),
        *({"uri": _purl(name, found)} for name, found in _tools(plan).items()),
    ]
    stages = [{"label": stage.label, "key": stage.key} for stage in plan.stages()]
    return {
        "_type": "https://in-toto.io/Statement/v1",
        "subject": [
            {"name": entry.path, "digest": {"sha256": entry.sha256}} for entry in manifest.files
        ],
        "predicateType": "https://slsa.dev/provenance/v1",
        "predicate": {
            "buildDefinition": {
                "buildType": "urn:edgepack:build:1",
                "externalParameters": {
                    "name": manifest.name,
                    "version": manifest.version,
                    "release": manifest.release,
                    "target": manifest.target,
                    "task": plan.model.task,
                    "variants": [v.name for v in manifest.variants],
                },
                "internalParameters": {"plan": plan.key, "stages": stages},
                "resolvedDependencies": materials,
            },
            "runDetails": {
                "builder": {"id": f"urn:edgepack:packager:{version_of('edgepack')}"},
                "metadata": {"invocationId": plan.key},
            },
        },
    }


def _inputs(task: Task) -> Iterator[dict[str, str]]:
    if task.text:
        yield {"format": f"text, up to {task.text.max_length} tokens"}
    if task.audio:
        yield {"format": f"sound, {task.audio.sampling_rate} samples a second"}
    if task.image:
        yield {"format": f"image, {task.image.width}×{task.image.height} pixels"}


def _output(task: Task) -> str:
    if task.writing:
        return "text"
    return f"{len(task.labels)} labels" if task.labels else "vectors"


def _card(manifest: Manifest) -> dict[str, Any]:
    task = manifest.task
    return {
        "modelParameters": {
            "task": task.name,
            "inputs": list(_inputs(task)),
            "outputs": [{"format": _output(task)}],
        },
        "quantitativeAnalysis": {
            "performanceMetrics": [
                {"type": name, "value": f"{value:.6f}", "slice": variant.name}
                for variant in manifest.variants
                for name, value in _figures(variant).items()
            ]
        },
        "considerations": {
            "technicalLimitations": [
                (
                    "figures are of the build's own data; quantized variants differ from the float "
                    "model within the tolerance that the bundle's self-test checks"
                )
            ]
        },
    }


def _figures(variant: Variant) -> dict[str, float]:
    return {k: float(v) for k, v in variant.measured.items() if isinstance(v, (int, float))}


def _source(plan: Plan) -> dict[str, Any]:
    """Describe the model that the bundle was made from, without paths of this host."""
    given, digest = plan.recipe.source, plan.model.source.key
    found: dict[str, Any] = {
        "type": "machine-learning-model",
        "bom-ref": f"model:{digest[:16]}",
        "name": plan.model.name,
        "components": [
            {**_hashed(name, found), "bom-ref": f"model:{name}"}
            for name, found in plan.model.files.items()
        ],
    }
    if given.startswith("package:"):
        package = given.removeprefix("package:").partition("/")[0]
        found["purl"] = _purl(package.replace("_", "-"), version_of(package))
    elif _HUB_ID.fullmatch(given) and not Path(given).exists():
        commit = plan.model.commit
        found["purl"] = f"pkg:huggingface/{given}" + (f"@{commit}" if commit else "")
    if licence := _card_licence(plan.model.source.path):
        found["licenses"] = [{"license": {"name": licence}}]
    return found


def _file(entry: File) -> dict[str, Any]:
    return {**_hashed(entry.path, entry.sha256), "bom-ref": f"file:{entry.path}"}


def _hashed(name: str, sha256: str) -> dict[str, Any]:
    return {"type": "file", "name": name, "hashes": [{"alg": "SHA-256", "content": sha256}]}


def _wheels(manifest: Manifest) -> list[dict[str, Any]]:
    """Describe the wheels that a kit carries next to the bundle."""
    found = []
    for wheel, digest in sorted(manifest.kit.items()):
        name, release = wheel.split("-")[:2] if wheel.count("-") > 1 else (wheel, "")
        found.append(
            {
                **_tool(name, release),
                "bom-ref": f"wheel:{wheel}",
                "hashes": [{"alg": "SHA-256", "content": digest}],
            }
        )
    return found


def _tool(name: str, release: str) -> dict[str, Any]:
    return {
        "type": "library",
        "bom-ref": f"tool:{name}",
        "name": name,
        "version": release,
        "purl": _purl(name, release),
    }


def _purl(name: str, release: str) -> str:
    normal = re.sub(r"[-_.]+", "-", name).lower()
    return f"pkg:pypi/{normal}" + (f"@{release}" if release else "")


def _tools(plan: Plan) -> Mapping[str, str]:
    """Return the versions of the tools that made the bundle, by distribution."""
    names = {tool for stage in plan.stages() for tool in stage.tools}
    return {name: version_of(name) for name in sorted(names)}


def _licence_text(folder: Path) -> bytes:
    """Return the licence file next to the model; empty if there is none of a sane size."""
    for name in _LICENCES:
        path = folder / name
        if path.is_file() and path.stat().st_size <= _MOST_LICENCE:
            return path.read_bytes()
    return b""


def _card_licence(folder: Path) -> str:
    """Return the licence named in the front matter of the hub's model card."""
    card = folder / "README.md"
    try:
        head = card.read_text(errors="replace").split("---")
    except OSError:
        return ""
    found = _CARD_LICENCE.search(head[1]) if len(head) > 2 and not head[0].strip() else None
    return found.group(1) if found else ""
