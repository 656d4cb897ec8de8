"""Runs a plug-in in another process: for what one process cannot show of itself (hash seed, how it ends).

Such a process is forked from a server that has loaded everything (:mod:`merging.testing.warm`) and started no thread:
it costs milliseconds, where a new interpreter costs seconds. The server has a hash seed of its own.
"""

from __future__ import annotations

import functools
import importlib
import importlib.util
import inspect
import multiprocessing
import os
import sys
import time
import traceback
from dataclasses import dataclass
from multiprocessing.connection import Connection
from multiprocessing.context import ForkServerContext, ForkServerProcess
from pathlib import Path
from typing import Any
from unittest import mock

from merging.plugins.options import Plugin, build
from merging.plugins.registry import KINDS

ENVIRONMENT = {"PYTHONHASHSEED": "12345", "OMP_WAIT_POLICY": "PASSIVE"} | dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1"
)
"""Of the server: another hash seed than the caller's, and nothing that starts a thread."""


@dataclass(frozen=True)
class Other:
    """A process that works on a job.

    Attributes:
        process: itself.
        answers: what it says.
    """

    process: ForkServerProcess
    answers: Connection

    def answer(self, seconds: float = 120.0) -> Any:
        """The next thing it says.

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
            self.process.join()
            raise RuntimeError(f"the other process ended with {self.process.exitcode} and said nothing") from None
        if failed:
            raise RuntimeError(f"in the other process:\n{said}")
        return said


def start(work: str, kind: str, plugin: Plugin, **facts: Any) -> Other:
    """Starts another process on a plug-in.

    Args:
        work: ``merge`` (says its hash of a string, and the content hash of the merged model) or ``interrupt`` (says the
            time at which it raises in a search).
        kind: of plug-in.
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
    server = _server()
    answers, say = server.Pipe(duplex=False)
    process = server.Process(target=_work, args=(job, say), daemon=True)
    process.start()
    say.close()
    return Other(process, answers)


@functools.cache
def _server() -> ForkServerContext:
    from multiprocessing import forkserver

    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["merging.testing.warm"])
    with mock.patch.dict(os.environ, ENVIRONMENT):
        forkserver.ensure_running()
    return context


def _work(job: dict[str, Any], say: Connection) -> None:
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
