"""A task: the model that checkpoints go into, and the data that scores it. Values only; loaders live in tasks/."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from merging.errors import TaskError

if TYPE_CHECKING:
    from torch import Tensor, nn

    from merging.pool import ModelPool

HELD_OUT = "held-out"
CERTIFY = "certify"
"""The part of the held-out data that selects nothing and accepts or refuses the result."""


@dataclass(frozen=True, eq=False)
class Split:
    """Samples and their labels, as they are kept in memory.

    Attributes:
        inputs: first dimension N; for images uint8, decoded once.
        labels: int64, shape ``(N,)``.
        fingerprint: content hash; part of every cache key.
    """

    inputs: Tensor
    labels: Tensor
    fingerprint: str

    @classmethod
    def of(cls, inputs: Tensor, labels: Tensor) -> Split:
        """Makes a split and its fingerprint.

        Raises:
            TaskError: no samples, or inputs and labels of different length.
        """
        import torch
        from blake3 import blake3

        if len(inputs) == 0:
            raise TaskError("a split is empty; it needs at least one sample")
        if len(inputs) != len(labels):
            raise TaskError(f"{len(inputs)} samples but {len(labels)} labels")
        digest = blake3(f"{inputs.dtype}{tuple(inputs.shape)}".encode())
        for tensor in (inputs, labels):
            digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
        return cls(inputs, labels, digest.hexdigest())

    def __len__(self) -> int:
        return len(self.labels)


def identity(batch: Tensor) -> Tensor:
    """For inputs that are kept as the model takes them."""
    return batch


@dataclass(frozen=True, eq=False)
class Task:
    """A model and its data.

    Attributes:
        name: for reports.
        build: makes the module for a pool (whose shapes may say the number of classes); weights are replaced.
        held_out: selects; never a test set.
        tests: name → split; the first is in distribution, the others are ``shifts``.
        shifts: the names in ``tests`` whose scores are averaged as "shifted".
        prepare: turns a batch of ``inputs`` into what the model takes, on the device.
        train: samples for methods that learn, where given.
        pool: opens the task's own pool of checkpoints, where it ships one.
        certify: the part of the held-out data that accepts the result (see :meth:`certified`).
    """

    name: str
    build: Callable[[ModelPool], nn.Module]
    held_out: Split
    tests: Mapping[str, Split] = field(default_factory=dict)
    shifts: tuple[str, ...] = ()
    prepare: Callable[[Tensor], Tensor] = identity
    train: Split | None = None
    pool: Callable[[], ModelPool] | None = None
    certify: Split | None = None

    def __post_init__(self) -> None:
        for name in self.tests:
            if name in (HELD_OUT, "train", CERTIFY):
                raise TaskError(f"a test set cannot be called '{name}': that is the name of another part")
        for name in self.shifts:
            if name not in self.tests:
                raise TaskError(f"shifted set '{name}' is not among the tests: {', '.join(self.tests)}")

    def split(self, name: str) -> Split:
        """A split by name: ``held-out``, ``train``, or a test set's.

        Raises:
            TaskError: the task has no such split.
        """
        if name == HELD_OUT:
            return self.held_out
        found = {"train": self.train, CERTIFY: self.certify}.get(name) or self.tests.get(name)
        if found is None:
            raise TaskError(f"task '{self.name}' has no split '{name}'; it has {', '.join([HELD_OUT, *self.tests])}")
        return found

    def certified(self, share: float, seed: int) -> Task:
        """The same task with the held-out data in two: one part selects, the other, ``certify``, accepts.

        Samples are drawn at random within each class, so that both parts have the classes in the same proportion
        (to within one sample). Their order is kept.

        Args:
            share: of the held-out samples that accept, between 0 and 1.
            seed: of the draw.

        Raises:
            TaskError: a part would be empty.
        """
        import torch

        labels = self.held_out.labels.cpu().numpy()
        mixed = np.random.default_rng([seed, len(labels)]).permutation(len(labels))
        ordered = mixed[np.argsort(labels[mixed], kind="stable")]
        steps = np.floor(np.arange(len(labels) + 1) * share)
        accepts = np.sort(ordered[np.diff(steps) > 0])
        selects = np.setdiff1d(np.arange(len(labels)), accepts)
        if not (len(accepts) and len(selects)):
            raise TaskError(f"--certify-split {share:g} leaves one part of the {len(labels)} held-out samples empty")
        parts = [
            Split.of(self.held_out.inputs[index], self.held_out.labels[index])
            for index in (torch.from_numpy(selects), torch.from_numpy(accepts))
        ]
        return replace(self, held_out=parts[0], certify=parts[1])
