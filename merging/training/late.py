"""The copies of late-phase weights, and the shared weights that they take turns on."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from merging.training.libraries import optimizer_of
from merging.training.trainer import Run


class Copies:
    """K versions of some parameters of a run's module, and of the running statistics of the layers they belong to.

    Args:
        run: the run whose module, data and schedule they share.
        names: names of the parameters.
        count: K, the number of copies.
        noise: σ of their start, relative to each tensor's root mean square.
    """

    def __init__(self, run: Run, names: list[str], count: int, noise: float) -> None:
        self._run = run
        parameters = dict(run.module.named_parameters())
        layers = {name.rpartition(".")[0] for name in names}
        buffers = {
            name: buffer
            for name, buffer in run.module.named_buffers()
            if name.rpartition(".")[0] in layers and buffer.is_floating_point()
        }
        self._late = [parameters[name] for name in names]
        self._statistics = list(buffers.values())
        generator = torch.Generator().manual_seed(run.settings.seed)
        self.copies = [
            nn.ParameterList([_noisy(parameter.detach(), noise, generator) for parameter in self._late])
            for _ in range(count)
        ]
        self.statistics = [[buffer.clone() for buffer in self._statistics] for _ in range(count)]
        self._optimizers = [optimizer_of(copy, run.settings) for copy in self.copies]
        self._turn, self._summed = 0, 0
        run.optimizer.zero_grad(set_to_none=True)

    def step(self) -> None:
        """Trains the copy whose turn it is on one batch; after K of them the shared weights make one step."""
        run, own, optimizer = self._run, self.copies[self._turn], self._optimizers[self._turn]
        self.load(self._turn)
        for group in optimizer.param_groups:
            group["lr"] = run.rate
        run.gradients()
        for parameter, late in zip(own, self._late, strict=True):
            parameter.grad, late.grad = late.grad, None  # the shared step must pass over the late-phase weights
        if run.settings.clip is not None:
            nn.utils.clip_grad_norm_(own.parameters(), run.settings.clip)
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        for kept, buffer in zip(self.statistics[self._turn], self._statistics, strict=True):
            kept.copy_(buffer)
        self._summed += 1
        last = run.done + 1 == run.steps * run.settings.epochs
        if self._summed == len(self.copies) or last:
            self._share()
        run.next()
        self._turn = (self._turn + 1) % len(self.copies)

    def load(self, which: int) -> None:
        """Gives the module one of the copies."""
        with torch.no_grad():
            for parameter, value in zip(self._late, self.copies[which], strict=True):
                parameter.copy_(value)
            for buffer, value in zip(self._statistics, self.statistics[which], strict=True):
                buffer.copy_(value)

    def load_mean(self) -> None:
        """Gives the module the mean of the copies, and of their statistics."""
        with torch.no_grad():
            for index, parameter in enumerate(self._late):
                parameter.copy_(torch.stack([copy[index].double() for copy in self.copies]).mean(0))
            for index, buffer in enumerate(self._statistics):
                buffer.copy_(torch.stack([own[index].double() for own in self.statistics]).mean(0))

    def _share(self) -> None:
        """The shared weights step along the mean of what the copies' batches have added up."""
        for group in self._run.optimizer.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    parameter.grad.div_(self._summed)
        self._run.update()
        self._run.optimizer.zero_grad(set_to_none=True)
        self._summed = 0


def _noisy(tensor: Tensor, noise: float, generator: torch.Generator) -> nn.Parameter:
    if not noise:
        return nn.Parameter(tensor.clone())
    drawn = torch.randn(tensor.shape, generator=generator).to(tensor)
    return nn.Parameter(tensor + noise * tensor.square().mean().sqrt() * drawn)
