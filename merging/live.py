"""The live model: all weights in one flat buffer ordered by component, so that a trial is one lerp per component.

The module's parameters are views into the buffer. Mixing writes the buffer in place: no state dict is built, nothing
is cloned, and nothing but coefficients reaches the device during a search.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from merging.arithmetic import materialise_tensor
from merging.errors import PoolError
from merging.partition import Partition
from merging.pool import ModelPool
from merging.recipe import Recipe, Weights
from merging.stages import Watch

_ALIGN = 16
"""Tensors begin at multiples of 64 bytes, as freshly allocated ones do: kernels may choose code paths by alignment."""


class LiveModel:
    """A module on a device whose weights are mixed in place.

    Args:
        module: takes the pool's tensors under the pool's names (checked).
        pool: where ingredients are read from.
        partition: one coefficient a component.
        device: where the module runs. Weights are fp32 there, whatever the checkpoints' dtype.
        layout: ``channels_last`` keeps the filters of convolutions in that order.

    Raises:
        PoolError: the module's tensors are not the pool's.
    """

    def __init__(
        self, module: nn.Module, pool: ModelPool, partition: Partition, device: str, layout: str = "contiguous"
    ) -> None:
        self.module = module.eval().to(device).float()
        self.pool = pool
        self.partition = partition
        self._channels_last = layout == "channels_last"
        state = self.module.state_dict(keep_vars=True)
        check_fits(module, pool)
        self._others = {name: tensor for name, tensor in state.items() if name not in pool.mixable}
        self._layout: dict[str, tuple[int, tuple[int, ...]]] = {}
        self._slices: list[slice] = []
        self.columns = {name: c for c, component in enumerate(partition.components) for name in component.tensors}
        end, homes = 0, dict[int, int]()
        for component in partition.components:
            begin = end
            for name in component.tensors:
                if name not in pool.mixable:
                    continue
                tensor = state[name]
                offset = homes.setdefault(id(tensor), end)  # tied names share one place
                if offset == end:
                    end += -(-tensor.numel() // _ALIGN) * _ALIGN
                self._layout[name] = (offset, tuple(tensor.shape))
            self._slices.append(slice(begin, end))
        self.weights = torch.zeros(end, device=device)
        self.parameters: dict[str, Tensor] = {}
        for name in self._layout:
            self.parameters[name] = state[name]
            state[name].data = self._view(self.weights, name)
        self._incumbent: tuple[Recipe, Tensor] | None = None
        self._candidate: tuple[Recipe, Tensor] | None = None
        self._scratch: Tensor | None = None
        self._at_rest: Recipe | None = None  # whose values the components hold that a search leaves alone

    @property
    def has_integers(self) -> bool:
        """Whether the model holds tensors that are not averaged."""
        return bool(self._others)

    def _view(self, flat: Tensor, name: str) -> Tensor:
        offset, shape = self._layout[name]
        part = flat[offset : offset + int(np.prod(shape, dtype=np.int64))]
        if self._channels_last and len(shape) == 4:
            outputs, inputs, height, width = shape
            return part.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
        return part.view(shape)

    def load(self, recipe: Recipe | Weights) -> None:
        """Puts a merged model, materialised to the checkpoints' dtype, into the module."""
        self._at_rest = None
        if isinstance(recipe, Weights):
            for name in self._layout:
                self._view(self.weights, name).copy_(recipe.tensors[name])
            with torch.no_grad():
                for name, tensor in self._others.items():
                    tensor.copy_(recipe.tensors[name])
            return
        self._fill(self.weights, recipe)
        with torch.no_grad():
            for name, tensor in self._others.items():
                tensor.copy_(materialise_tensor(recipe, self.pool, name, self.columns[name]))

    def _fill(self, flat: Tensor, recipe: Recipe) -> None:
        columns = {name: c for c, component in enumerate(recipe.partition.components) for name in component.tensors}
        for name in self._layout:
            self._view(flat, name).copy_(materialise_tensor(recipe, self.pool, name, columns[name]))

    def set_ends(self, incumbent: Recipe, candidate: Recipe) -> None:
        """Makes the two ends of a search resident; what is already there is kept."""
        if self._incumbent is None or self._incumbent[0] is not incumbent:
            self._incumbent = (incumbent, self._resident(self._incumbent, incumbent))
        if self._candidate is None or self._candidate[0] is not candidate:
            self._candidate = (candidate, self._resident(self._candidate, candidate))
        if self._at_rest is not incumbent:
            self.load(incumbent)
            self._at_rest = incumbent

    def _resident(self, previous: tuple[Recipe, Tensor] | None, recipe: Recipe) -> Tensor:
        flat = torch.empty_like(self.weights) if previous is None else previous[1]
        self._fill(flat, recipe)
        return flat

    def trial(self, factors: NDArray[np.float64], mixing: str) -> None:
        """Mixes ``λ·incumbent + (1 − λ)·candidate`` in place, a λ per component; frozen and inert ones are left alone.

        ``mixing="sum"`` rounds λ·A and (1 − λ)·C to fp32 before they are added, as the published code does.
        """
        if self._incumbent is None or self._candidate is None:
            raise RuntimeError("set_ends comes before trial")
        ahead, behind = self._incumbent[1], self._candidate[1]
        for column in self.partition.active:
            part, factor = self._slices[column], float(factors[column])
            if mixing == "lerp":
                torch.lerp(behind[part], ahead[part], factor, out=self.weights[part])
            else:
                # Both products are rounded to fp32 before the sum, as λ·A + (1 − λ)·C is in eager PyTorch.
                torch.mul(ahead[part], factor, out=self.weights[part])
                if self._scratch is None:
                    self._scratch = torch.empty_like(self.weights)
                self.weights[part].add_(torch.mul(behind[part], 1.0 - factor, out=self._scratch[part]))


def check_fits(module: nn.Module, pool: ModelPool) -> None:
    """Raises PoolError unless the module's state dict has exactly the pool's tensors."""
    state, where = module.state_dict(), pool.checkpoints[0].path
    missing = [name for name in state if name not in pool.tensors]
    extra = [name for name in pool.tensors if name not in state]
    if missing or extra:
        said = [f"the model needs '{missing[0]}' ({len(missing)} such)"] if missing else []
        said += [f"the checkpoints have '{extra[0]}', which it does not know ({len(extra)} such)"] if extra else []
        raise PoolError(f"{where} does not fit the task's model: {'; '.join(said)}")
    for name, tensor in state.items():
        if tuple(tensor.shape) != pool.tensors[name][0]:
            raise PoolError(
                f"{where} does not fit the task's model: tensor '{name}' is {list(pool.tensors[name][0])}, "
                f"the model's is {list(tensor.shape)}"
            )


def untouched(module: nn.Module, inputs: Tensor) -> tuple[frozenset[str], torch.Size]:
    """Tensors that cannot reach a logit: no gradient after backward through the logits' sum, and never read as buffer.

    Structure, not value: a gradient that happens to be zero still counts as touched. Weights need not be sensible.

    Args:
        module: in evaluation mode; left as it was.
        inputs: a small batch, as the model takes it.

    Returns:
        The names, and the shape of the logits.
    """
    state = module.state_dict(keep_vars=True)
    wanted = {name: p.requires_grad for name, p in module.named_parameters()}
    watch = Watch(dict(module.named_buffers(remove_duplicate=False)))
    for parameter in module.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
        parameter.grad = None
    with torch.enable_grad(), watch:
        logits = module(inputs)
        logits.float().sum().backward()
    touched = watch.seen | {
        name for name, tensor in state.items() if isinstance(tensor, nn.Parameter) and tensor.grad is not None
    }
    for name, parameter in module.named_parameters():
        parameter.grad = None
        parameter.requires_grad_(wanted[name])
    return frozenset(name for name in state if name not in touched), logits.shape
