"""Audio classification: how often the best label is right; figures are scikit-learn's."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from edgepack.data.labels import check_labels
from edgepack.data.rows import Example
from edgepack.tasks._quality import Quality

if TYPE_CHECKING:
    from edgepack_runtime.model.model import Model

OPTIMUM = "audio-classification"
AUTO_CLASS = "AutoModelForAudioClassification"
ARCHITECTURES: tuple[str, ...] = (
    "Wav2Vec2ForSequenceClassification",
    "HubertForSequenceClassification",
    "WavLMForSequenceClassification",
    "UniSpeechForSequenceClassification",
    "UniSpeechSatForSequenceClassification",
    "SEWForSequenceClassification",
    "Data2VecAudioForSequenceClassification",
    "ForAudioClassification",
)
HEAD = "Classification"
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
    """Measure accuracy and F1 on sounds with one label each.

    Raises:
        InputError: a row has no label, or the model does not know it.

    """
    from sklearn.metrics import accuracy_score, f1_score

    check_labels(examples, model.task.labels, "evaluation data")
    wanted = [str(example.label) for example in examples]
    found = [answer[0]["label"] for answer in model([e.text for e in examples], top_k=1)]
    figures = {
        "accuracy": float(accuracy_score(wanted, found)),
        "macro_f1": float(f1_score(wanted, found, average="macro", zero_division=0)),
    }
    return Quality("accuracy", figures, len(examples))
