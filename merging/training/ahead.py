"""Batches that timm's policies change, image by image on the CPU, some batches ahead of the step that takes them."""

from __future__ import annotations

import contextlib
import multiprocessing
import multiprocessing.util
import os
import signal
import threading
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.machine import cores
from merging.training.augment import augmentation
from merging.training.randomness import Randomness

MOST_WORKERS = 8


class Workers:
    """Processes that augment; they are started by the first batch, and none outlives this one.

    What a batch becomes depends on its samples, its seed and its number alone: not on how many processes there are, on
    which of them had it, or on what was drawn before.

    Args:
        count: how many; default: the cores that this process is granted, 8 at the most.
        beside: processes that do the same, and share these.
    """

    def __init__(self, count: int | None = None, *, beside: int = 1) -> None:
        self._count = count or max(1, min(cores(), MOST_WORKERS) // beside)
        self._pool: ProcessPoolExecutor | None = None
        self._alone = False

    def batches(self, name: str, seed: int, first: int, inputs: Tensor, parts: Sequence[Tensor]) -> Iterator[Tensor]:
        """Augmented batches, in order.

        Args:
            name: one of timm's policies.
            seed: seed of the run.
            first: number of the first batch, counted over all epochs.
            inputs: all samples, as they are stored, on the CPU.
            parts: indices of each batch's samples.
        """
        waiting = deque[tuple[Future[NDArray[Any]] | None, tuple[Any, ...]]]()
        ahead = enumerate(parts, start=first)
        while True:
            while len(waiting) <= self._count and (following := next(ahead, None)) is not None:
                number, part = following
                asked = (name, seed, number, inputs[part].numpy())
                waiting.append((self._submitted(asked), asked))
            if not waiting:
                return
            future, asked = waiting.popleft()
            yield torch.from_numpy(self._result(future, asked))

    def close(self) -> None:
        """Ends the processes; a later batch starts others."""
        if self._pool is not None:
            self._pool.shutdown(cancel_futures=True)
            self._pool = None

    def _submitted(self, asked: tuple[Any, ...]) -> Future[NDArray[Any]] | None:
        if self._alone:
            return None
        try:
            if self._pool is None:
                context = multiprocessing.get_context("spawn")  # a process that uses CUDA may not fork
                self._pool = ProcessPoolExecutor(self._count, context, _begin)
                # a process that was started by another one waits for its own before it tells them to end
                multiprocessing.util.Finalize(self, _shut, (self._pool,), exitpriority=100)
            with _deaf():
                return self._pool.submit(augmented, *asked)
        except BrokenProcessPool:
            return None

    def _result(self, future: Future[NDArray[Any]] | None, asked: tuple[Any, ...]) -> NDArray[Any]:
        if future is not None:
            try:
                return future.result()
            except BrokenProcessPool:  # killed, or a script whose start no other process can repeat
                self._alone = True
        return augmented(*asked)


def augmented(name: str, seed: int, number: int, images: NDArray[Any]) -> NDArray[Any]:
    """Augments one batch with draws of its own.

    Args:
        name: the augmentation.
        seed: seed of the run.
        number: the batch's number, counted over all epochs.
        images: uint8 ``(N, H, W)`` or ``(N, H, W, 3)``.

    Raises:
        OptionError: these images cannot be changed so.
    """
    own = np.random.SeedSequence([seed, number]).generate_state(1, np.uint32)
    change = augmentation(name)
    stored = torch.from_numpy(images)
    if change is None:
        return images
    with Randomness(int(own[0])).used():
        return change(stored).numpy()


_KEYS = [getattr(signal, name) for name in ("SIGINT", "SIGHUP") if hasattr(signal, name)]


@contextlib.contextmanager
def _deaf() -> Iterator[None]:
    """Processes that are started in here hear no keys until they have said that they ignore them."""
    if not hasattr(signal, "pthread_sigmask"):
        yield
        return
    before = signal.pthread_sigmask(signal.SIG_BLOCK, _KEYS)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _shut(pool: ProcessPoolExecutor) -> None:
    """Tells processes to end; those that are killed already do not matter."""
    pool.shutdown(cancel_futures=True)


def _begin() -> None:
    """A worker: one thread, deaf to keys, gone when its parent is."""
    threading.Thread(target=_end_with_parent, daemon=True).start()
    for key in _KEYS:
        signal.signal(key, signal.SIG_IGN)
    if hasattr(signal, "pthread_sigmask"):
        signal.pthread_sigmask(signal.SIG_UNBLOCK, _KEYS)
    torch.set_num_threads(1)


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os._exit(1)
