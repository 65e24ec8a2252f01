"""`edgepack targets` and `init`: list the targets, and write a first recipe."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgepack_runtime.errors import InputError


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
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def targets(name: str | None, *, explain: bool, markdown: bool, as_json: bool) -> None:
    """List the targets, or explain one."""
    from dataclasses import asdict

    from edgepack.recipe.target import all_targets, as_markdown, explain_target, find_target

    found = [find_target(name)] if name else all_targets()
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
