"""`edgepack targets` and `init`: list the targets, and write a first recipe."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack.build.fits import Fit
    from edgepack.recipe.target import Target


@click.command()
@click.option("--example", "name", help="Copy this example instead; `list` lists them.")
@click.option("--model", default="", help="What to build: a hub id, a folder, package:NAME/path.")
@click.argument("folder", type=click.Path(path_type=Path), required=False)
def init(name: str | None, model: str, folder: Path | None) -> None:
    """Write a recipe with every key explained to FOLDER (by default this one)."""
    from edgepack.recipe.examples import copy_example, list_examples, write_recipe

    if name is None:
        click.echo(f"{write_recipe(folder or Path(), model)}: edit it, then run edgepack build")
        return
    if model:
        raise InputError("--model goes into a recipe of your own; an example names its model")
    if name == "list":
        for found, summary in list_examples().items():
            click.echo(f"{found:<14} {summary}")
        return
    made = copy_example(name, folder or Path(name))
    click.echo(f"{made}: read its README.md, then run edgepack build in it")


@click.command()
@click.argument("name", required=False)
@click.option("--explain", is_flag=True, help="Say what each variant is for and what it needs.")
@click.option("--markdown", is_flag=True, help="Print the table of targets/README.md.")
@click.option("--fits", "model", help="Say which of them have the memory for this model.")
@click.option("--precision", default="target", help="With --fits: as `edgepack build` takes it.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def targets(
    name: str | None,
    *,
    explain: bool,
    markdown: bool,
    model: str | None,
    precision: str,
    as_json: bool,
) -> None:
    """List the targets, or explain one."""
    from dataclasses import asdict

    from edgepack.recipe.target import all_targets, as_markdown, explain_target, find_target

    found = [find_target(name)] if name else all_targets()
    if model:
        _show_fits(model, precision, found, as_json=as_json)
        return
    if as_json:
        click.echo(json.dumps([asdict(target) for target in found], indent=1))
        return
    if markdown:
        click.echo(as_markdown(found), nl=False)
        return
    for target in found:
        click.echo(f"{target.name:<18} {target.arch:<9} {target.summary}")
        if name or explain:
            for line in explain_target(target):
                click.echo(f"  {line}")


def _show_fits(model: str, precision: str, found: list[Target], *, as_json: bool) -> None:
    """Print what a model would need on each target, by its files alone."""
    from dataclasses import asdict

    from edgepack.build.fits import fits, size_of
    from edgepack.recipe.recipe import PRECISIONS, Recipe, fetch_model

    if precision not in PRECISIONS:
        raise InputError(f"--precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
    recipe = Recipe(source=model, precision=precision)
    info = fetch_model(recipe)
    rows = {target.name: fits(recipe, info, target) for target in found}
    if as_json:
        listed = {name: [asdict(fit) for fit in row] for name, row in rows.items()}
        click.echo(json.dumps(listed, indent=1))
        return
    click.echo(f"{info.name}: {size_of(info).parameters / 1e6:.1f} million weights, {info.task}")
    for target in found:
        click.echo(f"{target.name:<18} {_sizes(target.memory_gb)}")
        for fit in rows[target.name]:
            click.echo(f"  {fit.variant:<24} {_verdict(target, fit)}")


def _sizes(memory_gb: tuple[int, ...]) -> str:
    return f"{', '.join(map(str, memory_gb))} GB" if memory_gb else "any memory"


def _verdict(target: Target, fit: Fit) -> str:
    if fit.why_not:
        return f"not built: {fit.why_not}"
    if not fit.memory_mb:
        return "not known: no such device has been measured"
    need = f"about {fit.memory_mb} MB"
    if not target.memory_gb:
        return need
    return f"{need}: fits from {fit.smallest_gb} GB" if fit.smallest_gb else f"{need}: does not fit"
