"""What a user can get wrong, before a build begins: one clear error each, exit code 2."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from click.testing import CliRunner

from edgepack.cli import main
from edgepack.data.texts import Settings, collect

Get = Callable[..., Path]


def run(*args: str, code: int = 2) -> str:
    """Run the command line, assert its exit code, return what it printed."""
    result = CliRunner().invoke(main, list(args))
    assert result.exit_code == code, result.output
    return result.output


@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("./nowhere", "no model folder at ./nowhere"),
        ("package:no_such_package/model", "pip install it first"),
        ("package:edgepack/no_such_folder", "has no folder 'no_such_folder'"),
        ("some-org/no-such-model", "not in the local cache"),
        ("bad id!", "no model folder at bad id!"),
    ],
)
def test_a_model_that_is_not_there(model: str, message: str) -> None:
    """Each way to name a model fails with its own remedy, and nothing is fetched offline."""
    output = run("build", model, "-t", "cpu-arm64", "--offline")
    assert message in output
    assert output.count("\n") == 1


def test_no_network_is_said_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A hub that cannot be reached is no wrong input: the model is named, and a way out."""
    import huggingface_hub
    from huggingface_hub.errors import LocalEntryNotFoundError

    def unreachable(*_: object, **__: object) -> str:
        raise LocalEntryNotFoundError("cannot connect")

    monkeypatch.delenv("HF_HUB_OFFLINE")
    monkeypatch.setattr(huggingface_hub, "snapshot_download", unreachable)
    output = run("build", "org/model", "-t", "cpu-arm64", "-o", str(tmp_path), code=1)
    assert "the hub cannot be reached" in output
    assert "org/model" in output


def test_a_hub_model_in_the_cache_is_found_offline(
    model: Get, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The real loading code finds a snapshot in the local hub cache without network."""
    folder = tmp_path / "hub/models--org--tiny"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("0" * 40)
    (folder / "snapshots").mkdir()
    (folder / "snapshots" / ("0" * 40)).symlink_to(model("bert-intent"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    output = run("build", "org/tiny", "-t", "cpu-arm64", "--offline", "--dry-run", code=0)
    assert "tiny (text-classification) for cpu-arm64" in output


def test_a_folder_that_is_no_model(tmp_path: Path) -> None:
    """No config, a broken config and no weights are told apart."""
    folder = tmp_path / "model"
    folder.mkdir()
    assert "it has no config.json" in run("build", str(folder), "-t", "cpu-arm64")
    (folder / "config.json").write_text("{")
    assert "is not valid JSON" in run("build", str(folder), "-t", "cpu-arm64")
    (folder / "config.json").write_text("{}")
    assert "has no weights" in run("build", str(folder), "-t", "cpu-arm64")


def test_a_task_that_is_not_known_or_cannot_be_told(tmp_path: Path) -> None:
    """An unknown --task lists the tasks; an architecture without one asks for it."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    (tmp_path / "config.json").write_text(json.dumps({"architectures": ["XForMindReading"]}))
    assert "edgepack has audio-classification" in run(
        "build", str(tmp_path), "-t", "cpu-arm64", "--task", "mind-reading"
    )
    assert "cannot tell the task" in run("build", str(tmp_path), "-t", "cpu-arm64")


def test_an_unsupported_architecture(tmp_path: Path) -> None:
    """A model type that no exporter knows is refused at once, and nothing is written."""
    (tmp_path / "model.safetensors").write_bytes(b"")
    config = {"architectures": ["XForTokenClassification"], "model_type": "nosuchtype"}
    (tmp_path / "config.json").write_text(json.dumps(config))
    out = tmp_path / "dist"
    output = run("build", str(tmp_path), "-t", "cpu-arm64", "-o", str(out), "--json")
    assert "nosuchtype" in output
    assert not out.exists()


def test_targets_and_recipes_that_are_not_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No target, an unknown target, no recipe: each says what to do."""
    monkeypatch.chdir(tmp_path)
    assert "no recipe at edgepack.toml; name a model" in run("build")
    assert "no recipe at my.toml" in run("build", "my.toml")
    assert "no target; name one" in run("build", "org/model")
    assert "did you mean 'jetson-orin'" in run("build", "org/model", "-t", "jetson-orn")
    assert "--precision must be one of" in run("build", "x", "-t", "native", "--precision", "int3")


def test_an_output_that_cannot_be_written(model: Get, tmp_path: Path) -> None:
    """A file in the place of the output folder is refused before the work begins."""
    (tmp_path / "dist").write_text("a file")
    output = run(
        "build", str(model("bert-intent")), "-t", "cpu-arm64", "-o", str(tmp_path / "dist")
    )
    assert "cannot write to" in output


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("t.txt", b"\n\n", "has no rows"),
        ("t.txt", b"fine\n\xff broken", "line 2: not valid UTF-8"),
        ("t.jsonl", b'{"body": "x"}\n', "no column for the text; it has body"),
        ("t.jsonl", b"not json\n", "line 1: not valid JSON"),
        ("t.csv", b"intent,body\na,b\n", "no column for the text; it has intent, body"),
    ],
)
def test_calibration_data_that_is_wrong(
    name: str, content: bytes, message: str, tmp_path: Path
) -> None:
    """Each fault of a calibration file names the file, the line and the columns."""
    from edgepack_runtime import InputError

    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(InputError, match=message.split(";", maxsplit=1)[0]):
        collect(Settings("text-classification"), {"data": path}, tmp_path)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("t.txt", "hello you\nsecond line\n"),
        ("t.tsv", 'text\tlabel\nhello you\ta\nsecond line\t"b\n'),
        ("t.csv", "label,text\na,hello you\nb,second line\n"),
        ("t.jsonl", '{"text": "hello you"}\n{"text": "second line"}\n'),
    ],
)
def test_calibration_data_in_every_form(name: str, content: str, tmp_path: Path) -> None:
    """Lines, TSV, CSV and JSONL give the same texts."""
    path = tmp_path / name
    path.write_text(content)
    collect(Settings("text-classification"), {"data": path}, tmp_path)
    texts = json.loads((tmp_path / "texts.json").read_text())
    assert sorted(text.strip() for text in texts["evaluation"]) == ["hello you", "second line"]


def test_a_bundle_command_on_what_is_no_bundle(tmp_path: Path) -> None:
    """inspect, verify and diff fail alike: 2 for nothing there, 5 for something else."""
    other = tmp_path / "other.epk"
    other.write_bytes(b"PK not a bundle" * 100)
    missing = str(tmp_path / "missing")
    for command in ("inspect", "verify"):
        assert "no bundle at" in run(command, missing)
        assert "is not a bundle" in run(command, str(other), code=5)
    assert "no bundle at" in run("diff", missing, str(other))
    assert "is not a bundle" in run("diff", str(other), missing, code=5)


@pytest.mark.parametrize("name", ["my model", "../x", "a/b", "x" * 200])
def test_a_name_that_the_format_refuses_is_refused_first(name: str, model: Get) -> None:
    """A bundle's name is checked before anything is built."""
    output = run("build", str(model("bert-intent")), "-t", "cpu-arm64", "--name", name, "--dry-run")
    assert "is not usable" in output


def test_a_broken_model_is_one_line(model: Get, tmp_path: Path) -> None:
    """Weights that no library can read are one error line that names the file, and the remedy."""
    import shutil

    folder = tmp_path / "broken"
    shutil.copytree(model("bert-intent"), folder)
    (folder / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1")
    output = run("build", str(folder), "-t", "cpu-arm64", "-o", str(tmp_path / "d"), "--json")
    assert "model.safetensors is damaged or cut short; download it again" in output


def test_a_max_length_beyond_the_model_is_refused(model: Get, tmp_path: Path) -> None:
    """More tokens than the model has positions would fail on the device, so they fail here."""
    recipe = tmp_path / "long.toml"
    recipe.write_text(
        f'[model]\nsource = "{model("bert-intent")}"\nmax_length = 1024\n'
        '[build]\ntargets = ["cpu-arm64"]\n'
    )
    output = run("build", str(recipe), "-o", str(tmp_path / "d"), "--json")
    assert "max_length must be from 8 to 64" in output


def test_a_folder_that_is_no_bundle_is_left_alone(model: Get, tmp_path: Path) -> None:
    """--layout folder never replaces a folder of the user's."""
    mine = tmp_path / "bert-intent-cpu-arm64"
    mine.mkdir()
    (mine / "precious").write_text("mine")
    folder = str(model("bert-intent"))
    output = run(
        "build", folder, "-t", "cpu-arm64", "-o", str(tmp_path), "--layout", "folder", "--json"
    )
    assert "it is left alone" in output
    assert (mine / "precious").read_text() == "mine"
