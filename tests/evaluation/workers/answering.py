"""Handlers of workers that do next to nothing, by their import paths."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator

HERE = __name__


class Echo:
    """Says what it was made of, what it is asked, how often it was asked, and what it was told meanwhile."""

    def __init__(self, first: bytes) -> None:
        self._first, self._asked = first, 0
        self._told: list[bytes] = []
        self._heard = threading.Event()

    def told(self, message: bytes) -> None:
        """Keeps it."""
        self._told.append(message)
        self._heard.set()

    def answers(self, message: bytes) -> Iterator[bytes]:
        """Does what the message says, or says it again."""
        self._asked += 1
        word, _, rest = message.partition(b" ")
        match word:
            case b"who":
                yield b"%s %d %d" % (self._first, os.getpid(), self._asked)
            case b"variable":
                yield os.environ.get(rest.decode(), "").encode()
            case b"sleep":
                time.sleep(float(rest))
                yield b"slept"
            case b"count":
                for number in range(int(rest)):
                    yield b"%d" % number
            case b"wait":  # until it is told something
                yield b"waiting"
                assert self._heard.wait(20)
                yield b" ".join(self._told)
            case b"node":
                import ray

                yield ray.get_runtime_context().get_node_id().encode()
            case b"die":
                yield b"last words"
                os.kill(os.getpid(), getattr(signal, rest.decode()))
                time.sleep(20)
            case b"leave":
                os._exit(int(rest))
            case b"raise":
                raise ValueError(rest.decode())
            case b"child":  # which outlives nobody, and holds what its parent holds
                child = os.fork() or time.sleep(1000)
                yield b"%d" % child
            case b"start":
                yield b"%d" % subprocess.Popen([sys.executable, "-c", "import time; time.sleep(1000)"]).pid
            case b"print":
                print("print " * 100_000)
                os.system("echo said")  # noqa: S605 - below Python
                yield b"printed"
            case b"large":
                yield bytes(int(rest))
            case _:
                yield message


class Broken(Echo):
    """Cannot be made."""

    def __init__(self, first: bytes) -> None:
        raise LookupError(f"no {first.decode()} here")


class Deaf(Echo):
    """Cannot be told anything."""

    def told(self, message: bytes) -> None:
        """Raises."""
        raise RuntimeError(f"what is {message.decode()}?")
