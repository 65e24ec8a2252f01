"""The papers in a bundle: valid by their schemas, true of its files, and the same every time."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import pytest
import tiny
from click.testing import CliRunner

from edgepack.build import sbom
from edgepack.cli import main
from edgepack_runtime.bundle.bundle import Bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle of a tiny model with a card and a licence."""
    folder = tmp_path_factory.mktemp("supply")
    model = tiny.make("bert-intent", folder / "model")
    (model / "README.md").write_text("---\nlicense: apache-2.0\ntags: [x]\n---\n# A model\n")
    (model / "LICENSE").write_text("Do as you like.\n")
    done = CliRunner().invoke(
        main,
        ["build", str(model), "--target", "cpu-x86-64", "-o", str(folder / "dist")],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    return Bundle.open(next((folder / "dist").glob("*.epk")))


def read(bundle: Bundle, name: str) -> dict[str, Any]:
    """Return a document of a bundle."""
    found: dict[str, Any] = json.loads(bytes(bundle.read(name)))
    return found


def test_the_bill_is_valid_cyclonedx(bundle: Bundle) -> None:
    """By the schema of CycloneDX 1.6, model card included, with nothing that it does not know."""
    from cyclonedx.schema import SchemaVersion
    from cyclonedx.validation.json import JsonStrictValidator

    content = bytes(bundle.read(sbom.BILL)).decode()
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(content) is None
    broken = content.replace('"machine-learning-model"', '"miracle"')
    assert JsonStrictValidator(SchemaVersion.V1_6).validate_str(broken) is not None


def test_the_papers_are_true_of_the_files(bundle: Bundle) -> None:
    """Every file of the bundle but the papers, by its digest, in both."""
    papers = {sbom.BILL, sbom.PROVENANCE, sbom.LICENCE}
    files = {e.path: hashlib.sha256(bundle.read(e.path)).hexdigest() for e in bundle.manifest.files}
    rest = {path: digest for path, digest in files.items() if path not in papers}
    assert set(files) - set(rest) == papers
    parts = read(bundle, sbom.BILL)["components"]
    listed = {p["name"]: p["hashes"][0]["content"] for p in parts if p["type"] == "file"}
    assert listed == rest
    statement = read(bundle, sbom.PROVENANCE)
    assert {s["name"]: s["digest"]["sha256"] for s in statement["subject"]} == rest
    assert statement["predicateType"] == "https://slsa.dev/provenance/v1"
    build = statement["predicate"]["buildDefinition"]
    assert build["internalParameters"]["plan"] == bundle.manifest.provenance["plan"]
    assert {"torch", "onnx"} <= {
        item["uri"].removeprefix("pkg:pypi/").partition("@")[0]
        for item in build["resolvedDependencies"]
    }


def test_the_model_is_told_by_digests_that_tools_can_match(bundle: Bundle) -> None:
    """Both documents list the model's own files, each by the hash of its bytes."""
    folder = bundle.path.parents[1] / "model"
    digests = {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("model.safetensors", "config.json")
    }
    bill = read(bundle, sbom.BILL)
    source = next(p for p in bill["components"] if p["type"] == "machine-learning-model")
    listed = {part["name"]: part["hashes"][0]["content"] for part in source["components"]}
    assert "hashes" not in source
    statement = read(bundle, sbom.PROVENANCE)["predicate"]["buildDefinition"]
    materials = {
        item["name"]: item["digest"]["sha256"]
        for item in statement["resolvedDependencies"]
        if "name" in item
    }
    for name, digest in digests.items():
        assert listed[name] == materials[name] == digest


def test_a_hub_model_is_told_by_the_commit_that_was_fetched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without a revision in the recipe too: the commit is that of the snapshot."""
    from edgepack.build.build import plans
    from edgepack.recipe.recipe import Recipe
    from edgepack.recipe.target import find_target

    commit = "5" * 40
    tiny.make("bert-intent", tmp_path / "hub/models--org--tiny/snapshots" / commit)
    (tmp_path / "hub/models--org--tiny/refs").mkdir()
    (tmp_path / "hub/models--org--tiny/refs/main").write_text(commit)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    (plan,) = plans(Recipe(source="org/tiny"), [find_target("cpu-arm64")], offline=True)
    assert sbom._source(plan)["purl"] == f"pkg:huggingface/org/tiny@{commit}"


def test_the_card_holds_what_was_measured(bundle: Bundle) -> None:
    """Task, figures by variant, and the licence of the model."""
    bill = read(bundle, sbom.BILL)
    card = bill["metadata"]["component"]["modelCard"]
    assert card["modelParameters"]["task"] == "text-classification"
    figures = {(m["slice"], m["type"]) for m in card["quantitativeAnalysis"]["performanceMetrics"]}
    assert {(v.name, "agreement") for v in bundle.manifest.variants} <= figures
    source = next(p for p in bill["components"] if p["bom-ref"].startswith("model:"))
    assert source["licenses"] == [{"license": {"name": "apache-2.0"}}]
    assert bytes(bundle.read(sbom.LICENCE)) == b"Do as you like.\n"


def test_the_papers_tell_nothing_of_the_host(bundle: Bundle) -> None:
    """No path, no clock: who builds the same gets the same bytes."""
    for name in (sbom.BILL, sbom.PROVENANCE):
        text = bytes(bundle.read(name)).decode()
        assert str(bundle.path.parents[1]) not in text
        assert str(Path.home()) not in text
        assert "timestamp" not in text
