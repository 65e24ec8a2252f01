"""Whatever a stranger sends, a device answers with an error of the family, or not at all."""

from __future__ import annotations

import importlib.util
import random
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
QUICK, LONG = 400, 200_000

spec = importlib.util.spec_from_file_location("targets", HERE / "targets.py")
assert spec is not None
assert spec.loader is not None
targets = importlib.util.module_from_spec(spec)
sys.modules["targets"] = targets
spec.loader.exec_module(targets)


@pytest.mark.parametrize("name", targets.TARGETS)
def test_real_inputs_changed_at_random(name: str) -> None:
    """A few hundred of each kind: whole, cut, overwritten, repeated."""
    rng = random.Random(name)  # noqa: S311 (a choice, not a secret)
    known = targets.seeds(name)
    for content in known:
        targets.TARGETS[name](content)
    for _ in range(QUICK):
        program = rng.randbytes(5 * rng.randint(0, 6))
        targets.run(name, bytes([rng.randrange(256)]) + program)


def test_the_targets_reach_what_they_are_about() -> None:
    """Their real inputs are taken; a target that refused everything would prove nothing."""
    import io

    from edgepack_runtime.bundle.bundle import Bundle
    from edgepack_runtime.errors import TrustError
    from edgepack_runtime.store import record
    from edgepack_runtime.update import delta

    path = targets.folder() / "whole.epk"
    path.write_bytes(targets.seeds("epk")[0])
    assert Bundle.open(path).verify() > 0
    assert record.decode(targets.seeds("state")[0]) is not None
    packed = targets.seeds("delta")[1]
    assert b"".join(delta.decode(io.BytesIO(packed[3:]).read, targets.BASE, len(targets.BASE)))
    variant = targets.onnx_variant()
    with pytest.raises(TrustError, match="names an external file"):
        targets.engine.open_session({"model.onnx": memoryview(targets.graph())}, variant, 1, None)
    assert targets.changed(b"abc", b"\x00\x00x\x01\x00") == b"axc"


@pytest.mark.slow
@pytest.mark.parametrize("name", targets.TARGETS)
def test_coverage_finds_nothing_outside_of_the_family(name: str) -> None:
    """200,000 inputs that coverage leads on, in 1 GB of memory."""
    pytest.importorskip("atheris")
    # A process inherits its parent's peak of memory, which libFuzzer takes for its own.  The shell
    # between them has next to none.
    command: list[str] = [
        *("sh", "-c", '"$@"; exit $?', "sh"),
        sys.executable,
        str(HERE / "targets.py"),
        name,
        f"-runs={LONG}",
        "-seed=1",
    ]
    done = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    assert done.returncode == 0, done.stderr[-3000:]
    assert f"Done {LONG} runs" in done.stderr
