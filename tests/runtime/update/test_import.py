"""One file carries a release and what signs it: it is checked like any channel."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import handmade
import pytest
from click.testing import CliRunner
from fleet import BIG, NAME, light_change, make_bundle, new_device, publish, take_update

from edgepack.channel import carry, releases
from edgepack.cli import main as packager
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.cli import main as runtime
from edgepack_runtime.errors import EdgepackError, InputError, LinkError, TrustError
from edgepack_runtime.update.source import Archive

Import = Callable[..., tuple[int, dict[str, Any]]]


@pytest.fixture
def take(place: Path, capsys: pytest.CaptureFixture[str]) -> Import:
    """Return `edgepack-runtime import` on the device of a place: its exit code and answer."""
    root = place / "root.json"
    shutil.copy(place / "channel/metadata/1.root.json", root)

    def call(file: Path, *options: str) -> tuple[int, dict[str, Any]]:
        code = runtime(
            [
                "import",
                str(file),
                "--json",
                "--store",
                str(place / "device"),
                "--root",
                str(root),
                "--name",
                NAME,
                *options,
            ]
        )
        printed = capsys.readouterr().out
        return code, json.loads(printed) if printed else {}

    return call


def write_file(place: Path, *options: str, name: str = "update.epk") -> Path:
    """Export the release of a place by the command."""
    out = place / name
    done = CliRunner().invoke(
        packager,
        [
            "channel",
            "export",
            str(place / "channel"),
            "--epk",
            str(out),
            "--name",
            NAME,
            "--keys",
            str(place / "keys"),
            *options,
        ],
        catch_exceptions=False,
    )
    assert done.exit_code == 0, done.output
    return out


def test_a_file_is_a_bundle_and_a_channel(place: Path, take: Import) -> None:
    """Anyone opens it as a bundle; a device takes it, and finds it done the second time."""
    path = write_file(place)
    assert Bundle.open(path).verify() > len(BIG)
    code, answer = take(path)
    assert (code, answer["running"]) == (0, f"{NAME} 1.1")
    again = take(path)
    assert (again[0], again[1]["digest"]) == (0, answer["digest"])
    publish(place, make_bundle(place, 2))
    code, answer = take(write_file(place))
    assert (code, answer["version"]) == (0, "1.2")


def test_a_light_file_holds_what_changed(place: Path, take: Import) -> None:
    """A delta instead of three MiB; a device without the release before says what it lacks."""
    take(write_file(place))
    publish(place, light_change(place, 2))
    light = write_file(place, "--light")
    assert light.stat().st_size < len(BIG) / 20
    other = new_device(place.joinpath("other"), Archive(light), channel_of=place)
    with pytest.raises(LinkError, match="--light"):
        other.install(other.check())
    assert take(light) == (0, take_facts(place))


def take_facts(place: Path) -> dict[str, Any]:
    """Return what the command answers for the newest release of a place."""
    said = releases.releases(place / "channel")[NAME]
    version = said["version"]
    return {
        "running": f"{NAME} {version}",
        "version": version,
        "release": said["release"],
        "digest": said["digest"],
    }


def test_who_carries_a_file_has_decided(place: Path, take: Import) -> None:
    """A staged rollout holds a channel's followers back, not a file that was brought."""
    publish(place, make_bundle(place, 2), percent=0)
    assert take(write_file(place))[0] == 0


def test_a_bundle_that_nobody_signed_is_refused(place: Path, take: Import) -> None:
    """An `.epk` of a build is not an update."""
    assert take(place / "r1.epk")[0] == 5
    assert take(place / "nowhere.epk")[0] == 2


def test_an_older_file_is_refused_once_a_newer_was_seen(place: Path, take: Import) -> None:
    """Yesterday's stick does not bring yesterday's release back."""
    old = write_file(place, name="old.epk")
    publish(place, make_bundle(place, 2))
    assert take(write_file(place))[0] == 0
    assert take(old)[0] == 5


def test_a_file_that_ran_out_is_refused(
    place: Path, take: Import, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A stick is good for as long as it was exported for, by the clock or by what was seen."""
    assert take(write_file(place, "--expires", "9d"))[0] == 0
    publish(place, make_bundle(place, 2))
    old = write_file(place, "--expires", "1d", name="old.epk")
    monkeypatch.setattr("edgepack_runtime.update.trust.time.time", lambda: 4e9)
    assert take(old)[0] == 5


def test_every_cut_of_a_file_is_refused(place: Path, take: Import) -> None:
    """A file that was copied in part changes nothing; the whole one is taken afterwards."""
    path = write_file(place)
    content = path.read_bytes()
    part = place / "part.epk"
    for length in (0, 100, 512, 3000, 20_000, len(content) // 2, len(content) - 20_000):
        part.write_bytes(content[:length])
        assert take(part)[0] in (2, 5), length
    assert take(path)[0] == 0


def test_a_stick_that_is_pulled_is_an_error(place: Path) -> None:
    """The file ends while it is read: no signal, nothing taken, and the next try goes on."""
    path = write_file(place)
    source = Archive(path)
    device = new_device(place, source)
    offer = device.check()
    content = path.read_bytes()
    with path.open("r+b") as stream:
        stream.truncate(len(content) // 2)
    with pytest.raises(LinkError, match="ended within"):
        device.install(offer)
    path.write_bytes(content)
    assert take_update(new_device(place, Archive(path)))


def test_a_file_that_is_swapped_while_it_is_read_is_not_taken(place: Path) -> None:
    """What is hashed is what is kept: the check and the use are of the same bytes."""
    path = write_file(place)
    device = new_device(place, Archive(path))
    offer = device.check()
    with path.open("r+b") as stream:  # in place: the very bytes that are being read
        stream.seek(path.stat().st_size // 2)
        stream.write(b"evil" * 100)
    with pytest.raises((TrustError, LinkError)):
        device.install(offer)
    assert device.store.running() is None


@pytest.mark.parametrize(
    "options", [["--usb", "a", "--epk", "b"], [], ["--epk", "b"], ["--usb", "a", "--name", NAME]]
)
def test_an_export_is_of_one_kind(place: Path, options: list[str]) -> None:
    """--usb for the channel, --epk and --name for a release."""
    done = CliRunner().invoke(
        packager,
        ["channel", "export", str(place / "channel"), "--keys", str(place / "keys"), *options],
    )
    assert isinstance(done.exception, (InputError, SystemExit))
    assert done.exit_code != 0


def test_what_cannot_be_exported_is_said(place: Path) -> None:
    """No such release, and no delta to carry."""
    for parcel, words in (
        (carry.Parcel("small/other"), "no release 'small/other'"),
        (carry.Parcel(NAME, light=True), "no deltas"),
        (carry.Parcel(NAME, days=0), "at least one day"),
    ):
        with pytest.raises(InputError, match=words):
            carry.export_file(parcel, place / "channel", place / "x.epk", place / "keys")
    assert not (place / "x.epk").exists()


def test_a_member_that_does_not_belong_is_refused(tmp_path: Path) -> None:
    """Metadata has its own names; nothing else may ride along."""
    import tarfile

    path = handmade.bundle(tmp_path / "b.epk")
    with tarfile.open(path, "a", format=tarfile.USTAR_FORMAT) as archive:
        archive.add(__file__, "metadata/../evil.json")
    with pytest.raises(EdgepackError, match="does not belong"):
        Bundle.open(path)


def test_exports_do_not_age_each_other(place: Path, take: Import) -> None:
    """A light file, then a full one of the same release, and the channel itself: none is older."""
    assert take(write_file(place))[0] == 0
    publish(place, light_change(place, 2))
    shutil.copytree(place / "channel", place / "www")
    full, light = write_file(place, name="full.epk"), write_file(place, "--light", name="light.epk")
    other = ["--store", str(place / "other")]
    assert take(light, *other)[0] == 2
    assert take(full, *other)[0] == 0
    assert take(light)[0] == 0
    update = ["update", "--root", str(place / "root.json"), "--name", NAME, "--channel"]
    assert runtime([*update, str(place / "www"), *other]) == 7


def test_a_light_file_leaves_out_what_did_not_change(place: Path) -> None:
    """Neither what a delta makes nor what the release before has."""
    publish(place, light_change(place, 2))
    names = handmade.spans(write_file(place, "--light"))
    said = releases.releases(place / "channel")[NAME]
    with_both = set(Bundle.open(place / "r1.epk").blobs())
    assert not with_both & {name.rpartition("/")[2] for name in names}
    assert said["previous"] in with_both


def test_an_export_says_when_it_runs_out(place: Path) -> None:
    """No later than the first of what signs it: the targets are good for a year."""
    until = carry.export_file(
        carry.Parcel(NAME, days=4000), place / "channel", place / "x.epk", place / "keys"
    )
    assert until.year - datetime.now(UTC).year in (0, 1)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--name", "small"], "NAME/BOARD"),
        (["--patience", "0"], "above 0"),
        (["--store", ""], "not a folder"),
        (["--store", __file__], "not a folder"),
    ],
)
def test_wrong_options_are_said(
    place: Path, capfd: pytest.CaptureFixture[str], options: list[str], said: str
) -> None:
    """One clear error each, and nothing is made."""
    path, root = write_file(place), place / "channel/metadata/1.root.json"
    code = runtime(
        [
            "import",
            str(path),
            "--store",
            str(place / "device"),
            "--root",
            str(root),
            "--name",
            NAME,
            *options,
        ]
    )
    assert code == 2
    assert said in capfd.readouterr().err
    assert not (place / "device").exists()


def test_an_import_that_was_interrupted_is_finished_by_the_next(place: Path, take: Import) -> None:
    """The power went before the proof: the same command again ends with the release that runs."""
    path = write_file(place)
    device = new_device(place, Archive(path))
    device.install(device.check())
    assert device.store.state.trial
    code, answer = take(path)
    assert (code, answer["digest"]) == (0, device.store.state.active)
    assert device.store.state.trial == ""
