"""Functions that take a few values, and each field of them as a keyword: one place turns the one into the other."""

from __future__ import annotations

import dataclasses
import functools
import inspect
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeVar, TypeVarTuple, cast

from merging.errors import OptionError, unknown
from merging.plugins.bar import taken_away
from merging.plugins.user_code import kind_of
from merging.values.wording import shown

Values = TypeVarTuple("Values")
F = TypeVar("F", bound=Callable[..., Any])
_TAKEN: dict[str, tuple[type, ...]] = {}
"""Name of a function → the kinds of values that it takes."""
_OWN: dict[str, tuple[str, ...]] = {}
"""Name of a function → its arguments besides the fields of these."""


def given(
    function: str, keywords: Mapping[str, Any], *values: *Values, without: Collection[str] = ()
) -> tuple[*Values]:
    """The values, with what keywords say in the place of their fields.

    Args:
        function: name of the one that is called, for messages.
        keywords: name → value.
        values: dataclasses whose fields say their ``help``, or that have ``keywords`` and ``changed`` of their own.
        without: names that this function does not take.

    Raises:
        UnknownNameError: a keyword that belongs to none of them; the nearest is named.
        OptionError: a value of another kind, or a setting of the wrong type or outside its range.
    """
    told = cast("tuple[Any, ...]", values)
    for value, kind in zip(told, _TAKEN.get(function, ()), strict=False):
        if not isinstance(value, kind):
            raise OptionError(f"{function} was given {kind_of(value)} where a {kind.__name__} belongs")
    known = [[name for name in _fields(type(value)) if name not in without] for value in told]
    for name in keywords:
        if not any(name in names for names in known):
            everything = [name for names in known for name in names]
            raise unknown(f"argument of {function}", name, [*_OWN.get(function, ()), *everything])
    made = []
    for value, names in zip(told, known, strict=True):
        own = {name: _word(keywords[name]) for name in names if name in keywords}
        made.append(value.changed(own) if hasattr(value, "changed") else dataclasses.replace(value, **own))
    return cast("tuple[*Values]", tuple(made))


def _word(value: object) -> object:
    """A device or dtype of torch as the word that stands for it; anything else as it is."""
    of_torch = type(value).__module__ == "torch" and type(value).__name__ in ("device", "dtype")
    return str(value).removeprefix("torch.") if of_torch else value


def expected(argument: str, value: object, kinds: type | tuple[type, ...], what: str) -> None:
    """Refuses an argument of another type.

    Args:
        argument: its name.
        value: what was given.
        kinds: the types that are taken.
        what: says what is taken, such as ``a path``.

    Raises:
        OptionError: it is of none of them; one line that names the argument, what came, and what is taken.
    """
    taken = kinds if isinstance(kinds, tuple) else (kinds,)
    if not isinstance(value, taken) or (isinstance(value, bool) and bool not in taken):  # True is an int to Python
        raise OptionError(f"{argument} is {shown(value)}; it is {what}")


def check_kinds(value: Any) -> None:
    """Checks each field of a dataclass that says in its metadata what it takes: ``takes=(kinds, words)``.

    Raises:
        OptionError: a field of another type.
    """
    for each in dataclasses.fields(value):
        if "takes" in each.metadata:
            kinds, words = each.metadata["takes"]
            expected(f"`{each.name}`", getattr(value, each.name), kinds, words)


def by_keyword(*kinds: type, without: Collection[str] = ()) -> Callable[[F], F]:
    """Says in a function's signature and docstring which keywords it takes: every field of these values.

    Notebooks complete them, ``help()`` lists them with their help.
    """

    def explained(function: F) -> F:
        fields = {name: each for kind in kinds for name, each in _fields(kind).items() if name not in without}
        own = inspect.signature(function)
        _TAKEN[function.__name__] = kinds
        _OWN[function.__name__] = tuple(
            each.name for each in own.parameters.values() if each.kind is not inspect.Parameter.VAR_KEYWORD
        )
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
        return _ending(function) if "progress" in fields else function

    return explained


def _ending(function: F) -> F:
    """The same function; what it has shown of its work is taken away at its end, however it ends."""

    @functools.wraps(function)
    def whole(*values: Any, **named: Any) -> Any:
        with taken_away():
            return function(*values, **named)

    return cast("F", whole)


def _fields(kind: Any) -> dict[str, tuple[Any, str]]:
    """Name → default and help of each keyword that a value stands for: its own fields, or what it says."""
    if hasattr(kind, "keywords"):
        return cast("dict[str, tuple[Any, str]]", kind.keywords())
    return {each.name: (each.default, each.metadata["help"]) for each in dataclasses.fields(kind)}
