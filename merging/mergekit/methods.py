"""mergekit's methods: their parameters, and the strategy and options that mean the same here.

What each parameter is called, whether it belongs to a model or to the whole merge, and its default are those of
mergekit 0.1.5 (https://github.com/arcee-ai/mergekit).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

REQUIRED: Any = object()
"""Default of a parameter that every model must have."""


@dataclass(frozen=True, kw_only=True)
class Parameter:
    """A parameter of a method.

    Attributes:
        kind: what its values are.
        default: its value where nobody says one.
        per_model: whether each model has its own; else it is the whole merge's.
        option: our option; empty: it has none of its own.
        convert: makes the option's value from mergekit's.
        inert: why it changes nothing, in mergekit or here; empty: it does.
    """

    kind: Literal["number", "count", "boolean"] = "number"
    default: Any = REQUIRED
    per_model: bool = False
    option: str = ""
    convert: Callable[[Any], Any] = lambda value: value
    inert: str = ""


@dataclass(frozen=True, kw_only=True)
class Method:
    """A method of mergekit.

    Attributes:
        strategy: ours.
        base: ``needed``; ``optional``: its changes from the base are merged where one is given; ``first``: it is
            merged, as the first of two; ``counts``: it is merged as any other model.
        parameters: its parameters by mergekit's names.
        options: our options that follow from the method itself.
        fewest: models besides a base that does not count, at the least.
        most: the same, at the most; none: any number.
    """

    strategy: str
    base: Literal["needed", "optional", "first", "counts"] = "needed"
    parameters: Mapping[str, Parameter] = field(default_factory=dict)
    options: Mapping[str, Any] = field(default_factory=dict)
    fewest: int = 1
    most: int | None = None


def _rescaled(value: bool) -> str:
    return "l1" if value else "none"


def _dropped(density: float) -> float:
    """The share that is dropped, with as few digits as the density has."""
    return round(1.0 - density, 15)


WEIGHT = Parameter(per_model=True, option="weights")
DENSITY = Parameter(default=1.0, per_model=True, option="density")
NORMALIZE = Parameter(kind="boolean", default=True, option="normalize")
INT8_MASK = Parameter(kind="boolean", default=False, inert="masks have no dtype here")


def _changes(
    strategy: str, *, normalize: bool, rescale: bool | None, options: Mapping[str, Any] | None = None, **own: Parameter
) -> Method:
    """A method of task vectors; ``rescale`` None: it thins nothing, and has these parameters without effect."""
    nothing = "" if rescale is not None else "the method drops nothing"
    return Method(
        strategy=strategy,
        parameters={
            "weight": WEIGHT,
            "normalize": Parameter(kind="boolean", default=normalize, option="normalize"),
            "lambda": Parameter(default=1.0, option="scale"),
            "rescale": Parameter(
                kind="boolean", default=bool(rescale), option="rescale", convert=_rescaled, inert=nothing
            ),
            "density": Parameter(default=1.0, per_model=True, option="density", inert=nothing),
            "int8_mask": INT8_MASK,
            **own,
        },
        options=options or {},
    )


_DROP = Parameter(default=1.0, per_model=True, option="drop", convert=_dropped)
_GAMMA = Parameter(default=0.01, per_model=True, option="gamma")
_EPSILON = Parameter(default=0.15, per_model=True, option="epsilon")
METHODS: dict[str, Method] = {
    "linear": Method(
        strategy="weighted",
        base="counts",
        parameters={"weight": WEIGHT, "normalize": NORMALIZE},
    ),
    "slerp": Method(
        strategy="slerp",
        base="first",
        parameters={"t": Parameter(option="t")},
        options={"lengths": "own", "straight": 0.9995},
        fewest=2,
        most=2,
    ),
    "task_arithmetic": _changes("task-arithmetic", normalize=False, rescale=None),
    "ties": _changes("ties", normalize=True, rescale=False, options={"scope": "tensor", "rounding": "down"}),
    "dare_linear": _changes("dare-linear", normalize=False, rescale=True, density=_DROP),
    "dare_ties": _changes("dare-ties", normalize=False, rescale=True, density=_DROP),
    "breadcrumbs": _changes("breadcrumbs", normalize=False, rescale=False, gamma=_GAMMA),
    "breadcrumbs_ties": _changes("breadcrumbs-ties", normalize=False, rescale=False, gamma=_GAMMA),
    "della": _changes("della", normalize=True, rescale=True, epsilon=_EPSILON),
    "della_linear": _changes("della-linear", normalize=False, rescale=True, epsilon=_EPSILON),
    "sce": Method(
        strategy="sce",
        parameters={"select_topk": Parameter(default=1.0, option="density"), "int8_mask": INT8_MASK},
    ),
    "model_stock": Method(
        strategy="model-stock",
        parameters={
            "filter_wise": Parameter(
                kind="boolean", default=False, option="vectors", convert=lambda rows: "rows" if rows else "tensor"
            )
        },
        options={"opposed": "formula"},
        fewest=2,
    ),
    "karcher": Method(
        strategy="karcher",
        base="counts",
        parameters={
            "max_iter": Parameter(kind="count", default=10, option="steps"),
            "tol": Parameter(default=1e-5, option="tolerance"),
        },
    ),
    "multislerp": Method(
        strategy="multislerp",
        base="optional",
        parameters={
            "weight": WEIGHT,
            "normalize_weights": NORMALIZE,
            "eps": Parameter(default=1e-8, inert="lengths are divided by as they are"),
        },
    ),
    "nuslerp": Method(
        strategy="nuslerp",
        base="optional",
        parameters={
            "weight": Parameter(per_model=True),
            "nuslerp_flatten": Parameter(kind="boolean", default=True),
            "nuslerp_row_wise": Parameter(kind="boolean", default=False),
        },
        fewest=2,
        most=2,
    ),
}
"""mergekit's name of a method → what it means here."""
LATER = {
    "passthrough": "layers of several models, one after the other, come later",
    "arcee_fusion": "it is not among the strategies here",
    "nearswap": "it is not among the strategies here",
    "ram": "it is not among the strategies here",
    "ramplus_tl": "it is not among the strategies here",
}
"""Methods of mergekit that are refused → why."""
