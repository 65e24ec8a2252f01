"""`edgepack-runtime`: run, inspect, verify, selftest, tune, prepare, doctor, and updates.

Exit codes: 0 done, 1 unexpected, 2 wrong input, 4 the device does not fit, 5 the bundle is not
trusted, 6 the self-test failed, 7 nothing to do, 8 this host lacks something.  Only this module
prints; commands return what to print.
"""

from __future__ import annotations

import argparse
import json
import logging
import sys
from typing import TYPE_CHECKING, Any

from edgepack_runtime import __version__
from edgepack_runtime.cli import chat, inspect, run
from edgepack_runtime.errors import DeviceError, EdgepackError, InputError, NothingToDoError

if TYPE_CHECKING:
    from edgepack_runtime.bundle.bundle import Bundle
    from edgepack_runtime.doctor.facts import System


class _Parser(argparse.ArgumentParser):
    """Takes options before, between and after the positional arguments."""

    _within = False

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Parse as `parse_intermixed_args` does; that function calls this one again."""
        if self._within:
            return super().parse_known_args(args, namespace)
        self._within = True
        try:
            return self.parse_known_intermixed_args(args, namespace)
        finally:
            self._within = False


def main(argv: list[str] | None = None) -> int:
    """Run the command line and return its exit code."""
    args = _parser().parse_args(argv)
    level = {0: logging.WARNING, 1: logging.INFO}.get(args.verbose, logging.DEBUG)
    logging.basicConfig(level=level, format="%(levelname)s: %(message)s")
    try:
        args.action(args)
    except EdgepackError as exc:
        _complain(f"{'nothing done' if isinstance(exc, NothingToDoError) else 'error'}: {exc}")
        return exc.exit_code
    except BrokenPipeError:
        return 1
    except KeyboardInterrupt:
        return 130
    except OSError as exc:
        where = f"{exc.filename}: " if exc.filename else ""
        _complain(f"error: {where}{exc.strerror or exc}; fix this and try again")
        return 1
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="edgepack-runtime", description="Run edgepack bundles.")
    parser.add_argument("--version", action="version", version=__version__)
    parser.add_argument("-v", "--verbose", action="count", default=0, help="say what happens")
    commands = parser.add_subparsers(required=True, metavar="COMMAND", parser_class=_Parser)
    for name, action, text in (
        ("run", _run, "answer texts (arguments, or one per line of standard input)"),
        ("chat", _chat, "talk with a language model"),
        ("inspect", _inspect, "show what a bundle says about itself"),
        ("verify", _verify, "check every file against the manifest, and a kit's wheels"),
        ("selftest", _selftest, "verify every file and run the golden inputs"),
        ("tune", _tune, "measure the variants here, so that load picks the fastest"),
        ("prepare", _prepare, "compile the variants that need it, so that load may pick them"),
        ("doctor", _doctor, "say what is wrong with this device, and which variants fit it"),
    ):
        command = commands.add_parser(name, help=text, description=text)
        command.set_defaults(action=action)
        command.add_argument(
            "bundle", nargs="?" if name == "doctor" else None, help="folder, .epk or store"
        )
        command.add_argument("--json", action="store_true", help="print JSON")
        if name in ("run", "chat", "selftest"):
            _load_options(command)
        if name == "verify":
            command.add_argument("--wheels", help="folder of the wheels that came with the bundle")
        if name == "doctor":
            command.add_argument("--root", default="/", help="a file tree captured from a device")
        if name == "tune":
            command.add_argument(
                "--seconds", type=float, default=1.0, help="seconds for each variant and cell"
            )
        if name == "run":
            run.add_arguments(command)
        if name == "chat":
            chat.add_arguments(command)
    from edgepack_runtime.cli import store, update

    on_store = store.Commands(commands, _report)
    update.add_commands(on_store)
    store.add_commands(on_store)
    for command in commands.choices.values():
        command.add_argument("-v", "--verbose", action="count", default=argparse.SUPPRESS)
    return parser


def _load_options(command: argparse.ArgumentParser) -> None:
    command.add_argument("--variant", help="the variant to run instead of the best one")
    command.add_argument("--threads", type=int, help="CPU threads (default: all)")
    command.add_argument("--any-device", action="store_true", help="accept another target's bundle")
    command.add_argument(
        "--allow-fallback", action="store_true", help="accept the next best variant"
    )
    command.add_argument(
        "--workload", help="what to be fast at: a size that tune shows, such as long-prompt"
    )


def _load(args: argparse.Namespace, usual: str | None = None) -> tuple[Bundle, Any]:
    """Load a bundle as the options say; `usual` is its workload, if its task knows that one."""
    from edgepack_runtime.model.load import load
    from edgepack_runtime.store.find import open_bundle
    from edgepack_runtime.tasks import find

    bundle = open_bundle(args.bundle)
    known = usual in find(bundle.manifest.task.name).CELLS
    model = load(
        bundle,
        variant=args.variant,
        threads=args.threads,
        any_device=args.any_device,
        allow_fallback=args.allow_fallback,
        workload=args.workload or (usual if known else None),
    )
    return bundle, model


def _run(args: argparse.Namespace) -> None:
    run.run(args, lambda: _load(args)[1], _print, _complain)


def _chat(args: argparse.Namespace) -> None:
    chat.chat(args, lambda: _load(args, usual="chat")[1], _complain)


def _inspect(args: argparse.Namespace) -> None:
    inspect.inspect(args, _print)


def _verify(args: argparse.Namespace) -> None:
    from pathlib import Path

    from edgepack_runtime.store.find import open_bundle

    bundle = open_bundle(args.bundle)
    size = bundle.verify()
    if args.wheels:
        bundle.verify_kit(Path(args.wheels))
    wheels = {"wheels_verified": len(bundle.manifest.kit)} if args.wheels else {}
    _report(args, {"digest": bundle.digest, "bytes_verified": size, **wheels})


def _selftest(args: argparse.Namespace) -> None:
    from edgepack_runtime.model.prepare import needs_preparing
    from edgepack_runtime.model.selftest import selftest

    bundle, model = _load(args)
    if needs_preparing(model.variant):
        model.compile_all()
    size = bundle.verify()
    found = selftest(bundle, model)
    report = {
        "bytes_verified": size,
        "variant": model.variant.name,
        "provider": model.provider,
        **({"nodes": dict(model.placement)} if model.placement else {}),
        "cosine": round(found.cosine, 6),
        "agreement": round(found.agreement, 6),
    }
    _report(args, report)


def _tune(args: argparse.Namespace) -> None:
    from edgepack_runtime.device import measured
    from edgepack_runtime.device.facts import probe
    from edgepack_runtime.store.find import open_bundle
    from edgepack_runtime.tune.tune import tune

    if not args.seconds > 0:
        raise InputError(f"--seconds must be above 0, not {args.seconds:g}")
    bundle = open_bundle(args.bundle)
    record = tune(bundle, seconds=args.seconds)
    path = measured.save(bundle.digest, probe(), record)
    best = min(record.latency_ms, key=lambda name: measured.score(name, record.latency_ms))
    _report(args, {"fastest": best, "threads": record.threads, "latency_ms": record.latency_ms,
                   "details": record.details, "record": str(path)})  # fmt: skip


def _prepare(args: argparse.Namespace) -> None:
    from edgepack_runtime.model.prepare import prepare
    from edgepack_runtime.store.find import open_bundle

    def tick(name: str, seconds: float) -> None:
        sys.stderr.write(f"\r{name}: compiling, {seconds:.0f} s ")
        sys.stderr.flush()

    found = prepare(open_bundle(args.bundle), tick if sys.stderr.isatty() else None)
    if sys.stderr.isatty():
        sys.stderr.write("\n")
    shown = {name: said or "ready" for name, said in found.items()}
    _report(args, shown or {"prepared": "no variant of this bundle needs preparing"})
    if failed := [name for name, said in found.items() if said]:
        raise DeviceError(f"not prepared: {', '.join(failed)}; the other variants can run")


def _doctor(args: argparse.Namespace) -> None:
    from pathlib import Path

    from edgepack_runtime.doctor import findings
    from edgepack_runtime.doctor.advice import install_line
    from edgepack_runtime.doctor.facts import examine

    system = examine(Path(args.root))
    report: dict[str, Any] = {
        "device": system.board or system.device.fingerprint,
        "system": f"{system.release}, {system.device.arch}, glibc {system.device.glibc or '–'}",
        **({"jetpack": f"{system.device.jetpack} ({system.jetson})"} if system.jetson else {}),
        **({"gpu": f"{system.gpu.name}, sm_{system.gpu.compute_capability.replace('.', '')}, "
            f"driver {system.driver or '–'}"} if system.gpu else {}),
        "memory_mb": system.memory_mb,
        "disk_free_mb": system.disk_mb,
        "python": system.python,
        "engines": [f"{name} {version}" for name, version in sorted(system.packages.items())
                    if name.startswith(("onnxruntime", "openvino"))],
        "findings": [vars(found) for found in findings(system)],
        "install": install_line(system),
    }  # fmt: skip
    lacking = _fit(args.bundle, system, report) if args.bundle else []
    _report(args, report)
    if lacking:
        raise DeviceError(f"{args.bundle} does not fit this device: {'; '.join(lacking)}")


def _fit(path: str, system: System, report: dict[str, Any]) -> list[str]:
    """Add the variants that fit to the report; return why the bundle as a whole does not fit."""
    from pathlib import Path

    from edgepack_runtime.fit import misfits, why_not_each
    from edgepack_runtime.store.find import open_bundle

    manifest, device = open_bundle(path).manifest, system.device
    reasons = why_not_each(manifest, device, captured=device.root != Path("/"))
    report["variants"] = {name: why or "fits" for name, why in reasons.items()}
    lacking = misfits(manifest, device)
    if all(reasons.values()) and not lacking:
        lacking = [f"{name}: {why}" for name, why in reasons.items()]
    return lacking


def _report(args: argparse.Namespace, report: dict[str, Any]) -> None:
    if args.json:
        _print(json.dumps(report, ensure_ascii=False))
        return
    for name, value in report.items():
        if isinstance(value, dict):
            _print(f"{name}:")
            for key, inner in value.items():
                _print(f"  {key}: {inner}")
        elif value and isinstance(value, list) and isinstance(value[0], dict):
            _print(f"{name}:")
            for found in value:
                _print(f"  {found['level']}: {found['what']}\n    → {found['remedy']}")
        else:
            _print(f"{name}: {', '.join(value) if isinstance(value, list) else value}")


def _print(text: str) -> None:
    if sys.stdout is None:
        raise EdgepackError("standard output is closed: there is nowhere to write")
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def _complain(text: str) -> None:
    if sys.stderr is not None:
        sys.stderr.write(text + "\n")


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:] or ["--help"]))
