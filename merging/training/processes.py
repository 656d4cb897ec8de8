"""Several small models at once, a process each."""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from torch import nn

from merging.checkpoint import Checkpoint
from merging.errors import MergingError, Stopped
from merging.interfaces import Progress
from merging.numerics import Numerics
from merging.pool import ModelPool
from merging.progress import Silent
from merging.task import Task
from merging.training.folder import PoolFolder, Trained
from merging.training.hyperparameters import HyperParameters
from merging.training.regime import Regime
from merging.training.start import module_for
from merging.training.turn import Turn


def side_by_side(
    folder: PoolFolder, make_task: Callable[[], Task], regime: Regime, numerics: Numerics,
    asked: Sequence[HyperParameters], jobs: int, progress: Progress, should_stop: Callable[[], bool],
) -> list[Trained]:  # fmt: skip
    """Trains models in processes of their own; what is written already needs none.

    Raises:
        Stopped: ``should_stop`` said so; finished models are kept.
        MergingError: a process died: killed for its memory, or unable to import what makes the task.
    """
    found = {k: folder.written(f"model_{k:02d}", settings) for k, settings in enumerate(asked)}
    waiting = [k for k, trained in found.items() if trained is None]
    if not waiting:
        progress.say(f"{len(asked)} models, there already")
        return [trained for trained in found.values() if trained is not None]
    progress.stage(f"fine-tuning, {min(jobs, len(waiting))} at once", len(asked))
    progress.advance(len(asked) - len(waiting))
    context = multiprocessing.get_context("spawn")
    given = (folder, make_task, regime, numerics)
    with ProcessPoolExecutor(min(jobs, len(waiting)), context, _begin, given) as pool:
        running: dict[Future[Trained], int] = {pool.submit(_run, k, asked[k]): k for k in waiting}
        try:
            while running:
                ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in ended:
                    trained = future.result()
                    found[running.pop(future)] = trained
                    progress.say(str(trained))
                    progress.advance()
                if should_stop():
                    raise Stopped("interrupted")
        except BrokenProcessPool:
            raise MergingError(
                "a training process died: too little memory, or a task that only this process can import; "
                "--jobs 1 trains in this one"
            ) from None
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise
    return [trained for _, trained in sorted(found.items()) if trained is not None]


_mine: tuple[Turn, nn.Module] | None = None


def _begin(folder: PoolFolder, make_task: Callable[[], Task], regime: Regime, numerics: Numerics) -> None:
    """A process makes the task once."""
    import signal

    global _mine
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    task = make_task()
    turn = Turn(folder, task, regime, numerics, Silent(), lambda: False)
    _mine = turn, module_for(task, ModelPool([Checkpoint(folder.base)]))


def _run(index: int, settings: HyperParameters) -> Trained:
    if _mine is None:
        raise RuntimeError("the process was not begun")
    turn, module = _mine
    return turn.one(index, settings, module)
