"""Jinja2 for templates that came with a model: no access to Python's internals, no endless work.

Every loop is counted, and texts and lists made by a template cannot grow beyond a bound.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from typing import Any

from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.ext import Extension, loopcontrols
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.visitor import NodeTransformer

MOST_STEPS = 1 << 20
"""Rounds of all loops of one text."""
MOST_TEXT = 1 << 22
"""Characters of a text, items of a list."""
_steps: ContextVar[list[int]] = ContextVar("steps")
_PADDING = {"ljust", "rjust", "center", "zfill", "expandtabs", "format_map"}


def render(template: Any, values: Mapping[str, Any]) -> str:
    """Return the text made by a template from an environment of `make`.

    Raises:
        SecurityError: it does something that is forbidden, or does not end.

    """
    _steps.set([0])
    pieces: list[str] = []
    size = 0
    for piece in template.generate(**values):
        pieces.append(piece)
        size += len(piece)
        if size > MOST_TEXT:
            raise SecurityError(f"more than {MOST_TEXT} characters")
    return "".join(pieces)


def make() -> Any:
    """Return a new environment."""
    found = _Sandbox(trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, loopcontrols])
    del found.globals["lipsum"]
    found.filters |= {"counted": _counted, "joined": _joined}
    return found


class _Generation(Extension):
    """Reads `{% generation %}` blocks, which mark text to learn from, as ordinary text."""

    tags = {"generation"}  # noqa: RUF012 (Jinja2's own way)

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _Sandbox(ImmutableSandboxedEnvironment):
    intercepted_binops = frozenset(["+", "*", "**", "%"])

    def _parse(self, source: str, name: Any, filename: Any) -> nodes.Template:
        tree = super()._parse(source, name, filename)
        for loop in list(tree.find_all(nodes.For)):
            if loop.recursive:
                raise SecurityError("a recursive loop")
            loop.iter = nodes.Filter(loop.iter, "counted", [], [], None, None)
        joined: nodes.Template = _Joins(self).visit(tree)
        return joined

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        if operator != "+" and any(isinstance(x, str | list | tuple) for x in (left, right)):
            raise SecurityError(f"{operator} with a text or a list")
        if operator == "**":
            raise SecurityError("a power")
        return _bounded(super().call_binop(context, operator, left, right))

    def is_safe_attribute(self, obj: Any, attr: str, value: Any) -> bool:
        return attr not in _PADDING and super().is_safe_attribute(obj, attr, value)

    def wrap_str_format(self, value: Any) -> Any:
        """Allow a text to be filled in, but not to be padded to any width."""
        text = getattr(value, "__self__", None)
        if isinstance(text, str) and getattr(value, "__name__", "") == "format" and ":" in text:
            raise SecurityError("a text with a format of its own")
        return super().wrap_str_format(value)

    def call(self, context: Any, obj: Any, /, *args: Any, **kwargs: Any) -> Any:
        return _bounded(super().call(context, obj, *args, **kwargs))


class _Joins(NodeTransformer):
    """Makes `a ~ b` count too."""

    def __init__(self, environment: Any) -> None:
        self._environment = environment

    def visit_Concat(self, node: nodes.Concat) -> nodes.Node:  # noqa: N802 (Jinja2's own name)
        self.generic_visit(node)
        joined = nodes.Filter(nodes.List(node.nodes), "joined", [], [], None, None)
        return joined.set_lineno(node.lineno).set_environment(self._environment)


def _joined(items: list[Any]) -> str:
    return str(_bounded("".join(map(str, items))))


def _counted(items: Iterable[Any]) -> list[Any]:
    """Count the steps of a loop before it begins."""
    found = list(items)
    steps = _steps.get()
    steps[0] += len(found) + 1
    if steps[0] > MOST_STEPS:
        raise SecurityError(f"more than {MOST_STEPS} steps")
    return found


def _bounded(value: Any) -> Any:
    if isinstance(value, str | list | tuple) and len(value) > MOST_TEXT:
        raise SecurityError(f"more than {MOST_TEXT} characters or items")
    return value
