"""Training what a folder lacks: one model after the other, or a whole population together."""

from __future__ import annotations

import copy
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from safetensors.torch import load_file
from torch import nn

from merging.errors import Diverged, FolderError
from merging.forward.numerics import Numerics
from merging.plugins.progress import Progress
from merging.plugins.task import Task
from merging.storage import atomic
from merging.training.adapters import Adapters
from merging.training.folder import Epoch, PoolFolder, Trained, model_name
from merging.training.hyperparameters import HyperParameters, LoraParameters
from merging.training.regime import Regime, epochs_of
from merging.training.samples import Samples
from merging.training.trainer import Run, steps_of
from merging.values.report import scored
from merging.values.sums import in_order

STATE = ".population.pt"
"""A population that is being trained, after its last whole epoch."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Turn:
    """The folder, the task and all else that the trainings of a pool have in common."""

    folder: PoolFolder
    task: Task
    regime: Regime
    numerics: Numerics
    progress: Progress
    should_stop: Callable[[], bool]
    beside: int = 1
    adapters: Adapters | None = None

    @functools.cached_property
    def _samples(self) -> Samples:
        """The training data, which all runs have in common: on a GPU they lie there once."""
        return Samples.on(self.task.training, self.numerics.device, self.beside)

    def close(self) -> None:
        """Ends what its runs had in common; a later run begins it again."""
        if "_samples" in self.__dict__:
            self.__dict__.pop("_samples").close()

    def one(self, index: int, settings: HyperParameters, module: nn.Module) -> Trained:
        """Trains a model from the base and writes it, or finds it written.

        Raises:
            FolderError: it is there with other settings.
            Stopped: ``should_stop`` said so.
        """
        name = model_name(index)
        found = self.folder.written(name, settings)
        if found is not None:
            self.progress.say(str(found))
            return found
        began = time.perf_counter()
        self.progress.stage(f"{name}: {settings.shown()}", steps_of(self.task, settings))
        epochs, diverged = list[Epoch](), ""
        with self.numerics.applied(tf32=True):
            run = self._run(settings, module)
            try:
                for _ in epochs_of(self.regime, [run]):
                    epochs.append(Epoch.of(run))
                    self.progress.status(f"epoch {epochs[-1].number}: {scored(epochs[-1].held_out)} held-out")
            except Diverged as error:
                diverged = str(error)
        trained = self.folder.write(name, run, epochs, time.perf_counter() - began, diverged)
        self.progress.say(str(trained))
        return trained

    def together(self, asked: Sequence[HyperParameters], module: nn.Module) -> list[Trained]:
        """Trains all models side by side, from the last whole epoch where an earlier call was interrupted.

        Raises:
            FolderError: some of the models are there, others are not, and nothing says how far they were.
            Stopped: ``should_stop`` said so.
        """
        names, path = list(map(model_name, range(len(asked)))), self.folder.path / STATE
        found = [self.folder.written(name, settings) for name, settings in zip(names, asked, strict=True)]
        there = [trained for trained in found if trained is not None]
        if len(there) == len(asked):
            self.progress.say(f"{len(there)} models, there already")
            atomic.remove(path)
            return there
        if there and not path.exists():
            raise FolderError(
                f"{self.folder.path} holds {len(there)} of {len(asked)} models of a population that is trained "
                "together; choose another `output`"
            )
        began = time.perf_counter()
        self.progress.stage(f"{len(asked)} models together", sum(steps_of(self.task, one) for one in asked))
        with self.numerics.applied(tf32=True):
            runs = [self._run(settings, copy.deepcopy(module)) for settings in asked]
            epochs, spent = self._restored(runs)
            for _ in self._side_by_side(runs):
                for run, known in zip(runs, epochs, strict=True):
                    known.append(Epoch.of(run))
                seconds = spent + time.perf_counter() - began
                self._keep(runs, epochs, seconds)
                mean = in_order(known[-1].held_out for known in epochs) / len(epochs)
                self.progress.say(f"epoch {epochs[0][-1].number}: {scored(mean)} held-out on average")
        share = (spent + time.perf_counter() - began) / len(runs)
        done = [
            self.folder.write(name, run, known, share) for name, run, known in zip(names, runs, epochs, strict=True)
        ]
        atomic.remove(path)
        return done

    def _side_by_side(self, runs: Sequence[Run]) -> Iterator[None]:
        try:
            yield from epochs_of(self.regime, runs)
        except Diverged as error:
            raise Diverged(f"a member of the population {error}; lower learning_rate, or set clip") from None

    def _run(self, settings: HyperParameters, module: nn.Module) -> Run:
        module.load_state_dict(load_file(self.folder.base))
        if self.adapters is not None and isinstance(settings, LoraParameters):
            module = self.adapters.adapted(module, settings, self.numerics.device)
        return Run(
            module,
            self.task,
            settings,
            numerics=self.numerics,
            advance=self.progress.advance,
            should_stop=self.should_stop,
            samples=self._samples,
        )

    def _keep(self, runs: Sequence[Run], epochs: list[list[Epoch]], seconds: float) -> None:
        """After every epoch: an interrupted population goes on from here."""
        path = self.folder.path / STATE
        settings = [run.settings.options() for run in runs]
        known = [[asdict(epoch) for epoch in one] for one in epochs]
        kept = {"settings": settings, "runs": [run.state() for run in runs], "epochs": known, "seconds": seconds}
        with atomic.replacing(path) as aside:
            atomic.save_torch(aside, kept)

    def _restored(self, runs: Sequence[Run]) -> tuple[list[list[Epoch]], float]:
        path = self.folder.path / STATE
        if not path.exists():
            return [[] for _ in runs], 0.0
        try:
            kept: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            same = kept["settings"] == [run.settings.options() for run in runs]
            for run, state in zip(runs, kept["runs"], strict=True) if same else ():
                run.restore(state)
        except Exception as error:  # damaged archives raise whatever their bytes provoke
            raise FolderError(f"{path} is damaged ({error}); remove it, and the population begins anew") from None
        if not same:
            raise FolderError(f"{path} is of other models; choose another `output`")
        self.progress.advance(sum(run.done for run in runs))
        return [[Epoch(**epoch) for epoch in one] for one in kept["epochs"]], float(kept["seconds"])
