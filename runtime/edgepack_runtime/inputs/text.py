"""Text to token ids, exactly as the model's own fast tokenizer does it.

Invariants: a text is never shortened silently (the windows after the first hold what was cut), and
padding is only added by `batch`, never stored.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from threading import Lock
from typing import TYPE_CHECKING

from edgepack_runtime.bundle.description import Text
from edgepack_runtime.errors import InputError, TrustError

if TYPE_CHECKING:
    from tokenizers import Encoding, Tokenizer

    from edgepack_runtime.numeric import Array


@dataclass(frozen=True)
class Tokens:
    """The windows of one text, each at most `max_length` tokens, as `tokenizers` encodings.

    If the text fits, the first window is the whole text.
    """

    windows: tuple[Encoding, ...]

    @property
    def first(self) -> Encoding:
        """Return the first window."""
        return self.windows[0]


# Source: `clean_up_tokenization` of transformers 4.57.
_CLEANED = (
    (" .", "."),
    (" ?", "?"),
    (" !", "!"),
    (" ,", ","),
    (" ' ", "'"),
    (" n't", "n't"),
    (" 'm", "'m"),
    (" 's", "'s"),
    (" 've", "'ve"),
    (" 're", "'re"),
)
INPUTS = ("input_ids", "attention_mask", "token_type_ids", "position_ids")


class TextEncoder:
    """The tokenizer of a bundle."""

    def __init__(self, content: bytes, spec: Text) -> None:
        # Engines wait for numpy, and a thread that imports at the same time doubles that wait.
        import numpy as np  # noqa: F401
        from tokenizers import Tokenizer

        try:
            self.tokenizer: Tokenizer = Tokenizer.from_buffer(content)
        except Exception as exc:
            raise TrustError(f"the tokenizer of the bundle cannot be read: {exc}") from exc
        self.tokenizer.no_padding()
        self.spec = spec
        self.said_cut = False  # whether it was said that texts are cut
        self._truncation = (-1, 0, "")  # current stride and length of the windows, what is cut
        self._lock = Lock()

    def encode(
        self,
        text: object,
        pair: object = None,
        *,
        stride: int = 0,
        max_length: int | None = None,
        cut: str = "longest_first",
    ) -> Tokens:
        """Tokenize a string or a pair of strings.

        Args:
            text: a string.
            pair: a second string for models that take two.
            stride: how many tokens two neighbouring windows of a long text share.
            max_length: tokens of a window; the bundle's own limit if left out.
            cut: which text of a pair is cut: `longest_first`, `only_first` or `only_second`.

        Raises:
            InputError: the input is not text or not valid Unicode, the stride is too long, or the
                bundle was not built for the length.

        """
        first, second = _string(text), None if pair is None else _string(pair)
        with self._lock:
            longest = self.spec.max_length if max_length is None else max_length
            self._truncate(stride, longest, cut)
            if second is not None and cut == "longest_first":
                first, second = self._clip(first), self._clip(second)
            try:
                encoding = self.tokenizer.encode(first, second)
            except Exception as exc:
                raise InputError(
                    f"one of two texts must fit in {longest} tokens beside the other: {exc}"
                ) from exc
        return Tokens((encoding, *encoding.overflowing))

    def ids(self, text: object, *, special: bool = True) -> list[int]:
        """Return all tokens of a text, however long it is; `special`: with those around it."""
        checked = _string(text)
        with self._lock:
            self.tokenizer.no_truncation()
            self._truncation = (-1, 0, "")
            return list(self.tokenizer.encode(checked, add_special_tokens=special).ids)

    def decode(self, ids: Sequence[int], *, special: bool) -> str:
        """Return the text of tokens, as transformers does; `special`: with special tokens."""
        text = str(self.tokenizer.decode(list(ids), skip_special_tokens=not special))
        for spaced, plain in _CLEANED if self.spec.cleans else ():
            text = text.replace(spaced, plain)
        return text

    def encode_words(self, words: Sequence[object], *, stride: int = 0) -> Tokens:
        """Tokenize a text that is already split into words; otherwise the same as `encode`."""
        checked = [_string(word) for word in words]
        with self._lock:
            self._truncate(stride, self.spec.max_length)
            encoding = self.tokenizer.encode(checked, is_pretokenized=True)
        return Tokens((encoding, *encoding.overflowing))

    def _truncate(self, stride: int, length: int, cut: str = "longest_first") -> None:
        if (stride, length, cut) == self._truncation:
            return
        special = self.tokenizer.num_special_tokens_to_add(is_pair=False)
        if not special < length <= self.spec.max_length:
            raise InputError(
                f"max_length must be from {special + 1} to {self.spec.max_length} tokens, which is "
                f"this bundle's limit, not {length}; a recipe can raise it (model.max_length)"
            )
        if not 0 <= stride < length - special:
            raise InputError(
                f"stride must be from 0 to {length - special - 1} tokens, not {stride}"
            )
        self.tokenizer.enable_truncation(
            length, stride=stride, strategy=cut, direction=self.spec.truncation_side
        )
        self._truncation = (stride, length, cut)

    def _clip(self, text: str) -> str:
        """Cut one text of a pair after two windows, because windows of two long texts multiply."""
        encoding = self.tokenizer.encode(text, add_special_tokens=False)
        if len(encoding.overflowing) < 2:
            return text
        kept = encoding.overflowing[0].offsets
        return text[kept[0][0] :] if self.spec.truncation_side == "left" else text[: kept[-1][1]]

    def batch(self, rows: Sequence[Encoding], width: int) -> dict[str, Array]:
        """Stack encodings into int64 arrays [rows, width], padded on the model's side.

        Positions count the tokens of a text, on whichever side its padding is.
        """
        import numpy as np

        spec = self.spec
        fills = {"input_ids": spec.pad_id, "token_type_ids": spec.pad_type_id, "attention_mask": 0}
        arrays = {k: np.full((len(rows), width), v, dtype=np.int64) for k, v in fills.items()}
        for i, row in enumerate(rows):
            size = len(row.ids)
            at = slice(width - size, width) if spec.padding_side == "left" else slice(0, size)
            arrays["input_ids"][i, at] = row.ids
            arrays["token_type_ids"][i, at] = row.type_ids
            arrays["attention_mask"][i, at] = row.attention_mask
        positions = arrays["attention_mask"].cumsum(axis=1) - 1
        return {**arrays, "position_ids": np.maximum(positions, 0)}

    def unpad(self, output: Array, row: Encoding, index: int) -> Array:
        """Cut row `index` of a padded output [rows, longest, …] back to its own tokens."""
        size = len(row.ids)
        if self.spec.padding_side == "left":
            return output[index, output.shape[1] - size :]
        return output[index, :size]


def _string(text: object) -> str:
    if not isinstance(text, str):
        hint = "; decode it to str first" if isinstance(text, (bytes, bytearray)) else ""
        raise InputError(f"expected text, found {type(text).__name__}{hint}")
    try:
        text.encode()
    except UnicodeEncodeError as exc:
        raise InputError(
            f"the text is not valid Unicode at character {exc.start} (a lone surrogate); "
            "decode the bytes with errors='replace'"
        ) from exc
    return text
