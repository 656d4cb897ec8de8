"""The workers of a run: hired before it begins, sent home when it ends."""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from merging.plugins.progress import Progress
from merging.plugins.watcher import Watcher
from merging.storage.atomic import leftovers, make_folder, new_folder, refusals, remove
from merging.storage.lock import Lock, is_held

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator
    from merging.evaluation.scorer import LiveScorer
    from merging.evaluation.workers.backend import Backend
    from merging.evaluation.workers.crew import Crew
    from merging.forward.numerics import Numerics
    from merging.forward.workers import Workers
    from merging.running.plan import Plan
    from merging.values.outcome import Outcome

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
        WorkersError: they cannot be started.
        FolderError: they have nowhere to exchange files.
    """
    asked = made.settings.passes.crew
    if asked is None or made.numerics is None:
        if folder is not None:
            _sweep(folder.parent, _beside(folder))
        yield None
        return
    from merging.evaluation.workers.blobs import Blobs
    from merging.evaluation.workers.crew import Crew
    from merging.evaluation.workers.requests import first_words

    backend = _backend(asked, made.numerics)  # refused before there is anything to take back
    try:
        with _exchange(folder) as exchange, contextlib.closing(backend):
            backend.start(lambda number: first_words(exchange))
            yield Crew(backend, Blobs((exchange,), exchange), watcher.progress)
    finally:
        backend.close()


def _beside(folder: Path) -> str:
    """What a run's large values are in, beside its folder."""
    return f"{folder.name}-workers"


@contextlib.contextmanager
def _exchange(folder: Path | None) -> Iterator[Path]:
    """A folder through which large values go for a while; those of sessions that were killed are removed.

    Raises:
        FolderError: nobody can write there.
    """
    from merging.evaluation.workers.blobs import own_folder

    with refusals("workers have nowhere to exchange files"):
        parent, name = (own_folder(), "run-workers") if folder is None else (folder.parent, _beside(folder))
        make_folder(parent)
        with Lock(parent / f"{name}-begin", beside=True, wait=True):  # nobody sweeps what is not held yet
            _sweep(parent, name)
            path = new_folder(parent, name)
            held = Lock(path)
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)
        held.release()


def _sweep(parent: Path, name: str) -> None:
    """Removes folders for large values that nobody holds any more: their session was killed."""
    with contextlib.suppress(OSError):
        remove(*(left for left in leftovers(parent, name) if not is_held(left)))


def _backend(asked: Workers, numerics: Numerics) -> Backend:
    """What starts the workers that are asked for.

    Raises:
        MergingError: there cannot be so many of them.
    """
    from merging.evaluation.workers.local import Local, gpu, threads

    if asked.kind == "ray":
        from merging.evaluation.workers.on_ray import OnRay

        return OnRay(
            asked.count,
            HANDLER,
            asked.address,
            gpus=numerics.device.startswith("cuda"),
            environment=lambda number: threads(numerics.threads),
        )
    if asked.kind == "gpu":
        import torch

        count = asked.count or torch.cuda.device_count()
        return Local(count, HANDLER, lambda number: threads(numerics.threads) | gpu(number))
    return Local(asked.count or 1, HANDLER, lambda number: threads(numerics.threads))


def by_crew(evaluator: Evaluator, made: Plan, crew: Crew, progress: Progress) -> Evaluator:
    """The evaluator of a plan whose passes are made by a crew, which opens the plan's world unless it is in it.

    Args:
        evaluator: the evaluator whose passes this process would make.
        made: the plan.
        crew: the workers.
        progress: told that they open it.

    Raises:
        MergingError: a worker cannot open it, or would give other bits.
    """
    from merging.evaluation.evaluator import CACHE_MEMORY, Evaluator
    from merging.evaluation.scorer import LiveScorer
    from merging.evaluation.workers.remote import RemoteScorer

    home, ledger, keys = evaluator.scorer, evaluator.ledger, evaluator.keys
    if not isinstance(home, LiveScorer):
        raise TypeError("a crew stands in for a scorer of this process")
    memory = made.settings.passes.cache_memory
    cached = 0 if not ledger.exact_savings else CACHE_MEMORY if memory is None else memory << 20
    inside = home.live, keys.task, keys.objective, cached
    if crew.inside is None or any(here is not there for here, there in zip(crew.inside, inside, strict=True)):
        progress.stage("workers open models and data")
        _enter(crew, home, evaluator, cached)
        crew.inside = inside

    def known(key: str) -> Outcome | None:
        return ledger.known(key) or ledger.journal.peek(key)

    remote = RemoteScorer(home, keys, crew, known, ledger.interrupted)
    return Evaluator(keys, ledger, remote, evaluator.gradients, evaluator.progress, evaluator.remembered)


def _enter(crew: Crew, home: LiveScorer, evaluator: Evaluator, cached: int) -> None:
    """Has a crew open what an evaluator scores."""
    from merging.evaluation.fingerprint import fingerprint
    from merging.evaluation.workers.blobs import LARGE
    from merging.evaluation.workers.models import Models
    from merging.evaluation.workers.packing import Packer, Unpacker
    from merging.evaluation.workers.world import World, machine

    keys, pool, blobs = evaluator.keys, home.live.pool, crew.blobs
    world = World(
        models=Models.of(pool),
        task=keys.task,
        partition=keys.partition,
        objective=keys.objective,
        numerics=keys.numerics,
        cache_memory=cached,
        measure_again=keys.calibration is not None,
        machine=machine(),
    )
    crew.enter(
        world.packed(blobs),
        Packer(blobs, LARGE, pool, keys.partition, world.models.rows),
        Unpacker(blobs, pool, keys.partition, world.models.rows),
        alike=fingerprint(home.live, keys.task, keys.numerics),
        should_stop=evaluator.ledger.interrupted,
    )
