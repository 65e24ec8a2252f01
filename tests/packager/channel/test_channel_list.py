"""`edgepack channel list` shows metadata that nobody has checked."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from click.testing import CliRunner
from fleet import NAME

from edgepack.channel import releases
from edgepack.cli import main as host
from edgepack_runtime.errors import InputError


@pytest.mark.parametrize("options", [[], ["--json"]], ids=["plain", "json"])
@pytest.mark.parametrize("custom", [None, [], 5, {}, {"release": "2"}, {"version": None}])
def test_a_channel_that_says_nonsense_is_one_clear_error(
    place: Path, custom: object, options: list[str]
) -> None:
    """Metadata that nobody checked is refused by the name of the release, with a remedy."""
    path = max((place / "channel/metadata").glob("*.targets.json"))
    said = json.loads(path.read_text())
    target = said["signed"]["targets"][NAME]
    full = isinstance(custom, dict) and custom
    target["custom"] = {**target["custom"], **custom} if full else custom  # type: ignore[dict-item]
    path.write_text(json.dumps(said))
    listed = CliRunner().invoke(host, ["channel", "list", str(place / "channel"), *options])
    assert listed.exit_code == InputError.exit_code
    assert f"{NAME!r} is malformed: restore its metadata" in listed.output


def test_what_a_target_calls_its_digest_is_not_shown(place: Path) -> None:
    """The digest of a release is that of its file, whatever is said; no sha256 is an error."""
    path = max((place / "channel/metadata").glob("*.targets.json"))
    said = json.loads(path.read_text())
    target = said["signed"]["targets"][NAME]
    target["custom"]["digest"] = 3
    path.write_text(json.dumps(said))
    assert releases.releases(place / "channel")[NAME]["digest"].endswith(target["hashes"]["sha256"])
    target["hashes"] = {"md5": "0" * 32}
    path.write_text(json.dumps(said))
    with pytest.raises(InputError, match="malformed"):
        releases.releases(place / "channel")


def test_metadata_of_another_role_is_one_clear_error(place: Path) -> None:
    """A root in the place of the targets holds no releases."""
    folder = place / "channel/metadata"
    shutil.copy(folder / "1.root.json", max(folder.glob("*.targets.json")))
    with pytest.raises(InputError, match="it holds the root metadata"):
        releases.releases(place / "channel")
