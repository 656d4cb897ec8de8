"""The learned soup: mixing coefficients by gradient descent on held-out data (Wortsman et al. 2022, §2.2).

One backward pass through the merged model gives the derivatives of all coefficients: inner products of its gradient
with the ingredients. Blocks of models stay resident and the pool is streamed once (MEHL-Soup, Li et al. 2024), where
the published learned soup holds all models in memory.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from merging.errors import OptionError
from merging.moved import by_position
from merging.plugins.options import UNSET, option
from merging.plugins.problem import Problem
from merging.plugins.profiles import Profile
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.values.recipe import Recipe

if TYPE_CHECKING:
    from torch import Tensor


_EPOCHS, _STEPS = 5, 140  # at the least, in a block
_SIZE = 128
_ADAM: dict[str, Any] = {
    "beta1": 0.9,
    "beta2": 0.999,
    "eps": 1e-8,
    "weight_decay": 0.0,
    "foreach": False,
    "amsgrad": False,
    "maximize": False,
}

AFFINE = """Coefficients that sum to one in every layer, negative ones allowed, learned from the mean in 140 steps.

``learned`` in the profile ``affine``: partition by layer, 140 steps of AdamW (0.01, cosine) on batches of at most 128
held-out samples, the temperature of the logits learned along. Adam moves a coefficient by at most about its rate a
step, so that steps times rate bound how far each of them may go from the mean, whatever the number of samples: with
225 and with 26,000 it is the same search, which needs no tuning. Three times as many steps, or three times the rate,
fit the held-out data further and lose under shift. Samples are drawn epoch by epoch without replacement, in the last
one perhaps a part of them.
"""


@strategies.register("learned")
@by_position
@dataclass(frozen=True, kw_only=True)
class Learned(MixStrategy):
    """Minimises the cross-entropy of the merged model, with a coefficient for each model and component.

    ``convex``: a softmax over the models in each component. ``affine``: coefficients that sum to one and may be
    negative, as steps from the block's mean. The temperature of the logits is fitted first and learned along, because
    models that were trained with smoothed labels or mixup disagree about it. Of documents the loss is the mean over
    their tokens, without a temperature.
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
    needs: ClassVar[frozenset[str]] = frozenset({"model", "objective", "gradients", "likelihood"})
    min_models: ClassVar[int] = 2
    ranks: ClassVar[bool] = False

    named_profiles: ClassVar[Mapping[str, Profile]] = {
        "affine": Profile(
            label="affine soup",
            summary="coefficients per layer by gradient descent, negative ones allowed, in 140 steps",
            paper=(
                "Li et al. 2024 (MEHL-Soup), ECCV; learned soups: Wortsman et al. 2022, §2.2, "
                "https://arxiv.org/abs/2203.05482"
            ),
            formula="min over x, β of mean CE(β · f(x; θ), y) with θ_m = c_m + Σ_i x_im (θ_im − c_m), c the mean",
            limits=(
                "Costs 3 · 140 · 128 forward passes of single samples, whatever the number of models, layers and "
                "held-out samples: at most 134 forward-equivalents from 400 held-out samples on, and more below. Needs "
                "a model that autograd can run through, and memory for 'block' models. Fits the held-out data hard: "
                "their score says nothing about the result. By protocol not shown better under shift than other "
                "merges of the same pool (docs/results/soups.md)."
            ),
            description=AFFINE,
            fixed=("coefficients",),
        )
    }

    coefficients: str = option(
        UNSET,
        "softmax over the models, or affine",
        choices=("convex", "affine"),
        profiles={"learned": "convex", "affine": "affine"},
    )
    epochs: int | None = option(
        None, "passes over the held-out data for each block; none: 5, or as many as make 140 steps", low=1
    )
    batch: int = option(_SIZE, "samples a step; 128 may grow where the held-out set is large", low=1)
    rate: float | None = option(None, "AdamW's first learning rate; none: 0.05 for convex, 0.01 for affine", low=0.0)
    block: int | None = option(
        UNSET,
        "models in memory at a time; none: all that fit into 4 GiB, at least 18",
        low=2,
        profiles={"learned": 18, "affine": None},
    )
    profile: str = option(
        "learned", "defaults of the learned or the affine soup", choices=("learned", "affine"), later=True
    )
    steps: int | None = option(
        UNSET, "steps in all, instead of epochs", low=1, profiles={"learned": None, "affine": 140}, later=True
    )
    batch_most: int = option(
        UNSET,
        "samples a step, at the most, where nothing else is set and 140 steps are left in a block",
        low=_SIZE,
        profiles={"learned": 512, "affine": 128},
        later=True,
    )

    def __post_init__(self) -> None:
        """Epochs take the place of the steps that a profile would take.

        Raises:
            OptionError: both are given, or a value is outside its range.
        """
        if self.epochs is not None and self.steps is UNSET:
            object.__setattr__(self, "steps", None)
        super().__post_init__()
        if self.epochs is not None and self.steps is not None:
            raise OptionError(f"{self.called('steps')} says how long it learns, and so does 'epochs'; give one of them")

    def default_partitioner(self) -> str:
        """Layers for affine coefficients, which gain from fine divisions."""
        return "layer" if self.profile == "affine" else super().default_partitioner()

    def mix(self, problem: Problem) -> Recipe:
        """Learns block after block, each starting from the soup that the ones before have given."""
        count, blocks = len(problem.pool), self._blocks(problem)
        soup = problem.mean(range(blocks[0][1]))
        best = problem.evaluate(soup)
        problem.keep(soup, best)
        scale = self._temperature(problem, soup)
        steps = [self._steps(problem, (end - begin) / count) for begin, end in blocks]
        self._tell_cost(problem, sum(steps))
        problem.progress.stage("learning coefficients", sum(steps))
        for (begin, end), own in zip(blocks, steps, strict=True):
            singles = [problem.single(index) for index in range(begin, end)]
            whole = begin == 0 and self.coefficients == "convex"  # the block's mean is in its span already
            rows = singles if whole else [soup, *singles]
            soup, scale, rows_in = self._learn(problem, rows, scale, 1 if whole else max(begin, 1), own)
            outcome = problem.evaluate(soup)
            problem.keep(soup, outcome)
            short = {} if rows_in == "float32" else {"rows": rows_in}  # said where memory was short
            problem.decide(models=end, score=outcome.score, scale=scale, **short)
        return soup

    def _blocks(self, problem: Problem) -> list[tuple[int, int]]:
        """First model of each block, and the one after its last; of nearly one size where a rule says how many fit."""
        count, size = len(problem.pool), self.block
        if size is None:
            each = 4 * sum(math.prod(shape) for shape, _ in problem.pool.tensors.values())
            size = math.ceil(count / math.ceil(count / max(18, 2**32 // max(each, 1))))
        return [(begin, min(begin + size, count)) for begin in range(0, count, size)]

    def _learn(
        self, problem: Problem, rows: Sequence[Recipe], scale: float, first: int, steps: int
    ) -> tuple[Recipe, float, str]:
        """One block: AdamW with a cosine schedule; all is on the model's device, and nothing waits for it.

        Args:
            problem: what is learned on.
            rows: the block's linear merges.
            scale: the factor on the logits to begin with.
            first: how many models the first row stands for.
            steps: how many.

        Returns:
            The soup, its factor, and the dtype that rows were kept in.
        """
        import torch
        from torch.optim.adamw import adamw  # the optimizer's class loads torch's compiler, for seconds

        blend, size = problem.slopes.blend(rows), (len(rows), len(problem.partition))
        convex = self.coefficients == "convex"
        moved = torch.zeros(size if convex else (size[0] - 1, size[1]), dtype=torch.float64)
        if convex:
            moved[0] = math.log(first)
        learned = [moved.to(blend.home), torch.tensor(math.log(scale), dtype=torch.float64, device=blend.home)]
        means, squares = ([torch.zeros_like(each) for each in learned] for _ in range(2))
        counts = [torch.zeros(()) for _ in learned]
        moved, sharpness = learned
        for rate, batch in zip(self._rates(steps), self._batches(problem), strict=False):
            table, factor = self._table(moved.requires_grad_()), sharpness.exp()
            _, slopes, slope = blend.slopes(table.detach(), batch, factor)
            (found,) = torch.autograd.grad(table, moved, slopes)
            gradients = [found, slope * factor]
            with torch.no_grad():
                moved.requires_grad_(False)
                adamw(learned, gradients, means, squares, [], counts, lr=rate, **_ADAM)
            problem.progress.advance()
        recipe = Recipe.combined(rows, self._table(moved).cpu().numpy())
        return recipe, float(sharpness.exp()), blend.rows_in

    def _rates(self, steps: int) -> Iterator[float]:
        """Learning rates of so many steps, falling by half a cosine as torch's own schedule computes them."""
        rate = self.rate if self.rate is not None else 0.05 if self.coefficients == "convex" else 0.01
        for step in range(steps):
            if step:
                rate *= (1 + math.cos(math.pi * step / steps)) / (1 + math.cos(math.pi * (step - 1) / steps))
            yield rate

    def _batches(self, problem: Problem) -> Iterator[tuple[Tensor, Tensor]]:
        """Batches of one size; epoch after epoch, each in an order of its own."""
        while True:
            yield from problem.slopes.batches("held-out", problem.generator, self._size(problem))

    def _size(self, problem: Problem) -> int:
        """Samples of a batch: of all batches the same, for no last one of a single sample.

        Rows are read once a step, so few large steps are quicker than many small ones; from 140 on more of them move
        the coefficients no better. Where a batch, epochs or steps are asked for, the batch is what it says.
        """
        count, largest = len(problem.scores.labels()), self.batch
        if self.batch == _SIZE and self.epochs is None and self.steps is None:
            largest = max(_SIZE, min(self.batch_most, _EPOCHS * count // _STEPS))
        return math.ceil(count / math.ceil(count / largest))

    def _tell_cost(self, problem: Problem, steps: int) -> None:
        """Says what learning will cost before it begins: a step is forward and backward, three passes."""
        size, count = self._size(problem), len(problem.scores.labels())
        cost = f"{3 * steps * size / count:.0f} forward-equivalents"
        problem.progress.say(f"learning: {steps} steps of {size} samples, {cost} on {count:,} held-out samples")

    def _steps(self, problem: Problem, share: float) -> int:
        """Steps of a block with that share of the models.

        A small held-out set is gone through more often, because it is steps that move coefficients.
        """
        if self.steps is not None:
            return max(1, round(self.steps * share))
        each = math.ceil(len(problem.scores.labels()) / self._size(problem))
        return each * (self.epochs or max(_EPOCHS, math.ceil(_STEPS / each)))

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

        labels = problem.scores.labels()
        if labels.is_floating_point():  # documents, whose likelihoods have no temperature
            return 1.0
        logits = problem.scores.logits(soup).double()

        def loss(log: float) -> float:
            return float(torch.nn.functional.cross_entropy(logits * math.exp(log), labels))

        return math.exp(minimize_scalar(loss, bounds=(-4.0, 6.0), method="bounded").x)
