"""What an export shows of a model that its config does not say.

Engines pad: to a shape that is compiled, or to the longest text of a batch.  Most models ignore
padding, by their attention mask.  ConvBERT's convolutions and MobileBERT's trigrams do not, so a
text must run in its own length, or it is answered otherwise than alone.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from edgepack_runtime.errors import InputError
from edgepack_runtime.manifest import canonical_json

FILE = "traits.json"
_TOKENS, _PADDED = 6, 16
_FIRST_ID, _MOST_IDS = 5, 2000  # after the special tokens; the commonest
_TOLERANCE = 1e-3  # of the largest output; float32 rounds a thousand times finer

Run = Callable[[Mapping[str, Any]], Any]


def probe_padding(model: Path, run: Run, out: Path) -> None:
    """Run six tokens alone and padded to sixteen; write to `out` whether the outputs differ.

    Args:
        model: the folder of the torch model, for its vocabulary and padding.
        run: gives the first output of the exported graph for {input: int64 [1, tokens]}.
        out: the folder of the export.

    """
    import numpy as np

    config = json.loads((model / "config.json").read_text())
    words = min(int(config.get("vocab_size") or _MOST_IDS), _MOST_IDS)
    ids = np.random.default_rng(0).integers(_FIRST_ID, max(words, _FIRST_ID + 1), (1, _TOKENS))
    alone, padded = (_feeds(ids, width, config.get("pad_token_id")) for width in (_TOKENS, _PADDED))
    try:
        wanted, got = run(alone), run(padded)
    except RuntimeError as exc:
        raise InputError(f"the exported graph does not run: {str(exc).splitlines()[0]}") from exc
    got = got if got.ndim == 2 else got[:, :_TOKENS]
    far = np.abs(got - wanted).max() > _TOLERANCE * max(1.0, np.abs(wanted).max())
    (out / FILE).write_bytes(canonical_json({"sees_padding": bool(far)}))


def copy_traits(export: Path, out: Path) -> None:
    """Hand the traits of an export on to a variant that is made of it."""
    (out / FILE).write_bytes((export / FILE).read_bytes())


def sees_padding(folder: Path) -> bool:
    """Tell whether the model in an export's or a variant's folder answers otherwise when padded."""
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
