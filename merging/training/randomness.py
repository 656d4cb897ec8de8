"""A random state of one's own: what is drawn inside depends on nothing outside, and leaves nothing behind."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import torch


class Randomness:
    """The state of all global generators (timm's augmentations use Python's and NumPy's), swapped in while in use.

    Runs that take turns in one process each keep theirs, so that each draws what it would have drawn alone.

    Args:
        seed: seed of all of them.
        device: its own generator is kept too, where it has one.
    """

    def __init__(self, seed: int, device: str | torch.device = "cpu") -> None:
        self._cuda = torch.device(device) if torch.device(device).type == "cuda" else None
        with self._put_back():
            random.seed(seed)
            np.random.seed(seed % (1 << 32))
            torch.manual_seed(seed)
            self._now = self._states()

    @contextlib.contextmanager
    def used(self) -> Iterator[None]:
        """Draws come from this state; afterwards the generators are as they were."""
        with self._put_back():
            self._set(self._now)
            try:
                yield
            finally:
                self._now = self._states()

    def state(self) -> dict[str, Any]:
        """Gives plain values and tensors for :meth:`restore`."""
        version, words, gauss = self._now["python"]
        kind, keys, position, has_gauss, cached = self._now["numpy"]
        return {
            "torch": self._now["torch"],
            "cuda": self._now["cuda"],
            "python": [version, list(words), gauss],
            "numpy": [kind, torch.from_numpy(keys.astype(np.int64)), position, has_gauss, cached],
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Takes over what :meth:`state` has given: draws go on from there."""
        version, words, gauss = state["python"]
        kind, keys, *rest = state["numpy"]
        self._now = {
            "torch": state["torch"],
            "cuda": state["cuda"],
            "python": (version, tuple(words), gauss),
            "numpy": (kind, keys.numpy().astype(np.uint32), *rest),
        }

    def _states(self) -> dict[str, Any]:
        return {
            "python": random.getstate(),
            "numpy": np.random.get_state(),
            "torch": torch.get_rng_state(),
            "cuda": None if self._cuda is None else torch.cuda.get_rng_state(self._cuda),
        }

    def _set(self, states: dict[str, Any]) -> None:
        random.setstate(states["python"])
        np.random.set_state(states["numpy"])
        torch.set_rng_state(states["torch"])
        if self._cuda is not None:
            torch.cuda.set_rng_state(states["cuda"], self._cuda)

    @contextlib.contextmanager
    def _put_back(self) -> Iterator[None]:
        before = self._states()
        try:
            yield
        finally:
            self._set(before)
