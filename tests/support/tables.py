"""A model whose logits are written down, so that every answer is known beforehand."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import handmade
import numpy as np

from edgepack_runtime.bundle.description import Task, Text
from edgepack_runtime.bundle.manifest import Requires, Tolerance, Variant
from edgepack_runtime.engines import Stateless
from edgepack_runtime.inputs import Inputs
from edgepack_runtime.inputs.text import TextEncoder
from edgepack_runtime.model.model import Model
from edgepack_runtime.tasks import Opened

if TYPE_CHECKING:
    from edgepack_runtime.numeric import Array

SPECIAL = ["[PAD]", "[UNK]", "[CLS]", "[SEP]"]
_PADDED = 99.0  # what stands where padding stands: no answer may hold it


class Table(Stateless):
    """A session that looks each token up: a row of logits for each, or their sum for a text."""

    inputs = ("input_ids", "attention_mask")
    outputs = ("output",)
    provider = "table"
    placement: Mapping[str, int] = {}

    def __init__(self, rows: Array, *, whole: bool) -> None:
        self._rows = rows
        self._whole = whole

    def width(self, rows: int, tokens: int) -> int:  # noqa: ARG002 (the Session protocol)
        """Return more than the tokens, so that every run is padded."""
        return tokens + 2

    def compile_all(self) -> None:
        """Nothing is compiled here."""

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Return logits [rows, labels] or [rows, width, labels]."""
        mask = feeds["attention_mask"][..., None]
        found = self._rows[feeds["input_ids"]]
        if self._whole:
            return {"output": (found * mask).sum(axis=1)}
        return {"output": np.where(mask == 1, found, np.float32(_PADDED))}


def wordpiece(words: Sequence[str]) -> bytes:
    """Return the `tokenizer.json` of a WordPiece tokenizer with [CLS] and [SEP]."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *words])}
    made = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.Whitespace()
    made.decoder = decoders.WordPiece()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return str(made.to_str()).encode()


def open_table(
    task: str,
    table: Mapping[str, Sequence[float]],
    *,
    whole: bool = False,
    pieces: bool = False,
    max_length: int = 16,
    **fields: Any,
) -> Model:
    """Open a model of such a table.

    Args:
        task: its name.
        table: {token: its logits}; special tokens that are not named have zeros.
        whole: give the sum of a text's tokens, not a row for each token.
        pieces: the tokens are word pieces, `##` before what continues a word.
        max_length: tokens of a window.
        fields: more of `description.Task`.

    """
    words = [word for word in table if word not in SPECIAL]
    known = [*SPECIAL, *words]
    width = len(next(iter(table.values())))
    rows = np.array([table.get(word, [0.0] * width) for word in known], dtype=np.float32)
    text = Text(tokenizer="tokenizer.json", max_length=max_length, pad_id=0, unk_id=1)
    variant = Variant(
        name="table",
        engine="table",
        provider="table",
        precision="float32",
        scheme="none",
        graphs=(),
        requires=Requires(),
        tolerance=Tolerance(0.99, 0.99),
    )
    content = wordpiece(words) if pieces else handmade.tokenizer(known)
    graphs = {"model": Table(rows, whole=whole)}
    inputs = Inputs(TextEncoder(content, text))
    return Model(Opened(Task(name=task, text=text, **fields), variant, graphs, inputs))
