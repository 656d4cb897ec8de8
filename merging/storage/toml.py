"""TOML files as their users write them."""

from __future__ import annotations

import tomllib
from pathlib import Path
from typing import Any

from merging.errors import MergingError, near_path, refused


def read_toml(path: Path, *, error: type[MergingError] = MergingError) -> dict[str, Any]:
    """The tables of a file; a mark at its beginning that says UTF-8 is passed over.

    Args:
        path: the file.
        error: the class of what is raised.

    Raises:
        MergingError: of that class: it cannot be read, or is no TOML, or nested deeper than anybody means.
    """
    try:
        return tomllib.loads(path.read_text("utf-8-sig"))
    except OSError as reason:
        raise error(f"{path}: {refused(reason)}{near_path(path)}") from None
    except (ValueError, RecursionError) as reason:
        raise error(f"{path}: {reason}") from None
