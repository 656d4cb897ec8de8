"""Where BatchNorm statistics of averages are measured: on which samples, and which of the statistics count."""

from __future__ import annotations

import numpy as np
import torch

from merging.forward.device import on_device
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.forward.passes import Passes
from merging.forward.recalibration import SAMPLES, equal_batches, recalibrate, statistics_of
from merging.plugins.task import Task


class Calibration:
    """Measures the statistics of the model that is loaded, always on the same samples.

    Args:
        live: the model.
        task: the task, with training or unlabelled data.
        numerics: how passes are made.
        passes: hands out batches.

    Attributes:
        statistics: names of what is measured: of all layers that are not frozen, until the first measurement shows
            which of them a pass reaches.
        mark: what stands in a cache key for having measured.
        split: the name of the data: ``train``, or ``unlabelled``.
    """

    def __init__(self, live: LiveModel, task: Task, numerics: Numerics, passes: Passes) -> None:
        self._live, self._numerics, self._passes = live, numerics, passes
        self.split = task.calibrates or "train"
        self._data, self._held_out = task.split(self.split), len(task.held_out)
        frozen = {name for component in live.partition.components if component.frozen for name in component.tensors}
        self.statistics = frozenset(statistics_of(live.module)) - frozen
        self.mark = f"recalibrated on {self._data.fingerprint}"

    @property
    def samples(self) -> int:
        """Counts the samples that are used: whole batches of one size, because each counts the same."""
        size, batches = equal_batches(min(SAMPLES, len(self._data)), self._numerics.batch)
        return size * batches

    @property
    def share(self) -> float:
        """The cost of measuring, as a share of a pass over the held-out data."""
        return self.samples / self._held_out

    def measure(self) -> float:
        """Measures; returns the cost as a share of a pass over the held-out data."""
        feed, count = self._passes.feed(self.split), self.samples
        chosen = np.sort(np.random.default_rng(0).permutation(len(self._data))[:count])
        order = on_device(torch.from_numpy(chosen), feed.labels.device)
        size, _ = equal_batches(count, self._numerics.batch)
        batches = (inputs for inputs, _ in self._passes.batches(self.split, order, size))
        self.statistics &= recalibrate(self._live.module, batches, self.statistics)
        return self.share
