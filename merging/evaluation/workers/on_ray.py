"""Workers that are actors of Ray: on this machine, or wherever a cluster has room."""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from merging.errors import WorkersError, showable
from merging.evaluation.workers import process
from merging.evaluation.workers.backend import Received
from merging.evaluation.workers.cluster import Cluster

HERE, FAILED = b"H", b"X"
"""Kinds of frames besides those of processes: where an actor is, and what its handler has raised."""
AT_ONCE = 64 << 20
"""Bytes of answers after which what an actor has said is taken along."""


class Actor:
    """A worker in its process: takes frames, and gives out frames. Its methods run in threads of their own.

    Args:
        environment: variables that are set before the handler is imported.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        os.environ.update(environment)
        self._out: queue.SimpleQueue[tuple[bytes, bytes]] = queue.SimpleQueue()
        self._out.put((HERE, f"{socket.gethostname()}, process {os.getpid()}".encode()))
        self._work = process.Work(lambda kind, message: self._out.put((kind, message)))
        self._beside(lambda: self._work.run(self._beside))

    def _beside(self, work: Callable[[], object]) -> None:
        def guarded() -> None:
            try:
                work()
            except BaseException as error:
                self._out.put((FAILED, f"{type(error).__name__}: {error}".encode(errors="replace")))

        threading.Thread(target=guarded, daemon=True).start()

    def put(self, kind: bytes, message: bytes) -> None:
        """Takes a frame from the driver."""
        self._work.put(kind, message)

    def take(self) -> list[tuple[bytes, bytes]]:
        """Waits for frames, and gives those that are there."""
        frames, size = [self._out.get()], 0
        while size < AT_ONCE:
            size += len(frames[-1][1])
            try:
                frames.append(self._out.get_nowait())
            except queue.Empty:
                break
        return frames


class OnRay:
    """Workers that are actors of Ray, with a CPU each, and a GPU where they need one.

    An actor that dies is not restarted by Ray, because that would hand it what was sent to the lost one;
    :meth:`restart` makes another one, wherever there is room now, or will be.

    Args:
        count: how many; None stands for one a GPU of the cluster, or one a CPU where they need no GPU.
        handler: import path of the handler, ``module:Class``, on every node.
        address: address of a cluster, ``HOST:PORT`` or ``auto``; None: what the variable RAY_ADDRESS says, or else
            a Ray of this machine, which ends with this object.
        gpus: each needs a GPU.
        environment: variables of a worker, by its number.

    Raises:
        WorkersError: Ray is not installed, nobody answers at the address, it is of another version, or has too little
            room.
    """

    def __init__(
        self,
        count: int | None,
        handler: str,
        address: str | None = None,
        *,
        gpus: bool = False,
        environment: Callable[[int], Mapping[str, str]] = lambda number: {},
    ) -> None:
        self._handler, self._environment, self._gpus = handler, environment, gpus
        self._first: Callable[[int], bytes] = lambda number: b""
        self._where = b""
        self._actors: dict[int, _Placed] = {}
        self._cluster = Cluster(address, count, gpus=gpus)
        self.count = self._cluster.count
        self._end = weakref.finalize(self, _close, os.getpid(), self._actors, self._cluster)

    def start(self, first: Callable[[int], bytes]) -> None:
        """Starts all of them, as soon as there is room for each."""
        self._first = first
        self._where = process.where(self._handler)
        for number in range(self.count):
            self.restart(number)

    def restart(self, worker: int) -> None:
        """Has another actor take a worker's place, as soon as there is room."""
        self._check()
        if worker in self._actors:
            self._actors.pop(worker).end()
        placed = _Placed(self._cluster.ray, self._environment(worker), self._gpus)
        self._actors[worker] = placed
        placed.put(process.WHERE, self._where)
        placed.put(process.FIRST, self._first(worker))

    def _check(self) -> None:
        """Says that the workers are out of reach for good."""
        if not self._cluster.is_there():
            raise WorkersError("this process has left the Ray that its workers run on: something called ray.shutdown()")

    def send(self, worker: int, message: bytes) -> None:
        """Has a message answered after those before it."""
        self._actors[worker].put(process.ASK, message)

    def tell(self, worker: int, message: bytes) -> None:
        """Has a message reach the handler while it answers others."""
        self._actors[worker].put(process.TELL, message)

    def receive(self, timeout: float) -> list[Received]:
        """Takes what has come by now, or else waits so many seconds for what comes first."""
        self._check()
        ray = self._cluster.ray
        waited = {placed.taking: number for number, placed in self._actors.items() if not placed.lost}
        if not waited:
            time.sleep(timeout)
            return []
        first, _ = ray.wait(list(waited), num_returns=1, timeout=max(0.0, timeout))
        if not first:
            return []
        ready, _ = ray.wait(list(waited), num_returns=len(waited), timeout=0)
        return [each for reference in ready for each in self._taken(waited[reference])]

    def _taken(self, worker: int) -> list[Received]:
        placed, came = self._actors[worker], []
        for kind, message in placed.take():
            if kind == FAILED:
                placed.end()
                came.append(Received(worker, None, reason=message.decode()))
                break
            if kind != HERE:
                came.append(Received(worker, message, kind == process.LAST))
        return came

    def ready(self, worker: int) -> bool:
        """Whether it has found room and runs."""
        return not self._actors[worker].lost and self._actors[worker].place != ""

    def place(self, worker: int) -> str:
        """Host and process of a worker, or that it has found no room yet."""
        return self._actors[worker].place or "waiting for room in the cluster"

    def close(self) -> None:
        """Ends all of them, and Ray where it was started for them."""
        self._end()


class _Placed:
    """An actor, and what is asked of it.

    Args:
        ray: the package.
        environment: variables of its process.
        gpus: it needs a GPU.
    """

    def __init__(self, ray: Any, environment: Mapping[str, str], gpus: bool) -> None:
        self._ray, self.lost, self.place = ray, False, ""
        groups = {"in": 1, "out": 1}
        made = ray.remote(
            num_cpus=1, num_gpus=int(gpus), max_restarts=0, max_task_retries=0, concurrency_groups=groups
        )(Actor)
        self._actor = made.remote(dict(environment))
        self._put = self._actor.put.options(concurrency_group="in")
        self._take = self._actor.take.options(concurrency_group="out")
        self.taking = self._take.remote()

    def put(self, kind: bytes, message: bytes) -> None:
        """Sends it a frame."""
        if not self.lost:
            self._put.remote(kind, message)

    def take(self) -> list[tuple[bytes, bytes]]:
        """The frames that have come, and a wish for more."""
        try:
            frames: list[tuple[bytes, bytes]] = self._ray.get(self.taking)
        except self._ray.exceptions.RayError as error:
            return [(FAILED, _how(error).encode())]
        if frames[0][0] == HERE:
            self.place = frames[0][1].decode()
        self.taking = self._take.remote()
        return frames

    def end(self) -> None:
        """Ends it, whatever it does."""
        if not self.lost:
            self.lost = True
            with contextlib.suppress(Exception):  # it is gone already
                self._ray.kill(self._actor, no_restart=True)


def _how(error: Exception) -> str:
    """What has become of an actor, in few words."""
    said, kind = str(error), type(error).__name__
    if "low on memory" in said or kind == "OutOfMemoryError":
        return "killed, because its node was low on memory"
    if "process has died" in said or "worker died" in said:
        return "its process has died"
    if "node" in said and ("died" in said or "dead" in said):
        return "its node has died"
    if kind == "ActorUnavailableError":
        return "it cannot be reached any more"
    lines = [line.strip() for line in said.splitlines() if line.strip()]
    return showable(lines[-1] if lines else kind)[:160]


def _close(owner: int, actors: dict[int, _Placed], cluster: Cluster) -> None:
    if os.getpid() != owner:  # a copy of it, whose workers they are not
        return
    if cluster.is_there():
        for placed in actors.values():
            placed.end()
    cluster.close()
