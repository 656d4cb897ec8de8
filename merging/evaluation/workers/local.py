"""Workers on this machine: a process each, started anew where it is lost."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import selectors
import signal
import socket
import subprocess
import sys
import tempfile
import time
import weakref
from collections.abc import Callable, Mapping
from pathlib import Path

from merging.errors import MergingError, OptionError, reason_of, showable
from merging.evaluation.workers import process
from merging.evaluation.workers.backend import Received

BUFFER = 1 << 20
"""Bytes that are read at once, and that a socket is asked to keep."""
LOOKED_AFTER = 0.2
"""Seconds between looks at processes whose end no socket has told, because a child of theirs still holds it."""
PATIENCE = 0.5
"""Seconds in which a worker that was told to end may do so by itself."""
SAID = 1 << 20
"""Bytes of a worker's output that are kept at the most; of one that has died the last line is shown."""


def threads(count: int) -> dict[str, str]:
    """The environment of a worker that computes with so many threads, which do not spin while they wait."""
    libraries = ("OMP", "MKL", "OPENBLAS", "VECLIB_MAXIMUM", "NUMEXPR")
    return {"OMP_WAIT_POLICY": "PASSIVE"} | {f"{each}_NUM_THREADS": str(count) for each in libraries}


def gpu(number: int) -> dict[str, str]:
    """The environment of a worker that has one GPU: the so-manieth of those that this process may use.

    Raises:
        OptionError: this process may not use so many.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is None:
        return {"CUDA_VISIBLE_DEVICES": str(number)}
    own = [each.strip() for each in visible.split(",") if each.strip()]
    if number >= len(own):
        raise OptionError(f"worker {number} has no GPU of its own: CUDA_VISIBLE_DEVICES is '{visible}'")
    return {"CUDA_VISIBLE_DEVICES": own[number]}


class Local:
    """Workers that are processes of this machine.

    They are in sessions of their own, so that a key in the terminal does not reach them, and end with this process,
    however it ends. What they print goes nowhere; the last line of one that dies is part of the reason.

    Args:
        count: how many.
        handler: import path of the handler, ``module:Class``; found on this process's ``sys.path``.
        environment: variables of a worker, by its number, over those of this process.
    """

    def __init__(
        self,
        count: int,
        handler: str,
        environment: Callable[[int], Mapping[str, str]] = lambda number: {"OMP_WAIT_POLICY": "PASSIVE"},
    ) -> None:
        self.count = count
        self._handler, self._environment = handler, environment
        self._first: Callable[[int], bytes] = lambda number: b""
        self._where = b""
        self._workers: dict[int, _Process] = {}
        self._selector = selectors.DefaultSelector()
        self._looked = time.monotonic()
        self._end = weakref.finalize(self, _close, os.getpid(), self._workers, self._selector)

    def start(self, first: Callable[[int], bytes]) -> None:
        """Starts all of them.

        Raises:
            MergingError: the system has no room for so many processes.
        """
        self._first = first
        try:
            folder: str | None = os.getcwd()
        except FileNotFoundError:  # removed meanwhile
            folder = None
        where = {"path": [os.fspath(each) for each in sys.path], "cwd": folder, "handler": self._handler}
        self._where = json.dumps(where).encode()
        try:
            for number in range(self.count):
                self.restart(number)
        except OSError as error:
            started = len(self._workers)
            self.close()
            raise MergingError(f"{started} of {self.count} workers could be started: {reason_of(error)}") from None
        except BaseException:
            self.close()
            raise

    def restart(self, worker: int) -> None:
        """Starts a worker, in the place of the one that had its number."""
        if worker in self._workers:
            self._workers.pop(worker).end(self._selector)
        new = _Process(self._environment(worker))
        self._workers[worker] = new
        self._selector.register(new.line, selectors.EVENT_READ, worker)
        new.put(process.WHERE, self._where)
        new.put(process.FIRST, self._first(worker))
        self._push(new)

    def send(self, worker: int, message: bytes) -> None:
        """Has a message answered after those before it."""
        self._workers[worker].put(process.ASK, message)
        self._push(self._workers[worker])

    def tell(self, worker: int, message: bytes) -> None:
        """Has a message reach the handler while it answers others."""
        self._workers[worker].put(process.TELL, message)
        self._push(self._workers[worker])

    def _push(self, worker: _Process) -> None:
        """Sends what there is room for; :meth:`receive` goes on with the rest when there is room again."""
        worker.push()
        if not worker.lost:
            wanted = selectors.EVENT_READ | (selectors.EVENT_WRITE if worker.waiting else 0)
            key = self._selector.get_key(worker.line)
            if key.events != wanted:
                self._selector.modify(worker.line, wanted, key.data)

    def receive(self, timeout: float) -> list[Received]:
        """Takes what has come by now, or else waits so many seconds for what comes first."""
        until = time.monotonic() + timeout
        while True:
            left = until - time.monotonic()
            came: list[Received] = []
            for key, events in self._selector.select(max(0.0, min(left, LOOKED_AFTER))):
                worker = self._workers[key.data]
                if events & selectors.EVENT_WRITE:
                    self._push(worker)
                if events & selectors.EVENT_READ:
                    came += [Received(key.data, message, last) for message, last in worker.pull()]
            for number, worker in self._ended():
                came += [Received(number, message, last) for message, last in worker.pull(whole=True)]
                came.append(Received(number, None, reason=worker.end(self._selector)))
            if came or left <= 0:
                return came

    def _ended(self) -> list[tuple[int, _Process]]:
        """Workers that have ended since they were looked at."""
        due = time.monotonic() - self._looked >= LOOKED_AFTER
        if due:
            self._looked = time.monotonic()
        running = [(number, worker) for number, worker in self._workers.items() if not worker.lost]
        return [each for each in running if each[1].ended or (due and each[1].has_ended())]

    def place(self, worker: int) -> str:
        """Host and process of a worker."""
        return f"{socket.gethostname()}, process {self._workers[worker].number}"

    def close(self) -> None:
        """Ends all of them; so does the end of this object, and of the program."""
        self._end()


class _Process:
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
        """Reads answers.

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


def _close(owner: int, workers: dict[int, _Process], selector: selectors.BaseSelector) -> None:
    if os.getpid() == owner:  # and not a copy of it, whose workers they are not
        for worker in workers.values():
            worker.hang_up(selector)
        for worker in workers.values():
            worker.end(selector)
        selector.close()
