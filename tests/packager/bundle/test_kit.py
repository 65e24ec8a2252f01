"""A kit has what its model needs, and what that needs."""

from __future__ import annotations

from importlib.metadata import distribution, version

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from edgepack.bundle.kit import kit_for
from edgepack.recipe.target import find_target
from edgepack.tasks import every, find


def test_a_kit_for_a_language_model_can_chat() -> None:
    """It has the packages of the task beside those of the target, each once."""
    target = find_target("cpu-arm64")
    packages = find("text-generation").PACKAGES
    made = kit_for(kit_for(target, "3.12", packages), "", packages).kit
    assert made.python == "3.12"
    assert made.packages == (*target.kit.packages, *packages)
    assert kit_for(target, "", find("text-classification").PACKAGES) == target


def test_a_task_names_all_that_its_packages_need() -> None:
    """Wheels are fetched one by one, without what they depend on: the list must be closed."""
    for name, task in every().items():
        pinned = {canonicalize_name(Requirement(item).name) for item in task.PACKAGES}
        for item in map(Requirement, task.PACKAGES):
            assert item.specifier.contains(version(item.name)), f"{name}: {item} is not tested"
            for text in distribution(item.name).requires or []:
                needed = Requirement(text)
                if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                    there = {*pinned, "numpy"}  # which every target's kit has
                    assert canonicalize_name(needed.name) in there, f"{item} needs {needed}"
