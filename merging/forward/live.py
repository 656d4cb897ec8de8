"""The live model: all weights in one flat buffer ordered by component, so that a trial is one lerp per component.

The module's parameters are views into the buffer. Mixing writes the buffer in place: no state dict is built, nothing
is cloned, and nothing but coefficients reaches the device during a search.

The ends of a search are merges, which are rounded to the checkpoints' dtype by definition: where that has 16 bits,
they are kept in it, and nothing is lost. Where the module runs in the same dtype, so do its weights: a mix is made in
fp32 a part at a time and rounded into them, and the memory of a search is three times that of a checkpoint.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from merging.forward.device import on_device
from merging.forward.fitting import check_fits
from merging.forward.head import head_layer
from merging.forward.lerp import Mixer
from merging.forward.widening import Widening, can_widen
from merging.machine import give_back
from merging.mixing.arithmetic import materialise_into, materialise_tensor
from merging.mixing.variances import bounded_below, is_variance
from merging.storage.dtypes import torch_dtype
from merging.storage.pool import ModelPool
from merging.values.partition import Partition
from merging.values.recipe import Ingredient, Recipe, Weights

_ALIGN = 16
"""Tensors begin at multiples of 64 bytes, as freshly allocated ones do: kernels may choose code paths by alignment."""


class LiveModel:
    """A module on a device whose weights are mixed in place.

    Args:
        module: takes the pool's tensors under the pool's names (checked).
        pool: the pool that ingredients are read from.
        partition: one coefficient a component.
        device: the device that the module runs on. Weights are mixed in fp32 there, whatever the checkpoints' dtype.
        layout: ``channels_last`` keeps the filters of convolutions in that order.
        dtype: the dtype that the module runs in. With ``bfloat16`` each mix is rounded once; BatchNorm and the head
            stay in fp32, so that logits do not become ties. A module with an attribute ``exact`` says the names that
            do instead, and keeps its other buffers as they are.

    Attributes:
        device: the device that holds the weights.
        size: how many numbers a flat buffer holds.
        dtype: the dtype that the module runs in now.
        variances: component and place of each tensor of running variances.

    Raises:
        PoolError: the module's tensors are not the pool's.
    """

    def __init__(
        self,
        module: nn.Module,
        pool: ModelPool,
        partition: Partition,
        device: str,
        layout: str = "contiguous",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        self.module = on_device(module.eval(), device).float()
        self.pool = pool
        self.dtype = torch.float32
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
        self.variances = [
            (self.columns[name], slice(offset, offset + int(np.prod(shape, dtype=np.int64))))
            for name, (offset, shape) in self._layout.items()
            if is_variance(name)
        ]
        self.size = end
        self.parameters: dict[str, Tensor] = {name: state[name] for name in self._layout}
        self._loose = [] if dtype == torch.float32 else _loose_buffers(self.module)
        self._exact = _kept_exact(self.module) if dtype != torch.float32 else frozenset()
        self._ends_in = _common_dtype(pool)
        self._slim = dtype == self._ends_in != torch.float32 and not self.variances
        self._running = torch.zeros(end, device=device, dtype=dtype)
        self.device = self._running.device
        self._wide: Tensor | None = self._running  # in fp32; None where that would be a second buffer, and nobody asked
        if dtype != torch.float32:
            self._wide = None if self._slim else torch.zeros(end, device=device)
        apart = {self._layout[name][0]: self.parameters[name] for name in self._exact & self._layout.keys()}
        self._apart = {  # by its place, what stays in fp32 where nothing else is there in it
            offset: torch.zeros(tensor.numel(), device=device) for offset, tensor in apart.items() if self._slim
        }
        self._bind(dtype)
        give_back()  # what the module came with
        self._sources = _OnDevice(pool, self.device)
        self._incumbent: tuple[Recipe, Tensor] | None = None
        self._candidate: tuple[Recipe, Tensor] | None = None
        self._mixer: Mixer | None = None
        self._at_rest: Recipe | None = None  # whose values the components hold that a search leaves alone

    @property
    def weights(self) -> Tensor:
        """The flat buffer in fp32. Where the weights are in 16 bits, it is made for whoever asks, and kept beside them.

        Who writes to it says so (:meth:`mixed`).
        """
        return self._open()

    def _open(self) -> Tensor:
        if self._wide is None:
            self._wide = self._running.float()
            for offset, exact in self._apart.items():
                self._wide[offset : offset + len(exact)].copy_(exact)
            self._bind(self.dtype)
        return self._wide

    @property
    def has_integers(self) -> bool:
        """Whether the model holds tensors that are not averaged."""
        return bool(self._others)

    def _bind(self, dtype: torch.dtype) -> None:
        """Makes the module's parameters views of the buffer in that precision."""
        self.dtype = dtype
        for name, parameter in self.parameters.items():
            offset = self._layout[name][0]
            if dtype == self._running.dtype and name not in self._exact:
                parameter.data = self._view(self._running, name)
            elif self._wide is not None:
                parameter.data = self._view(self._wide, name)
            elif offset in self._apart:
                parameter.data = self._shaped(self._apart[offset], name)
        for part, name, buffer in self._loose:
            part._buffers[name] = buffer.to(dtype)

    @contextlib.contextmanager
    def in_fp32(self, *, whole: bool = False) -> Iterator[None]:
        """Runs the module in fp32 for a while.

        Args:
            whole: all weights are there in fp32 together, as gradients and compilers need them. Elsewhere weights of 16
                bits are widened layer by layer, as they are used.
        """
        before = self.dtype
        if before == torch.float32:
            yield
            return
        layers = self._wide is None and not whole and can_widen(self.module)
        if not layers:
            self._open()
        self._bind(torch.float32)
        try:
            with Widening(self.parameters.values()) if layers else contextlib.nullcontext():
                yield
        finally:
            self._bind(before)

    def widen(self) -> None:
        """Runs the module in fp32 from now on."""
        self._running, self._exact, self._slim = self.weights, frozenset(), False
        self._apart = {}
        self._bind(torch.float32)

    def _slimmer(self) -> None:
        """Drops the buffer in fp32 that somebody has asked for."""
        if self._slim and self._wide is not None and self.dtype != torch.float32:
            for offset, exact in self._apart.items():
                exact.copy_(self._wide[offset : offset + len(exact)])
            self._wide = None
            self._bind(self.dtype)

    @property
    def _first(self) -> Tensor:
        """The buffer that a model is written to, from which others follow."""
        return self._running if self._wide is None else self._wide

    def _round(self, part: slice) -> None:
        """Brings what was mixed to the precision that the module runs in."""
        if self._wide is not None and self._running is not self._wide:
            self._running[part].copy_(self._wide[part])

    def _settle(self) -> None:
        """Has all buffers hold the model that was written."""
        self._round(slice(None))
        if self._wide is None:
            for offset, exact in self._apart.items():
                exact.copy_(self._running[offset : offset + len(exact)])

    def _view(self, flat: Tensor, name: str) -> Tensor:
        offset, shape = self._layout[name]
        return self._shaped(flat[offset : offset + int(np.prod(shape, dtype=np.int64))], name)

    def _shaped(self, part: Tensor, name: str) -> Tensor:
        shape = self._layout[name][1]
        if self._channels_last and len(shape) == 4:
            outputs, inputs, height, width = shape
            return part.view(outputs, height, width, inputs).permute(0, 3, 1, 2)
        return part.view(shape)

    def load(self, recipe: Recipe | Weights) -> None:
        """Puts a merged model, materialised to the checkpoints' dtype, into the module."""
        self._at_rest = None
        if isinstance(recipe, Weights):
            if any(recipe.tensors[name].dtype != self._ends_in for name in self._layout):
                self._open()  # they may hold more than the checkpoints' dtype
            for name in self._layout:
                self._view(self._first, name).copy_(recipe.tensors[name])
        else:
            self.fill(self._first, recipe)
        self._settle()
        self.load_integers(recipe)

    @torch.no_grad()
    def load_integers(self, recipe: Recipe | Weights) -> None:
        """Puts the tensors of a merged model that are not averaged into the module, and no others."""
        for name, tensor in self._others.items():
            if isinstance(recipe, Weights):
                tensor.copy_(recipe.tensors[name])
            else:
                tensor.copy_(materialise_tensor(recipe, self.pool, name, self.columns[name]))

    def slice_of(self, column: int) -> slice:
        """Finds a component in the flat buffer."""
        return self._slices[column]

    def open_to_autograd(self) -> None:
        """Every parameter takes gradients, also where the module came with some of them frozen; none is kept."""
        for parameter in self.parameters.values():
            if isinstance(parameter, nn.Parameter):
                parameter.requires_grad_()
        self.drop_gradients()

    def drop_gradients(self) -> None:
        """Keeps no gradient of any parameter."""
        for parameter in self.parameters.values():
            if parameter.is_leaf:
                parameter.grad = None

    def bound_variances(self, ends: Sequence[Tensor], factors: NDArray[np.float64], columns: Collection[int]) -> None:
        """Keeps mixed variances positive where a factor is negative, as :func:`merging.mixing.variances` says.

        Args:
            ends: what was mixed, each ordered as the weights are.
            factors: its share, shape ``(ends, components)``.
            columns: the components that were mixed.
        """
        for column, part in self.variances:
            if column in columns and (factors[:, column] < 0).any():
                self.weights[part].copy_(bounded_below(self.weights[part], [end[part] for end in ends]))

    def mixed(self) -> None:
        """Says that the flat buffer was written from outside: the module then runs with these weights."""
        self._at_rest = None
        self._settle()

    @contextlib.contextmanager
    def of_noise(self, noise: Callable[[str, tuple[int, ...]], Tensor]) -> Iterator[None]:
        """Has weights in the module that are no model's, to see what network it is; integers are 0 meanwhile.

        What decides them is their name, shape and the checkpoints' dtype alone, whatever the model's division and the
        device. Integers are put back; whoever scores afterwards loads a model first.

        Args:
            noise: name and shape of a tensor → its values, float32.
        """
        self._at_rest = None
        for name in sorted(self._layout):
            self._view(self._first, name).copy_(noise(name, self._layout[name][1]).to(self._ends_in))
        self._settle()
        before = [tensor.clone() for tensor in self._others.values()]
        with torch.no_grad():
            for tensor in self._others.values():
                tensor.zero_()
            try:
                yield
            finally:
                for tensor, kept in zip(self._others.values(), before, strict=True):
                    tensor.copy_(kept)

    def gather_gradient(self, flat: Tensor) -> None:
        """Copies the parameters' gradients into a flat buffer ordered as the weights are; zero where there is none."""
        found: dict[int, tuple[Tensor, Tensor]] = {}  # tied names have one gradient
        for name, parameter in self.parameters.items():
            if parameter.grad is None:
                self._view(flat, name).zero_()
            else:
                found[id(parameter)] = self._view(flat, name), parameter.grad
        if found:
            torch._foreach_copy_([home for home, _ in found.values()], [slope for _, slope in found.values()])

    def fill(self, flat: Tensor, recipe: Recipe) -> None:
        """Writes a merged model into a flat buffer ordered as the weights are."""
        columns = {name: c for c, component in enumerate(recipe.partition.components) for name in component.tensors}
        for name in self._layout:
            materialise_into(self._view(flat, name), recipe, self._sources, name, columns[name])

    def set_ends(self, incumbent: Recipe, candidate: Recipe) -> None:
        """Makes the two ends of a search resident; what is already there is kept."""
        self._slimmer()
        if self._incumbent is None or self._incumbent[0] is not incumbent:
            self._incumbent = (incumbent, self._resident(self._incumbent, incumbent))
        if self._candidate is None or self._candidate[0] is not candidate:
            self._candidate = (candidate, self._resident(self._candidate, candidate))
        if self._at_rest is not incumbent:
            self.load(incumbent)
            self._at_rest = incumbent

    def _resident(self, previous: tuple[Recipe, Tensor] | None, recipe: Recipe) -> Tensor:
        flat = torch.zeros(self.size, device=self.device, dtype=self._ends_in) if previous is None else previous[1]
        self.fill(flat, recipe)
        return flat

    def trial(self, factors: NDArray[np.float64], mixing: str) -> None:
        """Mixes ``λ·incumbent + (1 − λ)·candidate`` in place, a λ per component; frozen and inert ones are left alone.

        ``mixing="sum"`` rounds λ·A and (1 − λ)·C to fp32 before they are added, as the published code does.
        """
        if self._incumbent is None or self._candidate is None:
            raise RuntimeError("set_ends comes before trial")
        ahead, behind = self._incumbent[1], self._candidate[1]
        if self._mixer is None or self._mixer.mixing != mixing:
            self._mixer = Mixer(mixing, self.size, self.device)
        for column in self.partition.active:
            part, factor = self._slices[column], float(factors[column])
            apart = ((offset - part.start, exact) for offset, exact in self._apart.items())
            kept = apart if self._wide is None else ()
            self._mixer.mix(self._first[part], ahead[part], behind[part], factor, kept)
            if not 0.0 <= factor <= 1.0:
                self.bound_variances((ahead, behind), np.stack([factors, 1.0 - factors]), (column,))
            self._round(part)


class _OnDevice:
    """A pool whose tensors are read once and stay on a CUDA device, within half of its free memory.

    Recipes over many models are then sums on the device. What does not fit is read again each time, from files that
    are mapped. On a CPU the maps themselves are the cache.
    """

    def __init__(self, pool: ModelPool, device: torch.device, room: int | None = None) -> None:
        self.tensors, self.mixable, self._pool, self._device = pool.tensors, pool.mixable, pool, device
        free = torch.cuda.mem_get_info(device)[0] // 2 if device.type == "cuda" else 0
        self._room = free if room is None else room
        self._kept: dict[tuple[str, str], Tensor] = {}

    def read(self, ingredient: Ingredient, name: str) -> Tensor:
        """One tensor of one ingredient; on the device where that is a CUDA one."""
        key = (ingredient.hash, name)
        if key in self._kept:
            return self._kept[key]
        tensor = self._pool.read(ingredient, name)
        tensor = on_device(tensor, self._device) if self._device.type == "cuda" else tensor
        if tensor.nbytes <= self._room:
            self._room -= tensor.nbytes
            self._kept[key] = tensor
        return tensor


def _common_dtype(pool: ModelPool) -> torch.dtype:
    """The dtype that holds every merge as it is rounded: the checkpoints', where all of it has one of 16 bits."""
    found = {pool.tensors[name][1] for name in pool.mixable}
    return torch_dtype(*found) if len(found) == 1 and found <= {"bfloat16", "float16"} else torch.float32


def _loose_buffers(module: nn.Module) -> list[tuple[nn.Module, str, Tensor]]:
    """Buffers that no checkpoint holds, which follow the precision unless the module says what is exact."""
    if hasattr(module, "exact"):
        return []
    return [
        (part, name, buffer)
        for part in module.modules()
        for name, buffer in part.named_buffers(recurse=False)
        if name in part._non_persistent_buffers_set and buffer.is_floating_point()
    ]


def _kept_exact(module: nn.Module) -> frozenset[str]:
    """Names that stay in fp32: those that the module says; else BatchNorm's, and those of the head."""
    if hasattr(module, "exact"):
        named: Collection[str] = module.exact  # type: ignore[assignment]
        return frozenset(named)
    exact: list[nn.Module] = [part for part in module.modules() if isinstance(part, _BatchNorm)]
    head = head_layer(module)
    if head is not None:
        head[1].register_forward_pre_hook(lambda part, given: tuple(x.float() for x in given))
        exact.append(head[1])
    tensors = {id(t) for part in exact for t in part.state_dict(keep_vars=True).values()}
    return frozenset(n for n, t in module.state_dict(keep_vars=True).items() if id(t) in tensors)
