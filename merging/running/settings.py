"""A run's settings, each declared once: flags, merge.toml, the journal, messages and documentation read this.

A new one is a new field below; nothing else names it but the code that it decides about.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from merging.errors import OptionError, unknown
from merging.forward.settings import Passes as Passes
from merging.mixing.writing import Writing
from merging.plugins.options import Declared, Option, Setting, option, options_of
from merging.plugins.sink import Sink
from merging.plugins.user_code import named
from merging.running.cache import Cache as Cache

if TYPE_CHECKING:
    from merging.plugins.naming import Meant


@dataclass(frozen=True, kw_only=True)
class Search(Declared):
    """The limits of a search: seed, evaluations, and what is not to be mixed."""

    seed: int = option(
        0,
        "Seed of everything random.",
        low=0,
        setting=Setting(metavar="N", header=True, more="Same seed, same bits on the CPU."),
    )
    budget: int | None = option(
        None,
        "Evaluations per search.",
        low=1,
        setting=Setting(metavar="N", default="the strategy's; 250", header=True),
    )
    max_evaluations: int | None = option(
        None,
        "End the whole run after so many evaluations.",
        low=1,
        setting=Setting(
            metavar="N", changes=True, more="Distinct ones on held-out data count; the result is the best so far."
        ),
    )
    freeze: tuple[str, ...] = option(
        (),
        "Components or tensors not to mix; repeatable.",
        setting=Setting(
            metavar="REGEX",
            header=True,
            more="Regular expressions; what they match keeps the first ingredient's values.",
        ),
    )


@dataclass(frozen=True, kw_only=True)
class Rules(Declared):
    """The rules of a run: what is scored besides, what a result must pass, what an average does with statistics."""

    baselines: bool = option(
        True,
        "Run best, uniform and greedy too; evaluations are shared.",
        setting=Setting(switch="off", said="Only the strategy itself.", header=True),
    )
    tests: bool = option(
        True,
        "Score the results on the task's test sets.",
        setting=Setting(switch="off", said="Leave the test sets alone.", header=True),
    )
    pool_tests: bool = option(
        True,
        "Score every model of the pool on the test sets too, for the leaderboard.",
        setting=Setting(
            switch="off",
            said="Leave the pool's models, but for the best, off the test sets.",
            changes=True,
            more="At the end of a run, and in no budget; without test sets there is none.",
        ),
    )
    certify_split: float | None = option(
        None,
        "Keep this share of held-out data to accept the result on.",
        low=0.0,
        high=1.0,
        setting=Setting(
            metavar="SHARE",
            header=True,
            more="It selects nothing; the best single model is the result where the merge does not beat it there.",
        ),
    )
    recalibrate: bool | None = option(
        None,
        "Measure BatchNorm statistics of averages on training data.",
        setting=Setting(
            switch="both",
            default="where there is some",
            header=True,
            more="Every score and the result are of statistics measured again.",
        ),
    )
    as_stored: bool = option(
        False,
        "Average the parts of weight norm and pruning as they are stored.",
        setting=Setting(
            switch="on",
            more="That is no average of the weights; such models are refused otherwise.",
        ),
    )

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.certify_split in (0, 1):
            raise OptionError(
                f"`certify_split` is {self.certify_split:g}; it is the share of held-out data that accepts, 0 to 1"
            )


@dataclass(frozen=True, kw_only=True)
class Vocabularies(Declared):
    """The vocabulary in which models are merged that have several: whose tokens, in how many rows."""

    tokenizer_source: str | None = option(
        None,
        "Align rows by token: union, base, first, or a model's name.",
        setting=Setting(
            metavar="NAME",
            default="models with several vocabularies are refused",
            header=True,
            more="The rows of embeddings and heads; the result has that vocabulary.",
        ),
    )
    pad_to_multiple_of: int | None = option(
        None,
        "Pad the rows of that vocabulary to a multiple of N.",
        low=1,
        setting=Setting(metavar="N", default="no rows without a token", header=True),
    )


@dataclass(frozen=True, kw_only=True)
class Watched(Declared):
    """The sinks that are told what happens in a run; none of them changes anything in it."""

    sinks: tuple[Sink, ...] = option(
        (),
        "Tell NAME what happens, as it happens; repeatable.",
        setting=Setting(
            flag="sink",
            metavar="NAME[:OPTION=VALUE,…]",
            changes=True,
            more="Such as `tensorboard:folder=tb`; `merge list sinks` names them, none: nobody. Changes no result.",
        ),
    )

    if TYPE_CHECKING:

        def __init__(self, *, sinks: Meant[Sink] | Sequence[Meant[Sink]] = ()) -> None: ...

    def __post_init__(self) -> None:
        super().__post_init__()
        for place, sink in enumerate(self.sinks):
            sink.check_packages()
            if sink in self.sinks[:place]:
                raise OptionError(f"`sinks` names {named('sink', sink)} twice with the same options")


@dataclass(frozen=True, kw_only=True)
class Settings:
    """Everything that a run can be told, in seven values."""

    search: Search = field(default=Search())
    passes: Passes = field(default=Passes())
    rules: Rules = field(default=Rules())
    writing: Writing = field(default=Writing())
    cache: Cache = field(default=Cache())
    vocabulary: Vocabularies = field(default=Vocabularies())
    watched: Watched = field(default=Watched())

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """Settings by their names; None and what is not given is the default.

        Raises:
            UnknownNameError: there is no such setting; the nearest is named.
            OptionError: a value of the wrong type or outside its range.
        """
        return cls().changed({name: value for name, value in given.items() if value is not None})

    def changed(self, given: Mapping[str, Any]) -> Settings:
        """The same settings but for the given ones, by their names. Raises what :meth:`of` raises."""
        for name in given:
            if name not in DECLARED:
                raise unknown("setting", name, DECLARED)
        groups = {
            group: {name: value for name, value in given.items() if name in kind.__dataclass_fields__}
            for group, kind in GROUPS.items()
        }
        return dataclasses.replace(
            self, **{group: dataclasses.replace(getattr(self, group), **own) for group, own in groups.items() if own}
        )

    @staticmethod
    def keywords() -> dict[str, tuple[Any, str]]:
        """Name → default and help of every setting."""
        return {name: said for kind in GROUPS.values() for name, said in kind.keywords().items()}

    def plain(self) -> dict[str, Any]:
        """Name → value that JSON can hold, of every setting."""
        return {name: value for group in GROUPS for name, value in getattr(self, group).options().items()}

    def header(self) -> dict[str, Any]:
        """Name → value of those with which a run's journal begins."""
        return {name: value for name, value in self.plain().items() if DECLARED[name].setting.header}


GROUPS: dict[str, type[Declared]] = {name: type(group) for name, group in vars(Settings()).items()}
"""Field of :class:`Settings` → the class of its value."""
DECLARED: dict[str, Option] = {declared.name: declared for kind in GROUPS.values() for declared in options_of(kind)}
"""Name of a setting → its declaration."""


def all_but(*names: str) -> tuple[str, ...]:
    """Names of the settings that a function leaves out, which takes these alone."""
    return tuple(name for name in DECLARED if name not in names)
