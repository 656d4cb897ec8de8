"""Several small models at once, a process each, none of which outlives the first one."""

from __future__ import annotations

import multiprocessing
import os
import queue
import signal
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool

from torch import nn

from merging.errors import MergingError, Stopped, StopReason
from merging.forward.numerics import Numerics
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import Task
from merging.storage.checkpoint import Checkpoint
from merging.storage.pool import ModelPool
from merging.training.adapters import Adapters
from merging.training.folder import PoolFolder, Trained, model_name
from merging.training.hyperparameters import HyperParameters
from merging.training.regime import Regime
from merging.training.start import module_for
from merging.training.turn import Turn


def side_by_side(
    turn: Turn, make_task: Callable[[], Task], asked: Sequence[HyperParameters], steps: Sequence[int], jobs: int
) -> list[Trained]:
    """Trains models in processes of their own; what is written already needs none.

    Args:
        turn: what all of them have in common; it is asked twice a second whether to stop.
        make_task: gives the task, in each process.
        asked: hyper-parameters, a model each.
        steps: number of steps that each of them takes.
        jobs: processes at the most.

    Raises:
        Stopped: ``should_stop`` said so; finished models are kept.
        MergingError: a process died: killed for its memory, or unable to import what makes the task.
    """
    folder, progress = turn.folder, turn.progress
    found = {k: folder.written(model_name(k), settings) for k, settings in enumerate(asked)}
    waiting = [k for k, trained in found.items() if trained is None]
    if not waiting:
        progress.say(f"{len(asked)} models, there already")
        return [trained for trained in found.values() if trained is not None]
    for trained in found.values():
        if trained is not None:
            progress.say(str(trained))
    progress.stage(f"fine-tuning, {min(jobs, len(waiting))} at once", sum(steps[k] for k in waiting))
    context = multiprocessing.get_context("spawn")
    news: multiprocessing.Queue[int | str] = context.Queue()
    count = min(jobs, len(waiting))
    given = (folder, make_task, turn.regime, turn.numerics, news, count, turn.adapters)
    with ProcessPoolExecutor(count, context, _begin, given) as pool:
        running: dict[Future[Trained], int] = {pool.submit(_run, k, asked[k]): k for k in waiting}
        try:
            while running:
                ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                _pass_on(news, progress)
                for future in ended:
                    trained = future.result()
                    found[running.pop(future)] = trained
                    progress.say(str(trained))
                if turn.should_stop():
                    raise Stopped(StopReason.INTERRUPTED)
        except BrokenProcessPool:
            if turn.should_stop():  # whoever stopped this process has stopped all of them
                raise Stopped(StopReason.INTERRUPTED) from None
            raise MergingError(
                "a training process died: too little memory, or a task that only this process can import; "
                "`jobs=1` trains in this one"
            ) from None
        except BaseException:  # interrupted, or an error in a process: none of them may go on alone
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise
    _pass_on(news, progress)  # what was on its way when the last model was done
    return [trained for _, trained in sorted(found.items()) if trained is not None]


class _Reports(Silent):
    """In a process: sends steps, a few times a second, and epochs to the first one."""

    def __init__(self, news: multiprocessing.Queue[int | str]) -> None:
        self._news, self._steps, self._sent = news, 0, time.monotonic()
        self.name = ""

    def advance(self, steps: int = 1) -> None:
        """Some steps are done."""
        self._steps += steps
        if time.monotonic() - self._sent > 0.25:
            self.flush()

    def status(self, text: str) -> None:
        """An epoch is done."""
        self._news.put(f"{self.name}, {text}")

    def flush(self) -> None:
        """Sends the steps that were not sent yet."""
        self._news.put(self._steps)
        self._steps, self._sent = 0, time.monotonic()


def _pass_on(news: multiprocessing.Queue[int | str], progress: Progress) -> None:
    """What the processes have sent so far."""
    while True:
        try:
            told = news.get_nowait()
        except queue.Empty:
            return
        if isinstance(told, int):
            progress.advance(told)
        else:
            progress.status(told)


_mine: tuple[Turn, _Reports, nn.Module] | None = None


def _begin(
    folder: PoolFolder,
    make_task: Callable[[], Task],
    regime: Regime,
    numerics: Numerics,
    news: multiprocessing.Queue[int | str],
    beside: int,
    adapters: Adapters | None,
) -> None:
    """A process makes the task once."""
    global _mine
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for name in ("SIGINT", "SIGHUP"):  # a key, or a terminal that is closed, reaches all processes: the parent ends it
        if hasattr(signal, name):
            signal.signal(getattr(signal, name), signal.SIG_IGN)
    task = make_task()
    reports = _Reports(news)
    turn = Turn(
        folder=folder,
        task=task,
        regime=regime,
        numerics=numerics,
        progress=reports,
        should_stop=lambda: False,
        beside=beside,
        adapters=adapters,
    )
    _mine = turn, reports, module_for(task, ModelPool([Checkpoint(folder.base)]))


def _end_with_parent() -> None:
    """Ends this process when its parent is gone, however that ended: nobody would take what it trains.

    The parent holds the other end of a pipe, which the system closes with it; this works where there are signals of a
    parent's death and where there are none.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)


def _run(index: int, settings: HyperParameters) -> Trained:
    if _mine is None:
        raise RuntimeError("the process was not begun")
    turn, reports, module = _mine
    reports.name = model_name(index)
    try:
        return turn.one(index, settings, module)
    finally:
        reports.flush()
