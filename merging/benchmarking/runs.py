"""One method at one partition and seed: what it gave, as a benchmark keeps it on disk."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merging.errors import DAMAGED, FolderError
from merging.plugins.optimizer import Optimizer
from merging.plugins.partitioner import Partitioner
from merging.plugins.strategy import MixStrategy
from merging.values.formats import check_types, parsed
from merging.values.frames import frame
from merging.values.outcome import Outcome
from merging.values.shown import Sheet, Shown, named
from merging.values.states import MethodState
from merging.values.wording import plural

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One run that a benchmark is to make: a method, a partition, a seed.

    Attributes:
        method: what the method is called; its strategy's name, unless one strategy is there with several options.
        strategy: the strategy, with its options.
        partition: what the partitioner is called.
        partitioner: the partitioner, with its options.
        optimizer: optimizer of its searches.
        seed: seed of strategy and searches.
        limits: what else decides the result (evaluations per search, and in all).
    """

    method: str
    strategy: MixStrategy
    partition: str
    partitioner: Partitioner
    optimizer: Optimizer
    seed: int
    limits: Mapping[str, int | None] = field(default_factory=dict)

    @property
    def name(self) -> str:
        """Name of the file that the run is kept in, without its suffix."""
        return re.sub(r"[^\w.+-]+", "_", f"{self.method}.{self.partition}.seed{self.seed}")

    def to_json(self) -> dict[str, Any]:
        """Everything that its result depends on, besides pool, data and numerics."""
        plugins = {"strategy": self.strategy, "partitioner": self.partitioner, "optimizer": self.optimizer}
        found = {kind: {"name": plugin.name, "options": plugin.options()} for kind, plugin in plugins.items()}
        return json.loads(  # type: ignore[no-any-return]
            json.dumps({"method": self.method, "partition": self.partition, **found, "seed": self.seed, **self.limits})
        )


@dataclass(frozen=True, eq=False, repr=False)
class Coefficients(Shown):
    """A linear merge's coefficients, for a picture: shape ``(ingredients, components)``; inert ones are left out."""

    ingredients: tuple[str, ...]
    components: tuple[str, ...]
    values: NDArray[np.float64]

    def to_frame(self) -> DataFrame:
        """The coefficients as a long data frame: ``ingredient``, ``component``, ``coefficient``.

        Raises:
            RequirementError: there is no pandas.
        """
        rows = (
            {"ingredient": name, "component": component, "coefficient": float(value)}
            for name, row in zip(self.ingredients, self.values, strict=True)
            for component, value in zip(self.components, row, strict=True)
        )
        return frame(rows, ("ingredient", "component", "coefficient"))

    def _sheet(self) -> Sheet:
        facts = (named(self.ingredients, "model"), plural(len(self.components), "component"))
        return Sheet(name="Coefficients", facts=facts)

    def to_json(self) -> dict[str, Any]:
        """Gives all fields as JSON-ready values."""
        return {
            "ingredients": list(self.ingredients),
            "components": list(self.components),
            "values": self.values.tolist(),
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Coefficients:
        """Makes the value from what :meth:`to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        names = {name: data[name] for name in ("ingredients", "components")}
        check_types(cls, names)
        values = np.array(data["values"], dtype=np.float64)
        if values.shape != tuple(map(len, names.values())) or not np.isfinite(values).all():
            raise ValueError(f"coefficients have shape {values.shape}, or are not finite")
        return cls(tuple(data["ingredients"]), tuple(data["components"]), values)


@dataclass(frozen=True, eq=False, kw_only=True)
class MethodRun:
    """The result of the run that an :class:`Entry` says, or the reason why there is none.

    Attributes:
        entry: ``Entry.to_json()``.
        status: whether there is a result.
        why: the reason where there is none; a remark (the limit was reached) where there is one.
        outcomes: set → outcome, ``held-out`` among them.
        digest: the same for merges that give the same logits.
        seeded: whether another seed could give something else.
        ingredients: names of the models in it.
        evaluations: distinct held-out evaluations that it needs alone; ``cached`` of them asked again.
        forward_equivalents: what they cost, in passes over the held-out data.
        seconds: what it takes alone, test sets not included.
        inference_cost: forward passes for each sample.
        coefficients: coefficients of a linear merge.
        trace: (forward-equivalents, evaluations, best held-out score so far), a line for each improvement.
        model: the same for merges that give the same outputs, whatever they were scored with; a run's row has it too.
        selected: whether held-out data had a say in the merge.
    """

    entry: Mapping[str, Any]
    status: MethodState
    why: str = ""
    outcomes: Mapping[str, Outcome] = field(default_factory=dict)
    digest: str = ""
    seeded: bool = False
    ingredients: tuple[str, ...] = ()
    evaluations: int = 0
    cached: int = 0
    forward_equivalents: float = 0.0
    seconds: float = 0.0
    inference_cost: int = 1
    coefficients: Coefficients | None = None
    trace: tuple[tuple[float, int, float], ...] = ()
    model: str = ""
    selected: bool = True

    @property
    def seed(self) -> int:
        """The seed that the entry was run with."""
        return int(self.entry["seed"])

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values, per-sample correctness included."""
        data = asdict(replace(self, outcomes={}, coefficients=None))
        data["outcomes"] = {name: outcome.to_json() for name, outcome in self.outcomes.items()}
        data["coefficients"] = self.coefficients.to_json() if self.coefficients else None
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> MethodRun:
        """Makes the value from what :meth:`to_json` gave."""
        drawn = data["coefficients"]
        return cls(
            **{
                **data,
                "status": MethodState(data["status"]),
                "outcomes": {name: Outcome.from_json(outcome) for name, outcome in data["outcomes"].items()},
                "coefficients": Coefficients.from_json(drawn) if drawn else None,
                "ingredients": tuple(data["ingredients"]),
                "trace": tuple((float(cost), int(count), float(score)) for cost, count, score in data["trace"]),
            }
        )


def read_run(path: Path) -> MethodRun | None:
    """A run that an earlier session has kept, or None where there is none.

    Raises:
        FolderError: the file is damaged.
    """
    try:
        return MethodRun.from_json(parsed(path.read_bytes()))
    except FileNotFoundError:
        return None
    except DAMAGED:
        raise FolderError(f"{path} is damaged; remove it, and its method is run again") from None
