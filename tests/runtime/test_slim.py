"""The runtime is slim: what it imports, and when."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import handmade
import pytest

import edgepack
import edgepack_runtime

RUNTIME = Path(edgepack_runtime.__file__).parent
BANNED = {"torch", "transformers", "optimum", "onnx", "huggingface_hub", "edgepack", "nncf"}


def _imports(path: Path) -> set[str]:
    tree = ast.parse(path.read_text())
    names = [n.name for node in ast.walk(tree) if isinstance(node, ast.Import) for n in node.names]
    names += [str(n.module) for n in ast.walk(tree) if isinstance(n, ast.ImportFrom)]
    return {name.split(".")[0] for name in names}


@pytest.mark.parametrize("path", sorted(RUNTIME.rglob("*.py")), ids=lambda p: p.stem)
def test_no_module_of_the_runtime_imports_the_build_stack(path: Path) -> None:
    """No import statement of the runtime, lazy ones included, names a library of the packager."""
    assert not _imports(path) & BANNED


def test_importing_the_runtime_loads_no_numpy_and_no_engine() -> None:
    """`import edgepack_runtime` is the standard library only."""
    code = (
        "import sys, edgepack_runtime, edgepack_runtime.cli\n"
        "heavy = {'numpy', 'onnxruntime', 'openvino', 'tokenizers', 'torch'} & set(sys.modules)\n"
        "sys.exit(str(heavy) if heavy else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_answering_loads_none_of_the_build_stack(tmp_path: Path) -> None:
    """A whole run, from the bundle to the answer, imports nothing that is banned."""
    path = handmade.bundle(tmp_path / "small.epk")
    code = (
        "import sys, edgepack_runtime as er\n"
        f"er.load({str(path)!r})('turn on')\n"
        f"bad = {BANNED!r} & set(sys.modules)\n"
        "sys.exit(str(bad) if bad else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_both_distributions_have_one_version() -> None:
    """The packager pins exactly the runtime it was tested with."""
    import tomllib

    root = Path(__file__).parents[2]
    host = tomllib.loads((root / "pyproject.toml").read_text())["project"]
    device = tomllib.loads((root / "runtime/pyproject.toml").read_text())["project"]
    versions = {host["version"], device["version"], edgepack.__version__}
    assert versions == {edgepack_runtime.__version__}
    assert any(item.endswith(f"=={device['version']}") for item in host["dependencies"])


def test_stages_do_not_import_each_other() -> None:
    """A stage sees its inputs and nothing of another stage."""
    packager = Path(edgepack.__file__).parent
    stages = {"model.describe", "data.texts", "judge.golden"}
    for name in stages:
        tree = ast.parse((packager / f"{name.replace('.', '/')}.py").read_text())
        found = [node for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)]
        modules = {f"{node.module}.{item.name}" for node in found for item in node.names}
        modules |= {str(node.module) for node in found}
        assert not {f"edgepack.{other}" for other in stages - {name}} & modules, name


def test_no_engine_stops_being_lazy() -> None:
    """Only an engine imports its package at the top."""
    tops = {
        path.name: {
            alias.name
            for node in ast.parse(path.read_text()).body
            if isinstance(node, ast.Import)
            for alias in node.names
        }
        for path in RUNTIME.rglob("*.py")
    }
    heavy = {"numpy", "tokenizers", "onnxruntime", "openvino"}
    found = {name: names & heavy for name, names in tops.items() if names & heavy}
    assert found == {name: {"onnxruntime"} for name in ("onnxruntime.py", "_ort_open.py")}
