"""The fixed rule by which device, batch, threads and precision follow from machine and model.

Batch and threads change the last bits of a forward pass, so they are part of every cache key, are written to the
report, and stay the same when a run is resumed.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor, nn

from merging.errors import OptionError, unknown

DEVICES = ("auto", "cpu", "cuda", "mps")
SMALL_MODEL = 1_000_000
"""Below this many parameters a second thread costs more than it brings."""


@dataclass(frozen=True)
class Numerics:
    """How forward passes are computed."""

    device: str
    batch: int
    threads: int
    dtype: str = "float32"
    layout: str = "contiguous"

    @classmethod
    def choose(cls, device: str, module: nn.Module, sample: Tensor) -> Numerics:
        """The rule: one thread and large batches for small models, all cores and small batches for large ones.

        Convolutional networks run channels-last (SqueezeNet at 96 pixels: less than half the time on a CPU), and on
        a CPU in batches whose input is 4 MB at the most, because larger intermediate results leave the caches. A
        single convolution is a transformer's patch embedding, and decides nothing.

        Args:
            device: ``auto``, ``cpu``, ``cuda``, ``cuda:N`` or ``mps``.
            module: the model.
            sample: one of the data's inputs, as it is stored.

        Raises:
            OptionError: the device is not there.
        """
        parameters = sum(parameter.numel() for parameter in module.parameters())
        convolutional = sum(isinstance(part, nn.Conv2d) for part in module.modules()) > 1
        place = _device(device)
        small = parameters < SMALL_MODEL
        threads = 1 if small else len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
        batch = 512 if place != "cpu" else 256 if small else 32
        while place == "cpu" and convolutional and batch > 32 and batch * sample.numel() * 4 > 4 << 20:
            batch //= 2
        layout = "channels_last" if convolutional and place != "mps" else "contiguous"
        return cls(place, batch, threads or 1, layout=layout)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values."""
        return asdict(self)

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Sets torch's threads for the duration of a run."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _device(wanted: str) -> str:
    kind, colon, number = wanted.partition(":")
    if kind not in DEVICES or (colon and not (kind == "cuda" and number.isdecimal())):
        raise OptionError(str(unknown("device", wanted, DEVICES)))
    there = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if kind == "auto":
        return next(name for name in ("cuda", "mps", "cpu") if there[name])
    if not there[kind] or (number and int(number) >= torch.cuda.device_count()):
        raise OptionError(f"device '{wanted}' is not available on this machine; try --device cpu")
    return wanted
