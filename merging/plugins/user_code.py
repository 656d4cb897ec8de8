"""Objects that a user names as ``python:module:name``."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from typing import Any

from merging.errors import TaskError, unknown


def import_object(spec: str) -> Any:
    """The object behind ``python:module:name``; installed packages first, then the working folder.

    Raises:
        TaskError: the module or the name does not exist, or importing it fails.
    """
    _, _, rest = spec.partition(":")
    module, _, name = rest.partition(":")
    if not module or not name:
        raise TaskError(f"'{spec}' is incomplete; write python:module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a file there must not shadow an installed package
    try:
        found = importlib.import_module(module)
    except Exception as error:  # a user's module may raise anything while it is imported
        raise TaskError(f"'{spec}': importing {module} failed: {type(error).__name__}: {error}") from error
    if not hasattr(found, name):
        raise TaskError(str(unknown(f"name in module {module}:", name, [n for n in vars(found) if n[0] != "_"])))
    return getattr(found, name)
