"""Runs a plug-in in a fresh interpreter: for what one process cannot show of itself (hash seed, how it ends).

``python -m merging.testing.another_process JOB``, with a job written by :func:`start`.
"""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from merging.plugins.options import Plugin, build
from merging.plugins.registry import KINDS

RAISED = "raised at"
"""The line with which an interrupted optimiser's process says when it was interrupted."""


def start(work: str, kind: str, plugin: Plugin, *, hash_seed: int = 0, **facts: Any) -> subprocess.Popen[str]:
    """Starts another process on a plug-in.

    Args:
        work: ``merge`` (prints the content hash of the merged model) or ``interrupt`` (raises in a search).
        kind: of plug-in.
        plugin: an instance; its class must be defined at the top of its module.
        hash_seed: of that process (``PYTHONHASHSEED``).
        facts: whatever the work needs, JSON-ready.
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
    return subprocess.Popen(  # noqa: S603 (this interpreter, our own module)
        [sys.executable, "-W", "ignore", "-m", "merging.testing.another_process", json.dumps(job)],
        env={**os.environ, "PYTHONHASHSEED": str(hash_seed), "OMP_WAIT_POLICY": "PASSIVE"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


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


def merge(job: dict[str, Any]) -> None:
    """Merges a tiny pool that the caller wrote, and prints the result's content hash."""
    from merging.testing.fixtures import content_of, merge_tiny, open_tiny_pool

    print(content_of(merge_tiny(find(job), open_tiny_pool(Path(job["folder"])), seed=job["seed"])))


def interrupt(job: dict[str, Any]) -> None:
    """Searches until the fifth evaluation, which is interrupted as Ctrl-C would; says when."""
    from merging.running.search import run_search
    from merging.testing.fixtures import Bowl, box

    optimizer = find(job)
    bowl = Bowl(max(3, optimizer.smallest_dimension))

    def function(x: Any) -> Any:
        outcome = bowl(x)
        if len(bowl.points) == 5:
            print(RAISED, time.time(), flush=True)
            raise KeyboardInterrupt
        return outcome

    run_search(optimizer, box(function, len(bowl.top), budget=60))


if __name__ == "__main__":
    given = json.loads(sys.argv[1])
    {"merge": merge, "interrupt": interrupt}[given["work"]](given)
