"""Options of plug-ins as text: ``-o strategy.tau=0.99`` and ``[run.options]``, to kind → option → value."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any

from merging.errors import OptionError, unknown
from merging.plugins.registry import KINDS

FORM = "kind.option=value, such as -o strategy.tau=0.99"


def flatten_options(nested: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """[run.options] as written, either ``"strategy.tau" = 1`` or ``strategy.tau = 1``, to kind → option → value."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in nested.items():
        pairs = value.items() if isinstance(value, Mapping) else [(None, value)]
        for inner, content in pairs:
            _put(found, key if inner is None else f"{key}.{inner}", content)
    return found


def pair(text: str, flag: str, form: str) -> tuple[str, str]:
    """Divides ``key=value`` into key and value.

    Args:
        text: what was typed.
        flag: the flag that it was given with, for messages.
        form: how it is to be written, with an example.

    Raises:
        OptionError: there is no ``=``.
    """
    key, equals, value = text.partition("=")
    if not equals:
        raise OptionError(f"{flag} {text}: write it as {form}")
    return key, value


def parse_options(
    given: Iterable[str], kinds: Collection[str] = tuple(KINDS), *, form: str = FORM, what: str = "kind of option"
) -> dict[str, dict[str, Any]]:
    """``-o strategy.tau=0.99``; an option given twice becomes a list.

    Args:
        given: what was typed.
        kinds: what may have options: kinds of plug-ins or, in a benchmark, their names.
        form: how it is written, for messages.
        what: what these kinds are, for messages.

    Raises:
        OptionError: it is not written like that, or there is no such kind.
    """
    found: dict[str, dict[str, Any]] = {}
    for text in given:
        _put(found, *pair(text, "-o", form), kinds, what)
    return found


def over(own: Mapping[str, Any], typed: Mapping[str, Any]) -> dict[str, Any]:
    """One plug-in's options of the file, with those that were typed: an inner plug-in takes the file's away whole."""
    return {key: value for key, value in own.items() if key.partition(".")[0] not in typed} | dict(typed)


def _put(
    found: dict[str, dict[str, Any]],
    key: str,
    value: Any,
    kinds: Collection[str] = tuple(KINDS),
    what: str = "kind of option",
) -> None:
    kind, dot, name = key.partition(".")
    if not dot:
        raise OptionError(f"option '{key}' says no kind; write kind.option, such as {next(iter(kinds))}.{key}")
    if kind not in kinds:
        raise unknown(what, kind, kinds, error=OptionError)
    values = found.setdefault(kind, {})
    if name in values:
        before = values[name]
        values[name] = [*(before if isinstance(before, list) else [before]), value]
    else:
        values[name] = value
