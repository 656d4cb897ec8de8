"""What can go wrong, as one clear line each: what, where, the nearest right name, the way out.

Everything a user can cause derives from :class:`MergingError`; the command line prints its message, without a
traceback, and exits with code 2. Where a built-in exception says the same, the error derives from it too.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MergingError(Exception):
    """A user's mistake or a condition a user can mend; ``str(error)`` is one line."""

    exit_code = 2

    def __str__(self) -> str:
        return " ".join(str(argument) for argument in self.args)


class UnknownNameError(MergingError, LookupError):
    """A plug-in, option or key that nobody registered."""


class NameTakenError(MergingError, ValueError):
    """A second plug-in under a name that is already registered."""


class OptionError(MergingError, ValueError):
    """An option's value has the wrong type or lies outside its range."""


class CheckpointError(MergingError, ValueError):
    """A file that is not a state dict we can (or want to) read."""


class PoolError(MergingError, ValueError):
    """Checkpoints that cannot be merged with one another."""


class PartitionError(MergingError, ValueError):
    """Groups of tensors that overlap, miss tensors or name tensors that do not exist."""


class RecipeError(MergingError, ValueError):
    """A recipe that is damaged, or whose ingredients are not the ones it was made from."""


class RequirementError(MergingError, ValueError):
    """A strategy needs something (a base, a model, labelled data, a second checkpoint) that is not there."""


class ResultError(MergingError, ArithmeticError):
    """A merged model would hold NaN, infinity, or a number that its dtype cannot."""


class StrategyError(MergingError, TypeError):
    """A strategy that returned something else than it promises."""


class TaskError(MergingError, ValueError):
    """A task whose model or data cannot be used."""


class FolderError(MergingError, OSError):
    """A run's folder that is occupied, in use, or belongs to another run."""


class InterruptedRunError(MergingError):
    """A run was interrupted before there was anything to save."""

    exit_code = 130


class BudgetSpent(Exception):
    """Raised by ``search.evaluate`` once an optimiser has used up its evaluations."""


class Diverged(MergingError):
    """A training run whose loss is no longer finite."""


class Stopped(Exception):
    """Raised at the evaluator's door when the whole run must end: interrupted, or ``--max-evaluations`` reached."""


def unknown(kind: str, name: str, known: Iterable[str], way_out: str = "") -> UnknownNameError:
    """The error for a name that is not known: says the nearest one, or lists all of them.

    >>> str(unknown("strategy", "gredy", ["uniform", "greedy"]))
    "unknown strategy 'gredy'; did you mean 'greedy'?"
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"did you mean '{near[0]}'?" if near else f"known: {', '.join(names) or 'none'}"
    return UnknownNameError(f"unknown {kind} '{name}'; {hint}" + (f" ({way_out})" if way_out else ""))
