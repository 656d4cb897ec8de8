"""A compiled model is trusted after its logits have been compared with the eager ones'.

A transformer is one block, many times over. Compiling the block once takes a fraction of the time that the whole model
takes, and what lies around the blocks costs next to nothing; stages of a pass use the same compiled blocks.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from importlib.util import find_spec

import torch
from torch import Tensor, nn

from merging.errors import TaskError, raised
from merging.forward.attention import is_packable, packed
from merging.forward.patches import PatchProduct

_CLOSE = {"float32": 1e-3, "bfloat16": 5e-2}
"""How far a compiled model's logits may be from the eager ones, relative to the largest."""
_MOST_KINDS = 4
"""Kinds of blocks that are compiled one by one (Swin has four stages); each costs a compilation."""


def compiler_there() -> bool:
    """Whether torch can compile for a CUDA device here: Triton, and the C compiler that it starts kernels with."""
    named = os.environ.get("CC")
    return find_spec("triton") is not None and any(map(shutil.which, [named] if named else ["cc", "gcc", "clang"]))


def repeated_blocks(module: nn.Module) -> list[nn.Module]:
    """The blocks that a model is made of: modules of one class and one shape, side by side, that hold most of it.

    Args:
        module: the model.

    Returns:
        The blocks, in order; none where they hold less than half of its parameters, or come in too many kinds.
    """
    kinds: dict[tuple[object, ...], list[nn.Module]] = defaultdict(list)

    def look(part: nn.Module) -> None:
        alike: dict[tuple[object, ...], list[nn.Module]] = defaultdict(list)
        for child in part.children():
            alike[_kind(child)].append(child)
        for kind, children in alike.items():
            if isinstance(part, nn.ModuleList | nn.Sequential) and kind[1:] and len(children) > 1:
                kinds[kind] += children
            else:
                for child in children:
                    look(child)

    look(module)
    blocks = [block for same in kinds.values() for block in same]
    within = sum(parameter.numel() for block in blocks for parameter in block.parameters())
    whole = sum(parameter.numel() for parameter in module.parameters())
    return blocks if 0 < len(kinds) <= _MOST_KINDS and 2 * within >= whole else []


def _kind(part: nn.Module) -> tuple[object, ...]:
    """Class and parameters' shapes of a module that has parts; the class alone of a layer, and of what stages cut."""
    cut = isinstance(part, nn.Sequential) or hasattr(part, "forward_steps")  # compiled, its cuts would give other bits
    if cut or not any(True for _ in part.children()):
        return (type(part),)
    return (type(part), *((name, tuple(tensor.shape)) for name, tensor in part.named_parameters()))


class Compiled:
    """A model whose repeated blocks are compiled, or that is compiled whole where it has none.

    So are patch embeddings that are products, which cast and cut images in one go then; attention within blocks is
    :class:`merging.forward.attention.PackedAttention`. The module itself stays eager: all this is so only inside
    :meth:`applied`.

    Args:
        module: the model, in evaluation mode.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        blocks = repeated_blocks(module)
        embeddings = [part for part in module.modules() if isinstance(part, PatchProduct)] if blocks else []
        self._attention = [part for block in blocks for part in block.modules() if is_packable(part)]
        self._parts = [(part, torch.compile(part.forward, dynamic=False)) for part in (*embeddings, *blocks)]
        on_gpu = any(parameter.is_cuda for parameter in module.parameters())
        mode = "reduce-overhead" if on_gpu else None  # CUDA graphs; blocks keep a GPU busy without
        whole = None if blocks else torch.compile(module, mode=mode, dynamic=False)
        self._whole: Callable[[Tensor], Tensor] | None = whole

    @contextlib.contextmanager
    def applied(self) -> Iterator[None]:
        """Has the module run its compiled blocks for a while; nothing where it is compiled whole."""
        with packed(self._attention):
            try:
                for part, call in self._parts:
                    part.forward = call
                yield
            finally:
                for part, _ in self._parts:
                    part.__dict__.pop("forward", None)  # the class's own again

    def __call__(self, x: Tensor) -> Tensor:
        """Computes logits."""
        with self.applied():
            logits: Tensor = self._module(x) if self._whole is None else self._whole(x)
        return logits.clone() if self._whole is not None else logits  # a CUDA graph writes there again next time


def compiled(module: nn.Module, x: Tensor, dtype: str) -> Compiled:
    """The compiled model, its logits compared with the eager ones'.

    Args:
        module: the model, in evaluation mode.
        x: a batch of its inputs, compared on.
        dtype: the dtype in which it runs: ``float32`` or ``bfloat16``.

    Raises:
        TaskError: it cannot be compiled here, or computes something else.
    """
    eager = module(x).float()
    try:
        with warnings.catch_warnings():  # of TF32, which fp32 here does without, of its empty first graph, of itself
            warnings.simplefilter("ignore", UserWarning)
            warnings.simplefilter("ignore", DeprecationWarning)
            made = Compiled(module)
            found = made(x).float()
    except Exception as error:  # compilers raise whatever is missing on this machine
        reason = raised(error)
        raise TaskError(f"the model cannot be compiled here ({reason}); use `compile=False`") from None
    apart, largest = float((found - eager).abs().max()), float(eager.abs().max())
    if not apart <= _CLOSE[dtype] * max(largest, 1e-6):
        raise TaskError(f"compiled, the model's logits are {apart:.3g} away from the eager ones; use `compile=False`")
    return made
