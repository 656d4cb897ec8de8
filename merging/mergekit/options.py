"""The options of our strategy that a configuration means: weights, numbers, and what some methods do by themselves."""

from __future__ import annotations

import glob
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from merging.errors import MergingError
from merging.mergekit.configuration import Configuration
from merging.mergekit.models import Models
from merging.mergekit.reference import Reference
from merging.mergekit.setting import Value
from merging.mergekit.values import Values
from merging.plugins.discovery import load_kind
from merging.plugins.options import options_of
from merging.plugins.registry import strategies


class Options:
    """The options of the strategy that does what a configuration says.

    Args:
        found: the configuration.
        models: its models.
        values: its parameters, for all tensors.
    """

    def __init__(self, found: Configuration, models: Models, values: Values) -> None:
        self._found, self._models, self._values = found, models, values
        self._components = [group.name for group in values.groups]

    def all(self) -> dict[str, Any]:
        """All of them, those of the method itself first.

        Raises:
            MergingError: a parameter varies that is one value here, or is out of the option's range.
        """
        chosen: dict[str, Any] = dict(self._found.method.options)
        for name, parameter in self._found.method.parameters.items():
            if not parameter.option or parameter.inert:
                continue
            if parameter.option == "weights":
                chosen["weights"] = self._weights(name)
            elif parameter.per_model:
                own = {model: [parameter.convert(v) for v in given] for model, given in self._values.own(name).items()}
                chosen[parameter.option] = self._by_model(name, parameter.option, own)
            elif parameter.kind == "number":
                shared = [parameter.convert(value) for value in self._values.shared(name)]
                chosen[parameter.option] = self._by_component(name, parameter.option, shared)
            else:
                chosen[parameter.option] = parameter.convert(self._one(name))
        own_rule = _OWN.get(self._found.name)
        return chosen if own_rule is None else chosen | own_rule(self)

    def slerp(self) -> dict[str, Any]:
        """The way from the base to the other; the pool's order may be the other way round."""
        given = self._values.shared("t")
        from_base = next(iter(self._models.names)) == self._found.base
        return {"t": self._by_component("t", "t", [t if from_base else 1.0 - t for t in given])}

    def nuslerp(self) -> dict[str, Any]:
        """The way from the first to the second, by their weights; half of it where these cancel."""
        first, second = self._values.own("weight").values()
        ways = [0.5 if abs(a + b) < 1e-6 else b / (a + b) for a, b in zip(first, second, strict=True)]
        across, flat = self._one("nuslerp_row_wise"), self._one("nuslerp_flatten")
        return {
            "t": self._by_component("weight", "t", ways),
            "of": "models" if self._found.base is None else "changes",
            "vectors": "tensor" if flat else "columns" if across else "rows",
        }

    def multislerp(self) -> dict[str, Any]:
        """The changes from the base, where there is one."""
        return {"of": "models" if self._found.base is None else "changes"}

    def della(self) -> dict[str, Any]:
        """Nothing more, but for the check that all probabilities are some, which mergekit makes as it merges."""
        density, epsilon = self._values.own("density"), self._values.own("epsilon")
        for model, given in density.items():
            for d, e in zip(given, epsilon[model], strict=True):
                if 0 < d < 1 and not (d - e > 0 and d + e < 1):
                    said = self._values.said("density")
                    raise MergingError(f"{said}: {d:g} ± epsilon {e:g} leaves the probabilities between 0 and 1")
        return {}

    def _one(self, name: str) -> Value:
        """The value of a parameter that is one for the whole merge."""
        given = self._values.shared(name)
        if len(set(given)) > 1:
            raise MergingError(f"{self._values.said(name)} varies with layers or names; '{name}' is one value here")
        return given[0]

    def _weights(self, name: str) -> list[str]:
        """MODEL=WEIGHT for each model's usual weight, then MODEL@COMPONENT=WEIGHT for what differs."""
        return [
            f"{_pattern(self._models.names[model])}{f'@{part}' if part else ''}={number(value)}"
            for model, given in self._values.own(name).items()
            for part, value in self._entries(given)
        ]

    def _by_component(self, name: str, option: str, given: Sequence[Value]) -> Any:
        """One number, or entries: the usual one, then COMPONENT=NUMBER for what differs."""
        self._check(name, option, given)
        if len(set(given)) == 1:
            return given[0]
        return [f"{f'{part}=' if part else ''}{number(value)}" for part, value in self._entries(given)]

    def _by_model(self, name: str, option: str, own: Mapping[Reference, Sequence[Value]]) -> Any:
        """The same where all models have the same numbers; else MODEL@=NUMBER and MODEL@COMPONENT=NUMBER for each."""
        first, *others = own.values()
        if all(other == first for other in others):
            return self._by_component(name, option, first)
        for given in own.values():
            self._check(name, option, given)
        return [
            f"{_pattern(self._models.names[model])}@{part}={number(value)}"
            for model, given in own.items()
            for part, value in self._entries(given)
        ]

    def _entries(self, given: Sequence[Value]) -> list[tuple[str, Value]]:
        """The most frequent value, of several the last one's, under ''; then those that differ by their components."""
        usual = Counter(reversed(given)).most_common(1)[0][0]
        places = zip(self._components, given, strict=True)
        return [("", usual), *((part, value) for part, value in places if value != usual)]

    def _check(self, name: str, option: str, given: Sequence[Value]) -> None:
        """Refuses numbers that the option does not take, by the parameter's name."""
        load_kind("strategy")
        strategy = self._found.method.strategy
        declared = next(each for each in options_of(strategies[strategy]) if each.name == option)
        low, high = declared.spec.low, declared.spec.high
        for value in given:
            if (low is not None and value < low) or (high is not None and value > high):
                allowed = f"{'…' if low is None else f'{low:g}'} to {'…' if high is None else f'{high:g}'}"
                raise MergingError(
                    f"{self._values.said(name)} makes '{option}' of '{strategy}' {value:g}, which takes {allowed}"
                )


def _pattern(name: str) -> str:
    """A model's name as entries take it; @ means something there, so a pattern stands for a name that holds one.

    >>> _pattern("first[1]"), _pattern("first[1]@main")
    ('first[1]', 'first[[]1]?main')
    """
    return glob.escape(name).replace("@", "?") if "@" in name else name


def number(value: Value) -> str:
    """A number as briefly as it can be read back.

    >>> number(1.0), number(0.1), number(1e-07)
    ('1', '0.1', '1e-07')
    """
    return repr(value).removesuffix(".0")


_OWN: Mapping[str, Callable[[Options], dict[str, Any]]] = {
    "slerp": Options.slerp,
    "nuslerp": Options.nuslerp,
    "multislerp": Options.multislerp,
    "della": Options.della,
    "della_linear": Options.della,
}
"""Method → options that follow from several of its parameters, or from the order of its models."""
