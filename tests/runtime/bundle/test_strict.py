"""Records of a manifest: what is not exactly as described is refused, with its place."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest

from edgepack_runtime import TrustError
from edgepack_runtime.bundle.strict import read_record


@dataclass(frozen=True)
class Wheel:
    """A record inside another."""

    size: int
    spokes: float = 1.0


@dataclass(frozen=True)
class Cart:
    """A record of every kind of field that a manifest has."""

    name: str
    wheels: tuple[Wheel, ...]
    spare: Wheel | None = None
    colours: tuple[str, ...] = ()
    owner: str | None = None
    covered: bool = False
    load: Mapping[str, float] = field(default_factory=dict)
    parts: Mapping[str, Wheel] = field(default_factory=dict)
    notes: Mapping[str, Any] = field(default_factory=dict)


LEAST: dict[str, Any] = {"name": "c", "wheels": []}


def _read(**changes: object) -> Any:
    return read_record(Cart, {**LEAST, **changes}, "cart")


def test_a_whole_record_is_read() -> None:
    """Every field has its type: records, tuples of them, mappings, numbers and truth values."""
    found = _read(
        wheels=[{"size": 3}, {"size": 4, "spokes": 2.5}],
        spare={"size": 5},
        colours=["red"],
        owner="Ann",
        covered=True,
        load={"hay": 0.5},
        parts={"left": {"size": 6}},
        notes={"any": [1, {"thing": None}]},
    )
    assert found == Cart(
        "c",
        (Wheel(3), Wheel(4, 2.5)),
        Wheel(5),
        ("red",),
        "Ann",
        covered=True,
        load={"hay": 0.5},
        parts={"left": Wheel(6)},
        notes={"any": [1, {"thing": None}]},
    )


def test_what_is_left_out_has_its_default() -> None:
    """Optional fields may be missing, or null where null means something."""
    assert _read() == Cart("c", ())
    assert _read(spare=None, owner=None) == Cart("c", ())


def test_a_whole_number_is_a_float_where_one_is_wanted() -> None:
    """JSON writes 2.0 as 2; it is read as a float, at any depth."""
    found = _read(wheels=[{"size": 1, "spokes": 2}], load={"hay": 3})
    assert (type(found.wheels[0].spokes), type(found.load["hay"])) == (float, float)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nmae": "c"}, r"cart: unknown key 'nmae'"),
        ({"wheels": [{"size": 1}, {"size": 1, "hub": 2}]}, r"cart\.wheels\[1\]: unknown key 'hub'"),
        ({"spare": {"hub": 1}}, r"cart\.spare: unknown key 'hub'"),
        ({"parts": {"left": {"hub": 1}}}, r"cart\.parts\.left: unknown key 'hub'"),
    ],
)
def test_an_unknown_key_is_refused(changes: dict[str, object], message: str) -> None:
    """A device must not guess what a later format means, at any depth."""
    with pytest.raises(TrustError, match=message):
        _read(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"wheels": [{}]}, r"cart\.wheels\[0\]: missing one of size, spokes"),
        ({"spare": {"spokes": 1.0}}, r"cart\.spare: missing one of size"),
        ({"parts": {"left": {}}}, r"cart\.parts\.left: missing one of size"),
    ],
)
def test_a_missing_key_is_refused(changes: dict[str, object], message: str) -> None:
    """The error names the record that lacks it, at any depth."""
    with pytest.raises(TrustError, match=message):
        _read(**changes)
    with pytest.raises(TrustError, match="cart: missing one of name"):
        read_record(Cart, {"wheels": []}, "cart")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": 3}, r"cart\.name: expected str, found int"),
        ({"name": None}, r"cart\.name: expected str, found NoneType"),
        ({"owner": 3}, r"cart\.owner: expected str, found int"),
        ({"covered": 1}, r"cart\.covered: expected bool, found int"),
        ({"covered": None}, r"cart\.covered: expected bool, found NoneType"),
        ({"wheels": {}}, r"cart\.wheels: expected a list"),
        ({"wheels": None}, r"cart\.wheels: expected a list"),
        ({"wheels": [3]}, r"cart\.wheels\[0\]: expected an object, found int"),
        ({"wheels": [None]}, r"cart\.wheels\[0\]: expected an object, found NoneType"),
        ({"wheels": [{"size": True}]}, r"cart\.wheels\[0\]\.size: expected int, found bool"),
        ({"wheels": [{"size": 1.0}]}, r"cart\.wheels\[0\]\.size: expected int, found float"),
        ({"wheels": [{"size": 1, "spokes": True}]}, r"spokes: expected float, found bool"),
        ({"spare": []}, r"cart\.spare: expected an object, found list"),
        ({"colours": "red"}, r"cart\.colours: expected a list"),
        ({"colours": ["red", 1]}, r"cart\.colours\[1\]: expected str, found int"),
        ({"load": []}, r"cart\.load: expected an object"),
        ({"load": {"hay": "1"}}, r"cart\.load\.hay: expected float, found str"),
        ({"load": {"hay": None}}, r"cart\.load\.hay: expected float, found NoneType"),
        ({"parts": {"left": 1}}, r"cart\.parts\.left: expected an object, found int"),
        ({"notes": "any"}, r"cart\.notes: expected an object"),
    ],
)
def test_a_wrong_type_is_refused(changes: dict[str, object], message: str) -> None:
    """Nothing is converted, and the error says where it stands, what was wanted and what was."""
    with pytest.raises(TrustError, match=message):
        _read(**changes)


@pytest.mark.parametrize("value", [None, [], "cart", 3])
def test_what_is_no_object_is_no_record(value: object) -> None:
    """The whole may be wrong too."""
    with pytest.raises(TrustError, match=r"^cart: expected an object, found"):
        read_record(Cart, value, "cart")
