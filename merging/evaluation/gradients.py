"""Gradients of the cross-entropy through merged models, counted at the door."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from merging.errors import StrategyError
from merging.evaluation.keys import Keys
from merging.evaluation.ledger import Ledger
from merging.forward import blend
from merging.forward.device import on_device
from merging.forward.fisher import squared_gradients, squared_gradients_of_rows
from merging.forward.losses import parts, share_of_loss, whole_of
from merging.forward.passes import Passes
from merging.plugins.sequences import Sequences
from merging.plugins.slopes import Blend
from merging.plugins.task import HELD_OUT
from merging.values.recipe import Recipe

GRADIENT = 3.0
"""Cost of a forward and a backward pass, in forward passes."""
SQUARES = 4.0
"""The same with a gradient for each sample."""


class Gradients(Protocol):
    """Gradients of the cross-entropy through merged models, in this process or elsewhere; all are counted."""

    def batches(
        self, split: str, generator: np.random.Generator, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over a split in random order: (model inputs, labels)."""

    def gradient(self, recipe: Recipe, batch: tuple[Tensor, Tensor]) -> tuple[float, NDArray[np.float64]]:
        """Cross-entropy on a batch and its derivative by each coefficient, float64 of their shape."""

    def blend(self, rows: Sequence[Recipe]) -> Blend:
        """Rows that are mixed with coefficients to be learned; every gradient is counted."""

    def squared_gradients(
        self, recipe: Recipe, split: str, samples: int, generator: np.random.Generator, *, sampled: bool
    ) -> dict[str, Tensor]:
        """Mean squared per-sample gradients of the log-likelihood, by parameter, float64 on the CPU."""

    def open(self, recipe: Recipe) -> nn.Module:
        """The module with a recipe's weights, open to autograd until the next evaluation."""


class LiveGradients:
    """Gradients through the live model in this process.

    Args:
        keys: keys of the evaluations, with the data, and what is measured again for averages.
        passes: forward passes over the live model.
        ledger: counts samples: forward and backward are three passes.
    """

    def __init__(self, keys: Keys, passes: Passes, ledger: Ledger) -> None:
        self._keys, self._passes, self._ledger = keys, passes, ledger
        self._live, self._held_out = passes.live, keys.task.held_out
        self._tokens = passes.numerics.batch if isinstance(self._held_out.inputs, Sequences) else None

    def batches(
        self, split: str, generator: np.random.Generator, size: int | None = None
    ) -> Iterator[tuple[Tensor, Tensor]]:
        """One pass over a split in random order: (model inputs, labels)."""
        labels = self._passes.feed(split).labels
        order = on_device(torch.from_numpy(generator.permutation(len(labels))), labels.device)
        yield from self._passes.batches(split, order, size)

    def gradient(self, recipe: Recipe, batch: tuple[Tensor, Tensor]) -> tuple[float, NDArray[np.float64]]:
        """Cross-entropy on a batch and its derivative by each coefficient.

        ``∂loss/∂coefficients[i, c] = Σ_{t in c} ⟨∂loss/∂θ_t, θ_{i,t}⟩``: one backward pass through the merged model,
        then inner products with the ingredients.

        Args:
            recipe: ``r`` rows, ``m`` components.
            batch: model inputs and labels, as :meth:`batches` yields them.

        Returns:
            The loss, and float64 of shape ``(r, m)``.
        """
        self._ledger.check()
        self._check_likelihood()
        inputs, labels = batch
        module = self.open(recipe)
        loss = torch.zeros((), device=labels.device)
        for some, wanted in [batch] if self._tokens is None else parts(inputs, labels, self._tokens):
            share = share_of_loss(self._held_out.project(module(some)), wanted, whole_of(labels))
            share.backward()
            loss += share.detach()
        slopes = np.zeros(recipe.coefficients.shape)
        done: set[int] = set()  # tied names are one parameter, whose slope counts once
        for column, component in enumerate(recipe.partition.components):
            for name in component.tensors:
                parameter = self._live.parameters.get(name)
                if parameter is None or parameter.grad is None or id(parameter) in done:
                    continue
                done.add(id(parameter))
                slope = parameter.grad.cpu().double()
                for row, ingredient in enumerate(recipe.ingredients):
                    slopes[row, column] += float((slope * self._live.pool.read(ingredient, name)).sum())
        module.zero_grad(set_to_none=True)
        self._ledger.pay(GRADIENT * len(labels) / len(self._held_out))
        return float(loss), slopes

    def blend(self, rows: Sequence[Recipe]) -> Blend:
        """Rows that are mixed with coefficients to be learned; every gradient is counted."""
        self._check_likelihood()

        def count(samples: int) -> None:
            self._ledger.check()
            self._ledger.pay(GRADIENT * samples / len(self._held_out))

        measured, project = bool(self._keys.statistics), self._held_out.project
        return blend.Blend(
            self._live, rows, batch_norm=measured, project=project, on_gradient=count, tokens=self._tokens
        )

    def squared_gradients(
        self, recipe: Recipe, split: str, samples: int, generator: np.random.Generator, *, sampled: bool
    ) -> dict[str, Tensor]:
        """Mean squared per-sample gradients of the log-likelihood (:func:`merging.forward.fisher.squared_gradients`).

        Args:
            recipe: the model.
            split: the data.
            samples: how many of them, drawn at random; all where there are fewer.
            generator: draws samples and labels.
            sampled: labels come from the model's predictions; otherwise the data's.

        Returns:
            Name → float64 of the parameter's shape, on the CPU.
        """
        self._check_classes(split)
        feed, live = self._passes.feed(split), self._live
        chosen = generator.permutation(len(feed.labels))[:samples]
        order = on_device(torch.from_numpy(chosen), feed.labels.device)
        draws = torch.Generator().manual_seed(int(generator.integers(1 << 62)))
        data = self._keys.task.split(split)
        rows, project = isinstance(data.inputs, Sequences), data.project
        with live.in_fp32(whole=True):
            module, total = self.open(recipe), dict[str, Tensor]()
            for inputs, labels in self._passes.batches(split, order):
                self._ledger.check(split)
                label = _drawn(draws) if sampled else _given(labels)
                if rows:
                    squares = squared_gradients_of_rows(module, inputs, label, live.parameters, project)
                else:
                    squares = squared_gradients(module, [inputs], label, live.parameters, project)
                for name, found in squares.items():
                    total[name] = total[name].add_(found) if name in total else found
        self._ledger.pay(SQUARES * len(chosen) / len(self._held_out))
        by_tensor = {id(live.parameters[name]): name for name in total}  # tied names have one gradient
        tied = {n: by_tensor[id(p)] for n, p in live.parameters.items() if id(p) in by_tensor}
        return {name: total[source] / len(chosen) for name, source in tied.items()}

    def open(self, recipe: Recipe) -> nn.Module:
        """The module with a recipe's weights, open to autograd until the next evaluation."""
        self._live.load(recipe)
        self._live.open_to_autograd()
        return self._live.module

    def _check_likelihood(self) -> None:
        """Refuses a gradient of the cross-entropy where there is no likelihood.

        Raises:
            StrategyError: the labels are numbers.
        """
        if not self._held_out.counts_tokens:
            self._check_classes()

    def _check_classes(self, split: str = HELD_OUT) -> None:
        """Refuses a gradient where there are no classes.

        Raises:
            StrategyError: the labels are numbers.
        """
        if not self._keys.task.split(split).categorical:
            raise StrategyError(
                f"gradients are those of the cross-entropy, and the {split} labels are numbers, not classes; take a "
                "strategy that scores or averages alone, such as greedy, manifoldmix or uniform"
            )


def _given(labels: Tensor) -> Callable[[Tensor], Tensor]:
    return lambda logits: labels


def _drawn(generator: torch.Generator) -> Callable[[Tensor], Tensor]:
    """Labels by the model's own predictions."""

    def draw(logits: Tensor) -> Tensor:
        return on_device(torch.multinomial(logits.softmax(1).cpu(), 1, generator=generator)[:, 0], logits.device)

    return draw
