"""Means of weights while they are trained: of one model over time, or of a population."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn


class Average:
    """The running mean of a module's parameters; torch's own, with buffers as the module has them.

    Args:
        module: the module as it is trained.
    """

    def __init__(self, module: nn.Module) -> None:
        from torch.optim.swa_utils import AveragedModel

        self._module, self._mean = module, AveragedModel(module)

    @property
    def count(self) -> int:
        """Counts the iterates that are in it."""
        return int(self._mean.n_averaged)

    def add(self) -> None:
        """Takes in the module as it is."""
        self._mean.update_parameters(self._module)

    def load(self) -> None:
        """Loads the mean into the module."""
        with torch.no_grad():
            for parameter, mean in zip(self._module.parameters(), self._mean.module.parameters(), strict=True):
                parameter.copy_(mean)


def mixed(modules: Sequence[nn.Module]) -> list[list[Tensor]]:
    """The tensors that means are taken of: floating-point parameters and buffers, each as a list over the modules.

    Tensors that a module holds under two names come once. Counters (integers) stay each module's own, and so do buffers
    that its checkpoint does not hold, such as an attention mask with its −∞.
    """
    columns = []
    for module in modules:
        stored = module.state_dict().keys()
        columns.append([*module.parameters(), *(b for name, b in module.named_buffers() if name in stored)])
    return [list(row) for row in zip(*columns, strict=True) if row[0].is_floating_point()]


def replace_by(modules: Sequence[nn.Module], change: Callable[[Tensor], Tensor]) -> None:
    """Replaces the weights of all modules at once.

    Args:
        modules: modules of one architecture.
        change: float64 ``(modules, …)``, one tensor of all of them, → the same shape.
    """
    with torch.no_grad():
        for row in mixed(modules):
            for tensor, new in zip(row, change(torch.stack([t.double() for t in row])), strict=True):
                tensor.copy_(new)


def spread(modules: Sequence[nn.Module]) -> float:
    """Mean distance of the modules from their mean, divided by the norm of that mean."""
    squares, norm = torch.zeros(len(modules), dtype=torch.float64), torch.zeros((), dtype=torch.float64)
    with torch.no_grad():
        for row in mixed(modules):
            values = torch.stack([t.double().flatten() for t in row])
            mean = values.mean(0)
            squares += (values - mean).square().sum(1).cpu()
            norm += mean.square().sum().cpu()
    return float(squares.sqrt().mean() / norm.sqrt().clamp_min(1e-30))
