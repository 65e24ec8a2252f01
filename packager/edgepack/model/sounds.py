"""What a device must know to make a model's input of a sound, as plain numbers.

Source: `Wav2Vec2FeatureExtractor` and `Wav2Vec2CTCTokenizer` of transformers 4.57.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from edgepack_runtime.bundle.description import Audio
from edgepack_runtime.errors import InputError

FILE = "preprocessor_config.json"


def facts(folder: Path, config: Any) -> tuple[Audio, tuple[str, ...]]:
    """Read a model's feature extractor, and its letters if it writes by CTC.

    Raises:
        InputError: there is none, or it does what is not built.

    """
    from transformers import AutoFeatureExtractor

    try:
        extractor = AutoFeatureExtractor.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, OSError, TypeError, ImportError) as exc:
        raise InputError(f"{folder}: transformers cannot read {FILE}: {exc}") from exc
    if type(extractor).__name__ != "Wav2Vec2FeatureExtractor":
        kind = type(extractor).__name__.removesuffix("FeatureExtractor")
        raise InputError(f"the feature extractor of {kind} is not built yet")
    frame = int(getattr(config, "inputs_to_logits_ratio", 0) or 1)
    audio = Audio(
        sampling_rate=int(extractor.sampling_rate),
        normalize=bool(extractor.do_normalize),
        least=_least(config),
        frame=frame,
    )
    if not any(str(name).endswith("ForCTC") for name in config.architectures or ()):
        return audio, ()
    labels, blank, delimiter = _letters(folder, config)
    return Audio(audio.sampling_rate, audio.normalize, audio.least, frame, blank, delimiter), labels


def _least(config: Any) -> int:
    """Return how many samples the convolutions need for one frame."""
    least = 1
    sizes = zip(reversed(config.conv_kernel), reversed(config.conv_stride), strict=True)
    for kernel, stride in sizes:
        least = (least - 1) * stride + kernel
    return int(least)


def _letters(folder: Path, config: Any) -> tuple[tuple[str, ...], int, str]:
    """Return the letters by number, which of them is the blank, and which parts words."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    except (ValueError, KeyError, OSError, TypeError) as exc:
        raise InputError(f"{folder}: transformers cannot read its letters: {exc}") from exc
    if type(tokenizer).__name__ != "Wav2Vec2CTCTokenizer":
        raise InputError(f"letters of {type(tokenizer).__name__} are not built yet")
    names = {number: name for name, number in tokenizer.get_vocab().items()}
    if len(names) < config.vocab_size:
        raise InputError(f"{folder} has {len(names)} letters, its model gives {config.vocab_size}")
    lower = bool(tokenizer.do_lower_case)
    labels = (str(names[number]) for number in range(config.vocab_size))
    letters = tuple(name.lower() if lower else name for name in labels)
    return letters, int(tokenizer.pad_token_id), str(tokenizer.word_delimiter_token)
