"""Examples as tensors: tokens with labels, padded batches, and the loss of each task."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgepack.dataset import Columns, Example, read_examples
from edgepack.describe import positions_of
from edgepack.evaluate import labels_of
from edgepack.formats import PLAIN
from edgepack_runtime.errors import InputError

IGNORED = -100  # the label that torch's cross entropy leaves out


@dataclass(frozen=True)
class Batch:
    """inputs: int64 tensors [rows, tokens] by name; labels: a tensor, None without labels."""

    inputs: Mapping[str, Any]
    labels: Any = None


def read_training(
    inputs: Mapping[str, Path], task: str, columns: Columns, *, most: int = 0
) -> list[Example]:
    """Read the training rows and the unlabelled ones that a stage was given.

    Args:
        inputs: `data` and `unlabelled` of a stage, either may be missing.
        task: as the runtime names it.
        columns: what they are called.
        most: keep at most so many rows, evenly taken; 0 for all.

    Raises:
        InputError: there is neither, or a row is wrong.

    """
    examples: list[Example] = []
    if "data" in inputs:
        examples += read_examples(str(inputs["data"]), task, columns)
    if "unlabelled" in inputs:
        path = inputs["unlabelled"]
        named = columns.text if path.suffix not in PLAIN and not task.startswith("token") else ""
        plain = replace(columns, text=named, pair="")
        examples += read_examples(str(path), "text-classification", plain, labelled=False)
    if not examples:
        raise InputError("training needs data: set data.train or data.unlabelled in the recipe")
    step = max(1, -(-len(examples) // most)) if most else 1
    return examples[::step]


def tokenize(tokenizer: Any, example: Example, max_length: int) -> dict[str, list[int]]:
    """Tokenize one example: ids, mask and types, and `word_ids` for one split into words."""
    if example.words and not getattr(tokenizer, "add_prefix_space", True):
        raise InputError(
            "the model's tokenizer was saved with add_prefix_space false, so it cannot take texts "
            "split into words as it was trained; save it with add_prefix_space=True"
        )
    if example.words:
        row = tokenizer(
            list(example.words), is_split_into_words=True, truncation=True, max_length=max_length
        )
        return {**row, "word_ids": [-1 if i is None else i for i in row.word_ids()]}
    return dict(tokenizer(example.text, example.pair, truncation=True, max_length=max_length))


def label_of(example: Example, row: Mapping[str, Any], config: Any) -> Any:
    """Return the training label of an example; None if it has none.

    A class number, a list of 0.0 and 1.0, a float, or a class number for each token (the
    first of a word; `IGNORED` elsewhere).
    """
    if example.tags:
        numbers = [config.label2id[tag] for tag in example.tags]
        words = row["word_ids"]
        first = [i >= 0 and (at == 0 or words[at - 1] != i) for at, i in enumerate(words)]
        return [numbers[i] if new else IGNORED for i, new in zip(words, first, strict=True)]
    if example.label is None:
        return None
    if isinstance(example.label, float):
        return example.label
    if isinstance(example.label, tuple):
        chosen = {config.label2id[name] for name in labels_of(example)}
        return [float(i in chosen) for i in range(config.num_labels)]
    return config.label2id[example.label]


def pad(tokenizer: Any, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """Stack rows into int64 tensors [rows, longest]."""
    tokenizer.deprecation_warnings["Asking-to-pad-a-fast-tokenizer"] = True  # on purpose
    names = [name for name in tokenizer.model_input_names if name in rows[0]]
    padded = tokenizer.pad(
        {name: [row[name] for row in rows] for name in names}, return_tensors="pt"
    )
    return dict(padded)


def pad_labels(labels: Sequence[Any], length: int) -> Any:
    """Stack labels into one tensor; those of tokens are padded to `length` with `IGNORED`."""
    import torch

    first = labels[0]
    if isinstance(first, list) and isinstance(first[0], int):
        return torch.tensor([row + [IGNORED] * (length - len(row)) for row in labels])
    return torch.tensor(labels)


def batches(model: Any, tokenizer: Any, examples: Sequence[Example], size: int) -> Iterator[Batch]:
    """Yield batches of examples of like length; labels only where every row has one."""
    longest = max_length_of(model, tokenizer)
    rows = [tokenize(tokenizer, example, longest) for example in examples]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]["input_ids"]))
    for start in range(0, len(order), size):
        picked = order[start : start + size]
        inputs = pad(tokenizer, [rows[i] for i in picked])
        labels = [label_of(examples[i], rows[i], model.config) for i in picked]
        whole = all(label is not None for label in labels)
        width = inputs["input_ids"].shape[1]
        yield Batch(inputs, pad_labels(labels, width) if whole else None)


def max_length_of(model: Any, tokenizer: Any, most: int = 512) -> int:
    """Return how many tokens a model takes, at most `most`."""
    return int(min(most, tokenizer.model_max_length, positions_of(model.config) or most))


def task_loss(model: Any, batch: Batch) -> Any:
    """Return the loss whose gradient tells what matters to the model.

    With labels the task's own; without, that of the model's own decisions; for embeddings a
    fixed random projection of them, since they decide nothing.
    """
    import torch
    from torch.nn import functional

    if batch.labels is not None and hasattr(model.config, "problem_type") and _has_head(model):
        return model(**batch.inputs, labels=batch.labels).loss
    output = model(**batch.inputs)[0]
    if output.shape[-1] == 1 and _has_head(model):
        return output.square().mean()
    if _has_head(model):
        flat = output.reshape(-1, output.shape[-1])
        return functional.cross_entropy(flat, flat.argmax(dim=-1))
    generator = torch.Generator().manual_seed(0)
    direction = torch.randn(output.shape[-1], generator=generator)
    return ((output @ direction) * batch.inputs["attention_mask"]).abs().mean()


def _has_head(model: Any) -> bool:
    return type(model).__name__.endswith("Classification")
