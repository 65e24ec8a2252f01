"""Phrases of error messages that several modules use."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 3


def suggest(word: str, known: Iterable[str]) -> str:
    """Suggest the known names that an unknown one may mean; if none is close, list all of them.

    Names that start with the word are close, the shortest first; else the most similar spelling.
    """
    from difflib import get_close_matches

    names = list(known)
    near = sorted((name for name in names if word and name.startswith(word)), key=len)[:_MOST]
    near = near or get_close_matches(word, names, 1)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"known: {', '.join(names)}"
