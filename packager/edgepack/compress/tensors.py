"""Examples as numbers: tokens with labels, and the loss of each task."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from edgepack.data.formats import PLAIN
from edgepack.data.labels import labels_of
from edgepack.data.rows import Columns, Example, read_examples
from edgepack.model.describe import positions_of
from edgepack_runtime import tasks
from edgepack_runtime.errors import InputError

IGNORED = -100  # the label that torch's cross entropy ignores


@dataclass(frozen=True)
class Batch:
    """One batch of examples."""

    inputs: Mapping[str, Any]
    """int64 tensors [rows, tokens] by name."""
    labels: Any = None
    """A tensor; None without labels."""


def read_training(
    inputs: Mapping[str, Path], task: str, columns: Columns, *, most: int = 0
) -> list[Example]:
    """Read the training rows and the unlabelled ones that a stage was given.

    Args:
        inputs: `data` and `unlabelled` of a stage; either may be missing.
        task: the task by the runtime's name.
        columns: the names of the columns.
        most: return at most this many rows, evenly spaced; 0 for all.

    Raises:
        InputError: there is neither, or a row is wrong.

    """
    examples: list[Example] = []
    if "data" in inputs:
        examples += read_examples(str(inputs["data"]), task, columns)
    if "unlabelled" in inputs:
        path = inputs["unlabelled"]
        named = columns.text if path.suffix not in PLAIN and not tasks.find(task).PER_TOKEN else ""
        plain = replace(columns, text=named, pair="")
        examples += read_examples(str(path), "", plain, labelled=False)
    if not examples:
        raise InputError("training needs data: set data.train or data.unlabelled in the recipe")
    step = max(1, -(-len(examples) // most)) if most else 1
    return examples[::step]


def tokenize_all(
    tokenizer: Any, examples: Sequence[Example], max_length: int
) -> dict[str, list[list[int]]]:
    """Tokenize examples together: return lists of ids, masks and types; `word_ids` for words.

    Raises:
        InputError: the tokenizer cannot take texts split into words.

    """
    cut = {"truncation": True, "max_length": max_length}
    if any(example.words for example in examples):
        if not getattr(tokenizer, "add_prefix_space", True):
            raise InputError(
                "the model's tokenizer was saved with add_prefix_space false, so for texts split "
                "into words it would differ from its training; save it with add_prefix_space=True"
            )
        split = [list(example.words or example.text.split()) for example in examples]
        found = tokenizer(split, is_split_into_words=True, **cut)
        words = [[-1 if i is None else i for i in found.word_ids(row)] for row in range(len(split))]
        return {**found, "word_ids": words}
    texts = [(e.text, e.pair) if e.pair else e.text for e in examples]
    return dict(tokenizer(texts, **cut))


def label_of(example: Example, row: Mapping[str, Any], config: Any) -> Any:
    """Return the training label of an example; None if it has none.

    It is a class number, a list of 0.0 and 1.0, a float, or a class number for each token (for the
    first of each word; `IGNORED` elsewhere).
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


def max_length_of(model: Any, tokenizer: Any, most: int = 512) -> int:
    """Return how many tokens a model takes, at most `most`."""
    return int(min(most, tokenizer.model_max_length, positions_of(model.config) or most))


def task_loss(model: Any, batch: Batch) -> Any:
    """Return a loss whose gradient shows what matters to the model.

    With labels, it is the task's own loss (a language model's labels are its next tokens);
    without, the loss of the model's own decisions.  For embeddings, which decide nothing, it is
    a fixed random projection.
    """
    import torch
    from torch.nn import functional

    if batch.labels is not None and (_has_head(model) or model.get_output_embeddings() is not None):
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
