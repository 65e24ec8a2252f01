"""`edgepack build` and `check`: build a model or a recipe, or tell what would be built."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from collections.abc import Iterable

    from edgepack.build.plan import Plan
    from edgepack.recipe.recipe import Recipe
    from edgepack.recipe.target import Target


@click.command()
@click.argument("model", required=False)
@click.option(
    "-t", "--target", "targets", multiple=True, help="Device; repeatable. `native`: this machine."
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), default=Path("dist"), show_default=True
)
@click.option("--task", default="", help="Instead of the one detected from the model.")
@click.option("--revision", default="", help="Hub revision; pin a commit.")
@click.option("--name", default="", help="Name of the bundle.")
@click.option("--calibration", type=click.Path(path_type=Path), help="File of typical inputs.")
@click.option(
    "--precision", default="", help="`target` (default), `float32`, or `int4` for a language model."
)
@click.option("--layout", default="", help="`epk` (default) or `folder`.")
@click.option("--kit", is_flag=True, help="Add everything the device installs, for use offline.")
@click.option("--kit-python", default="", help="Python of the device, instead of the target's.")
@click.option(
    "--wheels",
    type=click.Path(path_type=Path),
    help="Folder of wheels for the kit, searched first.",
)
@click.option(
    "--jobs", type=click.IntRange(1), help="Stages at a time (default: 2 if it is faster and fits)."
)
@click.option("--variant", "variants", multiple=True, help="Make only this variant; repeatable.")
@click.option("--max-length", type=click.IntRange(1), help="Tokens of the longest text.")
@click.option("--quality-drop", type=float, help="The most points that a variant may lose.")
@click.option("--strict", is_flag=True, help="A variant that cannot be made is an error.")
@click.option("--offline", is_flag=True, help="Use the local hub cache only.")
@click.option("--dry-run", is_flag=True, help="Print the plan, build nothing.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def build(  # noqa: PLR0913, PLR0917 (click needs one parameter for each option)
    model: str | None,
    targets: tuple[str, ...],
    output: Path,
    task: str,
    revision: str,
    name: str,
    calibration: Path | None,
    precision: str,
    layout: str,
    kit_python: str,
    wheels: Path | None,
    jobs: int | None,
    variants: tuple[str, ...],
    max_length: int | None,
    quality_drop: float | None,
    *,
    kit: bool,
    strict: bool,
    offline: bool,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Build a bundle of MODEL for each target.

    MODEL is a hub id, a folder, `package:NAME/path`, or a recipe (a .toml file).  Without
    it, edgepack.toml in this folder is the recipe.  Options override the recipe.
    """
    from edgepack.build.build import bundle_path, plans
    from edgepack.bundle.kit import collect
    from edgepack.recipe.target import find_target

    given: dict[str, Any] = {
        "task": task,
        "revision": revision,
        "name": name,
        "calibration": calibration,
        "precision": precision,
        "layout": layout,
        "targets": targets,
        "variants": variants,
        "max_length": max_length,
    }
    recipe = _checked(_overridden(_recipe(model), given, quality_drop), kit=kit)
    wanted = list({t.name: t for t in map(find_target, recipe.targets)}.values())
    boards = _boards(recipe, wanted, kit_python, offline=offline) if kit else []
    kits = {board.name: collect(board, wheels) for board in boards}
    digests = {target: found.digests for target, found in kits.items()}
    planned = plans(recipe, wanted, offline=offline, kits=digests)
    if dry_run:
        _show_plans(planned, as_json=as_json)
        return
    _build(planned, output, jobs=jobs or 0, strict=strict, as_json=as_json)
    for plan, board in zip(planned, boards, strict=False):
        _write_kit(board, kits[board.name], bundle_path(plan, output), quiet=as_json)


def _overridden(recipe: Recipe, given: dict[str, Any], quality_drop: float | None) -> Recipe:
    """Return a recipe with the options that were given."""
    recipe = replace(recipe, **{key: value for key, value in given.items() if value})
    if quality_drop is None:
        return recipe
    return replace(recipe, budget=replace(recipe.budget, quality_drop=quality_drop))


def _write_kit(board: Target, wheels: Any, bundle: Path, *, quiet: bool) -> None:
    from edgepack.bundle.kit import write_kit

    made = write_kit(board, wheels, bundle)
    click.echo(f"kit: {made}; install it on the device with sh install.sh", err=quiet)


def _boards(
    recipe: Recipe, targets: Iterable[Target], python: str, *, offline: bool
) -> list[Target]:
    """Return the targets with what the kits for this model need."""
    from edgepack.bundle.kit import kit_for
    from edgepack.recipe.recipe import fetch_model
    from edgepack.tasks import find

    packages = find(fetch_model(recipe, offline=offline).task).PACKAGES
    return [kit_for(target, python, packages) for target in targets]


def _recipe(model: str | None) -> Recipe:
    from edgepack.recipe.recipe import FILE_NAME, Recipe, read_recipe

    if model is not None and not model.endswith(".toml"):
        return Recipe(source=model)
    path = Path(model or FILE_NAME)
    if not path.is_file():
        hint = "" if model else "; name a model, or write one with edgepack init"
        raise InputError(f"no recipe at {path}{hint}")
    return read_recipe(path)


def _checked(recipe: Recipe, *, kit: bool) -> Recipe:
    from edgepack.recipe.recipe import LAYOUTS, PRECISIONS

    if not recipe.targets:
        raise InputError("no target; name one with --target (edgepack targets lists them)")
    for option, value, known in (
        ("--precision", recipe.precision, PRECISIONS),
        ("--layout", recipe.layout, LAYOUTS),
    ):
        if value not in known:
            raise InputError(f"{option} must be one of {', '.join(known)}, not {value!r}")
    if kit and recipe.layout != "epk":
        raise InputError("--kit carries one file: leave --layout folder out")
    return recipe


def _build(planned: list[Plan], output: Path, *, jobs: int, strict: bool, as_json: bool) -> None:
    from rich.console import Console

    from edgepack.build.build import build as run
    from edgepack.report import terminal
    from edgepack.stages.progress import make_view

    total = sum(len(list(plan.stages())) + 2 for plan in planned)
    # The stream itself: a stage may replace sys.stderr, which must not affect the view.
    with make_view(Console(file=sys.stderr), total, plain=as_json) as view:
        built = run(planned, output, view, jobs=jobs, strict=strict)
    if as_json:
        click.echo(json.dumps(terminal.as_json(built), indent=1, ensure_ascii=False))
        return
    console = Console()
    for item in built:
        if item.stages:
            console.print(terminal.stages_table(item))
        console.print(terminal.table(item))
        console.print(terminal.summary(item), highlight=False, soft_wrap=True)


@click.command()
@click.argument("model")
@click.option("-t", "--target", "targets", multiple=True, help="Device; repeatable (default: all).")
@click.option("--task", default="", help="Instead of the one detected from the model.")
@click.option("--offline", is_flag=True, help="Use the local hub cache only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(model: str, targets: tuple[str, ...], task: str, *, offline: bool, as_json: bool) -> None:
    """Tell within seconds what can be built from MODEL (or a recipe), without building it."""
    from edgepack.build.preflight import check_model
    from edgepack.recipe.target import all_targets, find_target

    recipe = _recipe(model)
    recipe = replace(recipe, task=task or recipe.task, targets=targets or recipe.targets)
    wanted = [find_target(name) for name in recipe.targets] or all_targets()
    found = check_model(recipe, wanted, offline=offline)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    click.echo(f"{found['name']}: {found['model_type']}, {found['task']}")
    for name, variants in found["targets"].items():
        made = [variant for variant, reason in variants.items() if not reason]
        click.echo(f"  {name:<18} {', '.join(made) or 'nothing'}")
        for variant, reason in variants.items():
            if reason:
                click.echo(f"  {'':<18} not {variant}: {reason}")


def _show_plans(planned: list[Plan], *, as_json: bool) -> None:
    from edgepack.report.terminal import plan_json
    from edgepack.stages.cache import StageCache

    if as_json:
        click.echo(json.dumps([plan_json(plan) for plan in planned], indent=1))
        return
    cache = StageCache()
    for plan in planned:
        click.echo(
            f"{plan.model.name} ({plan.model.task}) for {plan.target.name}, plan {plan.key[:12]}"
        )
        for stage in plan.stages():
            state = "cached" if cache.lookup(stage) else "to do"
            click.echo(f"  {stage.label:<56} {state}")
