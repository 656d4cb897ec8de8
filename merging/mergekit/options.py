"""The options of our strategy that a configuration means: weights, numbers, and what some methods do by themselves."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any

from merging.errors import MergingError
from merging.mergekit.configuration import Configuration
from merging.mergekit.methods import Parameter
from merging.mergekit.models import Models
from merging.mergekit.setting import Value
from merging.mergekit.values import Values


def options(found: Configuration, models: Models, values: Values) -> dict[str, Any]:
    """The options of the strategy.

    Raises:
        MergingError: a parameter varies that is one value here.
    """
    chosen: dict[str, Any] = dict(found.method.options)
    for name, parameter in found.method.parameters.items():
        if not parameter.option or parameter.inert:
            continue
        if parameter.option == "weights":
            chosen["weights"] = _weights(models, values)
        elif parameter.per_model:
            chosen[parameter.option] = _numbers(name, parameter, models, values)
        else:
            chosen[parameter.option] = parameter.convert(_one(name, values.shared(name), values))
    own = _OWN.get(found.name)
    return chosen if own is None else chosen | own(found, models, values)


def _one(name: str, given: Sequence[Value], values: Values) -> Value:
    if len(set(given)) > 1:
        raise MergingError(f"{values.said(name)} varies with layers or names; '{name}' is one value here")
    return given[0]


def _numbers(name: str, parameter: Parameter, models: Models, values: Values) -> Any:
    own = values.own(name)
    if len({value for each in own.values() for value in each}) > 1:
        raise MergingError(f"{values.said(name)} varies with models, layers or names; '{name}' is one value here")
    return parameter.convert(next(iter(own.values()))[0])


def _weights(models: Models, values: Values) -> list[str]:
    """MODEL=WEIGHT for each model's usual weight, then MODEL@COMPONENT=WEIGHT for what differs."""
    return [
        f"{_pattern(models.names[model])}{component}={number(value)}"
        for model, given in values.own("weight").items()
        for component, value in _entries(given, [group.name for group in values.groups])
    ]


def _entries(given: Sequence[Value], names: Sequence[str]) -> list[tuple[str, Value]]:
    """The most frequent value, of several the last one's, for all components; then those of others as @COMPONENT."""
    counts = Counter(reversed(given))
    usual = counts.most_common(1)[0][0]
    return [("", usual), *((f"@{name}", value) for name, value in zip(names, given, strict=True) if value != usual)]


def _pattern(name: str) -> str:
    """A model's name as entries take it; @ and = mean something there, so a pattern stands for them."""
    return name.replace("@", "?").replace("=", "?")


def number(value: Value) -> str:
    """A number as briefly as it can be read back.

    >>> number(1.0), number(0.1), number(1e-07)
    ('1', '0.1', '1e-07')
    """
    return repr(value).removesuffix(".0")


def _slerp(found: Configuration, models: Models, values: Values) -> dict[str, Any]:
    """From the base to the other; the pool's order may be the other way round."""
    t = _one("t", values.shared("t"), values)
    return {"t": t if next(iter(models.names)) == found.base else 1.0 - t}


def _nuslerp(found: Configuration, models: Models, values: Values) -> dict[str, Any]:
    """How far from the first to the second follows from the weights; half the way where they cancel."""
    first, second = values.own("weight").values()
    ways = {0.5 if abs(a + b) < 1e-6 else b / (a + b) for a, b in zip(first, second, strict=True)}
    if len(ways) > 1:
        raise MergingError(f"{values.said('weight')} varies with layers or names; 'weight' is one value here")
    (t,) = ways
    if not 0 <= t <= 1:
        raise MergingError(
            f"{values.said('weight')}: the weights lead {t:g} of the way from one model to the other, not 0 to 1"
        )
    flat = _one("nuslerp_flatten", values.shared("nuslerp_flatten"), values)
    across = _one("nuslerp_row_wise", values.shared("nuslerp_row_wise"), values)
    vectors = "tensor" if flat else "columns" if across else "rows"
    return {"t": t, "of": "models" if models.base is None or found.base is None else "changes", "vectors": vectors}


def _multislerp(found: Configuration, models: Models, values: Values) -> dict[str, Any]:
    return {"of": "models" if found.base is None else "changes"}


_OWN = {"slerp": _slerp, "nuslerp": _nuslerp, "multislerp": _multislerp}
"""Method → options that follow from several of its parameters, or from the order of its models."""
