"""A kit: a bundle with everything its device must install, for use without a network.

The wheels are for the target's Python, architecture and glibc; the bundle's manifest pins their
digests.  On the device, one script makes a virtual environment, checks the digests, installs, and
runs the self-test.  It needs no compiler, no network and no torch.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import zipfile
from base64 import urlsafe_b64encode
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from importlib.metadata import distribution
from pathlib import Path
from string import Template

import edgepack_runtime
from edgepack.recipe.target import Target
from edgepack_runtime.bundle.bundle import Bundle
from edgepack_runtime.bundle.manifest import canonical_json
from edgepack_runtime.bundle.names import is_version
from edgepack_runtime.errors import InputError
from edgepack_runtime.paths import cache_folder

_PIP = "pip==25.3"  # a Debian without python3-venv has no pip; this one runs from its wheel
_OLDEST = 17  # manylinux_2_17, which is manylinux2014
_EPOCH = (1980, 1, 1, 0, 0, 0)
_INSTALL = Template("""\
#!/bin/sh
# Install $name into a virtual environment, without a network or a compiler.
#   sh install.sh [FOLDER]        FOLDER: where to install; default /opt/edgepack
# It detects damage and swapped wheels.  But whoever can replace this script can replace the whole
# kit: the kit is not signed, so carry it by a way that you trust.
# PYTHON names the interpreter; default python$python.
set -eu
here=$$(CDPATH= cd -- "$$(dirname "$$0")" && pwd)
into=$${1:-/opt/edgepack}
python=$${PYTHON:-python$python}
command -v "$$python" >/dev/null || {
    echo "error: no $$python here; this kit is for Python $python" >&2
    exit 4
}
# These two check and install the rest, so they are checked before anything in them runs.
printf '%s\n' "$runtime_digest  $$here/wheels/$runtime" "$pip_digest  $$here/wheels/$pip" |
    sha256sum -c - >/dev/null || {
    echo "error: a wheel of this kit was altered or is damaged; copy the kit again" >&2
    exit 5
}
PYTHONPATH="$$here/wheels/$runtime" "$$python" -m edgepack_runtime \\
    verify "$$here/$bundle" --wheels "$$here/wheels"
"$$python" -m venv --without-pip "$$into"
"$$into/bin/python" "$$here/wheels/$pip/pip" install --quiet --disable-pip-version-check \\
    --no-index --no-deps --no-cache-dir --root-user-action ignore --require-hashes \\
    --find-links "$$here/wheels" -r "$$here/requirements.txt"
mkdir -p "$$into/bundles"
cp "$$here/$bundle" "$$into/bundles/.$bundle.part"
mv "$$into/bundles/.$bundle.part" "$$into/bundles/$bundle"
"$$into/bin/edgepack-runtime" selftest "$$into/bundles/$bundle"
"$$into/bin/edgepack-runtime" prepare "$$into/bundles/$bundle" || true  # the others run
echo "installed: $$into/bin/edgepack-runtime run $$into/bundles/$bundle"
""")


@dataclass(frozen=True)
class Wheels:
    """The wheels of a kit."""

    folder: Path
    """The folder that holds them."""
    digests: dict[str, str]
    """{file name: sha256}."""


def kit_for(target: Target, version: str, packages: Collection[str]) -> Target:
    """Return a target whose kit is for another Python, such as `3.12`, and has more packages."""
    kit = target.kit
    more = tuple(item for item in packages if item not in kit.packages)
    return replace(
        target,
        kit=replace(kit, python=version or kit.python, packages=(*kit.packages, *more)),
    )


def collect(target: Target, extra: Path | None = None) -> Wheels:
    """Collect the wheels for a target's device, from the cache if they were collected before.

    Args:
        target: its `kit` names the wheels.
        extra: a folder with wheels that the index lacks, such as your own build of an engine.

    Raises:
        InputError: a wheel is not available, or the target has no kit.

    """
    kit = target.kit
    if not (kit.python and kit.packages):
        raise InputError(f"target {target.name} has no [kit]: name its python, glibc and packages")
    own = runtime_wheel()
    found = sorted(extra.glob("*.whl")) if extra else []
    identity = [
        list(kit.packages),
        kit.python,
        kit.glibc,
        kit.index,
        target.arch,
        _PIP,
        own[0],
        hashlib.sha256(own[1]).hexdigest(),
        [[path.name, _digest(path)] for path in found],
    ]
    key = hashlib.sha256(canonical_json(identity)).hexdigest()
    folder = cache_folder() / "wheels" / key
    if not folder.is_dir():
        work = folder.with_name(f".{key}.part")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir(parents=True)
        (work / own[0]).write_bytes(own[1])
        for path in found:
            shutil.copyfile(path, work / path.name)
        _download(target, {_product(path.name.partition("-")[0]) for path in found}, work)
        work.replace(folder)
    return Wheels(folder, {path.name: _digest(path) for path in sorted(folder.iterdir())})


def write_kit(target: Target, wheels: Wheels, bundle: Path) -> Path:
    """Write the folder to carry to the device, next to the bundle; return it."""
    folder = bundle.with_name(f"{bundle.stem}-kit")
    work = folder.with_name(f".{folder.name}.part")
    shutil.rmtree(work, ignore_errors=True)
    shutil.copytree(wheels.folder, work / "wheels")
    shutil.copyfile(bundle, work / bundle.name)
    (work / "requirements.txt").write_text("".join(_requirements(wheels)))
    runtime, pip = (
        next(name for name in wheels.digests if name.startswith(start))
        for start in ("edgepack_runtime-", "pip-")
    )
    script = _INSTALL.substitute(
        name=Bundle.open(bundle).manifest.name,
        python=target.kit.python,
        bundle=bundle.name,
        runtime=runtime,
        runtime_digest=wheels.digests[runtime],
        pip=pip,
        pip_digest=wheels.digests[pip],
    )
    (work / "install.sh").write_text(script)
    (work / "install.sh").chmod(0o755)
    shutil.rmtree(folder, ignore_errors=True)
    work.replace(folder)
    return folder


def runtime_wheel() -> tuple[str, bytes]:
    """Return the name and the bytes of the runtime's own wheel, made from the installed files."""
    from io import BytesIO

    source = Path(edgepack_runtime.__file__).parent
    metadata = distribution("edgepack-runtime")
    stem = f"edgepack_runtime-{edgepack_runtime.__version__}"
    info = f"{stem}.dist-info"
    files = {
        f"edgepack_runtime/{path.relative_to(source).as_posix()}": path.read_bytes()
        for path in sorted(source.rglob("*"))
        if path.is_file() and "__pycache__" not in path.parts
    }
    files[f"{info}/METADATA"] = (metadata.read_text("METADATA") or "").encode()
    files[f"{info}/WHEEL"] = (
        b"Wheel-Version: 1.0\nGenerator: edgepack\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
    )
    files[f"{info}/entry_points.txt"] = (
        b"[console_scripts]\nedgepack-runtime = edgepack_runtime.cli:main\n"
    )
    files[f"{info}/RECORD"] = "".join(_record(files, f"{info}/RECORD")).encode()
    stream = BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(zipfile.ZipInfo(name, _EPOCH), content, zipfile.ZIP_DEFLATED)
    return f"{stem}-py3-none-any.whl", stream.getvalue()


def _record(files: dict[str, bytes], own: str) -> Iterator[str]:
    for name, content in files.items():
        digest = urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
        yield f"{name},sha256={digest},{len(content)}\n"
    yield f"{own},,\n"


def _requirements(wheels: Wheels) -> Iterator[str]:
    for name, digest in wheels.digests.items():
        package, version, *_ = name.split("-")
        if package != "pip":
            yield f"{package}=={version} --hash=sha256:{digest}\n"


def _product(package: str) -> str:
    """Return the product that a package is a build of: ONNX Runtime has several builds."""
    name = package.lower().replace("_", "-")
    return "onnxruntime" if name.startswith("onnxruntime") else name


def _download(target: Target, given: Collection[str], folder: Path) -> None:
    """Let pip download the wheels for another machine, except those that are given."""
    kit = target.kit
    command = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "--quiet",
        "--no-deps",
        "--dest",
        str(folder),
        "--only-binary=:all:",
        "--disable-pip-version-check",
        "--implementation",
        "cp",
        "--python-version",
        kit.python,
    ]
    for abi in (f"cp{kit.python.replace('.', '')}", "abi3", "none"):
        command += ["--abi", abi]
    for platform in platforms(target.arch, kit.glibc):
        command += ["--platform", platform]
    if kit.index:
        command += ["--extra-index-url", kit.index]
    for package in (*kit.packages, _PIP):
        if _product(package.partition("=")[0]) in given:
            continue
        done = subprocess.run(  # noqa: S603 (pip, with names from a target file)
            [*command, package], check=False, capture_output=True, text=True
        )
        if done.returncode:
            said = [line for line in done.stderr.splitlines() if line.startswith("ERROR")]
            where = f"get it from {kit.index}" if kit.index else "get or build it"
            raise InputError(
                f"no wheel {package} for Python {kit.python}, {target.arch}, glibc {kit.glibc}: "
                f"{(said or ['pip failed'])[-1].removeprefix('ERROR: ')}; {where}, "
                "put it in a folder, and name that folder with --wheels"
            )


def platforms(arch: str, glibc: str) -> list[str]:
    """Return the platform tags of wheels that work with a glibc, newest first."""
    if not is_version(glibc) or "." not in glibc:
        raise InputError(f"kit.glibc must be a version such as 2.36, not {glibc!r}")
    newest = int(glibc.split(".")[1])
    return [
        *(f"manylinux_2_{minor}_{arch}" for minor in range(newest, _OLDEST - 1, -1)),
        f"manylinux2014_{arch}",
        f"linux_{arch}",
    ]


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()
