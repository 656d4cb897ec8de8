"""Workers on this machine: a process each, started anew where it is lost."""

from __future__ import annotations

import os
import selectors
import socket
import time
import weakref
from collections.abc import Callable, Mapping

from merging.errors import OptionError, WorkersError, reason_of
from merging.evaluation.workers import process
from merging.evaluation.workers.backend import Received
from merging.evaluation.workers.child import Child

LOOKED_AFTER = 0.2
"""Seconds between looks at processes whose end no socket has told, because a child of theirs still holds it."""


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
        self._workers: dict[int, Child] = {}
        self._selector = selectors.DefaultSelector()
        self._unable: list[Received] = []
        self._looked = time.monotonic()
        self._end = weakref.finalize(self, _close, os.getpid(), self._workers, self._selector)

    def start(self, first: Callable[[int], bytes]) -> None:
        """Starts all of them.

        Raises:
            WorkersError: the system has no room for so many processes.
        """
        self._first = first
        self._where = process.where(self._handler)
        try:
            for number in range(self.count):
                self._begin(number)
        except OSError as error:
            started = len(self._workers)
            self.close()
            raise WorkersError(f"{started} of {self.count} workers could be started: {reason_of(error)}") from None
        except BaseException:
            self.close()
            raise

    def restart(self, worker: int) -> None:
        """Starts a worker, in the place of the one that had its number; where there is no room, it is lost again."""
        self._workers[worker].end(self._selector)
        try:
            self._begin(worker)
        except OSError as error:
            self._unable.append(Received(worker, None, reason=f"it cannot be started: {reason_of(error)}"))

    def _begin(self, worker: int) -> None:
        new = Child(self._environment(worker))
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

    def _push(self, worker: Child) -> None:
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
            came, self._unable = self._unable, []
            for key, events in self._selector.select(0 if came else max(0.0, min(left, LOOKED_AFTER))):
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

    def _ended(self) -> list[tuple[int, Child]]:
        """Workers that have ended since they were looked at."""
        due = time.monotonic() - self._looked >= LOOKED_AFTER
        if due:
            self._looked = time.monotonic()
        running = [(number, worker) for number, worker in self._workers.items() if not worker.lost]
        return [each for each in running if each[1].ended or (due and each[1].has_ended())]

    def ready(self, worker: int) -> bool:
        """Whether it runs: always, unless it is lost."""
        return not self._workers[worker].lost

    def place(self, worker: int) -> str:
        """Host and process of a worker."""
        return f"{socket.gethostname()}, process {self._workers[worker].number}"

    def close(self) -> None:
        """Ends all of them; so does the end of this object, and of the program."""
        self._end()


def _close(owner: int, workers: dict[int, Child], selector: selectors.BaseSelector) -> None:
    if os.getpid() == owner:  # and not a copy of it, whose workers they are not
        for worker in workers.values():
            worker.hang_up(selector)
        for worker in workers.values():
            worker.end(selector)
        selector.close()
