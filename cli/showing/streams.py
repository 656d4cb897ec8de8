"""Standard input, output and error as a command needs them: there, and never the reason why a run ends."""

from __future__ import annotations

import codecs
import contextlib
import errno
import io
import os
import sys
from typing import Any, TextIO

PLAIN = "merging.plain"
"""Name of the handler of characters that an encoding lacks, as ``errors`` takes it."""
_PLAIN = {
    **{
        "▲": "^",
        "▼": "v",
        "–": "-",
        "—": "-",
        "≈": "~",
        "±": "+/-",
        "≥": ">=",
        "≤": "<=",
        "…": "..",
        "·": ".",
        "×": "x",
    },
    **{"¹": "'", "²": '"', "○": "o", "→": "->", "│": "|", "┤": "+", "└": "+", "─": "-", "━": "-", "λ": "lambda"},
}
"""Signs of tables and verdicts in ASCII: better and worse stay two things, whatever the encoding."""


def _plain(error: UnicodeError) -> tuple[str, int]:
    """Writes the characters that an encoding lacks in ASCII: a sign as one that is like it, any other as ``?``."""
    if not isinstance(error, UnicodeEncodeError):
        raise error
    lacking = error.object[error.start : error.end]
    return "".join(_PLAIN.get(character, "?") for character in lacking), error.end


codecs.register_error(PLAIN, _plain)


def prepare() -> None:
    """Makes the three streams safe to write to, whatever they were when the process began.

    A stream that is closed leads nowhere from now on: its number would otherwise go to the next file that is opened,
    and what C libraries print into that file. One that is full, or whose reader has gone, drops what it cannot take.
    Signs that an encoding lacks are written as others (▲ as ^, ▼ as v), other characters as ?.
    """
    for name, descriptor in (("stdin", 0), ("stdout", 1), ("stderr", 2)):
        if getattr(sys, name) is None:
            _lead_nowhere(descriptor)
            setattr(sys, name, open(descriptor, "r" if name == "stdin" else "w", encoding="utf-8", closefd=False))  # noqa: SIM115
        elif name != "stdin":
            setattr(sys, name, _forgiving(getattr(sys, name)))


def lost() -> OSError | None:
    """Says why some of standard output was not written; None where all was, or its reader had enough."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
    error: OSError | None = getattr(_raw(sys.stdout), "failed", None)
    return None if error is None or error.errno == errno.EPIPE else error


class _Forgiving(io.FileIO):
    """A descriptor that drops what it cannot take, and remembers why."""

    failed: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failed = error
            return len(data)


def _lead_nowhere(descriptor: int) -> None:
    """Opens the null device as one of the three, where it is closed."""
    try:
        os.fstat(descriptor)
    except OSError:
        opened = os.open(os.devnull, os.O_RDWR)
        if opened != descriptor:
            os.dup2(opened, descriptor)
            os.close(opened)
        os.set_inheritable(descriptor, True)


def _raw(stream: TextIO) -> Any:
    """The descriptor's object: behind a buffer, or in its place where Python runs unbuffered."""
    buffer = getattr(stream, "buffer", None)
    return getattr(buffer, "raw", buffer)


def _forgiving(stream: TextIO) -> TextIO:
    """The same stream, in the same encoding; one that has no descriptor (a test's, a notebook's) stays what it is."""
    if not isinstance(stream, io.TextIOWrapper):
        return stream
    raw = _raw(stream)
    if os.name == "nt" or not isinstance(raw, io.FileIO) or isinstance(raw, _Forgiving):
        stream.reconfigure(errors=PLAIN)
        return stream
    with contextlib.suppress(OSError):
        stream.flush()
    buffer = io.BufferedWriter(_Forgiving(raw.fileno(), "w", closefd=False))
    return io.TextIOWrapper(
        buffer,
        encoding=stream.encoding,
        errors=PLAIN,
        line_buffering=stream.line_buffering or stream.isatty(),
        write_through=stream.write_through,
    )
