"""The workers of a run: hired before it begins, sent home when it ends."""

from __future__ import annotations

import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from merging.errors import WorkerError
from merging.plugins.watcher import Watcher
from merging.storage.atomic import leftovers, make_folder, new_folder, remove

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator
    from merging.evaluation.workers.backend import Backend
    from merging.evaluation.workers.crew import Crew
    from merging.forward.numerics import Numerics
    from merging.forward.workers import Workers
    from merging.running.plan import Plan

HANDLER = "merging.evaluation.workers.worker:Worker"


@contextlib.contextmanager
def hired(made: Plan, folder: Path | None, watcher: Watcher) -> Iterator[Crew | None]:
    """Has the workers of a run for a while; None where there are none.

    Args:
        made: the run's plan.
        folder: the run's folder, beside which large values go from one to the other; None: through one for temporary
            files.
        watcher: told who is lost.

    Raises:
        WorkerError: they cannot be started.
    """
    asked = made.settings.passes.crew
    if asked is None or made.numerics is None:
        yield None
        return
    from merging.evaluation.workers.blobs import Blobs
    from merging.evaluation.workers.crew import Crew
    from merging.evaluation.workers.requests import first_words

    beside, name = (Path(tempfile.gettempdir()), "") if folder is None else (folder.parent, f"{folder.name}-workers")
    make_folder(beside)
    if name:
        remove(*leftovers(beside, name))  # of a session that was killed
    exchange = new_folder(beside, name)
    backend = _backend(asked, made.numerics)
    crew = Crew(backend, Blobs((exchange,), exchange), watcher.progress)
    try:
        backend.start(lambda number: first_words(exchange))
        yield crew
    finally:
        crew.close()
        shutil.rmtree(exchange, ignore_errors=True)


def _backend(asked: Workers, numerics: Numerics) -> Backend:
    """What starts the workers that are asked for.

    Raises:
        MergingError: there cannot be so many of them.
    """
    from merging.evaluation.workers.local import Local, gpu, threads

    if asked.kind == "ray":
        raise WorkerError("workers on Ray are not there yet")
    if asked.kind == "gpu":
        import torch

        count = asked.count or torch.cuda.device_count()
        return Local(count, HANDLER, lambda number: threads(numerics.threads) | gpu(number))
    return Local(asked.count or 1, HANDLER, lambda number: threads(numerics.threads))


def by_crew(evaluator: Evaluator, made: Plan, crew: Crew) -> Evaluator:
    """The evaluator of a plan whose passes are made by a crew, which opens the plan's world for that.

    Raises:
        MergingError: a worker cannot open it.
    """
    from merging.evaluation.evaluator import CACHE_MEMORY, Evaluator
    from merging.evaluation.scorer import LiveScorer
    from merging.evaluation.workers.blobs import LARGE
    from merging.evaluation.workers.models import Models
    from merging.evaluation.workers.packing import Packer, Unpacker
    from merging.evaluation.workers.remote import RemoteScorer
    from merging.evaluation.workers.world import World, machine

    home, ledger, keys = evaluator.scorer, evaluator.ledger, evaluator.keys
    if not isinstance(home, LiveScorer):
        raise TypeError("a crew stands in for a scorer of this process")
    models, memory = Models.of(made.pool), made.settings.passes.cache_memory
    world = World(
        models=models,
        task=keys.task,
        partition=keys.partition,
        objective=keys.objective,
        numerics=keys.numerics,
        cache_memory=0 if not ledger.exact_savings else CACHE_MEMORY if memory is None else memory << 20,
        measure_again=keys.calibration is not None,
        machine=machine(),
    )
    blobs, rows = crew.blobs, models.rows
    packer = Packer(blobs, LARGE, made.pool, keys.partition, rows)
    unpacker = Unpacker(blobs, made.pool, keys.partition, rows)
    crew.enter(world.packed(blobs), packer, unpacker, ledger.interrupted)
    remote = RemoteScorer(home, keys, crew, ledger.known, ledger.interrupted)
    return Evaluator(keys, ledger, remote, evaluator.gradients, evaluator.progress, evaluator.remembered)
