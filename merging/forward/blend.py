"""Coefficients by gradient: a few models resident side by side, mixed, and all derivatives from one backward pass."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import cross_entropy

from merging.forward.live import LiveModel
from merging.forward.recalibration import batch_statistics
from merging.values.recipe import Recipe


class Blend:
    """Linear merges resident together, mixed with coefficients to learn: ``θ_c = Σ_r coefficients[r, c] · rows[r]_c``.

    The rows are in memory together, in fp32 on the model's device, each as large as the model. Mixing is a product of
    a vector with that table for each component; so is the derivative, with the gradient in place of the model:
    Buffers that are not integers are mixed along and have no derivative.
    ``∂loss/∂coefficients[r, c] = ⟨∂loss/∂θ_c, rows[r]_c⟩`` (the idea that Li et al. 2024, MEHL-Soup, builds on).

    Args:
        live: the model; its weights are overwritten.
        rows: linear merges over its partition.
        batch_norm: BatchNorm layers use each batch's statistics, because averaged ones fit no mix.
        project: takes the model's logits to those of the data's classes.
        on_gradient: told the number of samples before each gradient; it counts, and may stop the run.
    """

    def __init__(
        self,
        live: LiveModel,
        rows: Sequence[Recipe],
        *,
        batch_norm: bool = False,
        project: Callable[[Tensor], Tensor] = lambda logits: logits,
        on_gradient: Callable[[int], None] = lambda samples: None,
    ) -> None:
        self._live = live
        self._on_gradient = on_gradient
        self._project = project
        self._batch_norm = batch_norm
        live.load(rows[0])  # integer tensors follow the first row
        self._rows = torch.zeros((len(rows), len(live.weights)), device=live.weights.device)
        for flat, recipe in zip(self._rows, rows, strict=True):
            live.fill(flat, recipe)
        self._slope = torch.zeros_like(live.weights)

    def gradient(
        self, coefficients: NDArray[np.float64], batch: tuple[Tensor, Tensor], scale: float = 1.0
    ) -> tuple[float, NDArray[np.float64], float]:
        """Cross-entropy of ``scale · logits`` on a batch and its derivatives.

        Args:
            coefficients: shape ``(rows, components)``. Frozen components keep the first row's values.
            batch: (model inputs, labels) on the device.
            scale: the inverse temperature.

        Returns:
            The loss; its derivative by the coefficients, float64 of their shape; its derivative by the scale.
        """
        self._on_gradient(len(batch[1]))
        live = self._live
        table = torch.from_numpy(coefficients).to(self._rows)
        for column, component in enumerate(live.partition.components):
            part = live.slice_of(column)
            if component.frozen:
                live.weights[part].copy_(self._rows[0, part])
            else:
                torch.mv(self._rows[:, part].T, table[:, column], out=live.weights[part])
        mixed = [column for column, component in enumerate(live.partition.components) if not component.frozen]
        live.bound_variances(list(self._rows), coefficients, mixed)
        live.mixed()
        inputs, labels = batch
        factor = torch.tensor(scale, device=self._rows.device, requires_grad=True)
        live.open_to_autograd()
        with torch.enable_grad(), batch_statistics(live.module) if self._batch_norm else contextlib.nullcontext():
            loss = cross_entropy(self._project(live.module(inputs).float()) * factor, labels)
            loss.backward()
        live.gather_gradient(self._slope)
        live.module.zero_grad(set_to_none=True)
        found = np.zeros(coefficients.shape)
        for column in live.partition.active:
            part = live.slice_of(column)
            found[:, column] = torch.mv(self._rows[:, part], self._slope[part]).double().cpu().numpy()
        by_scale = 0.0 if factor.grad is None else float(factor.grad)
        return float(loss.detach()), found, by_scale
