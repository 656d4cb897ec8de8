"""A causal language model of transformers in parts: what comes before its blocks, each block, what comes after them.

Nothing is said here of any architecture. What is before and after the blocks is the model's own forward pass, with
stand-ins in the blocks' places: they note what each block is called with (positions' rotations, masks of windows), or
hand on what the blocks have given. Whether that is the model is tried.
"""

from __future__ import annotations

import contextlib
from collections import OrderedDict
from collections.abc import Callable
from typing import Any, TypeAlias

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from merging.models.stand_ins import NothingMoreError, Stand, place_of_blocks, with_part
from merging.models.tokenizers import text_config

Call: TypeAlias = tuple[tuple[Any, ...], dict[str, Any]]
_SHAPES = 4
"""Shapes of batches for which it is kept what the blocks are called with."""
_NEAR = 1e-4
"""Share of the logits' spread within which two ways through a model count as the same, in float32."""


class Decoder:
    """Runs a causal language model part by part.

    Args:
        model: a model of transformers with a head for language modelling.

    Attributes:
        blocks: the repeated blocks in their order; none where the model cannot be divided.
        causal: whether no token is seen by those before it; None where that was not tried, for want of weights.
    """

    def __init__(self, model: nn.Module) -> None:
        self.model: Any = model
        self.blocks: tuple[nn.Module, ...] = ()
        self.causal: bool | None = None
        self._calls = OrderedDict[tuple[Any, ...], list[Call]]()
        self._lengths: list[int] = []  # of the tuples that blocks give; 0: no tuple
        path = place_of_blocks(model)
        if path is not None:
            self.blocks = tuple(model.get_submodule(path).children())
            self._stands = [Stand(block) for block in self.blocks]
            self._shell = with_part(model, path, nn.ModuleList(self._stands))
        if any(parameter.is_meta for parameter in model.parameters()):
            self.blocks = ()  # without weights nothing can be tried
        else:
            self._try()

    def train(self, mode: bool) -> None:
        """Sets the mode of the parts that are not the model's own."""
        if self.blocks:
            self._shell.train(mode)  # which sets the parts that are the model's own once more

    def forget(self) -> None:
        """Keeps nothing of what blocks were called with, which is found again for each shape."""
        self._calls.clear()

    def __call__(self, ids: Tensor) -> Tensor:
        """Gives the model's own logits ``(R, L, vocabulary)`` of token ids ``(R, L)``."""
        return _logits(self.model, ids)

    def enter(self, ids: Tensor) -> Tensor:
        """Gives what enters the first block, ``(R, L, width)``, for token ids ``(R, L)``."""
        entered, calls = self._entered(ids)
        key = self._key(entered)
        self._calls[key] = calls
        self._calls.move_to_end(key)
        while len(self._calls) > _SHAPES:
            self._calls.popitem(last=False)
        return entered

    def block(self, number: int, hidden: Tensor, ids: Tensor) -> Tensor:
        """Runs one block, as the model would for a batch of this shape.

        Args:
            number: the block's.
            hidden: what enters it, ``(R, L, width)``.
            ids: the token ids ``(R, L)``.
        """
        calls = self._calls.get(self._key(hidden))
        if calls is None:
            self.enter(ids)
            calls = self._calls[self._key(hidden)]
        args, kwargs = calls[number]
        found = self.blocks[number](hidden, *args, **kwargs)
        result: Tensor = found[0] if isinstance(found, tuple) else found
        return result

    def leave(self, hidden: Tensor) -> Tensor:
        """Gives the logits ``(n, vocabulary)`` of what the last block gave for some positions, ``(n, width)``."""
        ids = torch.zeros(len(hidden), 1, dtype=torch.int64, device=hidden.device)
        for stand, length in zip(self._stands, self._lengths, strict=True):
            stand.turn(length, given=hidden[:, None])
        try:
            return _logits(self._shell, ids)[:, 0]
        finally:
            for stand in self._stands:
                stand.turn(0)

    def _key(self, hidden: Tensor) -> tuple[Any, ...]:
        return hidden.shape, hidden.dtype, hidden.device, torch.is_inference_mode_enabled(), self.model.training

    def _entered(self, ids: Tensor) -> tuple[Tensor, list[Call]]:
        """What enters the first block, and what each is called with besides."""
        for stand, length in zip(self._stands, self._lengths, strict=True):
            stand.turn(length, last=stand is self._stands[-1])
        try:
            with contextlib.suppress(NothingMoreError):
                _logits(self._shell, ids)
            calls = [stand.call for stand in self._stands]
            entered = self._stands[0].entered
        finally:
            for stand in self._stands:
                stand.turn(0)
        return entered, calls

    def _try(self) -> None:
        """Whether the parts are the model, and the model is causal; divided is only what gives the same logits."""
        training = self.model.training
        self.model.eval()
        self.train(mode=False)
        device = next(self.model.parameters()).device
        one, two = (_some_ids(self.model, shift, device) for shift in (0, 1))
        with torch.no_grad():
            whole = self(one)
            other = one.clone()
            other[:, -1] = two[:, -1]
            near = _NEAR * float(whole.std())
            self.causal = bool((self(other) - whole)[:, :-1].abs().max() <= near)
        if self.blocks and not self._agrees(one, two, whole, near):
            self.blocks = ()
        self.model.train(training)
        self.train(training)

    def _agrees(self, one: Tensor, two: Tensor, whole: Tensor, near: float) -> bool:
        try:
            self._lengths = _lengths(self.model, self.blocks, one)
            with torch.enable_grad():
                calls, others = (self._entered(ids)[1] for ids in (one, two))
            if not all(map(_same, tree_leaves(calls), tree_leaves(others))):  # of the tokens, not of the shape alone
                return False
            with torch.no_grad():
                hidden = self.enter(one)
                for number in range(len(self.blocks)):
                    hidden = self.block(number, hidden, one)
                logits = self.leave(hidden.flatten(0, 1)).view_as(whole)
        except Exception:  # each architecture has its own way to refuse stand-ins
            return False
        finally:
            self.forget()
        return bool((logits - whole).abs().max() <= near)


def _logits(model: Any, ids: Tensor) -> Tensor:
    logits: Tensor = model(input_ids=ids, use_cache=False, return_dict=True).logits
    return logits


def _lengths(model: nn.Module, blocks: tuple[nn.Module, ...], ids: Tensor) -> list[int]:
    """Entries of the tuple that each block gives; 0: a tensor."""
    found: dict[int, int] = {}

    def note(number: int) -> Callable[..., None]:
        def hook(block: nn.Module, given: Any, output: Any) -> None:
            found[number] = len(output) if isinstance(output, tuple) else 0

        return hook

    hooks = [block.register_forward_hook(note(number)) for number, block in enumerate(blocks)]
    try:
        with torch.no_grad():
            _logits(model, ids)
    finally:
        for each in hooks:
            each.remove()
    return [found[number] for number in range(len(blocks))]


def _same(one: Any, two: Any) -> bool:
    """Whether two arguments are the same ones, and no values of the model's own tensors."""
    if isinstance(one, Tensor):
        return isinstance(two, Tensor) and not one.requires_grad and torch.equal(one, two)
    return one is two or bool(one == two)


def _some_ids(model: Any, shift: int, device: torch.device) -> Tensor:
    """Token ids ``(2, 6)``, another one at each place for each of a few shifts."""
    rows = int(text_config(model.config).vocab_size)
    return ((torch.arange(12, device=device) * 37 + 11 + shift) % rows).view(2, 6)
