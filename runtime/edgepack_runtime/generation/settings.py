"""How a text is written: the options of a call, merged with what the model declares."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar

from edgepack_runtime.errors import InputError

MAX_NEW_TOKENS = 256
_SAMPLING = ("temperature", "top_k", "top_p", "min_p", "typical_p", "seed")
Number = float | int | None


@dataclass(frozen=True)
class Asked:
    """The options of a call; None leaves the choice to the model's `generation_config.json`."""

    max_new_tokens: int | None = None
    """The most tokens to write; 256 if the model says nothing."""
    min_new_tokens: int | None = None
    """Tokens to write before the text may end."""
    do_sample: bool | None = None
    """Draw each token by its probability, instead of taking the most probable one."""
    temperature: Number = None
    """Divides the logits before a draw; above 1, texts are more varied."""
    top_k: int | None = None
    """Draw among this many best tokens; 0 for all."""
    top_p: Number = None
    """Draw among the best tokens that hold this share of the probability."""
    min_p: Number = None
    """Draw among tokens that are at least this share as probable as the best one."""
    typical_p: Number = None
    """Draw among the most typical tokens that hold this share of the probability."""
    repetition_penalty: Number = None
    """Divides the logits of tokens that have occurred, also in the prompt; 1 changes nothing."""
    presence_penalty: Number = None
    """Subtracted from the logits of tokens that were written."""
    frequency_penalty: Number = None
    """Subtracted from the logits of tokens once for each time they were written."""
    no_repeat_ngram_size: int | None = None
    """No run of this many tokens is repeated; 0 allows repeats."""
    stop: str | list[str] | None = None
    """Texts that end the answer; they are not part of it."""
    seed: int | None = None
    """Makes the draws the same every time."""
    max_time: Number = None
    """Seconds after which the answer ends, finished or not."""
    prompt_lookup_num_tokens: int | None = None
    """Guess this many tokens at once from what stood in the text before; 0 guesses none.

    The text stays the same; it is written faster where it repeats what it has read.
    """


@dataclass(frozen=True)
class Settings:
    """The final settings, with nothing left open; the fields are those of `Asked`."""

    max_new_tokens: int = MAX_NEW_TOKENS
    min_new_tokens: int = 0
    do_sample: bool = False
    temperature: float = 1.0
    top_k: int = 50
    top_p: float = 1.0
    min_p: float = 0.0
    typical_p: float = 1.0
    repetition_penalty: float = 1.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    no_repeat_ngram_size: int = 0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    max_time: float = 0.0
    prompt_lookup_num_tokens: int = 0
    num_assistant_tokens: int = 0

    def __post_init__(self) -> None:
        _least("max_new_tokens", self.max_new_tokens, 1)
        for name in (
            "min_new_tokens",
            "top_k",
            "no_repeat_ngram_size",
            "max_time",
            "prompt_lookup_num_tokens",
            "num_assistant_tokens",
        ):
            _least(name, getattr(self, name), 0)
        for name in ("temperature", "repetition_penalty"):
            if not getattr(self, name) > 0:
                raise InputError(
                    f"{name} must be above 0, not {getattr(self, name):g}"
                    + ("; for the most probable token pass do_sample=False" * (name[0] == "t"))
                )
        for name in ("top_p", "typical_p"):
            if not 0 < getattr(self, name) <= 1:
                raise InputError(f"{name} must be above 0 and at most 1, not {getattr(self, name)}")
        if not 0 <= self.min_p <= 1:
            raise InputError(f"min_p must be from 0 to 1, not {self.min_p}")
        if self.min_new_tokens > self.max_new_tokens:
            raise InputError(
                f"min_new_tokens ({self.min_new_tokens}) is above max_new_tokens "
                f"({self.max_new_tokens})"
            )


@dataclass(frozen=True)
class PairSettings(Settings):
    """The final settings of a model that reads one text and writes another."""

    num_beams: int = 1
    """How many answers are followed at once; the most probable one is given."""
    length_penalty: float = 1.0
    """Power of the length that a score is divided by; above 0, long answers gain."""
    early_stopping: bool | str = False
    """End when there are `num_beams` answers; False guesses by scores, "never" waits longest."""
    encoder_no_repeat_ngram_size: int = 0
    """No run of this many tokens of the input is repeated; 0 allows that."""
    forced_eos_token_id: int | None = None
    """The last token of an answer that reaches its length."""
    suppress_tokens: tuple[int, ...] = ()
    """Tokens that are never written."""

    def __post_init__(self) -> None:
        super().__post_init__()
        _least("num_beams", self.num_beams, 1)
        _least("encoder_no_repeat_ngram_size", self.encoder_no_repeat_ngram_size, 0)
        if self.early_stopping not in (True, False, "never"):
            raise InputError(
                f'early_stopping must be true, false or "never", not {self.early_stopping!r}'
            )
        if self.num_beams > 1 and self.do_sample:
            raise InputError("draws follow one answer; give num_beams=1, or leave the draws out")


Kind = TypeVar("Kind", bound=Settings)


def settle(asked: Asked, declared: Mapping[str, Any], kind: type[Kind]) -> Kind:
    """Merge the options of a call with what a model declares, into settings of a kind.

    Raises:
        InputError: a value is not valid, or two values contradict each other.

    """
    known = {f.name for f in fields(kind)}
    given = {name: getattr(asked, name) for name in known if hasattr(asked, name)}
    given = {name: value for name, value in given.items() if value is not None}
    sampling = [name for name in _SAMPLING if name in given]
    if sampling and given.get("do_sample") is False:
        raise InputError(
            f"{sampling[0]} is for draws, but do_sample=False takes the most probable token; "
            "leave one of them out"
        )
    if sampling:
        given["do_sample"] = True
    values = {name: v for name, v in declared.items() if name in known and v is not None}
    values |= given
    stop = values.get("stop", ())
    values["stop"] = (stop,) if isinstance(stop, str) else tuple(stop)
    if not all(isinstance(text, str) and text for text in values["stop"]):
        raise InputError("stop must be a text or a list of texts, none of them empty")
    return kind(**values)


def _least(name: str, value: float, least: int) -> None:
    if value < least:
        raise InputError(f"{name} must be at least {least}, not {value}")
