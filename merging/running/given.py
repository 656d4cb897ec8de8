"""What a run is given besides its settings, and the one function that turns keywords into these values."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar, TypeVarTuple, cast

from merging.errors import unknown
from merging.plugins.objective import Objective, WholeModelObjective
from merging.plugins.optimizer import Optimizer
from merging.plugins.partitioner import Partitioner
from merging.plugins.progress import Progress, Silent
from merging.plugins.task import Task
from merging.running.settings import DECLARED, Settings

Values = TypeVarTuple("Values")
F = TypeVar("F", bound=Callable[..., Any])


def never() -> bool:
    """What is asked whether to stop, where nobody stops anything."""
    return False


@dataclass(frozen=True, kw_only=True)
class Parts:
    """What a strategy works with, besides the pool."""

    partitioner: Partitioner | None = field(
        default=None, metadata={"help": "Which tensors share a mixing factor; default: the whole model."}
    )
    objective: Objective | WholeModelObjective | None = field(
        default=None, metadata={"help": "What a search maximises; default: top-1 accuracy."}
    )
    optimizer: Optimizer | None = field(
        default=None,
        metadata={"help": "The search's backend; default: the strategy's own, which is Nevergrad's Cobyla for most."},
    )
    task: Task | None = field(
        default=None, metadata={"help": "The model and its data; strategies that only average weights need none."}
    )


@dataclass(frozen=True, kw_only=True)
class Destination:
    """Where the result goes."""

    output: Path | str | None = field(default=None, metadata={"help": "Folder for the result; None writes nothing."})
    overwrite: bool = field(default=False, metadata={"help": "Replace an earlier run in that folder."})
    resume: bool = field(
        default=False, metadata={"help": "Go on with the run in that folder; what decides its result must be the same."}
    )


@dataclass(frozen=True, kw_only=True)
class Watcher:
    """Who is told of a run, and may end it."""

    progress: Progress = field(default=Silent(), metadata={"help": "Told what happens."})
    should_stop: Callable[[], bool] = field(
        default=never, metadata={"help": "Asked between batches; True ends the run with the best so far."}
    )


@dataclass(frozen=True, kw_only=True)
class Origin:
    """Where a run comes from: what is kept of the command that started it."""

    request: Mapping[str, Any] | None = field(
        default=None, metadata={"help": "Kept in the journal for `merge run --resume`."}
    )
    command: str = field(default="", metadata={"help": "Kept in the model card."})
    started: float | None = field(
        default=None, metadata={"help": "`time.time()` of the start, where that was before this call."}
    )


def given(
    function: str, keywords: Mapping[str, Any], *values: *Values, without: Collection[str] = ()
) -> tuple[*Values]:
    """The values, with what keywords say in the place of their fields: settings by name, other fields too.

    Args:
        function: name of the one that is called, for messages.
        keywords: name → value.
        values: settings, and dataclasses.
        without: names that this function does not take.

    Raises:
        UnknownNameError: a keyword that belongs to none of them; the nearest is named.
        OptionError: a setting of the wrong type or outside its range.
    """
    told = cast("tuple[Any, ...]", values)
    known = [[name for name in _fields(type(value)) if name not in without] for value in told]
    for name in keywords:
        if not any(name in names for names in known):
            raise unknown(f"argument of {function}", name, [name for names in known for name in names])
    made = []
    for value, names in zip(told, known, strict=True):
        own = {name: keywords[name] for name in names if name in keywords}
        made.append(value.changed(own) if isinstance(value, Settings) else dataclasses.replace(value, **own))
    return cast("tuple[*Values]", tuple(made))


def by_keyword(*kinds: type, without: Collection[str] = ()) -> Callable[[F], F]:
    """Says in a function's signature and docstring which keywords it takes: every field of these values.

    Notebooks complete them, ``help()`` lists them with their help.
    """

    def explained(function: F) -> F:
        fields = {name: each for kind in kinds for name, each in _fields(kind).items() if name not in without}
        own = inspect.signature(function)
        taken = [
            each.replace(default=...) if isinstance(each.default, kinds) else each  # the fields that follow say it
            for each in own.parameters.values()
            if each.kind is not inspect.Parameter.VAR_KEYWORD
        ]
        more = [
            inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default)
            for name, (default, _) in fields.items()
        ]
        function.__signature__ = own.replace(parameters=[*taken, *more])  # type: ignore[attr-defined]
        lines = [f"    {name}: {help}" for name, (_, help) in fields.items()]
        function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Keywords:", *lines])
        return function

    return explained


def _fields(kind: type) -> dict[str, tuple[Any, str]]:
    """Name → default and help of each keyword that a value stands for."""
    if kind is Settings:
        return {
            name: (declared.default, f"{declared.spec.help} {declared.setting.more}".rstrip())
            for name, declared in DECLARED.items()
        }
    return {each.name: (each.default, each.metadata["help"]) for each in dataclasses.fields(kind)}
