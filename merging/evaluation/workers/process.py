"""A worker's process: reads messages over a socket, and has its handler answer them.

It is started by its path, with nothing but the standard library, because it is the first message that says where
everything else is imported from (``sys.path`` of the program that asks, whose ``__main__`` is never run again).

A frame is its kind (one byte), its length (8 bytes, little-endian) and as many bytes. One thread reads all the time, so
that whoever sends never waits for a busy handler, and notices that nobody listens any more; then this process ends at
once, whatever it does.
"""

from __future__ import annotations

import importlib
import json
import os
import queue
import select
import signal
import socket
import struct
import sys
import threading
import traceback
from collections.abc import Callable
from typing import Any, NoReturn

HEAD = struct.Struct("<cQ")
WHERE, FIRST, ASK, TELL, ANSWER, LAST = b"W", b"F", b"?", b"!", b"A", b"L"
"""Kinds of frames: where to import from, what the handler is made of, messages; answers, and the end of them."""
ASKED_AGAIN = 0.5
"""Seconds after which a worker that has heard nothing looks whether its parent lives; a copy of the parent's end of the
socket, in a process that it has forked, hides its end."""


def made(handler: str, first: bytes) -> Any:
    """Makes the handler of a worker from what is sent first.

    Args:
        handler: its import path, ``module:Class``.
        first: what it is made of.
    """
    module, _, name = handler.partition(":")
    return getattr(importlib.import_module(module), name)(first)


class _Worker:
    """A socket, and what has come over it."""

    def __init__(self, line: socket.socket, parent: int) -> None:
        self._line, self._parent = line, parent
        self._asked: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._ready = select.poll()
        self._ready.register(line, select.POLLIN)

    def run(self) -> NoReturn:
        """Answers until nobody asks any more."""
        _beside(self._read)
        where = json.loads(self._asked.get()[1])
        sys.path[:] = where["path"]
        if where["cwd"] is not None:
            os.chdir(where["cwd"])
        handler = made(where["handler"], self._asked.get()[1])
        _beside(self._tell, handler)
        while True:
            _, message = self._asked.get()
            for answer in handler.answers(message):
                self._write(ANSWER, answer)
            self._write(LAST, b"")

    def _write(self, kind: bytes, message: bytes) -> None:
        try:
            self._line.sendall(HEAD.pack(kind, len(message)))
            self._line.sendall(message)
        except OSError:
            end()

    def _tell(self, handler: Any) -> None:
        while True:
            handler.told(self._told.get())

    def _read(self) -> None:
        while True:
            kind, length = HEAD.unpack(self._exactly(HEAD.size))
            message = self._exactly(length)
            if kind == TELL:
                self._told.put(message)
            else:
                self._asked.put((kind, message))

    def _exactly(self, length: int) -> bytes:
        whole, filled = bytearray(length), 0
        while filled < length:
            if not self._ready.poll(ASKED_AGAIN * 1000):
                if os.getppid() != self._parent:
                    end()
                continue
            try:
                count = self._line.recv_into(memoryview(whole)[filled:])
            except OSError:
                count = 0
            if not count:
                end()
            filled += count
        return bytes(whole)


def _beside(work: Callable[..., object], *given: Any) -> None:
    threading.Thread(target=_guarded, args=(work, *given), daemon=True).start()


def _guarded(work: Callable[..., object], *given: Any) -> NoReturn:
    """Works, and ends the process with whatever is raised: no thread of it goes on alone, or is waited for."""
    try:
        work(*given)
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
    os._exit(1)


def end() -> NoReturn:
    """Ends this process and those that it has started: nobody would take what they make."""
    if os.getpgrp() == os.getpid():
        os.killpg(0, signal.SIGTERM)
    os._exit(0)


def main() -> NoReturn:
    """Is given the number of the socket and of the parent's process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a key is the parent's affair
    worker = _Worker(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    _guarded(worker.run)


if __name__ == "__main__":
    main()
