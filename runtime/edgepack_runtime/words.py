"""Words of error messages that several modules say."""

from __future__ import annotations

from collections.abc import Iterable

_MOST = 3


def suggest(word: str, known: Iterable[str]) -> str:
    """Return which of the known names was meant by an unknown one; if none is near, all of them.

    Those that it begins are near, the shortest first, else the one that is spelled most alike.
    """
    from difflib import get_close_matches

    names = list(known)
    near = sorted((name for name in names if word and name.startswith(word)), key=len)[:_MOST]
    near = near or get_close_matches(word, names, 1)
    if near:
        return f"did you mean {' or '.join(map(repr, near))}?"
    return f"known: {', '.join(names)}"
