"""vl-convert, also in a process that was forked from one that has drawn, where its threads are gone: it would wait."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import vl_convert

_PROGRAM = """
import json, sys, vl_convert
name, arguments, settings = json.load(sys.stdin)
made = getattr(vl_convert, name)(*arguments, **settings)
sys.stdout.buffer.write(made if isinstance(made, bytes) else made.encode())
"""
_owner: int | None = None


def text(name: str, *arguments: Any, **settings: Any) -> str:
    """Calls a function of vl-convert that gives text.

    Args:
        name: the function's name.
        arguments: arguments by place, which JSON can hold.
        settings: arguments by name, likewise.
    """
    made = _called(name, arguments, settings)
    return made.decode() if isinstance(made, bytes) else made


def data(name: str, *arguments: Any, **settings: Any) -> bytes:
    """Calls a function of vl-convert that gives bytes, see :func:`text`."""
    made = _called(name, arguments, settings)
    return made.encode() if isinstance(made, str) else made


def _called(name: str, arguments: tuple[Any, ...], settings: dict[str, Any]) -> str | bytes:
    global _owner
    _owner = _owner or os.getpid()
    if _owner == os.getpid():
        made: str | bytes = getattr(vl_convert, name)(*arguments, **settings)
        return made
    asked = json.dumps([name, arguments, settings]).encode()
    call = [sys.executable, "-c", _PROGRAM]
    return subprocess.run(call, input=asked, stdout=subprocess.PIPE, check=True).stdout  # noqa: S603 (our own)
