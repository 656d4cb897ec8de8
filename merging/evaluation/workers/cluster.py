"""A Ray for workers: one that runs already, or one of this machine that is started for them and ends with them."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import logging
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from typing import Any

from merging.errors import WorkersError, raised
from merging.evaluation.workers import guard
from merging.evaluation.workers.reaching import LOCAL, reach, refusal, try_out
from merging.machine import cores

OLDEST = (2, 20)
"""Version of Ray that is needed. With 2.12 a node that dies is not noticed within half a minute; up to 2.9 Ray needs
what setuptools has no more."""


class Cluster:
    """A Ray that this process is connected to.

    Args:
        address: ``HOST:PORT`` or ``auto``; None stands for the variable RAY_ADDRESS, or else a Ray that is started.
        count: workers that have to have room; None stands for as many as have.
        gpus: each of them needs a GPU.

    Attributes:
        ray: the package.
        count: number of workers.

    Raises:
        WorkersError: there is no Ray, or not such a one.
    """

    def __init__(self, address: str | None, count: int | None, *, gpus: bool = False) -> None:
        self.ray = package()
        self._connected = False
        self._started: _Started | None = None
        address = address or os.environ.get("RAY_ADDRESS") or LOCAL
        if self.ray.is_initialized():  # by whoever calls us: it stays as it is
            self._same(address)
        else:
            self._connect(address, count)
        try:
            self._job = self.ray.get_runtime_context().get_job_id()
            self.count = self._room(address, count, "GPU" if gpus else "CPU")
        except BaseException:
            self.close()
            raise

    def _same(self, address: str) -> None:
        own = str(self.ray.get_runtime_context().gcs_address)
        if address not in (LOCAL, "auto", own):
            raise WorkersError(f"this process is connected to the Ray at {own}, and cannot be to the one at {address}")

    def _connect(self, address: str, count: int | None) -> None:
        more: dict[str, Any] = {}
        if address == LOCAL:
            self._started = _Started()
            more = {"num_cpus": max(count or 0, cores()), "include_dashboard": False, "_temp_dir": self._started.folder}
        else:
            if address != "auto":
                reach(address)
            try_out(address)
        try:
            with same_signals(), self._started.marked() if self._started else contextlib.nullcontext():
                self.ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, **more)
        except Exception as error:
            self.close()
            raise WorkersError(refusal(type(error).__name__, str(error), address)) from None
        self._connected = True

    def _room(self, address: str, count: int | None, device: str) -> int:
        """How many workers there are, with a device of some kind each."""
        where = "this machine" if address == LOCAL else f"the Ray at {address}"
        there = int(self.ray.cluster_resources().get(device, 0))
        free = int(self.ray.available_resources().get(device, 0))
        wanted = count or 1
        if wanted > there:
            raise WorkersError(f"{where} has {there} {device}s, {wanted} workers need one each")
        if wanted > free:
            raise WorkersError(f"{where} has {free} free {device}s of {there}, {wanted} workers need one each")
        return count or free

    def is_there(self) -> bool:
        """Whether nobody else in this process has left it; what was made with it must not be touched after that.

        Ray would start or find another one by itself, and abort the process when it meets what it does not know.
        """
        return bool(self.ray.is_initialized()) and self.ray.get_runtime_context().get_job_id() == self._job

    def close(self) -> None:
        """Leaves it; one that was started for this object ends."""
        if self._connected or self._started is not None:
            self._connected = False
            with contextlib.suppress(Exception):  # it is gone already
                self.ray.shutdown()
        if self._started is not None:
            self._started.end()
            self._started = None


class _Started:
    """What a Ray of our own leaves: a folder and processes, which end with this process, however it ends."""

    def __init__(self) -> None:
        # nobody else takes it for the Ray of this machine, and its sockets have short names
        self._folder = tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp", ignore_cleanup_errors=True)
        self.folder = self._folder.name
        self._guard = subprocess.Popen(  # noqa: S603
            [sys.executable, "-P", str(Path(guard.__file__)), self.folder],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    @contextlib.contextmanager
    def marked(self) -> Iterator[None]:
        """Has all processes that are started meanwhile, and theirs, be known by a variable."""
        os.environ[guard.MARK] = self.folder
        try:
            yield
        finally:
            del os.environ[guard.MARK]

    def end(self) -> None:
        """Ends what is left, and waits for that."""
        if self._guard.stdin is not None:
            self._guard.stdin.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._guard.wait(2 * guard.PATIENCE)
        self._folder.cleanup()


def package() -> Any:
    """Imports Ray, so that it tells nobody of its use and keeps its news to itself.

    Raises:
        WorkersError: it is not installed, or too old.
    """
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ.setdefault("RAY_DEDUP_LOGS_SKIP_REGEX", ".")  # lines about workers that died, on the standard output
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "1")  # as ever, but it warns of a change
    try:
        ray = importlib.import_module("ray")
        found = version("ray")
    except ImportError as error:
        if importlib.util.find_spec("ray") is not None:
            raise WorkersError(f"Ray cannot be imported: {raised(error)}") from None
        raise WorkersError("Ray is not installed; install it with: pip install 'merging[ray]'") from None
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST:
        oldest = ".".join(map(str, OLDEST))
        raise WorkersError(f"Ray {found} is installed, {oldest} is needed: pip install 'merging[ray]'")
    logging.getLogger("ray").setLevel(logging.ERROR)
    return ray


@contextlib.contextmanager
def same_signals() -> Iterator[None]:
    """Puts back what a signal does: Ray has processes exit upon SIGTERM."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
