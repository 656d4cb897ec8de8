"""Options of plug-ins as text: ``-o strategy.tau=0.99`` and ``[run.options]``, to kind → option → value."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from merging.errors import OptionError, unknown
from merging.plugins.registry import KINDS


def flatten_options(nested: Mapping[str, Any]) -> dict[str, dict[str, Any]]:
    """[run.options] as written, either ``"strategy.tau" = 1`` or ``strategy.tau = 1``, to kind → option → value."""
    found: dict[str, dict[str, Any]] = {}
    for key, value in nested.items():
        pairs = value.items() if isinstance(value, Mapping) else [(None, value)]
        for inner, content in pairs:
            _put(found, key if inner is None else f"{key}.{inner}", content)
    return found


def parse_options(given: tuple[str, ...], kinds: Collection[str] = tuple(KINDS)) -> dict[str, dict[str, Any]]:
    """``-o strategy.tau=0.99``; an option given twice becomes a list. ``kinds``: of plug-ins that may have options."""
    found: dict[str, dict[str, Any]] = {}
    for text in given:
        key, equals, value = text.partition("=")
        if not equals:
            raise OptionError(f"-o {text}: write it as kind.option=value, such as -o strategy.tau=0.99")
        _put(found, key, value, kinds)
    return found


def _put(found: dict[str, dict[str, Any]], key: str, value: Any, kinds: Collection[str] = tuple(KINDS)) -> None:
    kind, dot, name = key.partition(".")
    if not dot:
        raise OptionError(f"option '{key}' says no kind; write kind.option, such as {next(iter(kinds))}.{key}")
    if kind not in kinds:
        raise OptionError(str(unknown("kind of option", kind, kinds)))
    values = found.setdefault(kind, {})
    if name in values:
        before = values[name]
        values[name] = [*(before if isinstance(before, list) else [before]), value]
    else:
        values[name] = value
