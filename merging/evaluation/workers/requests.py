"""What driver and workers say to each other: pure values."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merging.values.recipe import Recipe

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator
    from merging.evaluation.ledger import Knowledge
    from merging.evaluation.workers.telling import Telling
    from merging.plugins.progress import Progress
    from merging.storage.pool import ModelPool


class Kind(Enum):
    """The kind of a request."""

    FILES = "files"
    WORLD = "world"
    MEASURE = "measure"
    PART = "part"
    LOGITS = "logits"
    STATISTICS = "statistics"
    TEST = "test"
    PIECE = "piece"
    WHOLE = "whole"


@dataclass(frozen=True)
class Message:
    """A request: its number, what it is, its words, merges that are new to the worker, and those to be forgotten."""

    number: int
    kind: Kind
    body: bytes
    definitions: tuple[tuple[str, bytes], ...] = ()
    forgets: tuple[str, ...] = ()


@dataclass(frozen=True)
class Answer:
    """An answer, or a part of one: ``part``, ``done``, ``error``, ``dropped`` or ``lacking`` (files)."""

    number: int
    state: str
    body: bytes
    definitions: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, eq=False, kw_only=True)
class Mix:
    """A trial, without what the worker finds out itself (:class:`merging.evaluation.keys.Trial`)."""

    incumbent: Recipe
    candidate: Recipe
    mixing: str
    factors: NDArray[np.float64]
    loss: bool = False


@dataclass(frozen=True, eq=False)
class Piece:
    """A function of a strategy and what it is given, to be run with a problem of its own.

    Attributes:
        function: is called with the problem first.
        given: its other arguments, by name.
        problem: makes the problem, over an evaluator, a pool and someone to tell news.
    """

    function: Callable[..., object]
    given: Mapping[str, Any]
    problem: Callable[[Evaluator, ModelPool, Progress], Any] = field(repr=False)

    def run(self, evaluator: Evaluator, pool: ModelPool, progress: Progress) -> object:
        """Runs the function with its problem."""
        return self.function(self.problem(evaluator, pool, progress), **self.given)


@dataclass(frozen=True, eq=False)
class Made:
    """A pass that a worker has made for a strategy that runs there whole.

    Attributes:
        kind: ``MEASURE``, ``LOGITS`` or ``TEST``.
        found: what the request gives, as it is answered.
        recipe: the model that the logits are of.
        split: name of their data.
    """

    kind: Kind
    found: Any
    recipe: Recipe | None = None
    split: str = ""


@dataclass(frozen=True, eq=False)
class Event:
    """A call that a strategy has made on a worker, for the driver to make again.

    Attributes:
        place: the object whose method was called.
        name: the method.
        given: its arguments by place.
        named: its arguments by name.
        made: what was made for it.
    """

    place: str
    name: str
    given: tuple[Any, ...] = ()
    named: Mapping[str, Any] = field(default_factory=dict)
    made: tuple[Made, ...] = ()


@dataclass(frozen=True, eq=False)
class Whole:
    """A strategy, to be run whole on a worker.

    Attributes:
        run: runs it over an evaluator and a pool, and tells what it does; gives its merge.
        knowledge: what the driver's ledger knows when it begins.
        exact_savings: whether what is known is not made again.
    """

    run: Callable[[Evaluator, ModelPool, Telling], object]
    knowledge: Knowledge
    exact_savings: bool = True


def first_words(folder: Path) -> bytes:
    """Says what a worker is told before all else: the folder of the driver's files."""
    return pickle.dumps({"folder": str(folder)})
