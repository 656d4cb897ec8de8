"""What can go wrong, as one clear line each: what, where, the nearest right name, the way out.

Everything a user can cause derives from :class:`MergingError`; the command line prints its message, without a
traceback, and exits with code 2. Where a built-in exception says the same, the error derives from it too.

Messages name files, tensors and classes, and whoever made these may call them anything: :func:`showable` is the one
place where a name becomes text that a terminal, a page or a log can hold.
"""

from __future__ import annotations

import difflib
import errno
import fnmatch
import glob
import os
import resource
import unicodedata
from collections.abc import Iterable, Iterator
from enum import StrEnum
from pathlib import Path
from tokenize import TokenError

_ACTIVE = ("Cc", "Cf", "Cs", "Zl", "Zp")
"""Unicode categories that do something instead of being seen: controls, directions, lone surrogates, line ends."""
_IN_A_LINE = 180
"""Characters of the names that a message lists."""
_JOINERS = "\u200c\u200d"
"""Of category Cf too, but part of how Persian, Hindi and emoji are spelled."""


def showable(text: object, keep: str = "") -> str:
    r"""A name, or a text with names in it, as one line that nothing obeys: what would act is written as its code.

    What is showable stays as it is, so that it may be applied twice.

    Args:
        text: a name from a file, a folder or a stranger.
        keep: characters that stay nevertheless, such as the line ends of a description.

    >>> showable("model\x1b[2J\n")
    'model\\x1b[2J\\n'
    >>> showable("Größe 7")
    'Größe 7'
    """
    text = str(text)
    if text.isprintable():
        return text
    return "".join(character if _is_shown(character, keep) else _code(character) for character in text)


def _is_shown(character: str, keep: str) -> bool:
    return (
        character.isprintable()
        or character in keep
        or character in _JOINERS
        or unicodedata.category(character) not in _ACTIVE
    )


def _code(character: str) -> str:
    return character.encode("unicode_escape").decode("ascii")


class MergingError(Exception):
    """A user's mistake or a condition a user can mend; ``str(error)`` is one line."""

    exit_code = 2

    def __str__(self) -> str:
        return showable(" ".join(str(argument) for argument in self.args))


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


class FormatError(MergingError, ValueError):
    """A file in a format that a newer version of merging writes."""


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


class WorkersError(MergingError, OSError):
    """Workers that cannot be had: a package, processes, devices or a cluster that are not there."""


class InterruptedRunError(MergingError):
    """A run was interrupted before there was anything to save."""

    exit_code = 130


class BudgetSpent(Exception):
    """Raised by ``search.evaluate`` once an optimiser has used up its evaluations."""


class Diverged(MergingError):
    """A training run whose loss is no longer finite."""


class StopReason(StrEnum):
    """The reason why a whole run must end before its strategy is done."""

    INTERRUPTED = "interrupted"
    LIMIT = "limit"


LIMIT_REACHED = "--max-evaluations {} reached"
"""Status of a run whose evaluations are used up, as reports, journals and benchmarks of every version have it."""


class Stopped(Exception):
    """Raised at the evaluator's door when the whole run must end.

    Attributes:
        reason: somebody interrupted it, or its evaluations are used up; whoever catches it decides by this.
        limit: how many evaluations it had; None where it was interrupted.
    """

    def __init__(self, reason: StopReason = StopReason.INTERRUPTED, limit: int | None = None) -> None:
        self.reason, self.limit = StopReason(reason), limit
        super().__init__(self.reason, limit)  # as it is pickled, when it leaves a process

    def __str__(self) -> str:
        return LIMIT_REACHED.format(self.limit) if self.reason is StopReason.LIMIT else "interrupted"


DAMAGED = (OSError, ValueError, LookupError, TypeError, AttributeError, OverflowError, RecursionError, TokenError)
"""Errors that are raised where a file is read that holds something else than it should: cut off, not JSON, other keys
or types, nested too deep. numpy reads headers by ``tokenize``."""


def is_full(error: BaseException) -> bool:
    """Whether a disk or a share of it is full; torch says so in words."""
    full = (errno.ENOSPC, errno.EDQUOT)
    return (
        getattr(error, "errno", None) in full or "no space left" in str(error).lower() or "write failed" in str(error)
    )


def raised(error: BaseException, *, whole: bool = False) -> str:
    r"""Says what code of somebody else raised: the kind of error and its words, on one line.

    Args:
        error: error of a library, a plug-in, or of what damaged bytes provoke.
        whole: all lines of it, joined; else the first.

    >>> raised(ValueError("no shape\n  at all")), raised(KeyError("a"), whole=True), raised(EOFError())
    ('ValueError: no shape', "KeyError: 'a'", 'EOFError')
    """
    try:
        said = str(error)
    except Exception:  # it cannot say it
        said = ""
    words = " ".join(said.split()) if whole else next(iter(said.strip().splitlines()), "")
    return showable(f"{type(error).__name__}: {words}" if words else type(error).__name__)


def refused(error: OSError) -> str:
    """Says what the system refused, in its words alone.

    >>> refused(FileNotFoundError(2, "No such file or directory", "gone.pt"))
    'No such file or directory'
    """
    return showable(error.strerror or error)


def reason_of(error: BaseException) -> str:
    """Says what the system refused, with the file and the way out: disk, memory, or number of open files.

    >>> reason_of(FileNotFoundError(2, "No such file or directory", "gone.pt"))
    'gone.pt: No such file or directory'
    """
    if isinstance(error, MemoryError):
        return "not enough memory; use fewer or smaller models at once, or a machine with more of it"
    if not isinstance(error, OSError):
        return showable(str(error).partition("\n")[0] or type(error).__name__)
    where = f"{str(error.filename)[:200]}: " if error.filename not in (None, "") else ""
    way_out = {
        errno.ENOSPC: "; free some space",
        errno.EDQUOT: "; free some space",
        errno.EMFILE: f" ({resource.getrlimit(resource.RLIMIT_NOFILE)[0]} for this process; ulimit -n raises that)",
        errno.ENFILE: " on this machine; end other programs",
    }
    return showable(f"{where}{refused(error)}{way_out.get(error.errno or 0, '')}")


def unknown(
    kind: str, name: str, known: Iterable[str], way_out: str = "", *, error: type[MergingError] = UnknownNameError
) -> MergingError:
    """The error for a name that is not known: says the nearest one, or lists all of them, as many as a line holds.

    >>> str(unknown("strategy", "gredy", ["uniform", "greedy"]))
    "unknown strategy 'gredy'; did you mean 'greedy'?"

    Args:
        kind: what the name is one of.
        name: the name as it was written.
        known: the names that there are.
        way_out: what else may be done.
        error: its class.
    """
    names = sorted(known)
    near = nearest(name, names)
    hint = f"did you mean '{near}'?" if near else f"known: {_listed(names)}"
    return error(f"unknown {kind} '{name}'; {hint}" + (f" ({way_out})" if way_out else ""))


def _listed(names: list[str]) -> str:
    """Names in a row; of many the first ones, and how many are left out."""
    rows = [", ".join(names[: count + 1]) for count in range(len(names))]
    fitting = sum(len(row) <= _IN_A_LINE for row in rows) or 1
    if fitting >= len(names):
        return rows[-1] if names else "none"
    return f"{rows[fitting - 1]} and {len(names) - fitting} more"


def nearest(name: str, names: Iterable[str]) -> str:
    """The nearest of some names; empty where none is near. Capitals count only where they decide."""
    known = sorted(names)
    found = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
    if not found:
        folded = {each.casefold(): each for each in reversed(known)}
        found = [folded[each] for each in difflib.get_close_matches(name.casefold(), folded, n=1, cutoff=0.6)]
    return "".join(found)


_LISTED = 1000
"""Entries of folders that are looked at for the nearest path."""


def near_path(path: str | os.PathLike[str]) -> str:
    """The end of an error about a path that is not there: asks for the nearest one that is.

    Part by part, a name that is not there is taken for the nearest one in its folder; of a pattern, what is written
    with wildcards stays as it is.

    Args:
        path: file, folder or pattern, as it was written.

    Returns:
        Such as ``"; did you mean 'runs/first'?"``; empty where the path is there, or nothing is near it.
    """
    try:
        near = _near_path(Path(path).expanduser())
    except (OSError, ValueError, RuntimeError):  # a name that no system takes, or nobody's home
        return ""
    return "" if near is None else f"; did you mean '{showable(near)}'?"


def _near_path(path: Path) -> Path | None:
    """The nearest path or pattern, or its first parts where nothing is near the rest; None where no part was mended."""
    near, mended, places = Path(path.anchor), False, [Path(path.anchor)]
    left = iter(range(_LISTED))
    for part in path.parts[1:] if path.anchor else path.parts:
        there = [place / part for place in places if (place / part).exists()]
        if not there and part == "**":
            there = list(places)
            for place in there:  # which grows
                there += [entry for entry in _entries([place], left) if entry.is_dir() and not entry.is_symlink()]
        elif not there:
            entries = list(_entries(places, left))
            if glob.has_magic(part):
                there = [entry for entry in entries if fnmatch.fnmatchcase(entry.name, part)]
            if not there:
                found = nearest(part, {entry.name for entry in entries if entry.exists()})
                if not found:
                    break
                part, mended = found, True
                there = [entry for entry in entries if entry.name == part]
        near, places = near / part, there
    return near if mended else None


def _entries(places: Iterable[Path], left: Iterator[int]) -> Iterator[Path]:
    """What lies in some folders, without what is hidden, as long as ``left`` counts; nothing of one that is closed."""
    for place in places:
        try:
            with os.scandir(place) as entries:
                for _, entry in zip(left, entries, strict=False):
                    if not entry.name.startswith("."):
                        yield place / entry.name
        except OSError:
            continue
