"""The learned soup: mixing coefficients by gradient descent on held-out data (Wortsman et al. 2022, §2.2).

One backward pass through the merged model gives the derivatives of all coefficients: inner products of its gradient
with the ingredients. Blocks of models stay resident and the pool is streamed once (MEHL-Soup, Li et al. 2024), where
the published learned soup holds all models in memory.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.plugins.options import option
from merging.plugins.problem import Problem
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


@strategies.register("learned")
@dataclass(frozen=True)
class Learned(MixStrategy):
    """Minimises the cross-entropy of the merged model, with a coefficient for each model and component.

    ``convex``: a softmax over the models in each component. ``affine``: coefficients that sum to one and may be
    negative, as steps from the block's mean. The temperature of the logits is fitted first and learned along, because
    models that were trained with smoothed labels or mixup disagree about it.
    """

    label: ClassVar[str] = "learned soup"
    summary: ClassVar[str] = "coefficients per component by gradient descent on held-out data"
    paper: ClassVar[str] = (
        "Wortsman et al. 2022, §2.2 and Appendix I, https://arxiv.org/abs/2203.05482; blocks and affine coefficients: "
        "Li et al. 2024 (MEHL-Soup), ECCV"
    )
    formula: ClassVar[str] = (
        "min over α, β of mean CE(β · f(x; θ), y) with θ_m = Σ_i α_im θ_i; convex: α_·m = softmax(x_·m); affine: "
        "θ_m = c_m + Σ_i x_im (θ_im − c_m)"
    )
    limits: ClassVar[str] = (
        "Costs 3 forward-equivalents an epoch, whatever the number of models and components, and memory for 'block' "
        "models. Needs a model that autograd can run through. Fits models × components numbers to the held-out data: "
        "with fine partitions and few samples 'convex' is the safer choice."
    )
    needs: ClassVar[frozenset[str]] = frozenset({"model", "objective", "gradients", "classes"})
    min_models: ClassVar[int] = 2
    ranks: ClassVar[bool] = False

    coefficients: str = option("convex", "softmax over the models, or affine", choices=("convex", "affine"))
    epochs: int | None = option(
        None, "passes over the held-out data for each block; none: 5, or as many as make 140 steps", low=1
    )
    batch: int = option(128, "samples a step", low=1)
    rate: float | None = option(None, "AdamW's first learning rate; none: 0.05 for convex, 0.01 for affine", low=0.0)
    block: int = option(18, "models in memory at a time", low=2)

    def mix(self, problem: Problem) -> Recipe:
        """Learns block after block, each starting from the soup that the ones before have given."""
        count = len(problem.pool)
        soup = problem.mean(range(min(self.block, count)))
        best = problem.evaluate(soup)
        problem.keep(soup, best)
        scale = self._temperature(problem, soup)
        problem.progress.stage("learning coefficients", math.ceil(count / self.block) * self._epochs(problem))
        for begin in range(0, count, self.block):
            singles = [problem.single(index) for index in range(begin, min(begin + self.block, count))]
            whole = begin == 0 and self.coefficients == "convex"  # the block's mean is in its span already
            rows = singles if whole else [soup, *singles]
            soup, scale = self._learn(problem, rows, scale, 1 if whole else max(begin, 1))
            outcome = problem.evaluate(soup)
            problem.keep(soup, outcome)
            problem.decide(models=begin + len(singles), score=outcome.score, scale=scale)
        return soup

    def _learn(self, problem: Problem, rows: Sequence[Recipe], scale: float, first: int) -> tuple[Recipe, float]:
        """One block: AdamW with a cosine schedule. ``first``: how many models the first row stands for."""
        import torch

        blend, size = problem.slopes.blend(rows), (len(rows), len(problem.partition))
        convex = self.coefficients == "convex"
        moved = torch.zeros(size if convex else (size[0] - 1, size[1]), dtype=torch.float64)
        if convex:
            moved[0] = math.log(first)
        moved.requires_grad_()
        sharpness = torch.tensor(math.log(scale), dtype=torch.float64, requires_grad=True)
        rate = self.rate if self.rate is not None else 0.05 if convex else 0.01
        epochs, count = self._epochs(problem), len(problem.scores.labels())
        each = math.ceil(count / self.batch)  # batches of one size, for no last one of a single sample
        steps = epochs * each
        optimizer = torch.optim.AdamW([moved, sharpness], lr=rate, weight_decay=0.0)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        for _ in range(epochs):
            for batch in problem.slopes.batches("held-out", problem.generator, math.ceil(count / each)):
                table = self._table(moved)
                _, slopes, slope = blend.gradient(table.detach().numpy(), batch, float(sharpness.detach().exp()))
                optimizer.zero_grad()
                table.backward(torch.from_numpy(slopes))
                sharpness.grad = slope * sharpness.detach().exp()
                optimizer.step()
                schedule.step()
            problem.progress.advance()
        return Recipe.combined(rows, self._table(moved).detach().numpy()), float(sharpness.detach().exp())

    def _epochs(self, problem: Problem) -> int:
        """A small held-out set is gone through more often, because it is steps that move coefficients."""
        return self.epochs or max(5, math.ceil(140 / math.ceil(len(problem.scores.labels()) / self.batch)))

    def _table(self, moved: Tensor) -> Tensor:
        """Coefficients of the rows, ``(rows, components)``; they sum to one in every component."""
        import torch

        if self.coefficients == "convex":
            return moved.softmax(0)
        return torch.cat([1.0 - moved.sum(0, keepdim=True), moved])

    def _temperature(self, problem: Problem, soup: Recipe) -> float:
        """The factor on the logits that minimises their cross-entropy, before anything is learned."""
        import torch
        from scipy.optimize import minimize_scalar

        logits, labels = problem.scores.logits(soup).double(), problem.scores.labels()

        def loss(log: float) -> float:
            return float(torch.nn.functional.cross_entropy(logits * math.exp(log), labels))

        return math.exp(minimize_scalar(loss, bounds=(-4.0, 6.0), method="bounded").x)
