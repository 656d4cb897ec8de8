"""Nodes of Ray that go and come while a run has workers on them (:mod:`benchmarks.workers.faults`)."""

from __future__ import annotations

import contextlib
import os
import random
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.workers.faults import (
    STRATEGIES,
    Case,
    Lost,
    Run,
    digits_problem,
    parent,
    processes,
    spawned,
    told,
    tried,
)

ENDED = 30.0
"""Seconds in which Ray must have ended the actors of a program that is no more: one that waited for a node is started
first, where the node has just come."""
NODE: dict[str, Any] = {"num_cpus": 1, "object_store_memory": 80 << 20}


@dataclass
class Nodes:
    """Two nodes of Ray on this machine, with a CPU each.

    Args:
        cluster: Ray's own.
    """

    cluster: Any

    @property
    def address(self) -> str:
        """Of its head."""
        return str(self.cluster.address)

    def node(self, run: Run, chance: random.Random) -> int:
        """Removes the node that is not the head, without a word, and adds another one a moment later."""
        del run
        (gone,) = self.cluster.worker_nodes
        self.cluster.remove_node(gone, allow_graceful=False)
        time.sleep(chance.uniform(0.0, 3.0))
        self.cluster.add_node(**NODE)
        return 1

    def check_gone(self) -> float:
        """Waits until Ray has ended all actors of these nodes; returns the seconds.

        Raises:
            Lost: one is left over.
        """
        began = time.monotonic()
        while left := [number for number in processes() if _is_actor(number)]:
            if time.monotonic() - began > ENDED:
                raise Lost(f"actor {left[0]} is left over")
            time.sleep(0.05)
        return time.monotonic() - began


def _is_actor(number: int) -> bool:
    with contextlib.suppress(OSError):
        named = Path(f"/proc/{number}/cmdline").read_bytes().startswith(b"ray::Actor")
        return named and parent(parent(number)) == os.getpid()  # a child of a node, which is one of this process
    return False


@contextlib.contextmanager
def two_nodes() -> Iterator[Nodes]:
    """Starts them, and ends them."""
    from merging.evaluation.workers.cluster import package

    package()  # before anything else imports it
    from ray.cluster_utils import Cluster

    cluster: Any = Cluster(initialize_head=True, head_node_args={**NODE, "include_dashboard": False})
    try:
        cluster.add_node(**NODE)
        yield Nodes(cluster)
    finally:
        cluster.shutdown()


def on_nodes(folder: Path, times: int, seed: int) -> dict[str, Any]:
    """Removes a node so many times under each strategy; returns the figures."""
    chance, found = random.Random(seed), dict[str, Any]()  # noqa: S311 (when, no secret)
    with two_nodes() as nodes:
        for strategy in STRATEGIES:
            case = Case(strategy, digits_problem(), f"ray:{nodes.address}", spawned)
            expected, _ = case.undisturbed(folder / f"{strategy}-without-ray", "none")
            row = found[f"{strategy}, node"] = tried(case, nodes.node, folder, times, chance, expected)
            try:
                row["actors_gone_after"] = round(nodes.check_gone(), 2)
            except Lost as error:
                row["lost"].append(str(error))
            told(strategy, "node", row)
    return found
