"""Numbers of a strategy's options that are searched for: ``scale=search``, whatever the strategy is.

The numbers that score best on the held-out data are found by the run's optimizer, and the merge is that of the same
strategy with these numbers, bit for bit. Random methods draw at every point what they would draw with plain numbers.
"""

from __future__ import annotations

import contextlib
import contextvars
import copy
import dataclasses
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import numpy as np

from merging.plugins.optimizer import Vector
from merging.plugins.options import Option, options_of
from merging.plugins.progress import Silent
from merging.plugins.spreading import Places, Variable
from merging.plugins.varying import Entry, Ramp, Search, entries_of, placed, searches
from merging.values.outcome import Outcome
from merging.values.recipe import Merge, Recipe

if TYPE_CHECKING:
    from merging.plugins.problem import Problem
    from merging.plugins.strategy import MixStrategy

POINTS = 30
"""Evaluations for each number that is searched for, where the user says none."""
MOST = 250
"""Evaluations of a search at the most, where the user says none."""


def points(variables: int) -> int:
    """Evaluations of a search over so many numbers, where the user says none."""
    return min(POINTS * variables, MOST)


def varying(strategy: MixStrategy) -> Iterator[tuple[Option, tuple[Entry, ...]]]:
    """The options of a strategy that may vary, with the entries of their values."""
    for declared in options_of(type(strategy)):
        spec = declared.spec
        if spec.varies is not None:
            yield declared, entries_of(getattr(strategy, declared.name), spec.low, spec.high)


def searched(strategy: MixStrategy) -> tuple[str, ...]:
    """Names of a strategy's own options that have a number to be searched for."""
    return tuple(declared.name for declared, entries in varying(strategy) if searches(entries))


def planned_points(strategy: MixStrategy, models: int, components: int) -> int:
    """Points of the search for a strategy's own numbers at the most, before names are looked up; 0: there is none."""
    variables = 0
    for _, entries in varying(strategy):
        for entry in entries:
            each = (models if entry.model else 1) * (components if entry.component else 1)
            variables += each if isinstance(entry.value, Search) else 0
    return points(variables)


def sought(strategy: MixStrategy) -> list[str]:
    """Names of the options that have a number to be searched for, those of its parts included."""
    return [*searched(strategy), *(name for part in strategy.parts() for name in sought(part))]


def check_places(strategy: MixStrategy, places: Callable[[], Places]) -> None:
    """Checks before any work that a strategy's numbers, and its parts', are for models and components that are there.

    Args:
        strategy: the strategy.
        places: gives them; asked where there is something to check.

    Raises:
        OptionError: a ramp over a model that is one component.
        UnknownNameError: an entry names a model or component that is not there.
    """
    for declared, entries in varying(strategy):
        if any(entry.model or entry.component or isinstance(entry.value, Ramp) for entry in entries):
            places().check(entries, strategy.called(declared.name))
    for part in strategy.parts():
        check_places(part, places)


def is_placed(strategy: MixStrategy) -> bool:
    """Whether an option has numbers that differ between components, or a ramp over them."""
    return any(placed(entries) for _, entries in varying(strategy))


def numbers_in(strategy: MixStrategy, option: str) -> tuple[float, ...]:
    """All numbers that an option states, its default included where an entry may leave places out."""
    declared, entries = next(each for each in varying(strategy) if each[0].name == option)
    usual = declared.usual(getattr(strategy, "profile", None))
    found = tuple(number for entry in entries for number in entry.numbers)
    whole = any(not (entry.model or entry.component) for entry in entries)
    return found if whole or not isinstance(usual, int | float) else (*found, float(usual))


@dataclass(frozen=True)
class Box:
    """The box that is searched: a variable for each number, over all options of a strategy.

    Attributes:
        strategy: The strategy as the user gave it.
        places: The models and components of the problem.
        variables: Option and place of each number.
        starts: Option → the number that its search starts at, and that places have on which nothing depends.
    """

    strategy: MixStrategy
    places: Places
    variables: tuple[tuple[str, Variable], ...]
    starts: dict[str, float]

    @classmethod
    def of(cls, strategy: MixStrategy, problem: Problem) -> Box:
        """The box of a strategy on a problem.

        Raises:
            UnknownNameError: an entry names a model or component that is not there.
        """
        where, found, starts = Places.of(problem), list[tuple[str, Variable]](), dict[str, float]()
        for declared, entries in varying(strategy):
            if not searches(entries):
                continue
            if declared.spec.varies == "whole":
                found.append((declared.name, (0, "", -1)))
            else:
                found += [(declared.name, variable) for variable in where.variables(entries)]
            starts[declared.name] = _start(strategy, declared, entries, problem)
        return cls(strategy, where, tuple(found), starts)

    @property
    def lower(self) -> Vector:
        """The bounds below, shape ``(variables,)``."""
        return np.array([self._search(option, place).low for option, place in self.variables])

    @property
    def upper(self) -> Vector:
        """The bounds above, shape ``(variables,)``."""
        return np.array([self._search(option, place).high for option, place in self.variables])

    @property
    def start(self) -> Vector:
        """The point that the search starts at, brought between the bounds."""
        return np.clip([self.starts[option] for option, _ in self.variables], self.lower, self.upper)

    def values(self, x: Vector) -> dict[str, Any]:
        """The values of the options at a point: a number, or entries none of which is searched for."""
        found = dict[str, Any]()
        for declared, entries in varying(self.strategy):
            if declared.name not in self.starts:
                continue
            own = {place: float(x[i]) for i, (option, place) in enumerate(self.variables) if option == declared.name}
            if declared.spec.varies == "whole":
                found[declared.name] = own[0, "", -1]
                continue
            texts = getattr(self.strategy, declared.name)
            pairs = list(zip(entries, texts, strict=True))
            found[declared.name] = self.places.filled(pairs, own, self.starts[declared.name])
        return found

    def at(self, x: Vector) -> MixStrategy:
        """The strategy with the numbers of a point."""
        return dataclasses.replace(self.strategy, **self.values(x))

    def _search(self, option: str, place: Variable) -> Search:
        entries = next(entries for declared, entries in varying(self.strategy) if declared.name == option)
        value = entries[place[0]].value
        if not isinstance(value, Search):
            raise RuntimeError(f"{option}: entry {place[0]} is not searched for")
        return value


def _start(strategy: MixStrategy, declared: Option, entries: tuple[Entry, ...], problem: Problem) -> float:
    """The number that a search starts at: what an entry before it gives all, the option's default, or the middle.

    Of an option that is none by default: what that stands for.
    """
    first = next(place for place, entry in enumerate(entries) if isinstance(entry.value, Search))
    given = [e.value for e in entries[:first] if isinstance(e.value, int | float) and not (e.model or e.component)]
    usual = given[-1] if given else declared.usual(getattr(strategy, "profile", None))
    if not isinstance(usual, int | float):
        usual = strategy.default_number(declared.name, problem)
    value = entries[first].value
    if not isinstance(value, Search):
        raise RuntimeError(f"{declared.name}: entry {first} is not searched for")
    low, high = (
        (value.low, value.high)
        if declared.spec.low is None or declared.spec.high is None
        else (
            declared.spec.low,
            declared.spec.high,
        )
    )
    return (value.low + value.high) / 2 if usual is None else min(max(float(usual), low), high)


Mix = Callable[["MixStrategy", "Problem"], Merge]
"""Runs a strategy on a problem, and checks what it returns."""
Made = dict[int, tuple[Merge, Mapping[str, Any]]]
_MADE: contextvars.ContextVar[Made | None] = contextvars.ContextVar("_MADE", default=None)
"""Merges of inner strategies that a search has made at its first point, with the generator's state after each."""


def found_by_search(strategy: MixStrategy, problem: Problem, mix: Mix) -> Merge:
    """Searches for the numbers that score best, and merges with them.

    The start is scored before the search begins, outside of its budget, and wins over what is no better.

    Args:
        strategy: has numbers to be searched for.
        problem: what is merged.
        mix: runs a strategy that has none.

    Raises:
        UnknownNameError: an entry names a model or component that is not there.
        RequirementError: there is no task.
        Stopped: the run was interrupted or has used up its evaluations.
    """
    box, made, point = Box.of(strategy, problem), Made(), cast("Problem", _Point(problem))
    state, known = problem.generator.bit_generator.state, dict[bytes, Outcome]()

    def merged(x: Vector, within: Problem) -> Merge:
        problem.generator.bit_generator.state = state
        with _keeping(made):
            return mix(box.at(x), within)

    def scored(x: Vector) -> Outcome:
        if x.tobytes() not in known:  # optimizers come back to points, and a merge takes time
            merge = merged(x, point)
            outcome = known[x.tobytes()] = problem.evaluate(merge)
            if isinstance(merge, Recipe):
                problem.keep(merge, outcome)
        return known[x.tobytes()]

    wanted = " and ".join(box.starts)
    start, first = box.start, scored(box.start)
    problem.progress.stage(f"searching for {wanted} of {strategy.label or strategy.name}", 1)
    best, score, asked = start, first.score, 0
    if len(start):
        found = problem.search.maximize(
            scored, lower=box.lower, upper=box.upper, start=start, budget=points(len(start))
        )
        asked = found.asked
        if found.score > score:
            best, score = found.x, found.score
        _rehearse_the_rest(scored, box, problem, known)
    problem.progress.advance()
    chosen = box.at(best).options()
    values = {option: chosen[option] for option in box.starts}
    problem.decide(strategy=strategy.name, searched=values, score=score, start=first.score, points=asked)
    return merged(best, problem)


def _rehearse_the_rest(
    scored: Callable[[Vector], Outcome], box: Box, problem: Problem, known: Mapping[bytes, Outcome]
) -> None:
    """Scores, in a rehearsal, as many other points as the budget has left.

    Scores that are made up rise wherever an optimizer goes: some come back to few points then, or end early, where real
    ones would have led them on.
    """
    if not getattr(problem, "rehearsed", False):
        return
    budget = cast("Any", problem).searching.budget or points(len(box.variables))
    generator = np.random.default_rng(0)
    for _ in range(budget + 1 - len(known)):  # the start is beside the budget
        scored(generator.uniform(box.lower, box.upper))


class _Point:
    """The problem as it is at one point of a search: what a strategy decides and tells there is no news of the run."""

    def __init__(self, problem: Problem) -> None:
        self.problem, self._silent = problem, copy.copy(problem)
        vars(self._silent)["progress"] = Silent()

    def decide(self, **facts: Any) -> None:
        """Drops a decision."""

    def __getattr__(self, name: str) -> Any:
        return getattr(self._silent, name)


@contextlib.contextmanager
def _keeping(made: Made) -> Iterator[None]:
    token = _MADE.set(made)
    try:
        yield
    finally:
        _MADE.reset(token)


def mixed_once(strategy: MixStrategy, problem: Problem, mix: Mix) -> Merge:
    """Runs a strategy, searching for its numbers where it asks for that; an inner one once for all points of a search.

    The merge of an inner strategy does not depend on its outer one's numbers.

    Args:
        strategy: the strategy.
        problem: what is merged.
        mix: runs a strategy that has nothing to search for.
    """
    made = _MADE.get()
    if made is not None and id(strategy) in made:
        merged, problem.generator.bit_generator.state = made[id(strategy)]
        return merged
    if isinstance(problem, _Point):
        problem = problem.problem  # what is made once decides for the run
    token = _MADE.set(None)
    try:
        merged = found_by_search(strategy, problem, mix) if searched(strategy) else mix(strategy, problem)
    finally:
        _MADE.reset(token)
    if made is not None:
        made[id(strategy)] = merged, problem.generator.bit_generator.state
    return merged
