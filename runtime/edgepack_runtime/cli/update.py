"""The commands that bring a release to a device: update and import."""

from __future__ import annotations

import argparse
import hashlib
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack_runtime.bundle.names import safe_name
from edgepack_runtime.cli.store import Commands, folder_of
from edgepack_runtime.errors import (
    HostError,
    InputError,
    NothingToDoError,
    SelfTestError,
)

if TYPE_CHECKING:
    from edgepack_runtime.store.store import Store
    from edgepack_runtime.update.policy import Policy
    from edgepack_runtime.update.run import Taken
    from edgepack_runtime.update.source import Source
    from edgepack_runtime.update.updater import Updater

_MACHINE_ID = Path("/etc/machine-id")


def add_commands(commands: Commands) -> None:
    """Add the commands of this module."""
    text = "take the next release from a channel, try it out, then confirm it or go back"
    command = commands.add("update", _update, text)
    _link_options(command)
    _trial_options(command)
    text = "take the release of a signed .epk, however it got here"
    command = commands.add("import", _import, text)
    command.add_argument("file", help="written by edgepack channel export --epk")
    _trial_options(command)


def _link_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--channel", action="append", required=True, help="address or folder; repeat for mirrors"
    )
    command.add_argument(
        "--device",
        default="",
        help="this device's name, for rollouts (default: made from its machine id)",
    )
    command.add_argument("--cohort", default="", help="the group that this device belongs to")
    command.add_argument("--max-rate", type=int, default=0, help="bytes a second at most")
    command.add_argument("--proxy", default="", help="proxy instead of the environment's")
    command.add_argument(
        "--check", action="store_true", help="show what is available, take nothing"
    )


def _trial_options(command: argparse.ArgumentParser) -> None:
    command.add_argument(
        "--root", required=True, help="root metadata that was shipped with the device (JSON)"
    )
    command.add_argument("--name", required=True, help="which releases to follow, as NAME/BOARD")
    command.add_argument(
        "--switch-name",
        action="store_true",
        help="accept a different name from the one that runs here",
    )
    command.add_argument(
        "--before",
        default="",
        help="command before the switch; if it fails, the update is postponed",
    )
    command.add_argument(
        "--after", default="", help="command after the switch; if it fails, the device goes back"
    )
    command.add_argument(
        "--patience", type=float, default=600.0, help="seconds for a self-test or a hook (600)"
    )
    command.add_argument(
        "--most-ms", type=float, default=0.0, help="milliseconds that a golden input may take"
    )


def _update(args: argparse.Namespace) -> dict[str, Any]:
    _need_tuf()
    from edgepack_runtime.update.policy import Policy
    from edgepack_runtime.update.run import Taken, update
    from edgepack_runtime.update.source import Link, open_source

    link = Link(most=args.max_rate, proxy=args.proxy)
    sources = [open_source(place, link) for place in args.channel]
    updater = _updater(args, sources, Policy(args.device or _own_name(), args.cohort))
    if args.check:
        offer = updater.check()
        said = Taken(offer.version, offer.release, f"sha256:{offer.sha256}")
        return {"available": f"{args.name} {offer.version}", **asdict(said)}
    return _said(args.name, update(updater))


def _import(args: argparse.Namespace) -> dict[str, Any]:
    _need_tuf()
    from edgepack_runtime.update.policy import Policy
    from edgepack_runtime.update.run import take_file
    from edgepack_runtime.update.source import Archive

    if not Path(args.file).is_file():
        raise InputError(f"no file at {args.file}")
    archive = Archive(Path(args.file))
    updater = _updater(args, [archive], Policy(attempts=1, insist=True))
    return _said(args.name, take_file(updater, archive))


def _updater(args: argparse.Namespace, sources: Sequence[Source], policy: Policy) -> Updater:
    from edgepack_runtime.store.store import Store
    from edgepack_runtime.update.hook import run_hook
    from edgepack_runtime.update.takeover import Hooks
    from edgepack_runtime.update.trial import prove_apart
    from edgepack_runtime.update.updater import Updater, read_root

    if not args.patience > 0:
        raise InputError(f"--patience takes seconds above 0, not {args.patience:g}")
    parts = args.name.split("/")
    if len(parts) != 2 or not all(safe_name(part) for part in parts):
        raise InputError(f"--name is NAME/BOARD, as in `edgepack channel list`, not {args.name!r}")
    folder = folder_of(args)
    store = Store.at(folder)
    if not args.switch_name:
        _check_name(store, args.name)
    return Updater(
        store,
        sources,
        read_root(Path(args.root)),
        args.name,
        policy,
        _show,
        partial(prove_apart, folder, args.patience, args.most_ms),
        Hooks(
            partial(run_hook, args.before, args.patience, NothingToDoError),
            partial(run_hook, args.after, args.patience, SelfTestError) if args.after else None,
        ),
    )


def _check_name(store: Store, name: str) -> None:
    """Refuse to replace one model with another: the name may be mistyped."""
    running = store.running()
    if running is None:
        return
    known = f"{running.manifest.name}/{running.manifest.target}"
    if known != name:
        raise InputError(
            f"this store runs {known}, but --name is {name}: add --switch-name if the model is "
            "meant to change"
        )


def _own_name() -> str:
    """Return a name for this device, the same at each start; empty if it has no machine id.

    The machine id is hashed, because it should not leave the device.
    """
    try:
        machine = _MACHINE_ID.read_text().strip()
    except (OSError, ValueError):
        return ""
    # The file of an image that has not started yet says "uninitialized".
    if len(machine) != 32:
        return ""
    return hashlib.sha256(f"edgepack {machine}".encode()).hexdigest()


def _said(name: str, taken: Taken) -> dict[str, Any]:
    return {"running": f"{name} {taken.version}", **asdict(taken)}


def _need_tuf() -> None:
    try:
        import edgepack_runtime.update.updater  # noqa: F401 (whether it is installed)
    except ImportError as exc:
        raise HostError(
            f"updates need python-tuf ({exc}): pip install 'edgepack-runtime[update]'"
        ) from exc


def _show(word: str, facts: Mapping[str, Any]) -> None:
    if not sys.stderr.isatty():
        return
    if word == "download":
        said = f"{facts['done'] / 1e6:.1f} of {facts['total'] / 1e6:.1f} MB"
        sys.stderr.write(f"\rdownload: {said} ")
    else:
        said = ", ".join(f"{name} {value}" for name, value in facts.items())
        sys.stderr.write(f"\r{word}: {said}\n")
    sys.stderr.flush()
