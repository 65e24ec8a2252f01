"""The energy of a call: from the counter that a device has, or none."""

from __future__ import annotations

import time
from pathlib import Path

import devices
import pytest

from edgepack_runtime.tune.energy import Meter, find_meter


def test_energy_is_counted_where_the_kernel_shows_it(tmp_path: Path) -> None:
    """RAPL's counters are summed over packages, a wrap-around included; sub-domains are not."""
    for name, value, what in (
        ("intel-rapl:0", 900, "package-0"),
        ("intel-rapl:1", 10, "package-1"),
        ("intel-rapl:0:0", 5, "core"),
        ("intel-rapl:2", 7, "psys"),
    ):
        folder = f"sys/class/powercap/{name}"
        devices.write(tmp_path, f"{folder}/name", f"{what}\n")
        devices.write(tmp_path, f"{folder}/energy_uj", str(value))
        devices.write(tmp_path, f"{folder}/max_energy_range_uj", "1000")
    meter = find_meter(tmp_path)
    assert meter is not None
    assert meter.joules() == 0
    devices.write(tmp_path, "sys/class/powercap/intel-rapl:0/energy_uj", "100")
    devices.write(tmp_path, "sys/class/powercap/intel-rapl:1/energy_uj", "60")
    devices.write(tmp_path, "sys/class/powercap/intel-rapl:2/energy_uj", "900")
    assert meter.joules() == pytest.approx(250e-6)
    meter.close()


def test_power_is_integrated_on_a_jetson(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tegrastats' input power becomes joules."""
    tool = tmp_path / "tegrastats"
    tool.write_text(
        "#!/bin/sh\nwhile :; do echo 'RAM 1/2MB VDD_IN 5000mW/5000mW'; sleep 0.05; done\n"
    )
    tool.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    meter = find_meter(tmp_path)
    assert meter is not None
    _wait_for(meter, 0.01)  # however long the tool takes to start
    start, before = time.monotonic(), meter.joules()
    _wait_for(meter, before + 0.5)
    watts = (meter.joules() - before) / (time.monotonic() - start)
    meter.close()
    assert 2 < watts < 8


def _wait_for(meter: Meter, joules: float) -> None:
    end = time.monotonic() + 20
    while meter.joules() < joules and time.monotonic() < end:
        time.sleep(0.02)


def test_a_device_without_a_meter_has_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No figure is made up."""
    monkeypatch.setenv("PATH", str(tmp_path))
    assert find_meter(tmp_path) is None
