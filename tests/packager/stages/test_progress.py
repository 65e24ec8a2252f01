"""What a build shows while it runs, and what its libraries may not."""

from __future__ import annotations

import io
import logging
import re
import sys
import time
from pathlib import Path

import pytest
from rich.console import Console

from edgepack.stages import progress
from edgepack.stages.progress import Live, make_view, silenced


class _Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def _lines_of(stream: io.StringIO, *, plain: bool = False) -> list[str]:
    """Show three stages: one cached, one that counts its steps while minutes pass, one quick."""
    with make_view(Console(file=stream), 3, plain=plain) as view:
        with view.stage("fetch", cached=True):
            pass
        with view.stage("fine-tune", cached=False):
            progress.step(7, 20)
            end = time.monotonic() + 10
            while stream.getvalue().count("7/20") < 2 and time.monotonic() < end:
                time.sleep(0.01)
        with view.stage("pack", cached=False):
            pass
    return stream.getvalue().splitlines()


@pytest.mark.parametrize("environment", [{}, {"FORCE_COLOR": "1"}])
def test_a_log_gets_a_line_a_stage_and_a_line_a_minute(
    environment: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where no terminal is, plain lines say what ended, and how far and how long one runs."""
    monkeypatch.setattr(progress, "_MINUTE", 0.03)
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    first, *running, second, third = _lines_of(io.StringIO())
    assert first == "[1/3] fetch: cached"
    assert len(running) >= 2
    assert all(re.fullmatch(r"\[1/3\] fine-tune: 7/20, running for \d+\.\d s", s) for s in running)
    assert re.fullmatch(r"\[2/3\] fine-tune: \d+\.\d s", second)
    assert re.fullmatch(r"\[3/3\] pack: \d+\.\d s", third)


def test_json_gets_plain_lines_even_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """With --json the progress on a terminal's stderr is plain too: no control characters."""
    monkeypatch.setattr(progress, "_MINUTE", 0.03)
    monkeypatch.setenv("TERM", "xterm")
    assert all(line.isprintable() for line in _lines_of(_Terminal(), plain=True))
    assert isinstance(make_view(Console(file=_Terminal()), 3, plain=False), Live)
    monkeypatch.setenv("TERM", "dumb")
    assert not isinstance(make_view(Console(file=_Terminal()), 3, plain=False), Live)


def test_a_stage_that_fails_stops_its_lines(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a failure nothing is said of the stage any more, and nothing says that it ended."""
    monkeypatch.setattr(progress, "_MINUTE", 0.01)
    stream = io.StringIO()
    view = progress.Lines(stream, 1)
    with pytest.raises(ValueError, match="why"), view.stage("export", cached=False):
        raise ValueError("why")
    time.sleep(0.05)
    said = stream.getvalue()
    time.sleep(0.05)
    assert stream.getvalue() == said
    assert "[1/1]" not in said


def test_a_handler_made_inside_a_stage_works_after_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What a library prints in a stage goes to the log, what its handler gets later to stderr."""
    logger = logging.getLogger("a-library")
    logger.propagate = False
    with silenced(tmp_path / "logs/build.log"):
        handler = logging.StreamHandler()
        logger.addHandler(handler)
        logger.error("inside")
        sys.stdout.write("printed\n")
    try:
        logger.warning("outside")
    finally:
        logger.removeHandler(handler)
    shown = capsys.readouterr()
    assert shown.err == "outside\n"
    assert not shown.out
    assert (tmp_path / "logs/build.log").read_text() == "inside\nprinted\n"


def test_a_stage_leaves_the_levels_of_the_log_as_they_were(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A library that makes the root logger and its handlers deaf does so until the stage ends."""
    handler = logging.Handler(logging.INFO)
    monkeypatch.setattr(logging.root, "handlers", [handler])
    monkeypatch.setattr(logging.root, "level", logging.WARNING)

    def deafens() -> None:
        logging.root.setLevel(logging.CRITICAL)
        handler.setLevel(logging.ERROR)
        raise ValueError("why")

    with pytest.raises(ValueError, match="why"), silenced(tmp_path / "build.log"):
        deafens()
    assert (logging.root.level, handler.level) == (logging.WARNING, logging.INFO)
    assert logging.root.isEnabledFor(logging.WARNING)
