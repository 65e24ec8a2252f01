"""Speech recognition: how many words and letters are wrong; figures are jiwer's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality
from edgepack_runtime.errors import InputError

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

OPTIMUM = "automatic-speech-recognition"
AUTO_CLASS = "AutoModelForCTC"
ARCHITECTURES: tuple[str, ...] = ("ForCTC",)
HEAD = "ForCTC"
ADAPTER = ""
READS = "audio"
DECODES = False
PAIRS = False
LEARNS = False
MARK = ""
PACKAGES: tuple[str, ...] = (
    "soundfile==0.14.0",
    "soxr==1.1.0",
    "cffi==2.1.1",
    "pycparser==3.12",
    "typing-extensions==4.16.0",
)


def evaluate(model: Model, examples: Sequence[Example], batch_size: int) -> Quality:  # noqa: ARG001 (a sound runs alone)
    """Measure the share of right words (1 - WER) and letters (1 - CER), whatever their case.

    Raises:
        InputError: a row has no text that was said.

    """
    import jiwer

    wrong = [e.line for e in examples if not isinstance(e.label, str) or not e.label.strip()]
    if wrong:
        raise InputError(
            f"evaluation data, line {wrong[0]}: speech needs what was said (data.label)"
        )
    wanted = [str(example.label).lower() for example in examples]
    found = [answer["text"].lower() for answer in model([e.text for e in examples])]
    figures = {
        "word_accuracy": 1.0 - float(jiwer.wer(wanted, found)),
        "letter_accuracy": 1.0 - float(jiwer.cer(wanted, found)),
    }
    return Quality("word_accuracy", figures, len(examples))
