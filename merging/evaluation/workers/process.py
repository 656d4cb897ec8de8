"""A worker's process: reads messages over a socket, and has its handler answer them.

It is started by its path, with nothing but the standard library, because it is the first message that says where
everything else is imported from (``sys.path`` of the program that asks, whose ``__main__`` is never run again). What
it does with messages, :class:`Work`, is the same where something else carries them.

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


def where(handler: str) -> bytes:
    """The first frame: what a worker imports, and where from, which is where this process does.

    Args:
        handler: import path, ``module:Class``.
    """
    try:
        folder = os.getcwd()
    except FileNotFoundError:  # removed meanwhile
        folder = None
    return json.dumps({"path": [os.fspath(each) for each in sys.path], "folder": folder, "handler": handler}).encode()


def _made(described: bytes, first: bytes) -> Any:
    said = json.loads(described)
    sys.path[:] = [*said["path"], *(each for each in sys.path if each not in said["path"])]
    if said["folder"] is not None and os.path.isdir(said["folder"]):
        os.chdir(said["folder"])
    module, _, name = said["handler"].partition(":")
    return getattr(importlib.import_module(module), name)(first)


class Work:
    """A handler at work, whoever carries its messages.

    Args:
        out: takes frames: the answers, as they are made.
    """

    def __init__(self, out: Callable[[bytes, bytes], object]) -> None:
        self._out = out
        self._asked: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
        self._told: queue.SimpleQueue[bytes] = queue.SimpleQueue()

    def put(self, kind: bytes, message: bytes) -> None:
        """Takes a frame that has come; returns at once."""
        if kind == TELL:
            self._told.put(message)
        else:
            self._asked.put((kind, message))

    def run(self, beside: Callable[[Callable[[], object]], object]) -> NoReturn:
        """Makes the handler of the first two frames, and has it answer the others.

        Args:
            beside: runs a function in a thread of its own.

        Raises:
            Exception: whatever the handler raises.
        """
        handler = _made(self._asked.get()[1], self._asked.get()[1])
        beside(lambda: self._tell(handler))
        while True:
            _, message = self._asked.get()
            for answer in handler.answers(message):
                self._out(ANSWER, answer)
            self._out(LAST, b"")

    def _tell(self, handler: Any) -> NoReturn:
        while True:
            handler.told(self._told.get())


class _Line:
    """The socket of a process, and its parent at the other end."""

    def __init__(self, line: socket.socket, parent: int) -> None:
        self._line, self._parent = line, parent
        self._ready = select.poll()
        self._ready.register(line, select.POLLIN)

    def write(self, kind: bytes, message: bytes) -> None:
        """Sends a frame, and ends this process where nobody takes it."""
        try:
            self._line.sendall(HEAD.pack(kind, len(message)))
            self._line.sendall(message)
        except OSError:
            end()

    def read(self, put: Callable[[bytes, bytes], None]) -> NoReturn:
        """Passes on what comes, and ends this process when there is nobody from whom it could come."""
        while True:
            kind, length = HEAD.unpack(self._exactly(HEAD.size))
            put(kind, self._exactly(length))

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


def beside(work: Callable[[], object]) -> None:
    """Works in another thread, whose error ends this process as one of the main thread does."""
    threading.Thread(target=_guarded, args=(work,), daemon=True).start()


def _guarded(work: Callable[[], object]) -> NoReturn:
    """Works, and ends the process with whatever is raised: no thread of it goes on alone, or is waited for."""
    try:
        work()
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
    line = _Line(socket.socket(fileno=int(sys.argv[1])), int(sys.argv[2]))
    work = Work(line.write)
    beside(lambda: line.read(work.put))
    _guarded(lambda: work.run(beside))


if __name__ == "__main__":
    main()
