"""A torch model behind the runtime's own `Model`: the same tokens, rules and answers.

So what a device runs and what it is compared with differ only in the engine.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from edgepack.model import describe
from edgepack.model.opened import read_inputs, read_task
from edgepack.model.torch_pairs import TorchEncoder, TorchPairDecoder
from edgepack.tasks import find
from edgepack_runtime.bundle.manifest import Requires, Tolerance, Variant
from edgepack_runtime.engines import Session, Stateless
from edgepack_runtime.errors import InputError
from edgepack_runtime.model.model import Model
from edgepack_runtime.tasks import Opened

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array


_TEXTS = ("input_ids", "attention_mask", "token_type_ids")


class TorchSession(Stateless):
    """An eager torch model as a `Session` of the runtime."""

    outputs = ("output",)
    provider = "torch"
    placement: Mapping[str, int] = {}

    def __init__(self, model: Any) -> None:
        import inspect

        self._model = model.eval()
        taken = inspect.signature(model.forward).parameters
        texts = "input_ids" in taken
        names = _TEXTS if texts else ("pixel_values", "input_values")
        self.inputs = tuple(name for name in names if name in taken)

    def width(self, rows: int, tokens: int) -> int:  # noqa: ARG002 (the Session protocol)
        """Return `tokens`."""
        return tokens

    def compile_all(self) -> None:
        """Do nothing: there is nothing to compile."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run int64 arrays [rows, width]."""
        import torch

        device = next(self._model.parameters()).device
        tensors = {name: torch.from_numpy(feeds[name]).to(device) for name in self.inputs}
        with torch.inference_mode():
            output = self._model(**tensors)
        named = {
            name: value.float().cpu().numpy()
            for name, value in output.items()
            if isinstance(value, torch.Tensor)
        }
        return {"output": next(iter(named.values())), **named}


class TorchDecoder:
    """An eager causal language model as a `Session` of the runtime."""

    inputs = ("input_ids", "rows")
    outputs = ("logits",)
    provider = "torch"
    placement: Mapping[str, int] = {}

    def __init__(self, model: Any) -> None:
        self.model = model.eval()

    def width(self, rows: int, tokens: int) -> int:  # noqa: ARG002 (the Session protocol)
        """Return `tokens`."""
        return tokens

    def compile_all(self) -> None:
        """Nothing is compiled here."""

    def begin(self, capacity: int) -> TorchState:
        """Open a state."""
        return TorchState(self.model, capacity)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on a text from its beginning."""
        return self.begin(feeds["input_ids"].shape[1]).run(feeds)


class TorchState:
    """The keys and values of one call, in torch."""

    def __init__(self, model: Any, capacity: int) -> None:
        from transformers import DynamicCache

        self._model = model
        self._capacity = capacity
        self._cache: Any = DynamicCache()
        self.length = 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on the positions that follow, and hold them too."""
        import torch

        ids = torch.from_numpy(feeds["input_ids"])
        if self.length + ids.shape[1] > self._capacity:
            raise InputError(f"the state holds {self._capacity} positions")
        with torch.inference_mode():
            found = self._model(ids, past_key_values=self._cache, use_cache=True)
        self.length += ids.shape[1]
        return {"logits": found.logits[0][torch.from_numpy(feeds["rows"])].float().numpy()}

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        self.length = min(self.length, length)
        self._cache.crop(self.length)

    def close(self) -> None:
        """Free the memory."""
        self._cache = None


def load_torch(folder: Path, task: str, **overrides: Any) -> Any:
    """Load a model folder in float32 with the head of `task`.

    Raises:
        InputError: transformers cannot read it.

    """
    import torch
    import transformers

    loader = getattr(transformers, find(task).AUTO_CLASS)
    try:
        return loader.from_pretrained(
            folder, dtype=torch.float32, local_files_only=True, **overrides
        )
    except (ValueError, KeyError, OSError) as exc:
        raise InputError(f"{folder}: transformers cannot load this model: {exc}") from exc


def open_torch(folder: Path, task: str, max_length: int = 0) -> Model:
    """Open a model folder in torch, as `edgepack_runtime.load` opens a bundle."""
    return wrap_torch(load_torch(folder, task), folder, task, max_length)


def wrap_torch(model: Any, folder: Path, task: str, max_length: int = 0) -> Model:
    """Wrap a loaded torch model in the runtime's `Model`, with the tokenizer of `folder`."""
    with tempfile.TemporaryDirectory() as name:
        tokenizer = Path(name)
        describe.describe(describe.Settings(task, max_length), {"model": folder}, tokenizer)
        spec, inputs = read_task(tokenizer), read_inputs(tokenizer)
    variant = Variant(
        name="torch",
        engine="torch",
        provider="torch",
        precision="float32",
        scheme="none",
        graphs=(),
        requires=Requires(),
        tolerance=Tolerance(1.0, 1.0),
    )
    return Model(Opened(spec, variant, _graphs(model, task), inputs))


def _graphs(model: Any, task: str) -> dict[str, Session]:
    """Return a torch model as the graphs that its task asks for."""
    if find(task).PAIRS:
        return {"encoder": TorchEncoder(model), "decoder": TorchPairDecoder(model)}
    return {"model": TorchDecoder(model) if find(task).DECODES else TorchSession(model)}
