"""A variant with a draft: a small model beside it writes ahead, so that it reads in pieces."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree, ignore_patterns

from edgepack.model.opened import read_encoder
from edgepack.stages.cache import MARK, Source, Stage
from edgepack_runtime.errors import InputError

GRAPH = "draft"
_TOOLS = ("edgepack",)


@dataclass(frozen=True)
class Settings:
    """There is nothing to choose."""


def stage(variant: Stage, draft: Stage, tokens: tuple[Stage, Stage]) -> Stage:
    """Return the stage that puts the files of a draft beside those of a variant.

    Args:
        variant: the stage that makes the variant.
        draft: the stage that makes the same variant of the draft.
        tokens: the stages that describe the two models.

    """
    inputs: dict[str, Stage | Source] = {
        "variant": variant,
        "draft": draft,
        "tokens": tokens[0],
        "draft_tokens": tokens[1],
    }
    return Stage("add the draft", join, Settings(), inputs, _TOOLS)


def join(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:  # noqa: ARG001 (a stage)
    """Write the files of a variant, and in the folder `draft` those of its draft.

    Raises:
        InputError: the draft has other tokens.

    """
    own, other = (read_encoder(inputs[name]).tokenizer for name in ("tokens", "draft_tokens"))
    check_tokens(own.get_vocab(), other.get_vocab())
    for folder, name in ((out, "variant"), (out / GRAPH, "draft")):
        copytree(  # all lie in the stage cache
            inputs[name],
            folder,
            copy_function=os.link,
            ignore=ignore_patterns(MARK),
            dirs_exist_ok=True,
        )


def check_tokens(own: Mapping[str, int], draft: Mapping[str, int]) -> None:
    """Check that a draft has the tokens of its model, {token: number}.

    Raises:
        InputError: it has others, or other numbers for them.

    """
    for token, number in sorted(own.items(), key=lambda item: item[1]):
        if draft.get(token) != number:
            what = "does not know" if token not in draft else "has another number for"
            raise InputError(
                f"draft: the draft {what} the token {token!r} of the model; take a draft of the "
                "same family, or draft.layers, which makes one of the model's own layers"
            )


def with_draft(
    folder: Path,
    found: Mapping[str, tuple[str, ...]],
    graphs: Callable[[Path], Mapping[str, tuple[str, ...]]],
) -> dict[str, tuple[str, ...]]:
    """Return the graphs of a variant, with that of its draft if there is one.

    Args:
        folder: of the variant.
        found: its own graphs, {graph: its files}.
        graphs: returns the graphs of a folder of this engine.

    """
    if not (folder / GRAPH).is_dir():
        return dict(found)
    (files,) = graphs(folder / GRAPH).values()
    return {**found, GRAPH: tuple(f"{GRAPH}/{name}" for name in files)}
