"""What happens between the steps of a run, or of several: the interface of what ``regime`` names."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.errors import RequirementError
from merging.plugins.options import Plugin
from merging.plugins.registry import regimes as regimes
from merging.plugins.user_code import file_of, kind_of, named, running

if TYPE_CHECKING:
    from torch import nn

    from merging.training.hyperparameters import HyperParameters
    from merging.training.trainer import Run


@dataclass(frozen=True)
class Regime(Plugin):
    """Trains models; written as a frozen dataclass with options, and entered by ``@regimes.register("name")``.

    Attributes:
        together: all models of a pool are trained side by side in one process, and may look at each other.
        in_common: hyper-parameters that must be the same for all models; where no sweep is given, they are.
        adapters: what it trains may be adapters, of which only these are trained.
    """

    together: ClassVar[bool] = False
    in_common: ClassVar[tuple[str, ...]] = ()
    adapters: ClassVar[bool] = True

    def check(self, settings: Sequence[HyperParameters], module: nn.Module, steps: Sequence[int]) -> None:
        """Refuses what cannot be trained so, before anything is written.

        Args:
            settings: settings of the models that are about to be trained.
            module: the architecture.
            steps: how many batches each of them will see.

        Raises:
            MergingError: one line that says what to change.
        """
        del settings, module, steps

    @abstractmethod
    def train(self, runs: Sequence[Run]) -> Iterator[None]:
        """Trains the modules of the runs in place, to the end.

        Args:
            runs: one, or where ``together`` all of a pool; perhaps with some epochs done, at the end of an epoch.

        Yields:
            After each epoch, when the modules may be looked at. After the last one they are what is written.

        Raises:
            Stopped: a run was told to.
        """


def epochs_of(regime: Regime, runs: Sequence[Run]) -> Iterator[None]:
    """A regime's training, epoch by epoch.

    Raises:
        PluginError: it fails; one line with its name, the error, its file and line.
        RequirementError: ``train`` returns no iterator, yields without a step, or ends within the first epoch.
    """
    who = named("regime", regime)
    with running(who, regime):
        epochs = regime.train(runs)
    if not isinstance(epochs, Iterator):
        raise RequirementError(f"{who}: train returned {kind_of(epochs)}; it yields after each epoch{file_of(regime)}")
    while True:
        before = [run.done for run in runs]
        with running(who, regime):
            ended = next(epochs, _END)
        if ended is _END:
            break
        if not any(run.finished for run in runs) and before == [run.done for run in runs]:
            raise RequirementError(f"{who}: train yielded without a step; it yields after each epoch")
        yield
    if any(run.epoch < 1 and not run.finished for run in runs):
        raise RequirementError(f"{who}: train ended before one epoch was done; it goes on until run.finished")


_END = object()
