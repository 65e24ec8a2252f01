"""`edgepack`: build, evaluate, init, targets, inspect, verify, sign, unpack and diff, on the host.

Exit codes: 0 done, 1 unexpected, 2 wrong input, 3 over budget, 4 the device does not fit, 5 the
bundle is not trusted, 6 the self-test failed, 7 nothing to do, 8 this host lacks something.  Only
this folder prints.
"""

from __future__ import annotations

import logging
from typing import Any

import click

from edgepack import __version__
from edgepack.cli import bundle, channel
from edgepack.cli import cache as cache_command
from edgepack.cli.build import build, check
from edgepack.cli.evaluate import evaluate
from edgepack.cli.targets import init, targets
from edgepack_runtime.errors import EdgepackError


class _Commands(click.Group):
    """Turns edgepack's errors into one line and their exit code."""

    def invoke(self, ctx: click.Context) -> Any:
        """Run a command."""
        if logging.lastResort is not None:  # show the warnings of libraries in our format
            logging.lastResort.setFormatter(logging.Formatter("warning: %(message)s"))
        try:
            return super().invoke(ctx)
        except EdgepackError as exc:
            click.echo(f"error: {exc}", err=True)
            ctx.exit(exc.exit_code)
        except KeyboardInterrupt:
            click.echo(
                "interrupted; finished stages are cached, so the same command goes on from here",
                err=True,
            )
            ctx.exit(130)


@click.group(cls=_Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__)
def main() -> None:
    """Make transformers small and fast, and get them onto devices, safely."""


for _command in (build, check, evaluate, init, targets, *bundle.COMMANDS):
    main.add_command(_command)
main.add_command(cache_command.cache_group)
main.add_command(channel.keys_group)
main.add_command(channel.publish)
main.add_command(channel.channel_group)
