"""Find the model: a hub id, a folder, or `package:NAME/path`; and read its description."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from edgepack.host import hub_is_off, not_fetched
from edgepack.model.adapter import ADAPTER_FILE, base_of
from edgepack.stages.cache import Source, hash_files, joint_hash
from edgepack.tasks import every
from edgepack_runtime.errors import InputError, LinkError
from edgepack_runtime.tasks import known

_PATTERNS = ("*.json", "*.txt", "*.model", "*.safetensors", "pytorch_model*.bin", "*/config.json")
_HUB_ID = re.compile(r"[\w.-]+(/[\w.-]+)?")


@dataclass(frozen=True)
class ModelInfo:
    """A model as described by its folder, before anything heavy is imported."""

    source: Source
    """The folder of the model, or of the adapter."""
    name: str
    """The name for its bundle."""
    task: str
    """The task, given or detected."""
    model_type: str
    """The family, from its config."""
    base: Source | None = None
    """The base model of an adapter."""
    files: Mapping[str, str] = field(default_factory=dict)
    """{name: sha256} of the files that were read."""
    commit: str = ""
    """The commit on the hub; empty for a model from elsewhere."""


def fetch(
    source: str, *, revision: str = "", task: str = "", name: str = "", offline: bool = False
) -> ModelInfo:
    """Find a model and detect its task.

    Args:
        source: a hub id, a folder or `package:NAME/path`.
        revision: a revision on the hub.
        task: one of the runtime's tasks, instead of the detected one.
        name: a name, instead of one made from the source.
        offline: use only the hub's local cache.

    Raises:
        InputError: there is no such model, it has no weights, or its task is unknown or cannot be
            detected.
        LinkError: the hub cannot be reached.

    """
    folder = find_folder(source, revision, offline=offline)
    base = None
    if (folder / ADAPTER_FILE).is_file():
        base = find_folder(base_of(folder), offline=offline)
    config = read_config(base or folder)
    if task and task not in known():
        raise InputError(f"unknown task {task!r}; edgepack has {', '.join(known())}")
    files = _files(folder)
    return ModelInfo(
        source=Source(folder, joint_hash(files)),
        name=name or _name(source),
        task=task or (_adapted(folder) if base else _detect(folder, config)),
        model_type=str(config.get("model_type", "")),
        base=Source(base, joint_hash(_files(base))) if base else None,
        files=files,
        commit=folder.name
        if folder.parent.name == "snapshots"
        else "",  # as the hub's cache has it
    )


def find_adapter(source: str) -> Source:
    """Find an adapter that stays beside its model.

    Raises:
        InputError: there is none.

    """
    folder = find_folder(source)
    if not (folder / ADAPTER_FILE).is_file():
        raise InputError(f"{folder} is not an adapter: it has no {ADAPTER_FILE}")
    return Source(folder, joint_hash(_files(folder)))


def _files(folder: Path) -> dict[str, str]:
    """Hash the files that a model is read from."""
    files = sorted({path for pattern in _PATTERNS for path in folder.glob(pattern)})
    if not any(path.suffix in (".safetensors", ".bin") for path in files):
        raise InputError(f"{folder} has no weights (model.safetensors or pytorch_model.bin)")
    return hash_files(folder, files)


def _adapted(folder: Path) -> str:
    """Return the task that an adapter was trained for."""
    kinds = {task.ADAPTER: name for name, task in every().items() if task.ADAPTER}
    declared = json.loads((folder / ADAPTER_FILE).read_text()).get("task_type")
    if not isinstance(declared, str) or declared not in kinds:
        raise InputError(f"cannot tell the task of adapter {folder.name}; name one with --task")
    return kinds[declared]


def find_folder(source: str, revision: str = "", *, offline: bool = False) -> Path:
    """Return the folder that a hub id, a path or a `package:` names; fetch it if needed.

    Raises:
        InputError: there is none.

    """
    if source.startswith("package:"):
        return _package(source)
    path = Path(source).expanduser()
    try:
        is_folder, is_there = source != "" and path.is_dir(), path.exists()
    except OSError as exc:  # a name that is too long
        raise InputError(f"no model folder at {source[:80]}: {exc.strerror}") from exc
    if is_folder:
        return path.resolve()
    if is_there and source:
        raise InputError(f"{source} is a file; give the folder of a Hugging Face model")
    if source.startswith((".", "/", "~")) or not _HUB_ID.fullmatch(source):
        raise InputError(f"no model folder at {source}")
    return _hub(source, revision, offline=offline)


def _package(source: str) -> Path:
    name, _, inside = source.removeprefix("package:").partition("/")
    spec = find_spec(name) if name.isidentifier() else None
    if spec is None or not spec.submodule_search_locations:
        raise InputError(f"{source}: no installed package {name!r}; pip install it first")
    package = Path(spec.submodule_search_locations[0]).resolve()
    folder = (package / inside).resolve()
    if not folder.is_relative_to(package) or not folder.is_dir():
        raise InputError(f"{source}: the package has no folder {inside!r}")
    return folder


def _hub(name: str, revision: str, *, offline: bool) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import (
        GatedRepoError,
        HfHubHTTPError,
        HFValidationError,
        LocalEntryNotFoundError,
        RepositoryNotFoundError,
        RevisionNotFoundError,
    )

    offline = offline or hub_is_off()
    where = f"{name}{f' at {revision}' if revision else ''}"
    try:
        found = snapshot_download(
            name,
            revision=revision or None,
            local_files_only=offline,
            allow_patterns=list(_PATTERNS),
        )
    except GatedRepoError as exc:
        raise InputError(f"{where} is gated; accept its terms and set HF_TOKEN") from exc
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as exc:
        raise InputError(f"the hub has no model {where}; check the name and revision") from exc
    except LocalEntryNotFoundError as exc:
        kind, hint = (
            (InputError, "it is not in the local cache, and --offline forbids downloading it")
            if offline
            else (LinkError, "the hub cannot be reached, and it is not in the local cache")
        )
        raise kind(f"model {where}: {hint}. A local folder works without a network") from exc
    except (HfHubHTTPError, OSError) as exc:
        raise not_fetched(f"model {where}", exc) from exc
    return Path(found)


def read_config(folder: Path) -> dict[str, Any]:
    """Read a model's config.json.

    Raises:
        InputError: there is none, or it is not a JSON object.

    """
    path = folder / "config.json"
    try:
        value = json.loads(path.read_text())
    except OSError as exc:
        raise InputError(f"{folder} is not a Hugging Face model: it has no config.json") from exc
    except ValueError as exc:
        raise InputError(f"{path} is not valid JSON: {exc}") from exc
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object")
    return value


def _detect(folder: Path, config: dict[str, Any]) -> str:
    for task, facts in every().items():
        if facts.MARK and (folder / facts.MARK).exists():
            return task
    heads = {head: task for task, facts in every().items() for head in facts.ARCHITECTURES}
    heads = dict(sorted(heads.items(), key=lambda item: -len(item[0])))  # the most exact first
    architectures = config.get("architectures")
    architectures = architectures if isinstance(architectures, list) else []
    for name in architectures:
        for head, task in heads.items():
            if str(name).endswith(head):
                return task
    raise InputError(
        f"cannot tell the task of {folder.name} from its architectures {architectures}; "
        f"name one with --task: {', '.join(known())}"
    )


def _name(source: str) -> str:
    if source.startswith("package:"):
        source = source.removeprefix("package:").partition("/")[0].replace("_", "-")
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", source.rstrip("/").rpartition("/")[2])
    return name.strip("-._") or "model"
