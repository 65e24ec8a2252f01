"""The recipe that `edgepack init` writes: every key is in it, with its real default."""

from __future__ import annotations

import re
import tomllib
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from click.testing import CliRunner

from edgepack.cli import main
from edgepack.compress import distill, finetune, prune, vocabulary
from edgepack.recipe.compression import Compression
from edgepack.recipe.recipe import Budget, Data, Recipe, read_recipe
from edgepack.recipe.schema import Table

if TYPE_CHECKING:
    import pytest


def run(*args: str, code: int = 0) -> str:
    """Run `edgepack init`, assert its exit code, return what it printed."""
    result = CliRunner().invoke(main, ["init", *args])
    assert result.exit_code == code, result.output
    return result.output


def test_the_recipe_as_it_is_written_changes_nothing(tmp_path: Path) -> None:
    """Read back it is a recipe with every default, for the machine it is on."""
    assert "edit it" in run(str(tmp_path / "new"), "--model", "org/tiny")
    found = read_recipe(tmp_path / "new" / "edgepack.toml")
    assert found == Recipe(source="org/tiny", targets=("native",))


def test_every_key_is_there_with_its_default(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With every comment taken away it is a recipe still; no key is missing, no default wrong."""
    asked: set[str] = set()
    done = Table.done

    def noted(table: Table) -> None:
        asked.update(f"{table._where}{key}" for key in table._known)
        done(table)

    run(str(tmp_path))
    path = tmp_path / "edgepack.toml"
    path.write_text(re.sub(r"(?m)^# (?=\[|\w+ = )", "", path.read_text()))
    monkeypatch.setattr(Table, "done", noted)
    found = read_recipe(path)
    for key in asked:
        table: object = tomllib.loads(path.read_text())
        for part in key.split("."):
            assert isinstance(table, dict)
            assert part in table, f"{key} is not in the template"
            table = table[part]
    plain = Recipe(
        source="org/name",
        targets=("native",),
        compression=Compression(
            finetune.Settings(""), vocabulary.Settings(""), prune.Settings(""), distill.Settings("")
        ),
    )
    examples: dict[str, object] = {
        "calibration": None,
        "previous": None,
        "budget": Budget(),
        "data": Data(),
        "compression": _without_examples(found.compression),
        "draft": None,
        "adapters": {},
    }
    assert found.adapters == {"support": "path/to/adapter"}
    assert found.draft
    assert found.draft.distill
    assert replace(found, **examples) == plain  # type: ignore[arg-type]
    assert found.data.columns == Data().columns
    assert None not in (found.calibration, found.previous, found.budget.memory_mb)


def _without_examples(steps: Compression) -> Compression:
    """Take away what is chosen where a recipe says nothing, and has an example in its place."""
    chosen = {"epochs": None, "learning_rate": None, "batch_size": None, "patience": None}
    assert steps.finetune
    assert steps.distill
    assert steps.prune
    assert steps.size == "balanced"
    assert min(steps.prune.layers, steps.prune.heads, steps.prune.feed_forward) > 0
    return Compression(
        replace(steps.finetune, schedule=replace(steps.finetune.schedule, **chosen)),  # type: ignore[arg-type]
        steps.vocabulary,
        prune.Settings(""),
        replace(steps.distill, schedule=replace(steps.distill.schedule, **chosen)),  # type: ignore[arg-type]
    )


def test_every_key_is_explained(tmp_path: Path) -> None:
    """Each line has a comment; the keys that [distill] shares are explained in [finetune]."""
    run(str(tmp_path))
    lines = (tmp_path / "edgepack.toml").read_text().splitlines()
    keys = [re.fullmatch(r"(?:# )?(\w+) = [^#]+(?:# (.+))?", line) for line in lines]
    found = [(match[1], match[2]) for match in keys if match]
    explained = {key for key, why in found if why}
    assert len(found) > 60
    assert {key for key, _ in found} == explained


def test_a_recipe_is_never_overwritten(tmp_path: Path) -> None:
    """One that is there stays as it is; what else lies in the folder does not matter."""
    (tmp_path / "notes").write_text("mine")
    run(str(tmp_path))
    (tmp_path / "edgepack.toml").write_text("mine")
    assert "exists; name another folder" in run(str(tmp_path), code=2)
    assert (tmp_path / "edgepack.toml").read_text() == "mine"
    assert "cannot write" in run(str(tmp_path / "notes"), code=2)


def test_a_model_folder_is_found_from_wherever_the_recipe_lies(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is named from where `init` ran; and an example takes no model."""
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    run("elsewhere", "--model", "model")
    assert read_recipe(tmp_path / "elsewhere/edgepack.toml").source == str(tmp_path / "model")
    assert "an example names its model" in run("--example", "intent", "--model", "m", code=2)
