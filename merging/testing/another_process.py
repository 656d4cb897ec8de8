"""Runs a plug-in in another process: for what one process cannot show of itself (hash seed, how it ends).

Such a process is forked from a server that has loaded everything (:mod:`merging.testing.warm`) and started no thread:
it costs milliseconds, where a new interpreter costs seconds. The server has a hash seed of its own.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import inspect
import multiprocessing
import os
import sys
import time
import traceback
import types
from collections.abc import Iterator
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any
from unittest import mock

from merging.plugins.options import Plugin, build
from merging.plugins.registry import KINDS

QUIET = {"OMP_WAIT_POLICY": "PASSIVE"} | dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
"""Variables of the server, so that nothing starts a thread while it loads."""
SEEDS = ("12345", "54321")
"""Seeds of its hashes; the first that is not the caller's own is taken."""


@dataclass(frozen=True)
class Other:
    """Another process, which works on a job.

    Attributes:
        process: itself.
        answers: what it says.
    """

    process: BaseProcess
    answers: Connection

    def answer(self, seconds: float = 120.0) -> Any:
        """Waits for the next answer of the process.

        Raises:
            TimeoutError: it says nothing for so long; it is killed.
            RuntimeError: it failed, or ended without a word.
        """
        if not self.answers.poll(seconds):
            self.process.kill()
            raise TimeoutError(f"the other process says nothing for {seconds:g} seconds")
        try:
            said, failed = self.answers.recv()
        except EOFError:
            self.process.join(seconds)
            raise RuntimeError(f"the other process ended with {self.process.exitcode} and said nothing") from None
        if failed:
            raise RuntimeError(f"in the other process:\n{said}")
        return said

    def ended(self, seconds: float = 8.0) -> bool:
        """Whether it ends by itself within so long; it is killed otherwise."""
        self.process.join(seconds)
        if self.process.is_alive():
            self.process.kill()
            return False
        return True


def start(work: str, kind: str, plugin: Plugin, **facts: Any) -> Other:
    """Starts another process on a plug-in.

    Args:
        work: ``merge`` (says its hash of a string, and the content hash of the merged model) or ``interrupt`` (says the
            time at which it raises in a search).
        kind: kind of the plug-in, such as ``strategy``.
        plugin: an instance; its class must be defined at the top of its module.
        facts: whatever the work needs.
    """
    job = {
        "work": work,
        "kind": kind,
        "name": plugin.name,
        "options": plugin.options(),
        "module": type(plugin).__module__,
        "file": inspect.getfile(type(plugin)),
        **facts,
    }
    context: Any = multiprocessing.get_context(METHOD)
    answers, say = context.Pipe(duplex=False)
    process = context.Process(target=_work, args=(job, dict(os.environ), say))
    with _own_server(), mock.patch.dict(sys.modules, {"__main__": types.ModuleType("__main__")}):
        process.start()  # without the caller's main module, which may be a script that does its work when imported
    say.close()
    return Other(process, answers)


METHOD = "forkserver" if "forkserver" in multiprocessing.get_all_start_methods() else "spawn"
"""Windows has no forkserver: there each process is a new interpreter."""


@functools.cache
def _server() -> Any:
    from multiprocessing.forkserver import ForkServer

    server = ForkServer()
    server.set_forkserver_preload(["merging.testing.warm"])
    return server


@contextlib.contextmanager
def _own_server() -> Iterator[None]:
    """A server of our own, for one start: the session's, if it has one, knows another seed and other modules."""
    seed = next(seed for seed in SEEDS if seed != os.environ.get("PYTHONHASHSEED"))
    with mock.patch.dict(os.environ, {**QUIET, "PYTHONHASHSEED": seed}):
        if METHOD == "spawn":
            yield
            return
        from multiprocessing import forkserver

        with mock.patch.object(forkserver, "connect_to_new_process", _server().connect_to_new_process):
            yield


def _work(job: dict[str, Any], environment: dict[str, str], say: Connection) -> None:
    os.environ.clear()
    os.environ.update(environment)  # the caller's now, not the server's from when it began
    try:
        {"merge": merge, "interrupt": interrupt}[job["work"]](job, say)
    except Exception:
        say.send((traceback.format_exc(), True))
        raise


def find(job: dict[str, Any]) -> Any:
    """The plug-in that a job names, from its module or, where that is not importable by name, from its file."""
    registry = KINDS[job["kind"]]
    if job["name"] not in registry:
        try:
            importlib.import_module(job["module"])
        except ModuleNotFoundError:
            spec = importlib.util.spec_from_file_location(job["module"], job["file"])
            if spec is None or spec.loader is None:
                raise
            module = importlib.util.module_from_spec(spec)
            sys.modules[job["module"]] = module
            spec.loader.exec_module(module)
    return build(registry[job["name"]], job["options"])


def merge(job: dict[str, Any], say: Connection) -> None:
    """Merges a tiny pool that the caller wrote, and says its hash of a string and the result's content hash."""
    from merging.testing.fixtures import content_of, merge_tiny, open_tiny_pool

    pool = open_tiny_pool(Path(job["folder"]))
    say.send(((hash("merging"), content_of(merge_tiny(find(job), pool, seed=job["seed"]))), False))


def interrupt(job: dict[str, Any], say: Connection) -> None:
    """Searches until the fifth evaluation, which is interrupted as Ctrl-C would; says when."""
    from merging.running.search import run_search
    from merging.testing.fixtures import Bowl, box

    optimizer = find(job)
    bowl = Bowl(max(3, optimizer.smallest_dimension))

    def function(x: Any) -> Any:
        outcome = bowl(x)
        if len(bowl.points) == 5:
            say.send((time.time(), False))
            raise KeyboardInterrupt
        return outcome

    run_search(optimizer, box(function, len(bowl.top), budget=60))
