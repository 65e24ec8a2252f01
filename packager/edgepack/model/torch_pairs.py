"""A torch model that reads one text and writes another, as the two graphs of a bundle."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from edgepack_runtime.engines import Stateless
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

_SEEN, _MASK = "encoder_hidden_states", "encoder_attention_mask"


class _TorchGraph:
    """One half of a model, in eager torch."""

    provider = "torch"
    placement: Mapping[str, int] = {}

    def __init__(self, model: Any) -> None:
        self.model = model.eval()

    def width(self, rows: int, tokens: int) -> int:  # noqa: ARG002 (the Session protocol)
        """Return `tokens`."""
        return tokens

    def compile_all(self) -> None:
        """Nothing is compiled here."""


class TorchEncoder(_TorchGraph, Stateless):
    """The encoder."""

    inputs = ("input_ids", "attention_mask")
    outputs = (_SEEN,)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on a text [1, tokens]; return its hidden states [1, tokens, width]."""
        import torch

        given = {name: torch.from_numpy(feeds[name]) for name in self.inputs}
        with torch.inference_mode():
            found = self.model.get_encoder()(**given)
        return {_SEEN: found.last_hidden_state.numpy()}


class TorchPairDecoder(_TorchGraph):
    """The decoder."""

    inputs = ("input_ids", _MASK, _SEEN)
    outputs = ("logits",)

    def begin(self, capacity: int) -> TorchRows:
        """Open a state."""
        return TorchRows(self.model, capacity)

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run on answers from their beginning."""
        return self.begin(feeds["input_ids"].shape[1]).run(feeds)


class TorchRows:
    """The keys and values of the answers to one input, a row each."""

    def __init__(self, model: Any, capacity: int) -> None:
        from transformers import DynamicCache, EncoderDecoderCache

        self._model, self._capacity = model, capacity
        self._cache: Any = EncoderDecoderCache(DynamicCache(), DynamicCache())
        self.length = 0

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run each row on the positions that follow, and hold them too."""
        import torch
        from transformers.modeling_outputs import BaseModelOutput

        ids, seen, mask = (torch.from_numpy(feeds[n]) for n in ("input_ids", _SEEN, _MASK))
        if self.length + ids.shape[1] > self._capacity:
            raise InputError(f"the state holds {self._capacity} positions")
        with torch.inference_mode():
            found = self._model(
                encoder_outputs=BaseModelOutput(seen),
                attention_mask=mask,
                decoder_input_ids=ids,
                past_key_values=self._cache,
                use_cache=True,
            )
        self.length += ids.shape[1]
        return {"logits": found.logits.float().numpy()}

    def reorder(self, rows: Sequence[int]) -> None:
        """Go on with these rows, in this order; one may be there twice."""
        import torch

        self._cache.reorder_cache(torch.tensor(list(rows)))

    def truncate(self, length: int) -> None:
        """Forget the positions from `length` on."""
        if length < self.length:
            self._cache.crop(length)
            self.length = length

    def close(self) -> None:
        """Free the memory."""
        self._cache = None
