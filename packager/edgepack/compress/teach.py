"""What the teacher says of every training row, computed once and kept.

The teacher never changes, so its outputs are a stage of their own: many students, and many
epochs of one, read them from the disk.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgepack import progress
from edgepack.compress import layers
from edgepack.compress.augment import read_rows
from edgepack.compress.examples import max_length_of, pad, tokenize
from edgepack.compress.folder import load
from edgepack.describe import pooling_of

TOOLS = ("edgepack", "torch", "transformers")
TRANSFERS = ("none", "hidden", "relation")
_BATCH = 64


@dataclass(frozen=True)
class Settings:
    """transfer: what else than its decisions the student copies, see `distill`."""

    task: str
    max_length: int = 128
    transfer: str = "none"


class Lesson:
    """The teacher's outputs, row by row.

    `logits[i]` is [labels] or [tokens, labels], or [width] for embeddings; `inner[i]` is
    [tokens, width] of the last layer, or [tokens, 3 × width] of its queries, keys and values.
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

    def tokens(self, row: int) -> int:
        """Return how many tokens the teacher saw."""
        return int(self._tokens[row + 1] - self._tokens[row])

    def outputs(self, row: int) -> Any:
        """Return the decisions of a row, float32 [1 or tokens, labels]."""
        return self._outputs[self._logits[row] : self._logits[row + 1]].astype("float32")

    def inner(self, row: int) -> Any:
        """Return the inner states of a row, float32 [tokens, width]."""
        at = slice(self._tokens[row], self._tokens[row + 1])
        return None if self._inner is None else self._inner[at].astype("float32")


def teach(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Run the teacher over all rows; write what `Lesson` reads."""
    import numpy as np
    import torch

    model, tokenizer = load(inputs["teacher"], settings.task)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model.eval().to(device)
    longest = min(settings.max_length, max_length_of(model, tokenizer))
    rows = [tokenize(tokenizer, e, longest) for e in read_rows(inputs["rows"])]
    lengths = [len(row["input_ids"]) for row in rows]
    probe = Probe(model, settings.transfer, pooling_of(inputs["teacher"])[0] or "mean")
    per_token = settings.task == "token-classification"
    starts = np.concatenate([[0], np.cumsum(lengths)])
    places = starts if per_token else np.arange(len(rows) + 1)
    writer = _Writer(out, places, starts)
    order = sorted(range(len(rows)), key=lengths.__getitem__)
    with torch.inference_mode():
        for start in range(0, len(order), _BATCH):
            picked = order[start : start + _BATCH]
            batch = pad(tokenizer, [rows[i] for i in picked])
            found = probe({name: tensor.to(device) for name, tensor in batch.items()})
            output, inner = (None if x is None else x.float().cpu().numpy() for x in found)
            progress.step(start + len(picked), len(order))
            writer.write(picked, output, inner)
    writer.close()


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

    def __init__(self, out: Path, places: Any, tokens: Any) -> None:
        import numpy as np

        np.savez(out / "rows.npz", logits=places, tokens=tokens)
        self._out = out
        self._places, self._tokens = places, tokens
        self._files: dict[str, Any] = {}

    def write(self, rows: Sequence[int], output: Any, inner: Any) -> None:
        """Write a batch: output [rows, labels] or [rows, tokens, labels]."""
        for at, row in enumerate(rows):
            mine = output[at][None] if output.ndim == 2 else output[at]
            self._put("outputs", self._places, row, mine, "float32")
            if inner is not None:
                self._put("inner", self._tokens, row, inner[at], "float16")

    def _put(self, name: str, places: Any, row: int, values: Any, kind: str) -> None:
        import numpy as np

        if name not in self._files:
            shape = (int(places[-1]), values.shape[-1])
            self._files[name] = np.lib.format.open_memmap(
                self._out / f"{name}.npy", mode="w+", dtype=kind, shape=shape
            )
        size = int(places[row + 1] - places[row])
        self._files[name][places[row] : places[row + 1]] = values[:size]

    def close(self) -> None:
        """Flush the files."""
        for file in self._files.values():
            file.flush()
