"""Where a pass may begin and what it is to keep: the model's stages, and what decides the input of each."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from typing import Any, TypeAlias

from blake3 import blake3
from torch import Tensor, nn

from merging.forward.stages import shares_of, stages_of

Contents: TypeAlias = Callable[[str], Any]
"""A tensor's name → what decides its values, JSON-ready."""
Span: TypeAlias = tuple[int, int]
"""Some of a split's samples in a row: the first, and the one after the last."""


class Staging:
    """The stages of a model, and what decided the input of each in the pass before.

    Args:
        module: the model.
        sample: model inputs, on which stages are tried and weighed.
        names: names of the tensors that are mixed.

    Attributes:
        stages: the stages in order; one where the model cannot be cut.
        shares: share of each stage in a whole pass, by operations.
    """

    def __init__(self, module: nn.Module, sample: Tensor, names: Collection[str]) -> None:
        self.stages = stages_of(module, sample)
        self.shares = shares_of(self.stages, sample)
        self._reads = [sorted(name for name in stage.tensors if name in names) for stage in self.stages]
        self._last: list[str] = []  # what decided the stages' inputs in the pass before

    def prefixes(self, content: Contents, span: Span | None = None) -> list[str]:
        """Digests, one a stage, of all that decides the stage's input: samples, and the tensors that earlier ones read.

        Args:
            content: what decides a tensor's values.
            span: the samples; None: all of them.
        """
        digest, prefixes = blake3(json.dumps(span).encode() if span else b""), list[str]()
        for names in self._reads:
            prefixes.append(digest.hexdigest())
            digest.update(json.dumps([[name, content(name)] for name in names]).encode())
        return prefixes

    def share_from(self, names: Collection[str]) -> float:
        """Share of a whole pass that begins at the last entry before which none of these tensors is read."""
        reads = [k for k, own in enumerate(self._reads) if not set(names).isdisjoint(own)]
        first = min(reads, default=len(self.stages))
        begin = max((k for k, stage in enumerate(self.stages) if stage.entry and k <= first), default=0)
        return float(sum(self.shares[begin:])) if reads else 0.0

    def worth_keeping(self, prefixes: list[str], first: int) -> set[int]:
        """Stages whose inputs the next pass may begin with.

        The head's, always: it costs next to nothing. And that of the stage where this pass began to differ from the
        one before: a search that moves one place moves it again.

        Args:
            prefixes: the digests of this pass, one a stage.
            first: the stage that it begins with.
        """
        entries = [k for k, stage in enumerate(self.stages) if stage.entry]
        if not entries:
            return set()
        same = sum(a == b for a, b in zip(prefixes, self._last, strict=False))  # the first stage's is always
        place = max((k for k in entries if k < same), default=0) if self._last else 0
        return {k for k in (entries[-1], place) if k > first}

    def made(self, prefixes: list[str]) -> None:
        """Remembers a pass that has come to its end."""
        self._last = prefixes
