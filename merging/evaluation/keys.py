"""What decides a result, as text: merges with one key have one outcome, whoever asks, in whichever session."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from merging.forward.numerics import Numerics
from merging.forward.staging import Contents
from merging.plugins.objective import Objective
from merging.plugins.task import CERTIFY, HELD_OUT, Task
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.values.partition import Partition
from merging.values.recipe import Ensemble, Merge, Recipe, Weights

if TYPE_CHECKING:
    from merging.forward.calibration import Calibration


@dataclass(frozen=True, eq=False, kw_only=True)
class Trial:
    """A mix of two recipes that is made in place, to be looked at once.

    Attributes:
        incumbent: what the factors multiply.
        candidate: what one minus the factors multiplies.
        mixing: ``lerp`` or ``sum`` (:meth:`merging.forward.live.LiveModel.trial`).
        factors: λ of each component, shape ``(m,)``.
        ends: what decides the logits of the two ends, as :meth:`Keys.ends` says it.
        loss: whether its outcome is to say the loss of its logits.
    """

    incumbent: Recipe
    candidate: Recipe
    mixing: str
    factors: NDArray[np.float64]
    ends: list[Any]
    loss: bool = False


class Keys:
    """Keys of evaluations on a task, by what decides their logits and how these are judged.

    Args:
        partition: the components of the models.
        task: the data.
        objective: what is maximised.
        numerics: batch, threads and precision; part of every key.
        integers: the models hold tensors that are not averaged.
        calibration: measures BatchNorm statistics of averages anew; None: they are averaged.
    """

    def __init__(
        self,
        partition: Partition,
        task: Task,
        objective: Objective | WholeModelObjective,
        numerics: Numerics,
        *,
        integers: bool = False,
        calibration: Calibration | None = None,
    ) -> None:
        self.partition, self.task, self.objective, self.numerics = partition, task, objective, numerics
        self.calibration = calibration
        self._integers = integers
        self._rules: dict[tuple[bool, bool], str] = {}
        self._active = list(partition.active)
        self._columns = {name: c for c, component in enumerate(partition.components) for name in component.tensors}

    @property
    def statistics(self) -> frozenset[str]:
        """Names of the BatchNorm statistics that are measured again for averages."""
        return self.calibration.statistics if self.calibration is not None else frozenset()

    def averages(self, merged: Recipe | Weights) -> bool:
        """Whether a merge's BatchNorm statistics are averages of several models' and are to be measured anew."""
        if not self.statistics or self.statistics <= merged.measured:
            return False
        return isinstance(merged, Weights) or len(merged.names) > 1

    def content(self, merged: Merge) -> list[Any]:
        """Collects all that decides a merged model's logits, as JSON-ready values."""
        if isinstance(merged, Ensemble):
            pairs = zip(merged.members, merged.weights, strict=True)
            return ["ensemble", merged.average, [[self.content(member), weight.hex()] for member, weight in pairs]]
        mark: list[Any] = [self.calibration.mark] if self.calibration is not None and self.averages(merged) else []
        if isinstance(merged, Weights):
            return ["weights", merged.hash, *mark]
        # What a pool of several dtypes is merged in decides how a model is rounded before it runs.
        mark += [list(merged.dtypes)] if merged.dtypes else []
        # Integer tensors come from the first ingredient, whatever its coefficients are.
        return [merged.key(), merged.ingredients[0].hash if self._integers else None, *mark]

    def identity(self, merged: Merge) -> str:
        """The same text for merges that give the same logits, whatever the partition, the data and the numerics."""
        return blake3(json.dumps(self.content(merged)).encode()).hexdigest()[:32]

    def evaluation(self, merged: Merge, split: str = HELD_OUT, *, record: bool = False) -> str:
        """The key of a merge's outcome on a split, in a search or (``record``) of record."""
        return self._key(self.content(merged), split, record=record)

    def ends(self, incumbent: Recipe, candidate: Recipe, mixing: str) -> list[Any]:
        """Collects all that decides the trials between two recipes but their factors, as JSON-ready values."""
        mark = [self.calibration.mark] if self.calibration is not None else []
        return [self.content(incumbent), self.content(candidate), mixing, *mark]

    def trial(self, trial: Trial) -> str:
        """The key of a trial's outcome on the held-out data: only *active* factors are part of it."""
        factors = [float(value).hex() for value in trial.factors[self._active]]
        return self._key([*trial.ends, factors, *["loss"] * trial.loss], HELD_OUT)

    def _key(self, what: list[Any], split: str, *, record: bool = False) -> str:
        rules = self._rules_of(certifies=split == CERTIFY, record=record)
        data = json.dumps([what, self.task.split(split).fingerprint, rules])
        return blake3(data.encode()).hexdigest()[:32]

    def _rules_of(self, *, certifies: bool, record: bool) -> str:
        """How logits are judged and computed; the same for all keys, and made once: a search asks for thousands."""
        if (certifies, record) not in self._rules:
            numerics = self.numerics.to_json() | ({"dtype": "float32"} if certifies or record else {})
            mark = ["of record"] if record else []
            if record:
                numerics["compiled"] = False
            rules = [self.objective.name, self.objective.options(), numerics, *mark]
            self._rules[certifies, record] = json.dumps(rules, sort_keys=True)
        return self._rules[certifies, record]

    def tensors(self, model: Recipe | Weights | Trial) -> Contents:
        """Name of a tensor → all that decides it: its column of coefficients; of statistics, the whole model."""
        if isinstance(model, Weights):
            return lambda name: self.content(model)
        if isinstance(model, Trial):
            return self._tensors_of_trial(model)
        columns = [[(i.hash, c.hex()) for i, c in model.terms(k)] for k in range(len(model.partition))]
        where = {name: k for k, component in enumerate(model.partition.components) for name in component.tensors}
        first, special = model.ingredients[0].hash, {*model.overrides, *self.statistics}
        return lambda name: [columns[where[name]], first, self.content(model) if name in special else None]

    def _tensors_of_trial(self, trial: Trial) -> Contents:
        key = self.trial(trial)

        def content(name: str) -> Any:
            if name in self.statistics:
                return key
            column = self._columns[name]
            return [*trial.ends, float(trial.factors[column]).hex() if column in self._active else None]

        return content
