"""`edgepack-runtime chat`: a dialogue in the terminal; answers appear as they are written.

`/reset` begins a new dialogue; `/save FILE` keeps what the model has read, for `--memory FILE`;
`/exit` or the end of the input leaves.  Answers go to standard output, and their speed to standard
error.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from typing import TYPE_CHECKING, Any

from edgepack_runtime.cli.run import option
from edgepack_runtime.errors import InputError
from edgepack_runtime.generation.memory import Memory

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

Say = Callable[[str], None]


def add_arguments(command: argparse.ArgumentParser) -> None:
    """Add the arguments of `chat`, besides the bundle and how to load it."""
    command.add_argument("--system", default="", help="the first message: what the model is to be")
    command.add_argument(
        "--memory", metavar="FILE", help="what an earlier dialogue had read, from its /save"
    )
    command.add_argument(
        "-o",
        "--option",
        action="append",
        default=[],
        metavar="NAME=VALUE",
        help="an option of the task, for instance temperature=0.7",
    )


def chat(args: argparse.Namespace, load: Callable[[], Model], complain: Say) -> None:
    """Answer line by line until the input ends.

    Args:
        args: the parsed arguments.
        load: opens the model; wrong arguments are refused before that.
        complain: prints what is wrong with a message, and how fast an answer was.

    Raises:
        InputError: an option is wrong, or the bundle's model cannot chat.

    """
    options: dict[str, Any] = dict(map(option, args.option))
    memory = Memory.load(args.memory) if args.memory else Memory()
    model = load()
    if model.task.writing is None:
        raise InputError(f"this bundle answers {model.task.name}, which is not a dialogue; use run")
    model.options(**options)
    options.setdefault("on_long", "slide")  # the oldest turns make room for new ones
    first = [{"role": "system", "content": args.system}] if args.system else []
    dialogue = list(first)
    for line in _lines():
        if line == "/exit":
            return
        if line == "/reset":
            dialogue = list(first)
            continue
        if line.startswith("/save"):
            _save(memory, line.removeprefix("/save").strip(), complain)
            continue
        dialogue.append({"role": "user", "content": line})
        try:
            answer = _write(model(dialogue, stream=True, memory=memory, **options), complain)
        except InputError as exc:
            complain(f"error: {exc}; /reset begins a new dialogue")
            dialogue.pop()
            continue
        dialogue.append({"role": "assistant", "content": answer})


def _save(memory: Memory, path: str, complain: Say) -> None:
    if not path:
        complain("error: name a file: /save FILE")
        return
    try:
        memory.save(path)
    except (InputError, OSError) as exc:
        complain(f"error: {exc}")
    else:
        complain(f"[{memory.length} tokens are in {path}]")


def _lines() -> Iterator[str]:
    """Yield what a person says, line by line, without empty lines."""
    asks = sys.stdin.isatty()
    while True:
        try:
            line = input("> " if asks else "")
        except EOFError:
            return
        if line.strip():
            yield line.strip()


def _write(pieces: Iterable[str], complain: Say) -> str:
    """Print the pieces as they arrive; return them joined."""
    start = time.monotonic()
    first, text = 0.0, []
    for piece in pieces:
        first = first or time.monotonic() - start
        sys.stdout.write(piece)
        sys.stdout.flush()
        text.append(piece)
    took = time.monotonic() - start
    sys.stdout.write("\n")
    complain(
        f"[first piece after {first:.2f} s, {len(text) / max(took, 1e-6):.1f} pieces a second]"
    )
    return "".join(text)
