"""A model as ordered stages, so that a change of late weights costs only the late part of a forward pass.

Cutting is never trusted: a chain of stages counts only if it gives the module's own logits, bit for bit, and which
tensors a stage reads is watched, not declared. Anything else is one stage, and nothing is saved.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn

from merging.forward.carried import Carried, copied, detached, nbytes, same

Step: TypeAlias = Callable[[Any], Any]
"""A part of a forward pass: takes and gives a tensor, or a tuple of tensors."""


@dataclass(frozen=True)
class Stage:
    """One part of a forward pass, from the output of the part before it to its own.

    Attributes:
        run: takes the stage before's output (the first: the model's inputs).
        tensors: names in the module's state dict that it reads.
        entry: whether a pass may begin here, from a kept input.
    """

    run: Step
    tensors: frozenset[str]
    entry: bool


class Watch(torch.overrides.TorchFunctionMode):
    """Notes which tensors any torch function is given.

    Args:
        state: name → tensor; tied names are noted together.
    """

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self._names: dict[int, list[str]] = {}
        for name, tensor in state.items():
            self._names.setdefault(id(tensor), []).append(name)

    def __torch_function__(self, func, types, args=(), kwargs=None):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN204
        for value in torch.utils._pytree.tree_leaves((args, kwargs or {})):
            self.seen.update(self._names.get(id(value), ()))
        return func(*args, **(kwargs or {}))


def stages_of(module: nn.Module, inputs: Tensor) -> tuple[Stage, ...]:
    """Cuts a module into stages.

    Known: ``nn.Sequential``, torchvision's and timm's ResNets, SqueezeNet, timm's and open_clip's vision
    transformers. A module of another kind may say so itself, with a method ``forward_steps()`` that returns
    functions whose chain is its ``forward``.

    Args:
        module: the model, in evaluation mode.
        inputs: a small batch, as the model takes it.

    Returns:
        At least one; exactly one where the chain of steps is not the module, to the bit.
    """
    state = module.state_dict(keep_vars=True)
    whole = (Stage(module, frozenset(state), entry=False),)
    try:
        steps = _steps(module)
        with torch.inference_mode():
            logits = module(inputs)
            entered, reads = _entered(steps, inputs), []
            if len(steps) < 2 or not same(_chain(steps, inputs), logits):
                return whole
            for step, x in zip(steps, entered, strict=True):
                with Watch(state) as watch:
                    step(copied(x))
                reads.append(frozenset(watch.seen))
            entries = [bool(k and reads[k]) and _can_enter(steps[k:], x, logits) for k, x in enumerate(entered)]
    except Exception:  # a chain that does not fit together is no chain
        return whole
    return tuple(Stage(*parts) for parts in zip(steps, reads, entries, strict=True))


def shares_of(stages: Sequence[Stage], inputs: Tensor) -> tuple[float, ...]:
    """Gives each stage's share of a whole pass, counted in floating-point operations; they add up to 1.

    Args:
        stages: the stages, as :func:`stages_of` gives them.
        inputs: a small batch.
    """
    from torch.utils.flop_counter import FlopCounterMode  # imports triton

    counts, x = list[int](), copied(inputs)
    with torch.enable_grad():  # fused inference kernels, which torch cannot count, are not taken under autograd
        for stage in stages:
            with FlopCounterMode(display=False) as counter:
                x = stage.run(x)
            x = detached(x)
            counts.append(counter.get_total_flops())
    total = sum(counts)
    return tuple(count / total if total else 1 / len(counts) for count in counts)


def _chain(steps: Sequence[Step], x: Carried) -> Carried:
    for step in steps:
        x = step(x)
    return x


def _entered(steps: Sequence[Step], x: Carried) -> list[Carried]:
    """What enters each step, as it is kept; copied before a later step can work in place."""
    entered = []
    for step in steps:
        entered.append(copied(x))
        x = step(x)
    return entered


def _can_enter(steps: Sequence[Step], kept: Carried, logits: Tensor) -> bool:
    """Whether a pass from a kept input gives the same bits, and leaves that input as it is."""
    before = copied(kept)
    return same(_chain(steps, kept), logits) and same(kept, before)


def _steps(module: nn.Module) -> list[Step]:
    own = getattr(module, "forward_steps", None)
    if callable(own):
        return [step for part in own() for step in (_steps(part) if isinstance(part, nn.Module) else [part])]
    cut = next((CUTS[kind.__name__] for kind in type(module).__mro__ if kind.__name__ in CUTS), None)
    if cut is None or module._forward_hooks or module._forward_pre_hooks:
        return [module]
    return [step for part in cut(module) for step in (_steps(part) if isinstance(part, nn.Module) else [part])]


def _squeezenet(module: Any) -> list[Step]:
    return [module.features, module.classifier, _flat]


def _resnet(module: Any) -> list[Step]:
    layers = [module.layer1, module.layer2, module.layer3, module.layer4]
    if hasattr(module, "global_pool"):  # timm's
        return [module.conv1, module.bn1, module.act1, module.maxpool, *layers, module.global_pool, module.fc]
    return [module.conv1, module.bn1, module.relu, module.maxpool, *layers, module.avgpool, _flat, module.fc]


def _vision_transformer(module: Any) -> list[Step]:
    if hasattr(module, "resblocks") or hasattr(module, "transformer"):  # open_clip's
        return [module._embeds, *module.transformer.resblocks, lambda x: _projected(module, x)]

    def embed(x: Tensor) -> Tensor:
        embedded: Tensor = module.norm_pre(module.patch_drop(module._pos_embed(module.patch_embed(x))))
        return embedded

    def pool(x: Tensor) -> Tensor:
        features: Tensor = module.forward_head(module.norm(x), pre_logits=True)
        return features

    return [embed, module.blocks, pool, module.head]


def _projected(module: Any, x: Tensor) -> Tensor:
    pooled: Tensor = module._pool(x)[0]
    return pooled if module.proj is None else pooled @ module.proj


def _flat(x: Tensor) -> Tensor:
    return torch.flatten(x, 1)


CUTS: dict[str, Callable[[Any], Sequence[Step]]] = {
    "Sequential": list,
    "SqueezeNet": _squeezenet,
    "ResNet": _resnet,
    "VisionTransformer": _vision_transformer,
}
"""Class name → what its forward pass does, in order; modules among it are cut further."""


@dataclass
class _Kept:
    """Inputs of a stage: for which weights, how many bytes, and the batches themselves, unless nobody has made them."""

    prefix: str
    bytes: int
    batches: list[Carried] | None


class Activations:
    """Inputs of stages, kept from earlier passes over one split, within a limit of memory.

    At most one list of batches is kept for each stage. The least recently used gives way; what does not fit at all
    is not kept, and costs a longer pass, nothing else. Of a pass that nobody made, because its outcome was known, the
    places are kept as if it had been made, so that later passes cost what they would have cost.

    Args:
        limit: bytes.
    """

    def __init__(self, limit: int) -> None:
        self.limit = limit
        self._kept: OrderedDict[int, _Kept] = OrderedDict()

    @property
    def bytes(self) -> int:
        """Counts the bytes that are kept now, or would be."""
        return sum(kept.bytes for kept in self._kept.values())

    def deepest(self, prefixes: Sequence[str]) -> int:
        """The last stage whose input is kept for these weights; 0: none.

        Args:
            prefixes: what decides the input of each stage.
        """
        found = [k for k, kept in self._kept.items() if prefixes[k] == kept.prefix]
        if found:
            self._kept.move_to_end(max(found))
        return max(found, default=0)

    def batches(self, stage: int) -> list[Carried] | None:
        """Gives the kept inputs of a stage; None where nobody has made them."""
        return self._kept[stage].batches

    def make_room(self, stage: int, wanted: int, in_use: int) -> bool:
        """Frees what this stage held before and, oldest first, others; False where that is not enough."""
        if wanted > self.limit:
            return False
        self._kept.pop(stage, None)
        for other in list(self._kept):
            if self.bytes + wanted <= self.limit:
                break
            if other != in_use:
                del self._kept[other]
        return self.bytes + wanted <= self.limit

    def keep(self, stage: int, prefix: str, batches: list[Carried], size: int | None = None) -> None:
        """Keeps a stage's inputs; room was made for them.

        Args:
            stage: its number.
            prefix: what decides them.
            batches: the inputs.
            size: the bytes that room was made for, where batches are of many lengths; None: those that they have.
        """
        self._kept[stage] = _Kept(prefix, sum(map(nbytes, batches)) if size is None else size, batches)

    def pretend(self, stage: int, prefix: str, size: int) -> None:
        """Keeps a stage's place, for inputs of so many bytes that nobody has made; room was made for them."""
        self._kept[stage] = _Kept(prefix, size, None)

    def make(self, stage: int, batches: list[Carried]) -> None:
        """Takes the inputs of a stage whose place was kept without them."""
        self._kept[stage].batches = batches
