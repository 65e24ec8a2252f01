"""Fixtures: tiny models, their bundles, and the real data where `EDGEPACK_DATA` names it.

The workers of a run (`pytest -n`) share the stage cache, the models and the bundles.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import tiny

if TYPE_CHECKING:  # torch may be imported once its threads are counted, below
    from edgepack.build.plan import Plan

pytest_plugins = ["places", "languages"]
Build = Callable[..., Path]
IS_WORKER = "PYTEST_XDIST_WORKER" in os.environ
if IS_WORKER:  # before torch is imported: workers whose threads wait for each other take for ever
    os.environ["OMP_NUM_THREADS"] = "1"


@pytest.fixture(scope="session")
def common(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the folder that all workers of this run share."""
    base = tmp_path_factory.getbasetemp()
    return base.parent if IS_WORKER else base


@pytest.fixture(scope="session", autouse=True)
def _own_cache(common: Path) -> None:
    """Keep the tests' stages and measurements out of the user's cache, and off the network."""
    os.environ["EDGEPACK_CACHE"] = str(common / "cache")
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


def _once(folder: Path, make: Callable[[Path], object]) -> Path:
    """Return a folder that the first worker makes and the others wait for."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with folder.with_name(f"{folder.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        done = folder.with_name(f"{folder.name}.done")
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            make(folder)
            done.touch()
    return folder


@pytest.fixture(scope="session")
def model(common: Path) -> Callable[[str], Path]:
    """Return a function from a kind of `tiny.KINDS` to a model folder, made once."""

    def get(kind: str) -> Path:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the libraries' own
            return _once(common / "models" / kind, lambda folder: tiny.make(kind, folder))

    return get


@pytest.fixture(scope="session")
def bundle(model: Callable[[str], Path], common: Path) -> Build:
    """Return a function that builds a bundle of a tiny model, made once for its arguments."""
    from edgepack.build.build import build, plans
    from edgepack.recipe.recipe import Recipe
    from edgepack.recipe.target import find_target
    from edgepack.stages.progress import Quiet

    def get(kind: str, target: str = "cpu-x86-64", precision: str = "target") -> Path:
        def make(folder: Path) -> None:
            recipe = Recipe(source=str(model(kind)), precision=precision)
            build(plans(recipe, [find_target(target)]), folder, Quiet())

        folder = _once(common / "dist" / f"{kind}-{target}-{precision}", make)
        (made,) = folder.glob("*.epk")
        return made

    return get


@pytest.fixture(scope="session")
def plan(model: Callable[[str], Path], bundle: Build) -> Plan:
    """Return the plan of a bundle that is built, its stages in the cache."""
    from edgepack.build.build import plans
    from edgepack.recipe.recipe import Recipe
    from edgepack.recipe.target import find_target

    bundle("bert-intent")
    recipe = Recipe(source=str(model("bert-intent")))
    return plans(recipe, [find_target("cpu-x86-64")])[0]


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real data and models; skip without it."""
    folder = os.environ.get("EDGEPACK_DATA")
    if not folder:
        pytest.skip("EDGEPACK_DATA is not set: no real data here")
    return Path(folder)
