"""The commands that tend a device's store: update, status, rollback, pin, collect."""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgepack_runtime.errors import DeviceError, SelfTestError

_log = logging.getLogger(__name__)
DEFAULT_STORE = "/var/lib/edgepack"
Report = Callable[[argparse.Namespace, dict[str, Any]], None]


def add_commands(commands: Any, report: Report) -> None:
    """Add the commands to a parser; `report` prints what they found."""
    for name, action, text in (
        ("update", _update, "take the next release from a channel, try it out, keep it or go back"),
        ("status", _status, "show what the store runs, tries and refuses"),
        ("rollback", _rollback, "go back to the release before"),
        ("pin", _pin, "take no updates; --off takes them again"),
        ("collect", _collect, "remove what no release needs"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(action=lambda args, action=action: report(args, action(args)))
        command.add_argument(
            "--store", default=os.environ.get("EDGEPACK_STORE", DEFAULT_STORE),
            help=f"folder of the store ($EDGEPACK_STORE, {DEFAULT_STORE})",
        )  # fmt: skip
        command.add_argument("--json", action="store_true", help="print JSON")
        if name == "update":
            _update_options(command)
        if name == "pin":
            command.add_argument("--off", action="store_true", help="take updates again")


def _update_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--channel", action="append", required=True, help="address or folder; repeat for mirrors"
    )
    command.add_argument("--root", required=True, help="root metadata that was shipped (JSON)")
    command.add_argument("--name", required=True, help="what to follow, as NAME/BOARD")
    command.add_argument("--device", default="", help="this device's own name, for rollouts")
    command.add_argument("--cohort", default="", help="the group that this device belongs to")
    command.add_argument("--max-rate", type=int, default=0, help="bytes a second at most")
    command.add_argument("--proxy", default="", help="proxy instead of the environment's")
    command.add_argument("--check", action="store_true", help="say what there is, take nothing")


def _update(args: argparse.Namespace) -> dict[str, Any]:
    try:
        from edgepack_runtime.update import Policy, Updater, read_root
    except ImportError as exc:
        raise DeviceError(
            f"updates need python-tuf ({exc}): pip install 'edgepack-runtime[update]'"
        ) from exc
    from edgepack_runtime.store import Store
    from edgepack_runtime.update.source import Link, open_source

    link = Link(most=args.max_rate, proxy=args.proxy)
    updater = Updater(
        Store.at(Path(args.store)),
        [open_source(place, link) for place in args.channel],
        read_root(Path(args.root)),
        args.name,
        Policy(args.device, args.cohort),
        _show,
    )
    with updater.store.alone():
        if updater.store.state.trial and not args.check:
            why = updater.try_out()  # a trial that a power cut or a crash interrupted
            _log.warning("an interrupted trial: %s", why or "confirmed")
        offer = updater.check()
        found = {"version": offer.version, "release": offer.release}
        if args.check:
            return {"available": f"{args.name} {offer.version}", **found}
        updater.install(offer)
        if updater.store.state.trial and (why := updater.try_out()):
            raise SelfTestError(
                f"{args.name} {offer.version} is not taken, what ran goes on: {why}"
            )
        updater.store.collect()
    return {"running": f"{args.name} {offer.version}", **found}


def _show(word: str, facts: Mapping[str, object]) -> None:
    if sys.stderr.isatty():
        said = ", ".join(f"{name} {value}" for name, value in facts.items())
        sys.stderr.write(f"{word}: {said}\n")


def _status(args: argparse.Namespace) -> dict[str, Any]:
    from dataclasses import asdict

    from edgepack_runtime.store import Store

    store = Store.at(Path(args.store))
    running = store.running()
    shown = "the factory's release"
    if running is not None:
        shown = f"{running.manifest.name} {running.manifest.version} for {running.manifest.target}"
    return {"running": shown, **asdict(store.state)}


def _rollback(args: argparse.Namespace) -> dict[str, Any]:
    from edgepack_runtime.store import Store

    store = Store.at(Path(args.store))
    with store.alone():
        return {"active": store.rollback().active or "the factory's release"}


def _pin(args: argparse.Namespace) -> dict[str, Any]:
    from edgepack_runtime.store import Store

    store = Store.at(Path(args.store))
    with store.alone():
        return {"pinned": store.pin(pinned=not args.off).pinned}


def _collect(args: argparse.Namespace) -> dict[str, Any]:
    from edgepack_runtime.store import Store

    store = Store.at(Path(args.store))
    with store.alone():
        return {"bytes_freed": store.collect()}
