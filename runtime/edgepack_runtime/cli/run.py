"""`edgepack-runtime run`: texts in, answers out, one JSON line for each.

A line that cannot be answered (it is not UTF-8, it is not JSON, or the task does not take its
value) is reported by its number and gets `{"error": …}` in place of an answer, so that answers
match inputs line by line.  The other lines are answered; the exit code is 2.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

Print = Callable[[str], None]


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `run`, besides the bundle and how to load it."""
    command.add_argument("text", nargs="*", help="texts; without any, the lines of standard input")
    command.add_argument(
        "--json-input",
        action="store_true",
        help='each text is JSON: "…", {"text": …, "text_pair": …}, {"source_sentence": …, …}',
    )
    command.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the task, for instance top_k=3",
    )


def run(args: argparse.Namespace, load: Callable[[], Model], show: Print, complain: Print) -> None:
    """Answer every text.

    Args:
        args: the parsed arguments.
        load: opens the model; wrong arguments are refused before that.
        show: prints an answer.
        complain: prints what is wrong with an input.

    Raises:
        InputError: an option or an input is wrong.

    """
    options: dict[str, Any] = dict(map(option, args.option))
    model = load()
    model.options(**options)
    wrong = total = 0
    for where, raw in _raw(args.text):
        total += 1
        try:
            answer = model(_decoded(raw, as_json=args.json_input), **options)
        except InputError as exc:
            wrong += 1
            complain(f"{where}: {exc}")
            answer = {"error": f"{where}: {exc}"}
        show(json.dumps(answer, ensure_ascii=False, default=lambda array: array.tolist()))
    if wrong:
        raise InputError(f"{wrong} of {total} inputs were not answered")


def _raw(texts: list[str]) -> Iterator[tuple[str, str | bytes]]:
    """Yield every input with its position."""
    for number, text in enumerate(texts, 1):
        yield f"text {number}", text
    if not texts:
        for number, line in enumerate(sys.stdin.buffer if sys.stdin else (), 1):
            yield f"standard input, line {number}", line.rstrip(b"\r\n")


def _decoded(raw: str | bytes, *, as_json: bool) -> Any:
    try:
        text = raw.decode() if isinstance(raw, bytes) else raw
    except UnicodeDecodeError as exc:
        raise InputError(f"not UTF-8 at byte {exc.start}") from exc
    if not as_json:
        return text
    try:
        return json.loads(text)
    except ValueError as exc:
        raise InputError(f"not JSON: {exc}") from exc
    except RecursionError as exc:
        raise InputError("not JSON that this runtime reads: it is nested too deeply") from exc


def option(item: str) -> tuple[str, object]:
    """Read NAME=VALUE, the value as JSON if it is such, else as a text."""
    name, sign, value = item.partition("=")
    if not sign:
        raise InputError(f"--option takes NAME=VALUE, not {item!r}")
    try:
        return name, json.loads(value)
    except ValueError:
        return name, value
