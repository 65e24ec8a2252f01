"""The torch half of a plan: the stages from the original model to the one that is exported."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgepack.compress import (
    adapt,
    augment,
    distill,
    distill_language,
    finetune,
    finetune_language,
    prune,
    teach,
    vocabulary,
)
from edgepack.export import draft
from edgepack.model.fetch import ModelInfo, fetch, find_adapter
from edgepack.recipe import checks, presets
from edgepack.recipe.recipe import Recipe
from edgepack.stages.cache import Source, Stage, file_source, hash_files, joint_hash
from edgepack.tasks import find as find_task
from edgepack_runtime import tasks
from edgepack_runtime.errors import InputError

Needed = Stage | Source


@dataclass(frozen=True)
class Form:
    """The model after one step, as a folder that transformers loads."""

    name: str
    model: Needed


def make_forms(recipe: Recipe, info: ModelInfo, data: Mapping[str, Needed]) -> tuple[Form, ...]:
    """Return the forms of the model in order; quality is compared with the first.

    If there is a fine-tuning or an adapter, its result is the teacher: the model before it has no
    quality worth comparing with.

    Raises:
        InputError: a stage would refuse its input, perhaps after an hour of training.

    """
    checks.check_task(recipe.compression, info.task)
    columns = recipe.data.columns
    config = _config(info)
    writes = find_task(info.task).DECODES
    steps = presets.expand(recipe.compression, config, columns, writes=writes)
    checks.check_sizes(steps, config)
    checks.check_data(steps, info.task, config, data, columns)
    recipe = replace(recipe, compression=steps)
    training = _training(data)
    teacher = _teacher(recipe, info, data)
    forms = [Form("teacher", teacher)]
    if steps.vocabulary:
        settings = replace(steps.vocabulary, task=info.task)
        inputs = {"model": teacher, **training}
        stage = Stage("trim vocabulary", vocabulary.trim, settings, inputs, vocabulary.TOOLS)
        forms.append(Form("trimmed", stage))
    if steps.prune:
        pruning = replace(steps.prune, task=info.task)
        inputs = {"model": forms[-1].model, **training}
        forms.append(Form("pruned", Stage("prune", prune.prune, pruning, inputs, prune.TOOLS)))
    if steps.distill:
        student = _student(recipe, info, steps.distill, (teacher, forms[-1].model), data)
        forms.append(Form("distilled", student))
    return tuple(forms)


def _config(info: ModelInfo) -> dict[str, Any]:
    return _config_of((info.base or info.source).path)


def _config_of(folder: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((folder / "config.json").read_text())
    return found


def _teacher(recipe: Recipe, info: ModelInfo, data: Mapping[str, Needed]) -> Needed:
    model: Needed = info.source
    if info.base is not None:
        model = Stage(
            "merge adapter",
            adapt.adapt,
            adapt.Settings(info.task),
            {"base": info.base, "adapter": info.source},
            adapt.TOOLS,
        )
    if recipe.compression.finetune:
        writes = find_task(info.task).DECODES
        if not tasks.find(info.task).DECIDES and not writes:
            raise InputError(
                f"finetune: the task is {info.task}, but finetune is for text- and "
                "token-classification and text-generation. Set model.task"
            )
        settings = replace(recipe.compression.finetune, task=info.task)
        model = Stage(
            "fine-tune",
            finetune_language.finetune if writes else finetune.finetune,
            settings,
            {"model": model, "data": data["data"]},
            finetune.TOOLS,
            resumes=True,
        )
    return model


def _student(
    recipe: Recipe,
    info: ModelInfo,
    wanted: distill.Settings,
    models: tuple[Needed, Needed],
    data: Mapping[str, Needed],
) -> Stage:
    """Return the stage that distils; `models` are the teacher and the student's starting point."""
    teacher, start = models
    settings = replace(wanted, task=info.task)
    if find_task(info.task).DECODES:
        beside: dict[str, Needed] = {"model": start, "teacher": teacher, **_training(data)}
        learn = distill_language.distill
        return Stage("distil", learn, settings, beside, distill.TOOLS, resumes=True)
    more = augment.Settings(info.task, recipe.compression.augment, recipe.data.columns)
    training = _training(data)
    rows = Stage("collect training texts", augment.augment, more, training, augment.TOOLS)
    taught = teach.Settings(info.task, settings.max_length, settings.transfer)
    lesson = Stage(
        "ask the teacher", teach.teach, taught, {"teacher": teacher, "rows": rows}, teach.TOOLS
    )
    inputs: dict[str, Needed] = {"model": start, "rows": rows, "lesson": lesson}
    return Stage("distil", distill.distill, settings, inputs, distill.TOOLS, resumes=True)


def make_draft(
    recipe: Recipe, info: ModelInfo, forms: Sequence[Form], data: Mapping[str, Needed]
) -> Needed | None:
    """Return the small model that writes ahead of the last form; None if there is to be none.

    Raises:
        InputError: the model does not write, there is no such draft, or it has other tokens.

    """
    wanted, final = recipe.draft, forms[-1].model
    if wanted is None:
        return None
    if not find_task(info.task).DECODES or find_task(info.task).PAIRS:
        raise InputError(f"draft: it is for text-generation, and the task is {info.task}")
    start = _draft_source(recipe, info) if wanted.source else final
    if wanted.distill is None:
        return start
    config = _config_of(start.path) if isinstance(start, Source) else _config(info)
    checks.check_depth(wanted.distill.layers, config, "draft")
    settings = replace(wanted.distill, task=info.task)
    inputs: dict[str, Needed] = {"model": start, "teacher": final, **_training(data)}
    learn = distill_language.distill
    return Stage("distil the draft", learn, settings, inputs, distill.TOOLS, resumes=True)


def find_adapters(recipe: Recipe, info: ModelInfo) -> dict[str, Source]:
    """Find the adapters that a call may choose, {name: its folder}.

    Raises:
        InputError: the model does not write, or a step changes the weights that they were made for.

    """
    if not recipe.adapters:
        return {}
    if not find_task(info.task).DECODES or find_task(info.task).PAIRS:
        raise InputError(f"adapters: they are for text-generation, and the task is {info.task}")
    steps = recipe.compression
    for name in ("finetune", "vocabulary", "prune", "distill", "size"):
        if getattr(steps, name):
            table = "compress" if name == "size" else name
            raise InputError(f"adapters: {table} changes the model that they were made for")
    return {name: find_adapter(source) for name, source in sorted(recipe.adapters.items())}


def _draft_source(recipe: Recipe, info: ModelInfo) -> Source:
    """Find the model that a draft is, or is made of; check its tokens now if they can be known."""
    from tokenizers import Tokenizer

    wanted, own = recipe.draft, (info.base or info.source).path
    assert wanted  # noqa: S101 (the caller has seen it)
    source = fetch(wanted.source, revision=wanted.revision, task=info.task).source
    files = [folder / "tokenizer.json" for folder in (own, source.path)]
    if not recipe.compression.vocabulary and all(file.is_file() for file in files):
        draft.check_tokens(*(Tokenizer.from_file(str(file)).get_vocab() for file in files))
    return source


def _training(data: Mapping[str, Needed]) -> dict[str, Needed]:
    return {name: source for name, source in data.items() if name != "evaluation"}


def data_sources(recipe: Recipe) -> dict[str, Needed]:
    """Return the recipe's data files as sources: `data`, `unlabelled`, `evaluation`.

    Raises:
        InputError: a file is missing.

    """
    names = {"data": "train", "unlabelled": "unlabelled", "evaluation": "evaluation"}
    found: dict[str, Needed] = {}
    for role, key in names.items():
        value = getattr(recipe.data, key)
        if not value:
            continue
        if value.startswith("datasets:"):
            found[role] = Source(Path(value), value)
        else:
            found[role] = data_source(f"data.{key}", Path(value))
    return found


def data_source(key: str, path: Path) -> Source:
    """Return a file of data, or a folder of images, as a source.

    Raises:
        InputError: there is neither.

    """
    if path.is_file():
        return file_source(path)
    if path.is_dir():
        files = sorted(item for item in path.rglob("*") if item.is_file())
        return Source(path, joint_hash(hash_files(path, files)))
    raise InputError(f"{key}: no file and no folder at {path}")
