"""Whether the Ray that somebody names can be connected to: said in seconds, in one line."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys

from merging.errors import WorkersError, refused, showable

LOCAL = "local"
"""The address of a Ray that is started."""
PATIENCE = 5.0
"""Seconds in which somebody has to answer at an address; Ray itself would try for minutes."""
TRIAL = 15.0
"""Seconds in which this process has to become part of a cluster."""
_GREETING = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + bytes([0, 0, 0, 4, 0, 0, 0, 0, 0])
"""How HTTP/2, which Ray speaks, begins (RFC 9113, 3.4): a fixed text and settings without any, which are answered
likewise."""
_SETTINGS = 4
_SCRIPT = """
import json, logging, sys
sys.path[:] = json.loads(sys.argv[2])
import ray
try:
    ray.init(address=sys.argv[1], log_to_driver=False, logging_level=logging.CRITICAL)
except Exception as error:
    print(json.dumps([type(error).__name__, str(error)]))
    sys.exit(3)
"""


def reach(address: str) -> None:
    """Asks whether somebody answers at an address who may be a Ray.

    Raises:
        WorkersError: it is none, or nobody answers within seconds.
    """
    host, _, port = address.rpartition(":")
    if "//" in address or not host or not port.isdigit() or not 0 < int(port) < 1 << 16:
        raise WorkersError(f"'{showable(address)}' is not the address of a Ray: HOST:PORT (of its head, 6379), or auto")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), PATIENCE) as line:
            try:
                line.sendall(_GREETING)
                answer = line.recv(9)
            except ConnectionError:  # it does not like what it hears
                answer = b""
    except TimeoutError:
        raise WorkersError(f"nobody answers at {address} within {PATIENCE:g} s: no Ray is there") from None
    except OSError as error:
        raise WorkersError(f"no Ray can be reached at {address}: {refused(error)}") from None
    if len(answer) < 4 or answer[3] != _SETTINGS:
        raise WorkersError(f"what answers at {address} is no Ray")


def try_out(address: str) -> None:
    """Connects in another process, which can be given up: Ray tries for minutes, aloud, and hears nobody meanwhile.

    Raises:
        WorkersError: it cannot be connected to, or not within seconds.
    """
    path = json.dumps([os.fspath(each) for each in sys.path])
    command = [sys.executable, "-P", "-c", _SCRIPT, address, path]
    try:
        done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=TRIAL, check=False)  # noqa: S603
    except subprocess.TimeoutExpired:
        raise WorkersError(
            f"no Ray answers at {address} within {TRIAL:g} s: name its head, on a machine that is part of it"
        ) from None
    if done.returncode == 0:
        return
    try:
        kind, said = json.loads(done.stdout.strip().splitlines()[-1])
    except (ValueError, LookupError):  # it did not come so far
        kind, said = "", next(iter(done.stderr.strip().splitlines()[::-1]), f"exit code {done.returncode}")
    raise WorkersError(refusal(kind, said, address))


def refusal(kind: str, said: str, address: str) -> str:
    """Says in a line what Ray says at length."""
    found = re.findall(r"Ray: (\S+)\s+Python: (\S+)", said)
    if "ersion mismatch" in said and len(found) == 2:
        (theirs, python), (ours, own) = found
        way_out = f"install ray=={theirs} here" if theirs != ours else f"use Python {python} here"
        return f"the Ray at {address} is {theirs} with Python {python}, here is {ours} with Python {own}; {way_out}"
    if kind == "ConnectionError" and address == "auto":
        return "no Ray runs on this machine; start one, or leave the address out"
    first = showable(next(iter(said.strip().splitlines()), kind))[:160]
    if address == LOCAL:
        return f"Ray does not start here: {first}"
    return f"the Ray at {address} cannot be used: {first}"
