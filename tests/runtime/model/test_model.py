"""Loading and answering: the choice of a variant, and odd inputs."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import handmade
import pytest

from edgepack_runtime import Bundle, DeviceError, InputError, SelfTestError, TrustError, load
from edgepack_runtime.bundle.manifest import Requires, Tolerance, canonical_json
from edgepack_runtime.device import measured as tuned
from edgepack_runtime.device.facts import probe
from edgepack_runtime.model.ranking import rank
from edgepack_runtime.model.selftest import selftest
from edgepack_runtime.model.variants import open_variant
from edgepack_runtime.tasks._texts import text_of
from edgepack_runtime.tune.latency import measure


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """A bundle of the null engine."""
    return handmade.bundle(tmp_path / "small.epk")


def test_an_empty_list_is_an_empty_answer(path: Path) -> None:
    """No text, no answer, no error."""
    assert load(path)([]) == []


@pytest.mark.parametrize(
    "text", ["", " ", "emoji 😀👩‍👩‍👧", "مرحبا بالعالم", "\u202eabc", "\x00", "a\u0301"]
)
def test_odd_text_is_answered(text: str, path: Path) -> None:
    """Empty, emoji, right-to-left and control characters are text like any other."""
    assert load(path)(text)[0]["label"] in handmade.LABELS


@pytest.mark.parametrize("wrong", [b"bytes", None, 3, "lone \ud800 surrogate", ["fine", 3]])
def test_what_is_no_text_is_one_clear_error(wrong: object, path: Path) -> None:
    """Bytes, numbers and invalid Unicode are refused with the remedy."""
    with pytest.raises(InputError, match=r"expected text|not valid Unicode"):
        load(path)(wrong)


def test_a_megabyte_of_text_is_cut_with_a_warning(
    path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A text beyond max_length is cut, and the log says how many texts were."""
    with caplog.at_level(logging.WARNING):
        answer = load(path)(["turn on " * 131_072, "turn on"])
    assert len(answer) == 2
    assert "1 of 2 texts are longer than 16 tokens" in caplog.text


def test_texts_that_are_cut_are_reported_once(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Fifty long texts, one call each, give one warning for the model, not fifty."""
    model = load(path)
    with caplog.at_level(logging.WARNING):
        for _ in range(50):
            model("turn on " * 100)
    assert len(caplog.records) == 1


def test_measuring_makes_texts_that_fit(path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Texts for measuring are as long as asked and are not cut, so that nothing warns of them."""
    model = load(path)
    text = text_of(model.encoder, ["turn on"], 16)
    assert len(model.encoder.encode(text).windows) == 1
    assert len(model.encoder.encode(text).first.ids) == 16
    with caplog.at_level(logging.WARNING):
        assert measure({"it": model}, ["turn on the-lights"], seconds=0)["it"]["16×1"] > 0
    assert not caplog.records


def test_an_unknown_option_suggests_the_near_one(path: Path) -> None:
    """A misspelt option is an error that names the right one."""
    with pytest.raises(InputError, match="did you mean 'top_k'"):
        load(path)("turn on", topk=3)


def test_a_bundle_for_another_machine_is_refused_unless_told(tmp_path: Path) -> None:
    """The error names both machines and the remedy; any_device overrides it."""
    other = handmade.bundle(tmp_path / "other.epk", change={"arch": "riscv64", "target": "board"})
    with pytest.raises(DeviceError, match=r"built for board \(riscv64\)"):
        load(other)
    assert load(other, any_device=True)("turn on")


def test_demands_are_checked_before_an_engine_is_tried(tmp_path: Path) -> None:
    """A variant whose CPU flag, engine or memory is missing is passed over, and says why."""
    fields: list[dict[str, Any]] = [
        {"name": "flag", "requires": Requires(isa_any=("avx9",))},
        {"name": "engine", "engine": "nosuchengine"},
        {"name": "memory", "requires": Requires(memory_mb=1 << 40)},
        {"name": "plain"},
    ]
    model = load(handmade.bundle(tmp_path / "many.epk", variants=fields))
    assert model.variant.name == "plain"
    assert model.choice is not None
    assert set(model.choice.rejected) == {"flag", "engine", "memory"}
    with pytest.raises(DeviceError, match="avx9"):
        load(handmade.bundle(tmp_path / "one.epk", variants=fields[:1]))


def test_an_engine_outside_the_registry_is_never_imported(tmp_path: Path) -> None:
    """A manifest cannot name a module to import."""
    bad = handmade.bundle(tmp_path / "bad.epk", variants=[{"engine": "os"}])
    with pytest.raises(DeviceError, match="unknown engine 'os'"):
        load(bad)


def test_an_unknown_task_is_refused(tmp_path: Path) -> None:
    """A task that this runtime does not have is one clear error."""
    bundle = handmade.bundle(tmp_path / "bad.epk", task="token-classification")
    opened = Bundle.open(bundle)
    spec = opened.manifest.task
    object.__setattr__(spec, "name", "mind-reading")
    with pytest.raises(TrustError, match="unknown task 'mind-reading'"):
        load(opened)


def test_the_default_is_what_was_measured_here(tmp_path: Path) -> None:
    """A record of this machine decides; one of another machine is ignored."""
    path = handmade.bundle(tmp_path / "two.epk", variants=[{"name": "first"}, {"name": "second"}])
    assert load(path).variant.name == "first"
    bundle, device = Bundle.open(path), probe()
    measured = {"first": {"16×1": 2.0}, "second": {"16×1": 1.0}}
    tuned.save(bundle.digest, device, tuned.Record(measured))
    model = load(path)
    assert model.variant.name == "second"
    assert model.choice is not None
    assert "measured here" in model.choice.reason
    from dataclasses import replace

    fit, _ = rank(bundle, replace(device, cpu="another"))
    assert fit[0][0].name == "first"


def test_an_unknown_variant_lists_the_known(path: Path) -> None:
    """Asking for a variant that is not there names those that are."""
    with pytest.raises(InputError, match="it has null"):
        load(path, variant="fast")


def test_a_wrong_golden_output_fails_the_selftest(tmp_path: Path) -> None:
    """A model that answers otherwise than its golden file is refused by name."""
    good = Bundle.open(handmade.bundle(tmp_path / "good.epk"))
    assert selftest(good, load(good)).agreement == 1.0
    value = handmade.golden()
    value["outputs"][0]["data"].reverse()
    bad = Bundle.open(
        handmade.bundle(tmp_path / "bad.epk", extra={"golden.json": canonical_json(value)})
    )
    with pytest.raises(SelfTestError, match="strays from its golden outputs"):
        load(bad)
    with pytest.raises(SelfTestError, match=r"agreement 0\.000"):
        selftest(bad, open_variant(bad, bad.manifest.variants[0]))


def test_a_variant_that_tolerates_everything_still_has_a_floor(tmp_path: Path) -> None:
    """Decisions that are all wrong fail the self-test, though the manifest allows them."""
    value = handmade.golden()
    value["outputs"][0]["data"].reverse()
    anything = [{"tolerance": Tolerance(-1.0, 0.0)}]
    extra = {"golden.json": canonical_json(value)}
    path = handmade.bundle(tmp_path / "absurd.epk", variants=anything, extra=extra)
    bundle = Bundle.open(path)
    with pytest.raises(SelfTestError, match=r"agreement 0\.000 \(least 0\.500\)"):
        selftest(bundle, load(bundle))


@pytest.mark.parametrize(
    ("engine", "options"),
    [
        ("onnxruntime", {"provider_options": {"trt_extra_plugin_lib_paths": "/tmp/evil.so"}}),  # noqa: S108
        ("onnxruntime", {"provider_options": ["trt_fp16_enable"]}),
        ("openvino", {"static_tokens": 5}),
        ("openvino", {"static_tokens": ["16"]}),
        ("openvino", {"pad_multiple": 0}),
        ("openvino", {"max_tokens": "many"}),
        ("openvino", {"stateful": True, "activation_group": 0}),
    ],
)
def test_an_option_that_no_bundle_may_have_is_refused(
    engine: str, options: dict[str, object]
) -> None:
    """A manifest names no library to load, and no length that is not one."""
    from edgepack_runtime import engines
    from edgepack_runtime.bundle.manifest import Variant

    variant = Variant(
        "x",
        engine,
        engines.find(engine).CPU,
        "int8",
        "none",
        (),
        Requires(),
        Tolerance(0.9, 0.9),
        options,
    )
    with pytest.raises(TrustError, match=r"which no bundle may|must be"):
        engines.find(engine).open_session({"model.onnx": memoryview(b"")}, variant, 1, None)


def test_a_user_without_a_home_has_no_cache(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No HOME and no entry in the list of users, as in a container: a bundle loads."""
    for name in ("HOME", "XDG_CACHE_HOME", "EDGEPACK_CACHE"):
        monkeypatch.delenv(name, raising=False)

    def nobody(_: int) -> None:
        raise KeyError("getpwuid(): uid not found")

    monkeypatch.setattr("pwd.getpwuid", nobody)
    assert load(path)("turn on the lights")
