"""One process of a worker, the socket to it, and what is on its way."""

from __future__ import annotations

import contextlib
import fcntl
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

from merging.errors import showable
from merging.evaluation.workers import process

BUFFER = 1 << 20
"""Bytes that are read at once, and that a socket is asked to keep."""
PATIENCE = 0.5
"""Seconds in which a worker that was told to end may do so by itself."""
SAID = 1 << 20
"""Bytes of a worker's output that are kept at the most; of one that has died the last line is shown."""


class Child:
    """One process, the socket to it, and what is on its way.

    Args:
        environment: its variables, over those of this process.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self.line, other = socket.socketpair()
        self.ended = self.lost = False
        self.reason = ""
        self._out: list[memoryview] = []
        self._in = bytearray()
        self._said = tempfile.TemporaryFile()  # noqa: SIM115 - as long as the process
        try:
            fcntl.fcntl(self._said, fcntl.F_SETFL, os.O_APPEND)
            for end in (self.line, other):
                for size in (socket.SO_SNDBUF, socket.SO_RCVBUF):
                    end.setsockopt(socket.SOL_SOCKET, size, BUFFER)
            self.line.setblocking(False)
            self._process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-P", str(Path(process.__file__)), str(other.fileno()), str(os.getpid())],
                pass_fds=[other.fileno()],
                env={**os.environ, **environment},
                stdin=subprocess.DEVNULL,
                stdout=self._said,
                stderr=self._said,
                start_new_session=True,
            )
        except BaseException:
            self.line.close()
            self._said.close()
            raise
        finally:
            other.close()
        self.number = self._process.pid

    @property
    def waiting(self) -> bool:
        """Whether something waits for room."""
        return bool(self._out)

    def put(self, kind: bytes, message: bytes) -> None:
        """Puts a message behind those that wait."""
        if not self.lost:
            self._out += [memoryview(process.HEAD.pack(kind, len(message))), memoryview(message)]

    def push(self) -> None:
        """Writes as much as there is room for."""
        while self._out and not self.lost:
            try:
                sent = self.line.sendmsg(self._out[:16])
            except BlockingIOError:
                return
            except OSError:  # nobody reads any more
                self.ended = True
                self._out.clear()
                return
            while self._out and sent >= len(self._out[0]):
                sent -= len(self._out.pop(0))
            if sent:
                self._out[0] = self._out[0][sent:]

    def pull(self, *, whole: bool = False) -> list[tuple[bytes, bool]]:
        """Reads what answers have come.

        Args:
            whole: all that it has sent; else what can be read at once.
        """
        while True:
            try:
                read = self.line.recv(BUFFER)
            except BlockingIOError:
                break
            except OSError:
                read = b""
            self._in += read
            if not read:
                self.ended = True
            if not read or not whole:
                break
        return self._taken()

    def _taken(self) -> list[tuple[bytes, bool]]:
        """The answers that are whole."""
        answers, at = [], 0
        while len(self._in) >= at + process.HEAD.size:
            kind, length = process.HEAD.unpack_from(self._in, at)
            begin = at + process.HEAD.size
            if len(self._in) < begin + length:
                break
            at = begin + length
            with memoryview(self._in) as view:
                answers.append((bytes(view[begin:at]), kind == process.LAST))
        del self._in[:at]
        return answers

    def has_ended(self) -> bool:
        """Whether the process is no more; forgets what it has said long ago."""
        if os.fstat(self._said.fileno()).st_size > SAID:
            os.ftruncate(self._said.fileno(), 0)
        return self._process.poll() is not None

    def hang_up(self, selector: selectors.BaseSelector) -> None:
        """Says nothing more and listens no more, which ends it."""
        if not self.lost:
            self.lost = True
            selector.unregister(self.line)
            self.line.close()
            self._out.clear()
            self._in.clear()

    def end(self, selector: selectors.BaseSelector) -> str:
        """Waits until it has ended, and has it do so.

        Returns:
            How it ended.
        """
        self.hang_up(selector)
        if self._said.closed:
            return self.reason
        try:
            self._process.wait(PATIENCE)
        except subprocess.TimeoutExpired:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.number, signal.SIGKILL)
            self._process.wait()
        self.reason = self._how()
        self._said.close()
        return self.reason

    def _how(self) -> str:
        code = self._process.returncode
        if code < 0:
            with contextlib.suppress(ValueError):
                return f"killed by {signal.Signals(-code).name}"
            return f"killed by signal {-code}"
        size = os.fstat(self._said.fileno()).st_size
        text = os.pread(self._said.fileno(), 4096, max(0, size - 4096)).decode(errors="replace")
        said = text.strip().splitlines()
        return f"ended with exit code {code}" + (f": {showable(said[-1].strip())[:160]}" if said else "")
