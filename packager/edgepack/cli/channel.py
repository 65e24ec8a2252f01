"""`edgepack keys`, `publish` and `channel`: sign releases and maintain what devices read."""

from __future__ import annotations

import json
from pathlib import Path

import click

from edgepack_runtime.errors import InputError

_PATH = click.Path(path_type=Path)
_WHERE = click.argument("where", metavar="DIR|URL")
_CHANNEL = click.option(
    "--channel", "where", metavar="DIR|URL", required=True, help="Its folder or URL."
)
_KEYS = click.option("--keys", "key_folder", type=_PATH, required=True, help="Folder of the keys.")


@click.group(name="keys")
def keys_group() -> None:
    """Make and replace the keys that sign a channel."""


@keys_group.command(name="init")
@click.argument("folder", type=_PATH)
def keys_init(folder: Path) -> None:
    """Make the keys of a new channel in FOLDER: three root keys, targets, snapshot, timestamp."""
    from edgepack.channel import keys

    for path in keys.init(folder):
        click.echo(path)
    click.echo(
        "store the root and targets keys offline, and the three root keys apart from each other",
        err=True,
    )


@keys_group.command(name="list")
@click.argument("folder", type=_PATH)
def keys_list(folder: Path) -> None:
    """Show which keys are in FOLDER, by their ids."""
    from edgepack.channel import keys

    for name, keyid in keys.present(folder).items():
        click.echo(f"{name:<10} {keyid}")


@keys_group.command(name="rotate")
@click.argument("name")
@_CHANNEL
@_KEYS
def keys_rotate(name: str, where: str, key_folder: Path) -> None:
    """Replace the key NAME; devices learn about it from the channel's next root."""
    from edgepack.channel import releases

    releases.rotate(name, where, key_folder)
    click.echo(f"{name} is replaced; the old key no longer signs anything")


@click.command()
@click.argument("bundle")
@_CHANNEL
@_KEYS
@click.option("--percent", type=int, default=100, show_default=True, help="Share of the devices.")
@click.option("--cohort", "cohorts", multiple=True, help="Only these groups of devices.")
@click.option(
    "--minimum", type=int, default=0, help="Devices must not roll back below this release."
)
def publish(
    bundle: str,
    where: str,
    key_folder: Path,
    percent: int,
    cohorts: tuple[str, ...],
    minimum: int,
) -> None:
    """Sign BUNDLE and put it into a channel, where devices find it.

    A channel is a folder for any web server or bucket, or its URL: https (by PUT), s3, gs, sftp…
    """
    from edgepack.channel import releases
    from edgepack.channel.site import shown
    from edgepack_runtime.bundle.bundle import Bundle

    rollout = releases.Rollout(percent, cohorts, minimum)
    opened = Bundle.open(bundle)
    name = releases.publish(opened, where, key_folder, rollout)
    click.echo(f"{shown(where)}: {name} is release {opened.manifest.release}")


@click.group(name="channel")
def channel_group() -> None:
    """List and maintain a channel."""


@channel_group.command(name="list")
@_WHERE
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def channel_list(where: str, *, as_json: bool) -> None:
    """List what a channel offers."""
    from edgepack.channel import releases

    found = releases.releases(where)
    if as_json:
        click.echo(json.dumps(found, indent=1))
        return
    for name, said in found.items():  # not verified: no signature was checked
        line = (
            f"{name:<32} {said['version']:<12} release {said['release']}, "
            f"{said['percent']} %  {said['digest'][:19]}…"
        )
        click.echo("".join(char if char.isprintable() else "?" for char in line))


@channel_group.command(name="retire")
@click.argument("name")
@_CHANNEL
@_KEYS
def channel_retire(name: str, where: str, key_folder: Path) -> None:
    """Remove the release NAME/BOARD from a channel; devices go on running what they have."""
    from edgepack.channel import releases

    releases.retire(name, where, key_folder)


@channel_group.command(name="refresh")
@_WHERE
@_KEYS
def channel_refresh(where: str, key_folder: Path) -> None:
    """Renew expiring signatures.  Run this daily: the timestamp lasts 7 days.

    Root and targets last a year; they are renewed only where their keys are.
    """
    from edgepack.channel import releases
    from edgepack.channel.repository import DAYS
    from edgepack.channel.site import shown

    for said in releases.refresh(where, key_folder):
        click.echo(f"warning: {said}; run this where its key is", err=True)
    click.echo(f"{shown(where)}: signed, valid for {DAYS['timestamp']} days")


@channel_group.command(name="export")
@_WHERE
@click.option("--usb", type=_PATH, help="Copy the whole channel to this folder.")
@click.option("--epk", type=_PATH, help="Write one release to this file, with its signed metadata.")
@click.option("--name", help="Which release, as NAME/BOARD, for --epk.")
@click.option("--light", is_flag=True, help="Only what differs from the release before.")
@click.option("--expires", default="90d", show_default=True, help="How long it is valid, in days.")
@_KEYS
def channel_export(  # noqa: PLR0913 (a command's options)
    where: str,
    usb: Path | None,
    epk: Path | None,
    name: str | None,
    expires: str,
    key_folder: Path,
    *,
    light: bool,
) -> None:
    """Write a channel to a USB stick, or one release to a file for any carrier.

    A device reads both like any other channel, with --channel; the file also with `import`.
    """
    from edgepack.channel import carry

    days = expires.removesuffix("d")
    if not days.isdigit():
        raise InputError(f"--expires takes days, such as 90d, not {expires!r}")
    if usb is not None and epk is None and name is None:
        until = carry.export(where, usb, key_folder, int(days))
    elif epk is not None and name is not None and usb is None:
        parcel = carry.Parcel(name, int(days), light)
        until = carry.export_file(parcel, where, epk, key_folder)
    else:
        raise InputError("give --usb FOLDER, or --epk FILE with --name NAME/BOARD")
    click.echo(f"{usb or epk}: valid until {until:%Y-%m-%d}")
