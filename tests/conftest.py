"""Fixtures: tiny models, their bundles, and the real data where `EDGEPACK_DATA` names it."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import tiny

Build = Callable[..., Path]


@pytest.fixture(scope="session", autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> None:
    """Keep the tests' stages and measurements out of the user's cache, and off the network."""
    os.environ["EDGEPACK_CACHE"] = str(tmp_path_factory.mktemp("cache"))
    os.environ["HF_HUB_OFFLINE"] = "1"
    os.environ["TOKENIZERS_PARALLELISM"] = "false"


@pytest.fixture(scope="session")
def model(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Return a function from a kind of `tiny.KINDS` to a model folder, made once."""
    made: dict[str, Path] = {}

    def get(kind: str) -> Path:
        if kind not in made:
            folder = tmp_path_factory.mktemp("models") / kind
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # the libraries' own
                made[kind] = tiny.make(kind, folder)
        return made[kind]

    return get


@pytest.fixture(scope="session")
def bundle(model: Callable[[str], Path], tmp_path_factory: pytest.TempPathFactory) -> Build:
    """Return a function that builds a bundle of a tiny model, made once for its arguments."""
    from edgepack.build import build, plans
    from edgepack.progress import Quiet
    from edgepack.recipe import Recipe
    from edgepack.target import find_target

    made: dict[tuple[str, str, str], Path] = {}

    def get(kind: str, target: str = "cpu-x86-64", precision: str = "target") -> Path:
        key = (kind, target, precision)
        if key not in made:
            recipe = Recipe(source=str(model(kind)), precision=precision)
            planned = plans(recipe, [find_target(target)])
            out = tmp_path_factory.mktemp("dist")
            made[key] = build(planned, out, Quiet())[0].path
        return made[key]

    return get


@pytest.fixture(scope="session")
def data() -> Path:
    """Return the folder of real data and models; skip without it."""
    folder = os.environ.get("EDGEPACK_DATA")
    if not folder:
        pytest.skip("EDGEPACK_DATA is not set: no real data here")
    return Path(folder)
