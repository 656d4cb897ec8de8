"""A file that is written, and never one that is read."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from merging.errors import FolderError


def check_file(output: Path, inputs: Iterable[Path]) -> None:
    """Refuses to write a file in the place of one that is read, by whatever name, or into a folder that is one model.

    Raises:
        FolderError: it is an input.
    """
    for path in inputs:
        if is_same(output, path):
            raise FolderError(f"`output` {output} is {path}, which is read; choose another `output`")
        if path.is_dir() and is_same(output.parent, path):
            raise FolderError(f"`output` {output} lies in {path}, a model that is read; choose another `output`")


def is_same(one: Path, other: Path) -> bool:
    """Whether two paths are one file, by whatever links."""
    try:
        return os.path.samefile(one, other)
    except OSError:  # one is not there: then only its name can be the other's
        return one.resolve() == other.resolve()
