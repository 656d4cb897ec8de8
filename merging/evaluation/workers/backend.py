"""What carries messages between a program and its workers: an interface that knows nothing of what they say."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Protocol


@dataclass(frozen=True)
class Received:
    """One thing that has come from a worker.

    Attributes:
        worker: its number.
        message: an answer, as soon as the worker has it; empty where ``last``; None where the worker is lost.
        last: nothing more comes to the oldest message that the worker had not answered.
        reason: how a lost worker has ended: ``killed by SIGKILL``, ``ended with exit code 1: ValueError: …``.
    """

    worker: int
    message: bytes | None
    last: bool = False
    reason: str = ""


class Handler(Protocol):
    """Who answers in a worker: made there, by its import path ``module:Class``, of the worker's first message.

    What it raises ends the worker, whose last line is then the error's.
    """

    def __init__(self, first: bytes) -> None:
        """Is made before the first message that wants an answer is looked at."""

    def answers(self, message: bytes) -> Iterator[bytes]:
        """Answers one message, as often as it likes; each answer is on its way once it is yielded."""

    def told(self, message: bytes) -> None:
        """Is told something out of turn, in another thread and maybe while it answers: must be quick."""


class Backend(Protocol):
    """Workers that carry bytes both ways, each with a handler of its own. Used by one thread.

    A worker may be lost at any moment. That is said once by :meth:`receive`, after the answers that have arrived; what
    was sent to it, before or since, is lost with it until :meth:`restart` has started it anew.
    """

    count: int
    """Number of workers, which are called 0 … count − 1."""

    def start(self, first: Callable[[int], bytes]) -> None:
        """Starts all of them, without waiting until they are ready.

        Args:
            first: says of what the handler of a worker is made; asked again when the worker is restarted.

        Raises:
            WorkersError: there cannot be so many of them, or none at all.
        """

    def send(self, worker: int, message: bytes) -> None:
        """Has a message answered after those before it. Never waits for the worker.

        What it has no room for yet goes on its way in later calls of any method.
        """

    def tell(self, worker: int, message: bytes) -> None:
        """Has a message reach the handler while it answers others. Never waits either."""

    def receive(self, timeout: float) -> list[Received]:
        """Takes what has come by now, or else waits for what comes first.

        Args:
            timeout: seconds to wait where nothing has come; the list is empty where nothing comes within them.
        """

    def restart(self, worker: int) -> None:
        """Starts a worker anew, under its number; one that still lives is ended."""

    def ready(self, worker: int) -> bool:
        """Whether a worker runs.

        One of a cluster without room waits for some, and what it is sent waits with it. :meth:`receive` returns, maybe
        with nothing, when one has begun to run.
        """

    def place(self, worker: int) -> str:
        """Says where a worker is, for messages: host and process."""

    def close(self) -> None:
        """Ends all of them within a second or two, whatever they do; a second call does nothing."""
