"""What an export shows about a model that its config does not say.

Engines pad texts: to a compiled shape, or to the longest text of a batch.  Most models ignore
padding, thanks to their attention mask.  ConvBERT's convolutions and MobileBERT's trigrams do not
ignore it, so a text must run at its own length; otherwise its answer would differ.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgepack_runtime.bundle.manifest import canonical_json
from edgepack_runtime.errors import InputError

FILE = "traits.json"
_TOKENS, _PADDED = (3, 4, 5, 6, 8, 10, 13), 16
_FIRST_ID, _MOST_IDS = 5, 2000  # after the special tokens; the most common ones
_TOLERANCE = 1e-4  # of the largest output; float32 rounds a hundred times finer

Run = Callable[[Mapping[str, Any]], Any]


def probe_padding(model: Path, run: Run, out: Path) -> None:
    """Run texts of some lengths, alone and padded to 16; write to `out` whether outputs differ.

    Args:
        model: the folder of the torch model, for its vocabulary and padding.
        run: returns the first output of the exported graph for {input: int64 [1, tokens]}.
        out: the folder of the export.

    Raises:
        InputError: the graph does not run.

    """
    import numpy as np

    config = json.loads((model / "config.json").read_text())
    most = max(min(int(config.get("vocab_size") or _MOST_IDS), _MOST_IDS), _FIRST_ID + 1)
    rng = np.random.default_rng(0)
    texts = [rng.integers(_FIRST_ID, most, (1, tokens)) for tokens in _TOKENS]
    try:
        far = any(_differs(run, ids, config.get("pad_token_id")) for ids in texts)
    except RuntimeError as exc:
        raise InputError(f"the exported graph does not run: {str(exc).splitlines()[0]}") from exc
    write_traits(out, sees_padding=far)


def write_traits(out: Path, *, sees_padding: bool) -> None:
    """Write what is known without a probe."""
    (out / FILE).write_bytes(canonical_json({"sees_padding": sees_padding}))


def _differs(run: Run, ids: Any, pad: int | None) -> bool:
    import numpy as np

    tokens = ids.shape[1]
    wanted, got = (run(_feeds(ids, width, pad)) for width in (tokens, _PADDED))
    if got.shape[1] == _PADDED != wanted.shape[1]:  # a row for each token, or a number
        got = got[:, :tokens]
    return bool(np.abs(got - wanted).max() > _TOLERANCE * max(1.0, np.abs(wanted).max()))


def copy_traits(export: Path, out: Path) -> None:
    """Copy the traits of an export to a variant that is made from it."""
    (out / FILE).write_bytes((export / FILE).read_bytes())


def sees_padding(folder: Path) -> bool:
    """Tell whether padding changes the answers of the model in an export's or variant's folder."""
    return bool(json.loads((folder / FILE).read_text())["sees_padding"])


def _feeds(ids: Any, width: int, pad: int | None) -> dict[str, Any]:
    import numpy as np

    tokens = ids.shape[1]
    padded = np.full((1, width), pad or 0, dtype=np.int64)
    padded[:, :tokens] = ids
    mask = (np.arange(width) < tokens).astype(np.int64)[None]
    return {
        "input_ids": padded,
        "attention_mask": mask,
        "token_type_ids": np.zeros_like(mask),
        "position_ids": np.minimum(np.arange(width), tokens - 1)[None],
    }
