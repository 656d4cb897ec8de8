"""Workers in this process that take turns in a random order: the real ones, without a process each."""

from __future__ import annotations

import socket
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from merging.evaluation.workers.backend import Received
from merging.evaluation.workers.blobs import Blobs
from merging.evaluation.workers.crew import Crew
from merging.evaluation.workers.requests import first_words
from merging.evaluation.workers.worker import Worker
from merging.plugins.progress import Progress


class InTurns:
    """A backend whose workers answer a message, or a part of one, whenever it is their turn.

    Args:
        count: how many.
        seed: of the order.
        deaths: chance of each step that the worker is lost instead.
        fatal: says of a message whether whoever answers it dies.
    """

    def __init__(
        self,
        count: int,
        seed: int = 0,
        deaths: float = 0.0,
        fatal: Callable[[bytes], bool] = lambda message: False,
    ) -> None:
        self.count, self.deaths, self.lost, self.fatal = count, deaths, 0, fatal
        self._draw = np.random.default_rng(seed)
        self._made: dict[int, Worker] = {}
        self._waiting: dict[int, deque[bytes]] = {}
        self._answers: dict[int, Iterator[bytes]] = {}
        self._first: Callable[[int], bytes] = lambda number: b""

    def start(self, first: Callable[[int], bytes]) -> None:
        self._first = first
        for number in range(self.count):
            self.restart(number)

    def restart(self, worker: int) -> None:
        self._made[worker], self._waiting[worker] = Worker(self._first(worker)), deque()
        self._answers.pop(worker, None)

    def send(self, worker: int, message: bytes) -> None:
        self._waiting[worker].append(message)

    def tell(self, worker: int, message: bytes) -> None:
        self._made[worker].told(message)

    def receive(self, timeout: float) -> list[Received]:
        ready = [n for n in range(self.count) if n in self._answers or self._waiting[n]]
        if not ready:
            return []
        number = int(self._draw.choice(ready))
        if self._draw.random() < self.deaths or (self._waiting[number] and self.fatal(self._waiting[number][0])):
            self._waiting[number].clear()
            self._answers.pop(number, None)
            self.lost += 1
            return [Received(number, None, reason="killed by SIGKILL")]
        if number not in self._answers:
            answers = self._made[number].answers(self._waiting[number].popleft())
            # At once: the driver runs the same piece, and some optimizers bear no second thread in one process.
            self._answers[number] = iter(list(answers))
        message = next(self._answers[number], None)
        if message is None:
            del self._answers[number]
            return [Received(number, b"", last=True)]
        return [Received(number, message)]

    def ready(self, worker: int) -> bool:
        return True

    def place(self, worker: int) -> str:
        return f"{socket.gethostname()}, turn {worker}"

    def close(self) -> None:
        self._answers.clear()


@contextmanager
def in_turns(backend: InTurns, folder: Path, progress: Progress | None = None) -> Iterator[Crew]:
    """A crew of workers that take turns."""
    folder.mkdir(exist_ok=True)
    backend.start(lambda number: first_words(folder))
    crew = Crew(backend, Blobs((folder,), folder), progress)
    yield crew
    crew.close()
