"""The commands that show and maintain a device's store: status, rollback, pin, retry, collect."""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack_runtime.store.store import Store

Action = Callable[[argparse.Namespace], dict[str, Any]]
Report = Callable[[argparse.Namespace, dict[str, Any]], None]
DEFAULT_STORE = "/var/lib/edgepack"


class Commands:
    """Adds commands on a store to a parser."""

    def __init__(self, parsers: Any, report: Report) -> None:
        self._parsers = parsers
        self._report = report  # prints what a command found

    def add(self, name: str, action: Action, text: str) -> argparse.ArgumentParser:
        """Add a command with the options that all commands take; return its parser."""
        command: argparse.ArgumentParser = self._parsers.add_parser(
            name, help=text, description=text
        )
        command.set_defaults(action=lambda args: self._report(args, action(args)))
        command.add_argument(
            "--store",
            default=os.environ.get("EDGEPACK_STORE", DEFAULT_STORE),
            help=f"folder of the store ($EDGEPACK_STORE, {DEFAULT_STORE})",
        )
        command.add_argument("--json", action="store_true", help="print JSON")
        return command


def add_commands(commands: Commands) -> None:
    """Add the commands of this module."""
    commands.add("status", _status, "show what the store runs, has on trial and refuses")
    command = commands.add("rollback", _rollback, "go back to the release before")
    command.add_argument("--release", default="", help="only if the release with this digest runs")
    command.add_argument(
        "--factory",
        action="store_true",
        help="even if no release ran before: then the factory's runs, or none",
    )
    command = commands.add("pin", _pin, "take no updates; --off allows them again")
    command.add_argument("--off", action="store_true", help="allow updates again")
    text = "forget which releases failed here, and the remembered time"
    commands.add("retry", _retry, text).add_argument(
        "--new-root",
        action="store_true",
        help="also forget the channel's root: the next update trusts the one it is given",
    )
    commands.add("collect", _collect, "remove what no release needs")


def folder_of(args: argparse.Namespace) -> Path:
    """Return the folder of the store; an `InputError` if it cannot be one."""
    path = Path(args.store)
    if not args.store or (path.exists() and not path.is_dir()):
        raise InputError(f"--store {args.store!r} is not a folder")
    if path.is_dir() and not os.access(path, os.R_OK | os.X_OK):
        raise InputError(f"the store at {path} cannot be read: run this as the user that owns it")
    return path


def _status(args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from edgepack_runtime.store.store import Store

    folder = folder_of(args)
    store = Store.at(folder)
    running, state = store.running(), store.state
    shown = "the factory's release" + ("" if folder.exists() else f"; no store at {folder} yet")
    if running is not None:
        shown = f"{running.manifest.name} {running.manifest.version} for {running.manifest.target}"
    versions = {bundle.digest: bundle.manifest.version for bundle in store.releases()}
    return {"running": shown, "versions": versions, **asdict(state)}


def _rollback(args: argparse.Namespace) -> dict[str, Any]:
    with _alone(args) as store:
        state = store.state
        last = not (state.previous or state.trial or args.factory)
        if last and state.active and args.release in ("", state.active):
            raise InputError(
                f"no release ran here before {state.active}, so there is none to go back to: "
                "--factory goes back to what the device was shipped with, if anything"
            )
        return {"active": store.rollback(args.release).active or "the factory's release"}


def _pin(args: argparse.Namespace) -> dict[str, Any]:
    with _alone(args) as store:
        return {"pinned": store.pin(pinned=not args.off).pinned}


def _collect(args: argparse.Namespace) -> dict[str, Any]:
    with _alone(args) as store:
        return {"bytes_freed": store.collect()}


def _retry(args: argparse.Namespace) -> dict[str, Any]:
    with _alone(args) as store:
        forgiven = store.state.bad
        store.forgive(root=args.new_root)
        return {"forgiven": list(forgiven)}


@contextmanager
def _alone(args: argparse.Namespace) -> Iterator[Store]:
    """Open the store as its only writer."""
    from edgepack_runtime.store.store import Store

    store = Store.at(folder_of(args))
    with store.alone():
        yield store
