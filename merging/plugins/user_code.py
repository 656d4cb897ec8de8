"""Somebody's code: found by ``python:module:name``, run so that its errors are one line, told by type what it gives."""

from __future__ import annotations

import contextlib
import functools
import importlib
import importlib.util
import os
import sys
import sysconfig
from collections.abc import Callable, Iterator
from pathlib import Path
from traceback import walk_tb
from types import ModuleType
from typing import Any, NamedTuple, TypeVar

from merging.errors import (
    BudgetSpent,
    MergingError,
    OptionError,
    PartitionError,
    RecipeError,
    RequirementError,
    Stopped,
    StrategyError,
    TaskError,
    raised,
    unknown,
)
from merging.values.wording import article as article
from merging.values.wording import kind_of as kind_of

T = TypeVar("T")


class PluginError(MergingError):
    """Somebody's code raised an error; its cause is the error itself."""

    exit_code = 1


class ExitedError(MergingError):
    """Somebody's code called ``sys.exit``, which would end the command without its result."""

    exit_code = 1


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Runs somebody's code: where it exits, that is an error of it, and the working folder is ours again afterwards.

    Raises:
        ExitedError: it exited, with whatever code: nobody has a result then.
    """
    try:
        before = os.open(".", os.O_RDONLY)  # a path would lead elsewhere once a folder above is renamed
    except OSError:  # it is gone, or may not be read
        before = None
    try:
        yield
    except SystemExit as error:
        raise ExitedError(exited(error)) from error
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                os.fchdir(before)
            os.close(before)


@contextlib.contextmanager
def running(what: str, code: object, doing: str = "", error: type[MergingError] = PluginError) -> Iterator[None]:
    """Runs somebody's code by name: what it raises becomes one line that says whose it is, and where it went wrong.

    An error of ours that what it made has caused (a recipe, a partition, an option) keeps its kind, and says the place
    too; our other errors, and those of the machine (memory, a full disk) raised below it, pass as they are.

    Args:
        what: name of what runs, such as ``strategy 'mine'``.
        code: the plug-in, function or module; lines of its own are looked for first.
        doing: what it was doing, where that helps: ``on tensor 'w'``.
        error: type of the error that is raised.

    Raises:
        MergingError: of the kind that was asked for.
    """
    try:
        with contained():
            yield
    except (Stopped, BudgetSpent, MemoryError, KeyboardInterrupt, GeneratorExit):
        raise
    except MergingError as failure:
        place = _place(failure, code)
        if isinstance(failure, _MADE) and place.foreign and not place.raised and place.text not in str(failure):
            where = place.text if what in str(failure) else f"in {what}, {place.text}"
            failure.args = (f"{failure} ({where})",)
        raise
    except BaseException as failure:  # somebody's code may raise anything; a panic in Rust is no Exception
        place = _place(failure, code)
        machine = isinstance(failure, OSError)
        if machine and not (place.raised and place.foreign):
            raise
        told = error(failure_of(what, code, failure, doing))
        told.exit_code = max(told.exit_code, 2) if machine else told.exit_code
        raise told from failure


def failure_of(what: str, code: object, error: BaseException, doing: str = "") -> str:
    """Says in a line whose code has failed, with what, and where.

    Args:
        what: name of what ran, such as ``sink 'mine'``.
        code: the plug-in, function or module; lines of its own are looked for first.
        error: is what it has raised.
        doing: what it was doing, where that helps.
    """
    if isinstance(error, MergingError) and what in str(error):
        return str(error)
    place = _place(error, code)
    words = str(error) if isinstance(error, MergingError) else raised(error)
    words = words if len(words) <= _LONGEST else f"{words[:_LONGEST]} …"
    said = f"{what} failed{f' {doing}' if doing else ''}: {words}"
    return f"{said} ({place.text})" if place.text else said


def called(
    what: str,
    function: Callable[..., object],
    kind: type[T],
    wanted: str,
    *arguments: Any,
    error: type[MergingError] = PluginError,
) -> T:
    """Calls somebody's function for something of a kind.

    Args:
        what: name of the function in messages, such as ``task 'mine'``.
        function: somebody's code.
        kind: class of what it returns.
        wanted: the class in words, for a message: ``an nn.Module``.
        arguments: are handed over.
        error: is raised where it fails.

    Raises:
        MergingError: it fails; of the kind that was asked for.
        TaskError: it returns something else.
    """
    with running(what, function, error=error):
        found = function(*arguments)
    if not isinstance(found, kind):
        raise TaskError(f"{what} returned {kind_of(found)}, not {wanted}{file_of(function)}")
    return found


_MADE = (RecipeError, PartitionError, OptionError, RequirementError)
"""Errors in what a plug-in makes, or asks for."""


_LONGEST = 300
"""Characters of an exception's words: some libraries say whole tensors."""


class _Place(NamedTuple):
    """A line on the way to an error: its text, whether the error was raised there, and not in what we ship."""

    text: str
    raised: bool
    foreign: bool


def _place(error: BaseException, code: object = None) -> _Place:
    """The last line of somebody's code on the way to an error; of code that was not even entered, its file.

    Somebody's code is what lies neither in this package (but for the module of ``code``, which may be a built-in
    plug-in) nor in the standard library, nor in an installed package that is not the one of ``code``.
    """
    if isinstance(error, SyntaxError) and error.filename and not error.filename.startswith("<"):
        return _Place(f"at {error.filename}:{error.lineno}", raised=True, foreign=True)
    if isinstance(code, functools.partial):
        code = code.func
    module = code if isinstance(code, str) else getattr(code, "__module__", None) or ""
    frames = [(f.f_globals.get("__name__", ""), f.f_code.co_filename, n) for f, n in walk_tb(error.__traceback__)]
    frames = [frame for frame in frames if not frame[1].startswith("<")]
    for above, (name, file, line) in enumerate(reversed(frames)):
        if _is_theirs(name, file, module):
            return _Place(f"at {file}:{line}", raised=above == 0, foreign=name.partition(".")[0] != _OURS)
    file = getattr(sys.modules.get(module), "__file__", None)
    foreign = bool(file) and module.partition(".")[0] != _OURS
    return _Place(f"in {file}" if file else "", raised=False, foreign=foreign)


def file_of(code: object) -> str:
    """Says in which file somebody's code is, to end a message with: `` (in FILE)``; nothing of code that we ship."""
    place = _place(Exception(), code)
    return f" ({place.text})" if place.foreign else ""


def _is_theirs(name: str, file: str, module: str) -> bool:
    package = name.partition(".")[0]
    if name == module or (package != _OURS and package == module.partition(".")[0]):
        return True
    installed = {"site-packages", "dist-packages"} & {*Path(file).parts} or file.startswith(_STANDARD)
    return package != _OURS and not installed


_OURS = "merging"
_STANDARD = sysconfig.get_path("stdlib") + os.sep


def exited(error: SystemExit) -> str:
    """Says for a message who called ``sys.exit``, and where."""
    place = _place(error).text.removeprefix("at ") or "code without a file"
    return (
        f"{place} called sys.exit({error.code!r}), which would end the command without its result; a plug-in returns, "
        "or raises an error"
    )


def named(kind: str, plugin: Any) -> str:
    """Names a plug-in for a message: its kind, and its registered name or else that of its class."""
    return f"{kind} '{getattr(plugin, 'name', '') or type(plugin).__name__}'"


def number(value: object, made: str, code: object = None) -> float:
    """A score as a number, whatever holds it: Python, NumPy or a tensor of one element.

    Args:
        value: what somebody's code returned.
        made: begins the message, such as ``objective 'mine': reduce``.
        code: the plug-in or function that returned it; its file ends the message.

    Raises:
        StrategyError: it is no number.
    """
    try:
        return float(value)  # type: ignore[arg-type]  # that is what is tried
    except Exception:  # whose value it is says what becomes of it
        raise StrategyError(f"{made} returned {kind_of(value)}, not a number{file_of(code)}") from None


def import_object(spec: str) -> Any:
    """The object behind ``python:module:name``; installed packages first, then the working folder.

    Raises:
        TaskError: the module or the name does not exist, or importing it fails.
        ExitedError: it exits.
    """
    _, _, rest = spec.partition(":")
    module, _, name = rest.partition(":")
    if not module or not name:
        raise TaskError(f"'{spec}' is incomplete; write python:module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a file there must not shadow an installed package
    with running(f"'{spec}': importing {module}", module, error=TaskError):
        found = _module(module)
    if not hasattr(found, name):
        known = [each for each in vars(found) if each[0] != "_"]
        raise unknown(f"name in module {module}:", name, known, error=TaskError)
    return getattr(found, name)


def _module(name: str) -> ModuleType:
    """A module by name; where its file was run under another name (``--plugin``), that one: no file is run twice."""
    if name not in sys.modules:
        spec = importlib.util.find_spec(name)
        if spec is not None and spec.has_location and spec.origin is not None:
            known = loaded_from(Path(spec.origin))
            if known is not None:
                return sys.modules.setdefault(name, known)
    return importlib.import_module(name)


def loaded_from(file: Path) -> ModuleType | None:
    """The module that a file has become, by whatever path or name; None: it has not been run, or is the program."""
    try:
        wanted = file.stat()
    except OSError:  # within an archive
        return None
    for name, module in list(sys.modules.items()):
        origin = getattr(module, "__file__", None)
        if isinstance(origin, str) and name not in ("__main__", "__mp_main__"):
            with contextlib.suppress(OSError):
                if os.path.samestat(os.stat(origin), wanted):
                    return module
    return None
