"""A backend whose workers say what a test has them say, when it has them say it."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from merging.evaluation.fingerprint import Fingerprint
from merging.evaluation.workers.backend import Received
from merging.evaluation.workers.blobs import Blobs
from merging.evaluation.workers.crew import Crew
from merging.evaluation.workers.packing import Packed, Packer, Unpacker
from merging.evaluation.workers.requests import Answer, Kind, Message
from merging.plugins.progress import Progress

ALIKE = Fingerprint(host="a", merging="1", torch="2", device="cpu", capability="AVX2", cuda="", threads=1, answer="90")
"""What the machines of the workers are, where nothing else is said."""


class Scripted:
    """Workers without a process: what they were asked is looked at, and what they answer is given.

    Args:
        count: how many.
        opens: the answer to each request to open the world, by worker; None: it is opened.

    Attributes:
        asked: what each worker has been asked, and has not answered.
        away: workers that have nowhere to be.
        hosts: the machine of each.
    """

    def __init__(self, count: int, opens: Callable[[int], Answer | None] = lambda worker: None) -> None:
        self.count, self._opens = count, opens
        self.asked: dict[int, list[Message]] = {number: [] for number in range(count)}
        self.away: set[int] = set()
        self.hosts = dict.fromkeys(range(count), "a")
        self._came: list[Received] = []

    def start(self, first: Callable[[int], bytes]) -> None:
        del first

    def restart(self, worker: int) -> None:
        self.asked[worker] = []

    def send(self, worker: int, message: bytes) -> None:
        asked: Message = pickle.loads(message)  # noqa: S301 - our own
        self.asked[worker].append(asked)
        if asked.kind is Kind.WORLD:
            opened = self._opens(worker)
            self.say(worker, "done", {"fingerprint": ALIKE}) if opened is None else self._say(worker, opened)

    def tell(self, worker: int, message: bytes) -> None:
        del worker, message

    def say(self, worker: int, state: str, value: Any = None) -> None:
        """Has a worker answer what it was asked first."""
        self._say(worker, Answer(0, state, pickle.dumps(value)))

    def _say(self, worker: int, answer: Answer) -> None:
        asked = self.asked[worker].pop(0)
        answer = Answer(asked.number, answer.state, answer.body)
        self._came.append(Received(worker, pickle.dumps(answer)))

    def lose(self, worker: int) -> None:
        """Has a worker die."""
        self.asked[worker] = []
        self._came.append(Received(worker, None, reason="killed by SIGKILL"))

    def receive(self, timeout: float) -> list[Received]:
        del timeout
        came, self._came = self._came, []
        return came

    def ready(self, worker: int) -> bool:
        return worker not in self.away

    def place(self, worker: int) -> str:
        return f"{self.hosts[worker]}, process {worker}"

    def close(self) -> None:
        self._came.clear()


@contextmanager
def scripted(backend: Scripted, folder: Path, progress: Progress | None = None) -> Iterator[Crew]:
    """A crew of such workers, all of which have opened a world."""
    blobs = Blobs((folder,), folder)
    crew = Crew(backend, blobs, progress)
    crew.enter(Packed(b""), Packer(blobs), Unpacker(blobs), alike=None, should_stop=lambda: False)
    yield crew
    crew.close()
