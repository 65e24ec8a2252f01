"""`edgepack evaluate`: the quality of a model or a bundle on labelled data."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import click

from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack.data.rows import Columns
    from edgepack.tasks import Quality


@click.command()
@click.argument("model")
@click.option("--data", "source", required=True, help="File of labelled rows, or datasets:NAME.")
@click.option(
    "--task", default="", help="Instead of the detected one; text-generation measures perplexity."
)
@click.option("--text-column", default="", help="Name of the column of texts.")
@click.option("--pair-column", default="", help="Name of the column of a second text.")
@click.option("--label-column", default="", help="Name of the column of labels or tags.")
@click.option(
    "--encoding", default="", help="Encoding of a file that is not UTF-8, such as latin-1."
)
@click.option("--delimiter", default="", help="Delimiter of a table, if it is not detected.")
@click.option("--variant", default="", help="Variant of a bundle, instead of the best one.")
@click.option("--threads", type=int, help="CPU threads (default: all).")
@click.option("--offline", is_flag=True, help="Use the local hub cache only.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def evaluate(  # noqa: PLR0913, PLR0917 (click needs one parameter for each option)
    model: str,
    source: str,
    task: str,
    text_column: str,
    pair_column: str,
    label_column: str,
    encoding: str,
    delimiter: str,
    variant: str,
    threads: int | None,
    *,
    offline: bool,
    as_json: bool,
) -> None:
    """Measure the quality of MODEL (a model or a bundle) on labelled data."""
    from edgepack.data.rows import Columns

    columns = Columns(text_column, pair_column, label_column, encoding, delimiter)
    asked = Asked(task=task, variant=variant, threads=threads, offline=offline)
    name, quality = evaluate_source(model, source, columns, asked)
    if as_json:
        click.echo(
            json.dumps(
                {
                    "model": name,
                    "main": quality.main,
                    "rows": quality.rows,
                    "figures": dict(quality.figures),
                },
                indent=1,
            )
        )
        return
    result = f"{quality.name} {quality.value:.4f}"
    click.echo(f"{name} on {quality.rows} rows of {source}: {result}")
    for figure, value in quality.figures.items():
        click.echo(f"  {figure:<18} {value:.4f}{'  ←' if figure == quality.main else ''}")


@dataclass(frozen=True)
class Asked:
    """How to open what is evaluated."""

    task: str = ""
    """The task of a model folder; empty for the detected one."""
    variant: str = ""
    """The variant of a bundle; empty for the best one."""
    threads: int | None = None
    """CPU threads for a bundle; None for the default."""
    offline: bool = False
    """Do not use the hub."""


def evaluate_source(model: str, data: str, columns: Columns, asked: Asked) -> tuple[str, Quality]:
    """Evaluate a bundle, or the model that `fetch` finds; return what ran and its quality."""
    from edgepack.data.rows import read_examples
    from edgepack.tasks import TORCH_BATCH
    from edgepack.tasks import evaluate as measure
    from edgepack_runtime import load

    path = Path(model)
    if path.suffix == ".epk" or (path / "oci-layout").is_file():
        opened = load(path, variant=asked.variant or None, threads=asked.threads)
        examples = read_examples(data, opened.task.name, columns)
        return f"{model}, {opened.variant.name}", measure(opened, examples)
    from edgepack.model.fetch import fetch
    from edgepack.model.torch_model import open_torch

    found = fetch(model, task=asked.task, offline=asked.offline)
    if found.base is not None:
        raise InputError(f"{model} is an adapter; build it, then evaluate the bundle")
    examples = read_examples(data, found.task, columns)
    opened = open_torch(found.source.path, found.task)
    return f"{model}, PyTorch", measure(opened, examples, batch_size=TORCH_BATCH)
