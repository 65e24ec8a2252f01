"""Take deployments of a hawkBit server (Direct Device Integration API): `edgepack-runtime import`.

    HAWKBIT_TOKEN=… python edgepack_hawkbit.py https://hawkbit.example/TENANT/controller/v1/DEVICE

One poll and what it asks for, then it ends: run it by a timer.  The artifact that ends in `.epk` is
downloaded with ranges, resumed where the last run stopped, and handed to edgepack, which checks who
signed it.  The standard library is all it needs.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.parse import urlsplit
from urllib.request import HTTPRedirectHandler, Request, build_opener

TIMEOUT = 60
PIECE = 1 << 16
LATER = ("pinned", "the hook", "another process")  # with exit code 7: the next run tries again


def main(controller: str) -> int:
    """Poll once; return 0 if there was nothing, or the deployment was taken."""
    settings = read_settings(Path(os.environ.get("EDGEPACK_CONF", "/etc/edgepack/update.conf")))
    Server.address = controller
    links = ask(controller).get("_links", {})
    if "cancelAction" in links:
        cancel = ask(links["cancelAction"]["href"])
        tell(f"{controller}/cancelAction/{cancel['id']}/feedback", cancel["id"], ok=True)
        return 0
    if "deploymentBase" not in links:
        return 0
    deployment = ask(links["deploymentBase"]["href"])
    feedback = f"{controller}/deploymentBase/{deployment['id']}/feedback"
    try:
        path = download(artifact(deployment), Path(settings["EDGEPACK_STORE"] + "-inbox"))
    except (HTTPError, URLError, TimeoutError, ConnectionError) as exc:
        sys.stderr.write(f"{exc}: what came is kept, the next run goes on\n")
        return 1
    except ValueError as exc:
        tell(feedback, deployment["id"], ok=False, details=[str(exc)])
        return 2
    command = [
        *shlex.split(settings["RUNTIME"]),
        "import",
        str(path),
        "--store",
        settings["EDGEPACK_STORE"],
        "--root",
        settings["ROOT"],
        "--name",
        settings["NAME"],
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    details = (done.stdout + done.stderr).strip().splitlines()[-5:]
    put_off = done.returncode == 7 and any(word in done.stderr for word in LATER)
    if done.returncode == 1 or put_off:
        tell(feedback, deployment["id"], ok=None, details=details)
        return done.returncode
    tell(feedback, deployment["id"], ok=done.returncode == 0, details=details)
    path.unlink(missing_ok=True)
    return done.returncode


def artifact(deployment: dict[str, Any]) -> dict[str, Any]:
    """Return the one `.epk` of a deployment; a `ValueError` if there is not exactly one."""
    found = [
        item
        for chunk in deployment["deployment"]["chunks"]
        for item in chunk["artifacts"]
        if item["filename"].endswith(".epk")
    ]
    if len(found) != 1:
        raise ValueError(f"{len(found)} files of the deployment are .epk, one is needed")
    return found[0]


def download(item: dict[str, Any], inbox: Path) -> Path:
    """Download a file into the inbox, from where the last try stopped; never more than promised."""
    inbox.mkdir(parents=True, exist_ok=True)
    path = inbox / "model.epk"
    mark = inbox / "model.json"  # what the file is a part of
    wanted = json.dumps([item["hashes"], item["size"]])
    if not mark.is_file() or mark.read_text() != wanted:
        path.unlink(missing_ok=True)
        mark.write_text(wanted)
    have = path.stat().st_size if path.is_file() else 0
    if have < item["size"]:
        link = item["_links"].get("download") or item["_links"]["download-http"]
        request = prepared(link["href"], {"Range": f"bytes={have}-"} if have else {})
        with OPENER.open(request, timeout=TIMEOUT) as answer:
            if answer.status != 206:
                have = 0
            with path.open("r+b" if have else "wb") as out:
                out.seek(have)
                while have < item["size"] and (piece := answer.read(PIECE)):
                    out.write(piece[: item["size"] - have])
                    have += len(piece)
    if have < item["size"]:
        raise ConnectionError(f"{item['filename']} ended {item['size'] - have} bytes early")
    if hashlib.sha256(path.read_bytes()).hexdigest() != item["hashes"]["sha256"]:
        path.unlink()  # a power cut may leave its length without its bytes
        raise ConnectionError(f"{item['filename']} is not what the server says; it comes again")
    return path


def ask(url: str) -> dict[str, Any]:
    """Return the JSON at an address."""
    request = prepared(url, {"Accept": "application/hal+json"})
    with OPENER.open(request, timeout=TIMEOUT) as answer:
        found: dict[str, Any] = json.load(answer)
    return found


def tell(url: str, action: str, *, ok: bool | None, details: list[str] | None = None) -> None:
    """Close an action as a success or a failure, or say that it goes on (None)."""
    finished = {True: "success", False: "failure", None: "none"}[ok]
    status = {
        "execution": "proceeding" if ok is None else "closed",
        "result": {"finished": finished},
        "details": details or [],
    }
    body = json.dumps({"id": action, "status": status}).encode()
    request = prepared(url, {"Content-Type": "application/json"})
    request.data = body
    with OPENER.open(request, timeout=TIMEOUT):
        pass


def prepared(url: str, headers: dict[str, str]) -> Request:
    """Return a request; it says who this device is to the server alone, and to no other host."""
    allowed = ("https",) if origin(Server.address)[0] == "https" else ("https", "http")
    if origin(url)[0] not in allowed:
        raise ValueError(f"{url} is no address by {' or '.join(allowed)}, as the server has it")
    if origin(url) == origin(Server.address):
        token = os.environ.get("HAWKBIT_TOKEN", "")
        headers = {"Authorization": f"TargetToken {token}", **headers}
    return Request(url, headers=headers)


def origin(url: str) -> tuple[str, str, int | None]:
    """Return the scheme, host and port of an address."""
    parts = urlsplit(url)
    port = parts.port or {"http": 80, "https": 443}.get(parts.scheme)
    return parts.scheme, parts.hostname or "", port


class Server:
    """The server that this device belongs to: only it gets the token."""

    address = ""


class Redirect(HTTPRedirectHandler):
    """Follows to where a request of its own may go, with the headers of that request."""

    def redirect_request(self, req: Request, *rest: Any) -> Request | None:
        """Return the request for where the server points."""
        found = super().redirect_request(req, *rest)
        if found is None:
            return None
        headers = {k: v for k, v in req.header_items() if k in ("Range", "Accept")}
        return prepared(found.full_url, headers)


OPENER = build_opener(Redirect)


def read_settings(path: Path) -> dict[str, str]:
    """Return NAME=VALUE lines of a file."""
    lines = [line for line in path.read_text().splitlines() if "=" in line and line[0] != "#"]
    return {
        name: " ".join(shlex.split(value)) for name, value in (line.split("=", 1) for line in lines)
    }


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit(__doc__)
    try:
        sys.exit(main(sys.argv[1].rstrip("/")))
    except (OSError, ValueError, LookupError) as exc:  # no server, no settings, no hawkBit
        sys.exit(f"error: {type(exc).__name__}: {exc}")
