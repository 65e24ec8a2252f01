"""Energy counters of a device, if it has any: RAPL on x86, tegrastats on Jetson."""

from __future__ import annotations

import re
import shutil
import subprocess
import time
from pathlib import Path
from threading import Thread
from typing import Protocol

_MICRO = 1e-6
_INTERVAL_MS = 100
# The board's input; if there is no such sensor (AGX Orin), the rails that add up to it.
_INPUT = re.compile(r"(?:VDD_IN|POM_5V_IN)\s+(\d+)(?:mW)?/")
_RAILS = re.compile(r"(?:VDD_GPU_SOC|VDD_CPU_CV|VIN_SYS_5V0)\s+(\d+)(?:mW)?/")


class Meter(Protocol):
    """Counts joules while it is open."""

    def joules(self) -> float:
        """Return the energy used since some moment; only differences have a meaning."""

    def close(self) -> None:
        """Stop counting."""


def find_meter(root: Path = Path("/")) -> Meter | None:
    """Return a meter for this device; None if it has none that this user may read."""
    domains = [p for p in sorted(root.glob("sys/class/powercap/intel-rapl:*")) if p.is_dir()]
    packages = [path for path in domains if _name(path).startswith("package-")]
    try:
        if packages:
            return _Rapl(packages)
    except (OSError, ValueError):  # on most systems only root may read it
        return None
    return _Tegrastats() if shutil.which("tegrastats") else None


def _name(domain: Path) -> str:
    """Return what a RAPL domain counts: `package-0`, `core`, `psys` (which holds packages)."""
    try:
        return (domain / "name").read_text().strip()
    except OSError:
        return ""


class _Rapl:
    """The energy counters of CPU packages; each wraps around at its own range."""

    def __init__(self, packages: list[Path]) -> None:
        self._files = [path / "energy_uj" for path in packages]
        self._ranges = [int((path / "max_energy_range_uj").read_text()) for path in packages]
        self._last = self._read()
        self._total = 0

    def joules(self) -> float:
        now = self._read()
        for value, before, size in zip(now, self._last, self._ranges, strict=True):
            self._total += value - before if value >= before else value - before + size
        self._last = now
        return self._total * _MICRO

    def close(self) -> None:
        pass

    def _read(self) -> list[int]:
        return [int(path.read_text()) for path in self._files]


class _Tegrastats:
    """The board's input power, sampled by NVIDIA's tool and integrated over time."""

    def __init__(self) -> None:
        self._total = 0.0
        self._process = subprocess.Popen(  # noqa: S603 (the board's own tool)
            ["tegrastats", "--interval", str(_INTERVAL_MS)],  # noqa: S607
            stdout=subprocess.PIPE,
            text=True,
        )
        self._reader = Thread(target=self._integrate, daemon=True)
        self._reader.start()

    def joules(self) -> float:
        return self._total

    def close(self) -> None:
        self._process.terminate()
        self._process.wait()
        self._reader.join()

    def _integrate(self) -> None:
        last = time.monotonic()
        assert self._process.stdout  # noqa: S101 (a pipe was asked for)
        with self._process.stdout as lines:
            for line in lines:
                now = time.monotonic()
                milliwatts = _INPUT.findall(line) or _RAILS.findall(line)
                self._total += sum(map(int, milliwatts)) / 1000 * (now - last)
                last = now
