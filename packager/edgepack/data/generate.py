"""Texts for a model without data: they calibrate it and compare its variants.

Most are what people say: sentences from a small English grammar of our own, and whole sentences in
other languages.  Others are made for the model: from its labels, which name what a classifier is
asked about, and from words of its own vocabulary, so that a model of any language sees its own
tokens.  One in four has one to three words.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edgepack_runtime import tasks

if TYPE_CHECKING:
    from tokenizers import Tokenizer

_SLOTS = {
    "who": (
        "my sister",
        "the new driver",
        "Dr. Adams",
        "a customer in Berlin",
        "our team",
        "Ms. Okoro",
        "the hotel",
        "nobody",
        "ACME Corp.",
        "the president of France",
    ),
    "did": (
        "ordered",
        "cancelled",
        "forgot about",
        "is waiting for",
        "would like to change",
        "lost",
        "paid 49.90 for",
        "asked me about",
        "just sent back",
        "still has not seen",
    ),
    "what": (
        "the blue suitcase",
        "a flight to New York",
        "two tickets for Friday",
        "the invoice",
        "an alarm at 7 am",
        "my credit card",
        "a table for six",
        "the last episode",
        "a pair of running shoes",
        "https://example.org/help",
    ),
    "how": (
        "great",
        "far too expensive",
        "boring",
        "much better than expected",
        "broken",
        "friendly and quick",
        "a waste of money",
        "fine",
        "beautiful",
        "not what I ordered",
    ),
    "thing": (
        "the food",
        "this phone",
        "the film",
        "the service",
        "the new update",
        "her speech",
        "the second half of the match",
        "the room",
        "the battery",
        "the book",
    ),
    "act": (
        "turn off",
        "turn on",
        "find",
        "check",
        "delete",
        "show me",
        "start",
        "send",
        "play",
        "remind me about",
    ),
    "thing2": (
        "the lights in the kitchen",
        "my account balance",
        "the meeting on Monday",
        "the heater",
        "a good Italian restaurant",
        "the news",
        "some jazz",
        "my shopping list",
        "the washing machine",
        "a message to Tom",
    ),
    "ask": (
        "how do i change",
        "where is",
        "what is wrong with",
        "when can i pick up",
        "who pays for",
        "can you tell me about",
        "do i need",
        "why was i charged for",
        "is it safe to use",
        "how long does it take to get",
    ),
    "place": (
        "Nairobi",
        "Paris",
        "San Francisco",
        "the office",
        "Tokyo",
        "São Paulo",
        "my street",
        "the airport",
        "Istanbul",
        "the north of Italy",
    ),
    "tail": (
        ".",
        "!",
        "",
        "",
        " please.",
        " again.",
        " and wants the money back.",
        " because it arrived late, damp and without the charger.",
        " #fail @support",
        " - or so they said on Monday, when the office was full and had no time.",
    ),
}
_SENTENCES = (
    "{who} {did} {what}{tail}",
    "{who} said that {thing} in {place} was {how}{tail}",
    "{act} {thing2}",
    "please {act} {thing2} at 6:30",
    "{ask} {what}?",
    "{ask} {thing2} in {place}?",
    "what's the weather like in {place} tomorrow",
    "{thing} was {how} and {thing} was {how}{tail}",
    "I think {thing} is {how}{tail}",
    "book a flight from {place} to {place} for {who}",
    "{who} moved from {place} to {place} in 2019, where {who} {did} {what}{tail}",
)
_ABOUT = (
    "{0}",
    "i have a question about {0}",
    "can you help me with {0}",
    "{0} please",
    "what about my {0}?",
    "tell me something about {0} in {1}",
)
_OTHER = (
    "Können Sie mir bitte die Öffnungszeiten am Samstag nennen?",
    "¿Cuánto cuesta enviar un paquete a Buenos Aires?",
    "La réunion de jeudi est reportée à la semaine prochaine.",
    "Il treno per Milano parte alle otto meno un quarto.",
    "Preciso de ajuda para recuperar a minha senha.",
    "Wat zijn de kosten van een tweede rekening?",
    "Yarın akşam için iki kişilik bir masa ayırtmak istiyorum.",
    "明天下午三点在北京开会，请不要迟到。",
    "東京の天気はどうですか。傘が必要ですか。",
    "내일 아침 일곱 시에 깨워 주세요.",
    "متى تفتح المكتبة في عطلة نهاية الأسبوع؟",
    "Где находится ближайшая аптека?",
    "कृपया मेरा खाता शेष बताइए।",
)
_WORDS = (
    "yes",
    "no",
    "ok",
    "stop",
    "what?",
    "thanks!",
    "help",
    "next",
    "play",
    "call mom",
    "lights on",
    "good morning",
    "ja",
    "nein danke",
    "sí",
    "no gracias",
    "oui",
    "merci",
    "sì",
    "obrigado",
    "да",
    "好的",
    "停",
    "はい",
    "네",
    "نعم",
    "हाँ",
    ".",
    "...",
    "?",
    "!",
    "42",
    "7 am",
    ":)",
)
_PATTERN = ("sentence", "short", "sentence", "about", "sentence", "other", "short", "vocabulary")
_SHORT_WORD = 12  # characters
_DRAWN = 40
_NAME_OF_A_LABEL = re.compile(r"(?i)(label|class|tag)?[\s_-]*\d*$")


def generate(tokenizer: Path, seed: int, count: int) -> list[str]:
    """Return `count` texts for the model whose tokenizer and task are in the folder."""
    from tokenizers import Tokenizer

    rng = random.Random(seed)  # noqa: S311 (a choice, not a secret)
    task = json.loads((tokenizer / "task.json").read_text())
    rules = tasks.find(task["name"])
    about = _subjects(task["labels"] if rules.DECIDES and not rules.PER_TOKEN else ())
    words = _Vocabulary(Tokenizer.from_file(str(tokenizer / "tokenizer.json")), rng)
    makers: dict[str, Callable[[], str]] = {
        "sentence": lambda: _sentences(rng),
        "short": lambda: words.few() if rng.random() < 0.5 else rng.choice(_WORDS),
        "about": lambda: _about(about, rng) if about else _sentences(rng),
        "other": lambda: rng.choice(_OTHER),
        "vocabulary": words.many,
    }
    return [makers[_PATTERN[number % len(_PATTERN)]]() for number in range(count)]


class _Vocabulary:
    """Draws words from a tokenizer's vocabulary."""

    def __init__(self, tokenizer: Tokenizer, rng: random.Random) -> None:
        special = {token.content for token in tokenizer.get_added_tokens_decoder().values()}
        vocabulary = tokenizer.get_vocab().items()
        self._ids = sorted(i for word, i in vocabulary if not (word in special or word[0] == "["))
        self._tokenizer, self._rng = tokenizer, rng

    def many(self) -> str:
        """Return four to 48 tokens."""
        count = min(len(self._ids), self._rng.randint(4, 48))
        return str(self._tokenizer.decode(self._rng.sample(self._ids, count)))

    def few(self) -> str:
        """Return one to three words; whole words if there are any."""
        drawn = (
            self._tokenizer.decode([i]).strip()
            for i in self._rng.sample(self._ids, min(40, len(self._ids)))
        )
        words = [word for word in drawn if word.isalpha() and 1 < len(word) <= _SHORT_WORD]
        return " ".join(words[: self._rng.randint(1, 3)]) or self._rng.choice(_WORDS)


def _subjects(labels: Sequence[str]) -> list[str]:
    """Return the labels with a meaning as words: `book_flight`, not `LABEL_3`."""
    named = [label for label in labels if not _NAME_OF_A_LABEL.fullmatch(label)]
    return [re.sub(r"[\W_]+", " ", label).strip() for label in named]


def _about(subjects: Sequence[str], rng: random.Random) -> str:
    return rng.choice(_ABOUT).format(rng.choice(subjects), rng.choice(_SLOTS["place"]))


def _sentences(rng: random.Random) -> str:
    return " ".join(_sentence(rng) for _ in range(rng.choice((1, 1, 1, 1, 2, 4))))


def _sentence(rng: random.Random) -> str:
    slots = re.sub(r"{(\w+)}", lambda found: rng.choice(_SLOTS[found[1]]), rng.choice(_SENTENCES))
    return slots if rng.random() < 0.5 else slots[0].upper() + slots[1:]
