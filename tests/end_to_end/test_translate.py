"""The example that translates: line by line, as the model does."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pair_models
import pytest
from click.testing import CliRunner

from edgepack.cli import main
from edgepack.recipe.recipe import read_recipe
from edgepack_runtime import load

pytestmark = pytest.mark.filterwarnings("ignore")  # the exporters' own
EXAMPLE = Path(__file__).parents[2] / "examples/translate"


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build a small Marian model with random weights, for translation."""
    out = tmp_path_factory.mktemp("translate")
    model = pair_models.with_tokenizer("marian", out)
    arguments = ["build", str(model), "--task", "translation", "--name", "translate"]
    done = CliRunner().invoke(main, [*arguments, "-t", "native", "-o", str(out)])
    assert done.exit_code == 0, done.output
    return next(out.glob("*.epk"))


def test_a_letter_is_translated_line_by_line(bundle: Path) -> None:
    """Empty lines stay, equal lines are equal, and options reach the model."""
    text = (EXAMPLE / "letter.txt").read_text()
    model = load(bundle)
    for arguments, options in (([], {}), (["--beams", "2"], {"num_beams": 2})):
        done = subprocess.run(
            [sys.executable, str(EXAMPLE / "translate.py"), str(bundle), *arguments],
            check=True,
            capture_output=True,
            text=True,
            input=text * 2,
        )
        lines = text.strip("\n").splitlines() * 2
        wanted = [model(line, **options)[0]["translation_text"] if line else "" for line in lines]
        assert done.stdout.splitlines() == "\n".join(wanted).splitlines()
        assert f"{len(lines)} lines in " in done.stderr


def test_its_recipe_is_one() -> None:
    """The model comes from a hub, so here the recipe is only read."""
    assert read_recipe(EXAMPLE / "edgepack.toml").source == "Helsinki-NLP/opus-mt-en-de"
