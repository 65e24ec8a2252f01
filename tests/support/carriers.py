"""A device as a carrier's agent finds it, and what the agents' own programs need."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from fleet import NAME

from edgepack.channel import carry
from edgepack_runtime.store.store import Store

EXAMPLE = Path(__file__).parents[2] / "examples/field-update"


@dataclass
class Site:
    """A device with the settings of the example, and where its releases are exported to."""

    place: Path
    settings: dict[str, str]
    env: dict[str, str] = field(default_factory=dict)

    @property
    def active(self) -> str:
        """Return the digest of what runs."""
        return Store.at(self.place / "device").state.active

    def run(self, *command: str | Path, **env: str) -> subprocess.CompletedProcess[str]:
        """Run a command on the device."""
        done = subprocess.run(
            [str(word) for word in command],
            check=False,
            capture_output=True,
            text=True,
            env={**os.environ, **self.env, **env},
            cwd=self.place,
        )
        print(command, done.returncode, done.stdout, done.stderr, sep="\n")  # noqa: T201 (pytest keeps it)
        return done

    def export(self) -> Path:
        """Write the newest release to `model.epk`; return it."""
        path = self.place / "model.epk"
        keys = self.place / "keys"
        carry.export_file(carry.Parcel(NAME), self.place / "channel", path, keys)
        return path


def need(*programs: str) -> None:
    """Skip a test that needs a program that is not here."""
    if missing := [name for name in programs if shutil.which(name) is None]:
        pytest.skip(f"{missing[0]} is not installed")


def make_swu(site: Site) -> Path:
    """Pack the newest release by the example's script."""
    need("cpio")
    out = site.place / "model.swu"
    inbox = site.place / "inbox"
    signed = {"SWU_KEY": "key", "SWU_CERT": "cert"} if (site.place / "key").is_file() else {}
    signed = {name: str(site.place / value) for name, value in signed.items()}
    done = site.run(EXAMPLE / "swupdate/make-swu.sh", site.export(), out, inbox, **signed)
    assert done.returncode == 0, done.stderr
    return out


def rauc_folder(site: Site) -> Path:
    """Return a folder with the example's files and the newest release, as `rauc bundle` takes."""
    folder = site.place / "rauc"
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(EXAMPLE / "rauc", folder)
    shutil.copy(site.export(), folder / "model.epk")
    return folder
