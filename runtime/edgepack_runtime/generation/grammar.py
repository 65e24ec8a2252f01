"""Texts of a given form: a JSON schema, a regular expression or a grammar.

Before each token, those that the form does not allow are excluded.  The rules are those of
llguidance (extra `grammar`).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from edgepack_runtime.errors import HostError, InputError

if TYPE_CHECKING:
    from edgepack_runtime.inputs.text import TextEncoder
    from edgepack_runtime.numeric import Array

FORMS = ("json_schema", "regex", "grammar")
# Compact JSON: with free white space, a small model may write nothing but spaces.
_COMPACT = {"whitespace_flexible": False, "item_separator": ", ", "key_separator": ": "}
_vocabularies: WeakKeyDictionary[TextEncoder, Any] = WeakKeyDictionary()


class Grammar:
    """The form of one answer, as far as it is written."""

    def __init__(self, matcher: Any) -> None:
        self._matcher = matcher

    @property
    def complete(self) -> bool:
        """Tell whether nothing may follow."""
        return bool(self._matcher.is_stopped())

    def restrict(self, scores: Array) -> Array:
        """Return the scores [vocabulary] with minus infinity for what the form does not allow."""
        import numpy as np

        bits = np.frombuffer(self._matcher.compute_bitmask(), np.uint8)
        allowed = np.unpackbits(bits, bitorder="little").astype(bool)[: scores.size]
        allowed = np.pad(allowed, (0, scores.size - allowed.size))
        found: Array = np.where(allowed, scores, -np.inf)
        return found

    def take(self, token: int) -> None:
        """Go on with a token; an `InputError` if the form has become too complex."""
        if not self._matcher.consume_token(token):
            raise InputError(f"the form cannot be followed: {_said(self._matcher)}")


def compile_form(
    encoder: TextEncoder, eos: Sequence[int], kind: str, form: str | dict[str, Any]
) -> Grammar:
    """Return the grammar of a form.

    Args:
        encoder: of the model's texts.
        eos: tokens that end a text.
        kind: one of `FORMS`; a grammar is in the format of Lark, as llguidance reads it.
        form: a JSON schema as a dict or a text, a regular expression, a grammar.

    Raises:
        InputError: the form is not valid.
        HostError: llguidance is not installed.

    """
    try:
        from llguidance import LLMatcher
    except ImportError as exc:
        raise HostError(
            f"{kind} needs llguidance: pip install 'edgepack-runtime[grammar]'"
        ) from exc
    try:
        if kind == "json_schema":
            schema = json.loads(form) if isinstance(form, str) else form
            layout: Any = _COMPACT
            source = LLMatcher.grammar_from_json_schema(json.dumps(schema), defaults=layout)
        elif kind == "regex":
            source = LLMatcher.grammar_from_regex(str(form))
        else:
            source = LLMatcher.grammar_from_lark(str(form))
        matcher = LLMatcher(_vocabulary(encoder, eos), source)
    except ValueError as exc:
        raise InputError(f"{kind} is not valid: {exc}") from exc
    if matcher.is_error():
        raise InputError(f"{kind} is not valid: {_said(matcher)}")
    return Grammar(matcher)


def _said(matcher: Any) -> str:
    return " ".join(str(matcher.get_error()).split())


def _vocabulary(encoder: TextEncoder, eos: Sequence[int]) -> Any:
    """Return the vocabulary as llguidance reads it, once for each tokenizer: it takes a while."""
    from llguidance import LLTokenizer

    if encoder not in _vocabularies:
        _vocabularies[encoder] = LLTokenizer(encoder.tokenizer.to_str(), eos_token=list(eos))
    return _vocabularies[encoder]
