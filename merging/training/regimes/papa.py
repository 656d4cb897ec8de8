"""Population parameter averaging: models that are trained side by side and pulled together (PAPA, 2024)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.errors import OptionError
from merging.plugins.options import option
from merging.training.regime import Regime, regimes

if TYPE_CHECKING:
    from torch import Tensor, nn

    from merging.training.hyperparameters import HyperParameters
    from merging.training.trainer import Run


@regimes.register("papa")
@dataclass(frozen=True)
class Papa(Regime):
    """Models with data orders and augmentations of their own have their weights drawn to the population's mean.

    ``gradual`` pulls every model a little every few steps, less as the learning rate falls. ``all`` replaces every
    model by the mean every few epochs, ``two`` (the paper's PAPA-2) by the mean of a random pair; both measure
    BatchNorm statistics again and leave the models alone after the last epoch. Float buffers are averaged with the
    weights, counters and the optimizers' moments are not. The models take turns, so that each draws what it would have
    drawn alone.
    """

    summary: ClassVar[str] = "a population whose members are pulled to their mean while they are trained"
    paper: ClassVar[str] = "Jolicoeur-Martineau et al. 2024, Algorithm 1, https://arxiv.org/abs/2304.03094"
    formula: ClassVar[str] = (
        "gradual: every 10 steps θᵢ ← a·θᵢ + (1 − a)·mean(θ), a = 1 − (1 − α)·lr_t / lr_0\n"
        "all: every k epochs θᵢ ← mean(θ); two: θᵢ ← (θ_u + θ_v) / 2 with a random pair for each i"
    )
    limits: ClassVar[str] = (
        "All models have the same number of epochs and batch size, and stay in memory together. With 'all', models "
        "that differ in nothing but their seed are nearly one afterwards. REPAIR is not applied: from one pretrained "
        "start the members share a basin. α is that for pretrained networks; from scratch the paper takes 0.99."
    )
    together: ClassVar[bool] = True
    in_common: ClassVar[tuple[str, ...]] = ("epochs", "batch_size")
    adapters: ClassVar[bool] = False

    variant: str = option("gradual", "which of the three", choices=("gradual", "all", "two"))
    alpha: float = option(0.9995, "how much of itself a member keeps at the peak learning rate", low=0.0, high=1.0)
    every: int = option(10, "steps from one pull to the next (gradual)", low=1)
    epochs: int = option(5, "epochs from one replacement to the next (all, two); the first is after epoch 1", low=1)

    def check(self, settings: Sequence[HyperParameters], module: nn.Module, steps: Sequence[int]) -> None:
        """Refuses fewer than two members, and members that would not be in step with each other."""
        del module, steps
        if len(settings) < 2:
            raise OptionError("papa trains a population; ask for `models=2` or more")
        for name in self.in_common:
            values = {getattr(one, name) for one in settings}
            if len(values) > 1:
                raise OptionError(
                    f"papa trains all models in step, but {name} is {' or '.join(map(str, sorted(values)))}; "
                    f"give one value, such as `{name}={max(values)}`"
                )

    def train(self, runs: Sequence[Run]) -> Iterator[None]:
        """The members are what is written; merge them afterwards."""
        from merging.training.averaging import spread

        first, modules = runs[0], [run.module for run in runs]
        while not first.finished:
            for _ in range(first.steps):
                for run in runs:
                    run.step()
                if self.variant == "gradual" and first.done % self.every == 0:
                    self._pull(runs)
            epoch = first.done // first.steps
            if self.variant != "gradual" and (epoch - 1) % self.epochs == 0 and not first.finished:
                self._replace(runs, epoch)
            first.facts["spread"] = [*first.facts.get("spread", ()), spread(modules)]
            for run in runs:
                run.facts["spread"] = first.facts["spread"]
            yield

    def _pull(self, runs: Sequence[Run]) -> None:
        import torch

        from merging.training.averaging import replace_by

        kept = [1 - (1 - self.alpha) * run.rate / run.settings.learning_rate for run in runs]

        def pulled(values: Tensor) -> Tensor:
            keep = torch.tensor(kept, dtype=values.dtype, device=values.device).view(-1, *[1] * (values.ndim - 1))
            return keep * values + (1 - keep) * values.mean(0)

        replace_by([run.module for run in runs], pulled)

    def _replace(self, runs: Sequence[Run], epoch: int) -> None:
        import numpy as np
        import torch

        from merging.forward.device import on_device
        from merging.training.averaging import replace_by

        generator = np.random.default_rng([runs[0].settings.seed, epoch])
        count = len(runs)
        pairs = torch.from_numpy(np.array([generator.choice(count, 2, replace=False) for _ in range(count)]))

        def replaced(values: Tensor) -> Tensor:
            if self.variant == "all":
                return values.mean(0, keepdim=True).expand_as(values)
            return values[on_device(pairs, values.device)].mean(1)

        replace_by([run.module for run in runs], replaced)
        for run in runs:
            run.recalibrate()
