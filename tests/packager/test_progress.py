"""What a build shows while it runs, and what its libraries may not."""

from __future__ import annotations

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack.progress import silenced

if TYPE_CHECKING:
    import pytest


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
