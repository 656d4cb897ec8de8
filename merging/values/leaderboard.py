"""The models of a pool, each alone, best first: scores, the soups that each is in, and what it was trained with."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, TypeAlias

from merging.values.formats import known_fields
from merging.values.shown import Sheet, Shown
from merging.values.sums import in_order
from merging.values.wording import beginning, some

Trained: TypeAlias = Mapping[str, str | float | int | bool]
"""Name of a hyper-parameter → value."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Single(Shown):
    """One model of a pool, alone; scores are fractions where they are accuracies.

    Attributes:
        name: its name in the pool.
        held_out: score on the held-out data; None where nobody has scored it.
        tests: set → score; empty where the pool was left off the test sets.
        shifted: mean over the shifted sets; None without any.
        soups: the methods whose merge it is in, the best single model left out.
        trained: hyper-parameters that are known of it and differ in the pool: short name → value.
    """

    name: str
    held_out: float | None = None
    tests: Mapping[str, float] = field(default_factory=dict)
    shifted: float | None = None
    soups: tuple[str, ...] = ()
    trained: Trained = field(default_factory=dict)

    def _sheet(self) -> Sheet:
        scores = {"held-out": self.held_out, **self.tests}
        said = some([f"{name} {value:.4g}" for name, value in scores.items() if value is not None], 6)
        soups = f"in {some(self.soups, 4)}" if self.soups else ""
        return Sheet(name="Single", facts=(self.name, said, soups))

    @classmethod
    def of(
        cls,
        name: str,
        scores: Mapping[str, float],
        held_out: str,
        shifts: Sequence[str],
        trained: Trained | None = None,
    ) -> Single:
        """Makes it from its scores, set by set.

        Args:
            name: its name in the pool.
            scores: set → score, of those that were scored.
            held_out: name of the held-out set.
            shifts: the shifted sets.
            trained: its hyper-parameters.
        """
        tests = {key: score for key, score in scores.items() if key != held_out}
        shifted = [tests[key] for key in shifts if key in tests]
        mean = in_order(shifted) / len(shifted) if shifted and len(shifted) == len(shifts) else None
        return cls(name=name, held_out=scores.get(held_out), tests=tests, shifted=mean, trained=trained or {})

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Single:
        """Makes it from what ``report.json`` or ``benchmark.json`` holds, also of an earlier version."""
        return cls(**{**known_fields(cls, data), "soups": tuple(data.get("soups", ()))})


def ranked(singles: Iterable[Single]) -> tuple[Single, ...]:
    """The models, best held-out score first, the earlier of equals before the later; those without a score are last."""

    def key(single: Single) -> float:
        return float("inf") if single.held_out is None else -single.held_out

    return tuple(sorted(singles, key=key))


def with_soups(singles: Iterable[Single], soups: Mapping[str, Sequence[str]]) -> tuple[Single, ...]:
    """The same models, each with the soups that it is in.

    Args:
        singles: models of a pool.
        soups: name of a method → names of the models in its merge.
    """
    return tuple(
        replace(single, soups=tuple(name for name, models in soups.items() if single.name in models))
        for single in singles
    )


def differing(known: Mapping[str, Trained]) -> dict[str, Trained]:
    """Leaves of some models' hyper-parameters those that differ; models of which nothing is known decide nothing.

    >>> differing({"a": {"lr": 0.1, "seed": 1, "epochs": 3}, "b": {"lr": 0.1, "seed": 2}, "c": {}})
    {'a': {'seed': 1, 'epochs': 3}, 'b': {'seed': 2}, 'c': {}}

    Args:
        known: model → its hyper-parameters.
    """
    names = dict.fromkeys(name for own in known.values() for name in own)
    kept = [name for name in names if len({_same(own.get(name)) for own in known.values() if own}) > 1]
    return {model: {name: own[name] for name in kept if name in own} for model, own in known.items()}


def short(value: str | float | int | bool | None) -> str:
    """A hyper-parameter's value in a few characters.

    >>> short(3.1415e-5), short(True), short("rand-m9-mstd0.5-inc1"), short(None), short(120)
    ('3.14e-05', 'yes', 'rand-m9-m…', '–', '120')
    """
    if value is None:
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.3g}"
    return beginning(str(value), 12)


def _same(value: str | float | int | bool | None) -> str:
    """The same text for equal values: 1 and 1.0 are one."""
    number = isinstance(value, int | float) and not isinstance(value, bool)
    return repr(float(value)) if number else repr(value)  # type: ignore[arg-type]
