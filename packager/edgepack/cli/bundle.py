"""`edgepack` inspect, verify, sign, unpack and diff: commands on a bundle on the host."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import click


@click.command()
@click.argument("bundle")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def inspect(bundle: str, *, as_json: bool) -> None:
    """Show what a bundle says about itself."""
    from edgepack_runtime.cli import main as runtime

    sys.exit(runtime(["inspect", bundle, *(["--json"] if as_json else [])]))


@click.command()
@click.argument("bundle")
@click.option("--key", type=click.Path(path_type=Path), help="Public key of its model signature.")
def verify(bundle: str, key: Path | None) -> None:
    """Check every file of a bundle against its manifest, and check its model signature."""
    from edgepack_runtime.bundle.bundle import Bundle

    opened = Bundle.open(bundle)
    size = opened.verify()
    if key is not None:
        from edgepack.bundle.signature import verify as verify_signature

        verify_signature(opened, key)
        click.echo(f"{bundle}: signed by {key}")
    click.echo(
        f"{bundle}: {len(opened.manifest.files)} files, {size / 1e6:.1f} MB, all files match"
    )
    click.echo(opened.digest)


@click.command()
@click.argument("bundle")
@click.option("--key", type=click.Path(path_type=Path), required=True, help="Private key (PEM).")
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Instead of BUNDLE itself.")
def sign(bundle: str, key: Path, output: Path | None) -> None:
    """Put an OpenSSF model signature into BUNDLE; devices do not use it, they trust a channel."""
    from edgepack.bundle import signature
    from edgepack_runtime.bundle.bundle import Bundle

    click.echo(signature.sign(Bundle.open(bundle), key, output or Path(bundle)))


@click.command()
@click.argument("bundle")
@click.argument("folder", type=click.Path(path_type=Path))
def unpack(bundle: str, folder: Path) -> None:
    """Write the files of BUNDLE to FOLDER, for Optimum and other tools."""
    from edgepack.bundle.pack import unpack_bundle
    from edgepack_runtime.bundle.bundle import Bundle

    names = unpack_bundle(Bundle.open(bundle), folder)
    click.echo(f"{folder}: {len(names)} files")


@click.command()
@click.argument("old")
@click.argument("new")
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def diff(old: str, new: str, *, as_json: bool) -> None:
    """Show what differs between two bundles."""
    from edgepack.bundle.diff import compare
    from edgepack_runtime.bundle.bundle import Bundle

    found = compare(Bundle.open(old), Bundle.open(new))
    if as_json:
        click.echo(json.dumps(found, indent=1, ensure_ascii=False))
        return
    for line in found["changed"] or ["no difference"]:
        click.echo(line)
    new, shared = found["new_bytes"] / 1e6, found["shared_bytes"] / 1e6
    click.echo(
        f"{new:.1f} MB of blobs are new, {shared:.1f} MB shared; "
        "the deltas of a channel make an update smaller"
    )


COMMANDS = (inspect, verify, sign, unpack, diff)
