"""Report faults in a recipe's data within seconds, before a model is trained or exported.

Data that cannot work is an error.  Data that works but misleads is a warning: repeated rows, texts
with two labels, evaluation rows that are also in the training data, rare classes.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.compress.tensors import read_training
from edgepack.data.labels import check_labels, labels_of
from edgepack.data.rows import Example, read_examples
from edgepack.tasks import find
from edgepack_runtime import tasks
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack.model.fetch import ModelInfo
    from edgepack.recipe.recipe import Recipe

_IMBALANCE = 50  # rows of the largest class for each of the smallest
_SHOWN = 5  # names in a message

Key = tuple[str, str | None]


def lint(recipe: Recipe, model: ModelInfo) -> list[str]:
    """Read all data of a recipe; return its warnings, one line each.

    Raises:
        InputError: a file cannot be read, lacks a column, or has labels that cannot be used.

    """
    data = recipe.data
    train, evaluation = (
        read_examples(source, model.task, data.columns) if source else []
        for source in (data.train, data.evaluation)
    )
    if data.unlabelled:
        read_training({"unlabelled": Path(data.unlabelled)}, model.task, data.columns)
    known = _known_labels(recipe, model, train)
    if known and evaluation:
        check_labels(evaluation, known, data.evaluation)
    return [
        *_rows(train, data.train),
        *_classes(train, data.train),
        *_leakage(train, evaluation, data.evaluation),
        *(_not_judged(known, evaluation, data.evaluation) if evaluation else ()),
        *_calibration(recipe, train),
    ]


def _known_labels(recipe: Recipe, model: ModelInfo, train: Sequence[Example]) -> tuple[str, ...]:
    """Return the labels of the model to be evaluated; none if it has no classes."""
    steps, source = recipe.compression, recipe.data.train
    if not tasks.find(model.task).DECIDES or find(model.task).READS != "text":
        return ()
    if steps.finetune:
        return _learned(train, source)
    known = () if model.base else _declared(model.source.path)
    if known and train and (steps.prune or steps.distill):
        check_labels([e for e in train if e.label is not None or e.tags], known, source)
    return known


def _learned(train: Sequence[Example], source: str) -> tuple[str, ...]:
    """Return the labels that fine-tuning will learn; none for scores."""
    if all(example.label is None and not example.tags for example in train):
        raise InputError(
            f"{source}: no labels, but finetune needs them; name their column: data.label"
        )
    if isinstance(train[0].label, float):
        return ()
    names = sorted({name for example in train for name in labels_of(example)})
    if len(names) < 2:
        raise InputError(f"{source}: only one class, {', '.join(names)}; finetune needs two")
    return tuple(names)


def _declared(folder: Path) -> tuple[str, ...]:
    """Return the labels of a model's config; none if it declares none or gives a score."""
    config = json.loads((folder / "config.json").read_text())
    names = tuple(str(name) for name in config.get("id2label", {}).values())
    return names if len(names) > 1 and config.get("problem_type") != "regression" else ()


def _rows(examples: Sequence[Example], source: str) -> Iterator[str]:
    """Warn about repeated rows and texts with two labels."""
    first: dict[Key, Example] = {}
    repeated: list[int] = []
    torn: dict[Key, tuple[Example, Example]] = {}
    for example in examples:
        before = first.setdefault(_key(example), example)
        if before is example:
            continue
        if (before.label, before.tags) == (example.label, example.tags):
            repeated.append(example.line)
        else:
            torn.setdefault(_key(example), (before, example))
    if repeated:
        count = f"{len(repeated)} of {len(examples)} rows are repeated"
        yield f"{source}, line {repeated[0]}: this row was there before; {count}"
    if torn:
        one, other = next(iter(torn.values()))
        count = f"{len(torn)} texts have two labels"
        yield f"{source}, line {other.line}: a different label from line {one.line}; {count}"


def _classes(examples: Sequence[Example], source: str) -> Iterator[str]:
    """Warn about classes that are much rarer than others, and about numbers among names."""
    if any(example.tags or isinstance(example.label, float) for example in examples):
        return
    counts = Counter(name for example in examples for name in labels_of(example)).most_common()
    if not counts:
        return
    (most, many), (least, few) = counts[0], counts[-1]
    if many > _IMBALANCE * few:
        rows = f"{many} rows are {most!r}, {few} {least!r}"
        yield f"{source}: {rows}; a class this rare may not be learned"
    numbers = [name for name, _ in counts if name.isdigit()]
    if numbers and len(numbers) < len(counts):
        yield f"{source}: labels are names and numbers ({_some(numbers)}); each one is a class"


def _leakage(train: Sequence[Example], evaluation: Sequence[Example], source: str) -> Iterator[str]:
    """Warn about texts that are in both the training data and the evaluation data."""
    learned = {_key(example) for example in train}
    seen = [example.line for example in evaluation if _key(example) in learned]
    if seen:
        count = f"{len(seen)} of {len(evaluation)} rows"
        where = f"{source}, line {seen[0]}"
        yield f"{where}: also in the training data ({count}); quality looks too good"


def _not_judged(known: Sequence[str], evaluation: Sequence[Example], source: str) -> Iterator[str]:
    """Warn about classes without an evaluation row."""
    judged = {name for example in evaluation for name in labels_of(example)}
    if missing := [name for name in known if name not in judged]:
        count = f"{len(missing)} of {len(known)} classes ({_some(missing)})"
        yield f"{source}: no row for {count}; quality says nothing about them"


def _calibration(recipe: Recipe, train: Sequence[Example]) -> Iterator[str]:
    """Warn if there are fewer texts than `calibration.samples`."""
    count, source = len(train), recipe.data.train
    if recipe.calibration is not None:
        source, columns = str(recipe.calibration), recipe.calibration_columns
        count = len(read_examples(source, "", columns, labelled=False))
    if source and count < recipe.samples:
        wanted = f"calibration.samples asks for {recipe.samples}"
        yield f"{source}: {count} texts, but {wanted}; all of them are used"


def _key(example: Example) -> Key:
    return example.text.strip(), example.pair


def _some(names: Sequence[str]) -> str:
    return ", ".join(names[:_SHOWN]) + (", …" if len(names) > _SHOWN else "")
