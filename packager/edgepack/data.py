"""The texts a build looks at: to calibrate int8, to measure agreement, to be golden.

A recipe names a file of typical inputs.  Without one they are generated: sentences of a
small grammar of our own in several scripts, and sentences of words drawn from the model's
own vocabulary, so that a model of any language sees its own tokens.
"""

from __future__ import annotations

import json
import random
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from edgepack.dataset import Columns, read_examples
from edgepack_runtime.errors import InputError

TOOLS = ("edgepack", "tokenizers")
EVALUATION = 48
GOLDEN = 8
_SAMPLES = 64
_GOLDEN_WORDS = 40
_FIRST_CHARACTERS = 12  # at most 14 tokens, special ones included, in any script
_MOST_CHARACTERS = 2000

_WHO = ("my sister", "the new driver", "Dr. Adams", "a customer in Berlin", "our team", "Ms. Okoro",
        "the hotel", "nobody", "ACME Corp.", "the president of France")  # fmt: skip
_DOES = ("ordered", "cancelled", "forgot about", "is waiting for", "would like to change", "lost",
         "paid 49.90 for", "asked me about", "has never heard of", "just sent back")  # fmt: skip
_WHAT = ("the blue suitcase", "a flight to New York", "two tickets for Friday", "the invoice",
         "an alarm at 7 am", "the weather in Nairobi", "my credit card", "a table for six",
         "the last episode", "https://example.org/help")  # fmt: skip
_TAIL = (".", "!", "?", " again.", " and wants the money back.", ", can you help?",
         " because it arrived late, damp and without the charger.", " #fail @support",
         " - or so they said on Monday, when the office was full and had no time.")  # fmt: skip
_OTHER = (
    "Können Sie mir bitte die Öffnungszeiten am Samstag nennen?",
    "¿Cuánto cuesta enviar un paquete a Buenos Aires?",
    "La réunion de jeudi est reportée à la semaine prochaine.",
    "明天下午三点在北京开会，请不要迟到。",
    "東京の天気はどうですか。傘が必要ですか。",
    "متى تفتح المكتبة في عطلة نهاية الأسبوع؟",
    "Где находится ближайшая аптека?",
    "कृपया मेरा खाता शेष बताइए।",
)


@dataclass(frozen=True)
class Settings:
    """task and columns: how to read the file; seed: of the choice.

    samples: how many texts calibrate; 0 for 64, or as many as there are.
    """

    task: str
    columns: Columns = Columns()
    samples: int = 0
    seed: int = 0


def collect(settings: Settings, inputs: Mapping[str, Path], out: Path) -> None:
    """Write `texts.json`: the lists `calibration`, `evaluation` and `golden`.

    Raises:
        InputError: the file holds no texts, or fewer than `samples`.

    """
    wanted = settings.samples or _SAMPLES
    if "data" in inputs:
        pool = _from_file(inputs["data"], settings, wanted)
    else:
        pool = _generated(inputs["tokenizer"] / "tokenizer.json", settings.seed, wanted)
    evaluation, rest = pool[:EVALUATION], pool[EVALUATION:]
    calibration = (rest or evaluation)[:wanted]
    if len(calibration) < settings.samples:
        raise InputError(
            f"{inputs['data']} holds {len(calibration)} texts to calibrate with beside the "
            f"{len(evaluation)} to compare with; calibration.samples asks for {settings.samples}"
        )
    # A very short one stands first: a device runs it to prove a freshly loaded model.
    first = min(evaluation, key=lambda text: (len(text), text))[:_FIRST_CHARACTERS]
    short = [text for text in evaluation if len(text.split()) <= _GOLDEN_WORDS] or evaluation
    golden = [first, *short[: GOLDEN - 1]]
    evaluation = list(dict.fromkeys([*golden, *evaluation]))
    chosen = {"calibration": calibration, "evaluation": evaluation, "golden": golden}
    (out / "texts.json").write_text(json.dumps(chosen, ensure_ascii=False))


def _from_file(path: Path, settings: Settings, wanted: int) -> list[str]:
    examples = read_examples(str(path), settings.task, settings.columns)
    texts = [e.text[:_MOST_CHARACTERS] for e in examples if e.text.strip()]
    if not texts:
        raise InputError(f"{path} holds no texts")
    random.Random(settings.seed).shuffle(texts)  # noqa: S311 (a choice, not a secret)
    return texts[: EVALUATION + wanted]


def _generated(tokenizer_file: Path, seed: int, wanted: int) -> list[str]:
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    rng = random.Random(seed)  # noqa: S311 (a choice, not a secret)
    special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
    ids = sorted(i for word, i in tokenizer.get_vocab().items() if word not in special)
    texts = []
    for number in range(EVALUATION + wanted):
        if number % 8 == 7:
            texts.append(rng.choice(_OTHER))
        elif number % 4 == 3:
            texts.append(tokenizer.decode(rng.sample(ids, min(len(ids), rng.randint(4, 48)))))
        else:
            parts = [_sentence(rng) for _ in range(rng.choice((1, 1, 1, 2, 4)))]
            texts.append(" ".join(parts))
    return texts


def _sentence(rng: random.Random) -> str:
    text = f"{rng.choice(_WHO)} {rng.choice(_DOES)} {rng.choice(_WHAT)}{rng.choice(_TAIL)}"
    return text if rng.random() < 0.5 else text[0].upper() + text[1:]
