"""Coefficients by gradient: a few models resident side by side, mixed, and all derivatives from one backward pass."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from merging.forward.attention import is_packable, packed
from merging.forward.device import on_device
from merging.forward.live import LiveModel
from merging.forward.losses import parts, share_of_loss, whole_of
from merging.forward.recalibration import batch_statistics
from merging.forward.rows import resident
from merging.mixing.variances import FLOOR
from merging.values.recipe import Recipe


class Blend:
    """Linear merges resident together, mixed with coefficients to learn: ``θ_c = Σ_r coefficients[r, c] · rows[r]_c``.

    The rows are in memory together, on the model's device, each as large as the model. They are mixed by one pass over
    them, in fp32; the model runs forward and backward in the precision of evaluations; one more pass projects:
    ``∂loss/∂coefficients[r, c] = ⟨∂loss/∂θ_c, rows[r]_c⟩`` (the idea that Li et al. 2024, MEHL-Soup, builds on).
    Buffers that are not integers are mixed along and have no derivative.

    Args:
        live: the model; its weights are overwritten.
        rows: linear merges over its partition.
        batch_norm: BatchNorm layers use each batch's statistics, because averaged ones fit no mix.
        project: takes the model's logits to those of the data's classes.
        on_gradient: told the number of samples before each gradient; it counts, and may stop the run.
        tokens: batches are of sequences, of which so many tokens go through the model at once; None: they are not.

    Attributes:
        home: device of coefficients in float64: the model's own, or the CPU for a model on MPS, which has no float64.
        rows_in: dtype of the rows: ``float32``, or ``bfloat16`` where memory is short on a CUDA device.
    """

    def __init__(
        self,
        live: LiveModel,
        rows: Sequence[Recipe],
        *,
        batch_norm: bool = False,
        project: Callable[[Tensor], Tensor] = lambda logits: logits,
        on_gradient: Callable[[int], None] = lambda samples: None,
        tokens: int | None = None,
    ) -> None:
        self._live = live
        self._on_gradient = on_gradient
        self._project, self._tokens = project, tokens
        self._batch_norm = batch_norm
        device = live.device
        self.home = torch.device("cpu") if device.type == "mps" else device
        live.load(rows[0])  # integer tensors follow the first row
        self._rows = resident(live, rows)
        self.rows_in = str(self._rows.dtype).removeprefix("torch.")
        self._slope = torch.zeros(live.size, device=device)
        self._parts = 1
        self._attention = [part for part in live.module.modules() if is_packable(part)] if device.type == "cuda" else []
        bounded = [(c, part) for c, part in live.variances if not live.partition.components[c].frozen]
        places = [torch.arange(part.start, part.stop) for _, part in bounded]
        self._variances = on_device(torch.cat(places), device) if places else None
        if self._variances is not None:
            columns = [torch.full((part.stop - part.start,), column) for column, part in bounded]
            self._columns = on_device(torch.cat(columns), device)
            self._floor = FLOOR * self._rows.at(self._variances).amin(0)

    def gradient(
        self, coefficients: NDArray[np.float64], batch: tuple[Tensor, Tensor], scale: float = 1.0
    ) -> tuple[float, NDArray[np.float64], float]:
        """Cross-entropy of ``scale · logits`` on a batch, or of the tokens of its documents, and its derivatives.

        Args:
            coefficients: shape ``(rows, components)``. Frozen components keep the first row's values.
            batch: (model inputs, labels) on the device.
            scale: the inverse temperature.

        Returns:
            The loss; its derivative by the coefficients, float64 of their shape; its derivative by the scale.
        """
        table = on_device(torch.from_numpy(coefficients), self.home)
        loss, found, by_scale = self.slopes(table, batch, torch.tensor(scale, dtype=torch.float64, device=self.home))
        return float(loss), found.cpu().numpy(), float(by_scale)

    def slopes(self, table: Tensor, batch: tuple[Tensor, Tensor], scale: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The same of tensors that stay where they are: nothing waits for the device.

        Args:
            table: coefficients, shape ``(rows, components)``, float64 at :attr:`home`.
            batch: (model inputs, labels) on the device.
            scale: the inverse temperature, of no dimension, float64 at :attr:`home`.

        Returns:
            The loss, fp32; its derivative by the coefficients, and by the scale, float64 at :attr:`home`.
        """
        self._on_gradient(len(batch[1]))
        live = self._live
        table = on_device(table.detach().float(), live.device)
        with torch.no_grad():
            self._rows.mix(table)
            self._bound(table)
        live.mixed()
        factor = on_device(scale.detach().float(), live.device).requires_grad_()
        live.open_to_autograd()
        with (
            torch.enable_grad(),
            batch_statistics(live.module) if self._batch_norm else contextlib.nullcontext(),
            packed(self._attention),
        ):
            loss = self._backward(*batch, factor)
        live.gather_gradient(self._slope)
        live.drop_gradients()
        found = self._rows.project(self._slope)
        by_scale = torch.zeros_like(factor) if factor.grad is None else factor.grad
        return loss, on_device(found, self.home).double(), on_device(by_scale, self.home).double()

    def _backward(self, inputs: Tensor, labels: Tensor, factor: Tensor) -> Tensor:
        """The mean cross-entropy; its gradients are added up, over as many parts of the batch as memory asks for."""
        while True:
            size = math.ceil(len(labels) / self._parts)
            some: Iterable[tuple[Tensor, Tensor]] = zip(inputs.split(size), labels.split(size), strict=True)
            if self._tokens is not None:
                some = parts(inputs, labels, self._tokens // self._parts)
            try:
                return self._added_up(some, whole_of(labels), factor)
            except torch.cuda.OutOfMemoryError:
                if size == 1 or self._batch_norm:  # whose statistics are those of the whole batch
                    raise
            self._parts *= 2  # what the failure held is free by now
            self._live.drop_gradients()
            factor.grad = None
            torch.cuda.empty_cache()

    def _added_up(self, some: Iterable[tuple[Tensor, Tensor]], whole: Tensor | int, factor: Tensor) -> Tensor:
        """Runs forward and backward over parts of a batch: the mean loss of all of it."""
        losses = list[Tensor]()
        for x, y in some:
            loss = share_of_loss(self._project(self._live.module(x).float()), y, whole, factor)
            loss.backward()
            losses.append(loss.detach())
        return torch.stack(losses).sum()

    def _bound(self, table: Tensor) -> None:
        """Keeps mixed variances positive where a factor is negative, as :mod:`merging.mixing.variances` says."""
        if self._variances is not None:
            mixed, negative = self._live.weights[self._variances], (table < 0).any(0)[self._columns]
            self._live.weights[self._variances] = torch.where(negative, torch.maximum(mixed, self._floor), mixed)
