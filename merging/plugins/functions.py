"""Options of a plug-in that is a function: its parameters, and what its docstring says of them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, get_type_hints

from merging.plugins.options import UNSET, Option, OptionSpec

_ENTRY = re.compile(r"^ {4}(\w+): (.*(?:\n {6,}.*)*)", re.MULTILINE)
"""Of a docstring's ``Args:``, once its indentation is gone: a name, and what is said of it."""
HANDED = ("progress",)
"""Parameters that are handed over where a function has them, and are no options."""


def parameters_of(function: Callable[..., Any]) -> tuple[Option, ...]:
    """The options of a function, in the order of its parameters.

    One without an annotation takes anything; one without a default has the default ``UNSET``, and must be given.
    """
    parameters = [
        parameter
        for parameter in inspect.signature(function).parameters.values()
        if parameter.name not in HANDED and parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    ]
    written = {each.name: each.annotation for each in parameters if each.annotation is not each.empty}
    try:
        hints = get_type_hints(SimpleNamespace(__annotations__=written), inspect.unwrap(function).__globals__)
    except (NameError, AttributeError):  # types that are imported for checkers only
        hints = {}
    _, _, arguments = inspect.cleandoc(function.__doc__ or "").partition("\nArgs:\n")
    said = {name: " ".join(text.split()).rstrip(".").replace("``", "") for name, text in _ENTRY.findall(arguments)}
    return tuple(
        Option(
            each.name,
            hints.get(each.name, Any),
            UNSET if each.default is each.empty else each.default,
            OptionSpec(help=said.get(each.name, "")),
        )
        for each in parameters
    )
