"""What the teacher says of every training row, computed once and kept.

The teacher never changes, so its outputs are a stage of their own: many students, and many
epochs of one, read them from the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack.compress import layers
from edgepack.compress.augment import read_rows
from edgepack.compress.batches import gather, pack, spans
from edgepack.compress.folder import load
from edgepack.compress.schedule import fastest
from edgepack.compress.tensors import max_length_of
from edgepack.model.describe import pooling_of
from edgepack.stages import progress
from edgepack_runtime import tasks

TOOLS = ("edgepack", "torch", "transformers")
TRANSFERS = ("none", "hidden", "relation")
_BATCH = 64


@dataclass(frozen=True)
class Settings:
    """What the teacher says."""

    task: str
    """Of the model."""
    max_length: int = 128
    """Tokens of a row."""
    transfer: str = "none"
    """What the student copies besides decisions; see `distill`."""


class Lesson:
    """The teacher's outputs, row by row.

    A row's outputs are its [labels] or [tokens, labels], or [width] for embeddings; its inner
    states [tokens, width] of the last layer, or [tokens, 3 × width] of queries, keys and values.
    """

    def __init__(self, folder: Path) -> None:
        import numpy as np

        with np.load(folder / "rows.npz") as stored:
            self._logits, self._tokens = stored["logits"], stored["tokens"]
        self._outputs = np.load(folder / "outputs.npy", mmap_mode="r")
        inner = folder / "inner.npy"
        self._inner = np.load(inner, mmap_mode="r") if inner.exists() else None

    def __len__(self) -> int:
        return len(self._logits) - 1

    @property
    def tokens(self) -> Any:
        """Return how many tokens the teacher saw of each row."""
        return self._tokens[1:] - self._tokens[:-1]

    def outputs(self, picked: Sequence[int], width: int, *, left: bool = False) -> Any:
        """Return decisions, float32 [rows, width, labels]; a width of 1 where a row has one."""
        places, there = spans(self._logits, picked, width, left=left)
        return gather(self._outputs, places, there, 0).astype("float32")

    def inner(self, picked: Sequence[int], width: int, *, left: bool = False) -> Any:
        """Return the inner states of rows, float32 [rows, width, states]."""
        places, there = spans(self._tokens, picked, width, left=left)
        return gather(self._inner, places, there, 0).astype("float32")


def teach(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Run the teacher over all rows; write what `Lesson` reads."""
    import numpy as np
    import torch

    model, tokenizer = load(inputs["teacher"], settings.task)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.eval().to(device)
    longest = min(settings.max_length, max_length_of(model, tokenizer))
    rows, _ = pack(tokenizer, read_rows(inputs["rows"]), longest)
    probe = Probe(model, settings.transfer, pooling_of(inputs["teacher"])[0] or "mean")
    per_token = tasks.find(settings.task).PER_TOKEN
    places = rows.starts if per_token else np.arange(len(rows.lengths) + 1)
    writer = _Writer(out, places, rows.starts, left=rows.left)
    order: Any = np.argsort(rows.lengths, kind="stable")
    with torch.inference_mode(), _arithmetic(model, settings.task, device):
        for start in range(0, len(order), _BATCH):
            picked = order[start : start + _BATCH]
            batch = rows.pad(picked)
            found = probe({name: tensor.to(device) for name, tensor in batch.items()})
            output, inner = (None if x is None else x.float().cpu().numpy() for x in found)
            progress.step(start + len(picked), len(order))
            writer.write(picked, output, inner)
    writer.close()


def _arithmetic(model: Any, task: str, device: str) -> Any:
    """Compute decisions between classes in the fastest precision, numbers in float32."""
    import torch

    width = model.get_input_embeddings().weight.shape[1]
    classes = tasks.find(task).DECIDES and model.config.num_labels > 1
    half = classes and fastest(width) == "bfloat16"
    return torch.autocast(device, dtype=torch.bfloat16, enabled=half)


class Probe:
    """A model that also gives the states that `transfer` names."""

    def __init__(self, model: Any, transfer: str, pooling: str = "mean") -> None:
        self._model = model
        self._pooling = pooling
        self._transfer = transfer
        self._seen: list[Any] = []
        if transfer == "relation":
            inner = getattr(model, "module", model)  # what several processes wrap
            family = layers.family_of(inner)
            last = layers.layer_list(inner)[-1]
            for name in (family.query, family.key, family.value):
                last.get_submodule(name).register_forward_hook(self._note)

    def _note(self, _module: Any, _inputs: Any, output: Any) -> None:
        self._seen.append(output)

    def __call__(self, batch: Mapping[str, Any]) -> tuple[Any, Any]:
        """Return the output (pooled for an encoder without a head) and the inner states."""
        import torch

        self._seen.clear()
        found = self._model(**batch, output_hidden_states=self._transfer == "hidden")
        output = found[0]
        if not type(getattr(self._model, "module", self._model)).__name__.endswith(
            "Classification"
        ):
            output = _pool(output, batch["attention_mask"], self._pooling)
        if self._transfer == "hidden":
            return output, found.hidden_states[-1]
        inner = torch.cat(self._seen, dim=-1) if self._transfer == "relation" else None
        return output, inner


def _pool(output: Any, mask: Any, pooling: str) -> Any:
    """Make one vector of [rows, tokens, width], as devices do: `mean`, `cls` or `max`."""
    if pooling == "cls":
        return output[:, 0]
    kept = mask.unsqueeze(-1).bool()
    if pooling == "max":
        return output.masked_fill(~kept, float("-inf")).amax(dim=1)
    return (output * kept).sum(dim=1) / kept.sum(dim=1)


class _Writer:
    """Writes outputs of rows in any order into files in the order of the rows."""

    def __init__(self, out: Path, places: Any, tokens: Any, *, left: bool) -> None:
        import numpy as np

        np.savez(out / "rows.npz", logits=places, tokens=tokens)
        self._out = out
        self._places, self._tokens = places, tokens
        self._left = left
        self._files: dict[str, Any] = {}

    def write(self, rows: Any, output: Any, inner: Any) -> None:
        """Write a batch: output [rows, labels] or [rows, tokens, labels]."""
        output = output[:, None] if output.ndim == 2 else output
        self._put("outputs", self._places, rows, output, "float32")
        if inner is not None:
            self._put("inner", self._tokens, rows, inner, "float16")

    def _put(self, name: str, starts: Any, rows: Any, values: Any, kind: str) -> None:
        import numpy as np

        if name not in self._files:
            shape = (int(starts[-1]), values.shape[-1])
            self._files[name] = np.lib.format.open_memmap(
                self._out / f"{name}.npy", mode="w+", dtype=kind, shape=shape
            )
        places, there = spans(starts, rows, values.shape[1], left=self._left)
        self._files[name][places[there]] = values[there]

    def close(self) -> None:
        """Flush the files."""
        for file in self._files.values():
            file.flush()
