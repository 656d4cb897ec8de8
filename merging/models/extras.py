"""Packages that an extra of this one brings, imported where they are used."""

from __future__ import annotations

import importlib
from typing import Any

from merging.errors import TaskError


def needed(package: str, who: str, extra: str) -> Any:
    """Such a package.

    Args:
        package: such as ``datasets``.
        who: needs which package, as a message begins: "tar files need webdataset".
        extra: that brings it.

    Raises:
        TaskError: it is not installed.
    """
    try:
        return importlib.import_module(package)
    except ImportError:
        raise TaskError(f"{who}; install it with: pip install 'merging[{extra}]'") from None
