"""Outputs that are inputs: what a command reads is never what it replaces."""

from __future__ import annotations

import os
import re
from collections.abc import Iterable
from pathlib import Path

from merging.errors import FolderError


def check_file(output: Path, inputs: Iterable[Path]) -> None:
    """Refuses to write a file in the place of one that is read, by whatever name, or into a folder that is one model.

    Raises:
        FolderError: it is an input.
    """
    for path in inputs:
        if _same(output, path):
            raise FolderError(f"--output {output} is {path}, which is read; choose another --output")
        if path.is_dir() and _same(output.parent, path):
            raise FolderError(f"--output {output} lies in {path}, a model that is read; choose another --output")


def check_folder(output: Path, inputs: Iterable[Path], written: str) -> None:
    """Refuses a folder in which a file that is read would be replaced.

    Args:
        output: that is written to.
        inputs: files and folders that are read.
        written: regular expression of what a command writes there, paths relative to the folder.

    Raises:
        FolderError: one of them is an input.
    """
    place = output.resolve()
    for path in inputs:
        for name in {path.absolute(), path.resolve()}:
            whole = name.is_relative_to(place) and re.fullmatch(written, name.relative_to(place).as_posix())
            if whole or (name.is_dir() and _same(name, output)):
                raise FolderError(f"{path} is read, and --output {output} would replace it; choose another --output")


def _same(one: Path, other: Path) -> bool:
    try:
        return os.path.samefile(one, other)
    except OSError:  # one is not there: then only its name can be the other's
        return one.resolve() == other.resolve()
