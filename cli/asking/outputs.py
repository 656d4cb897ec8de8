"""Where results go: a folder that is nobody else's, and never one that is read."""

from __future__ import annotations

import contextlib
import itertools
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from merging.errors import FolderError, refused


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
        output: the folder that is written to.
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


@contextlib.contextmanager
def output_folder(given: str | None, what: str) -> Iterator[Path]:
    """The folder for a result: the given one, or a new one named after the time, with a number where that is taken.

    A new one is nobody else's from now on, and gone again where nothing was written to it.
    """
    if given:
        yield Path(given)
        return
    from merging.storage.atomic import make_folder

    what = re.sub(r"[^\w+-]+", "_", what)[:60]
    now = time.strftime("%Y%m%d-%H%M%S")
    for number in itertools.count(1):
        folder = Path("runs") / (f"{now}-{what}" if number == 1 else f"{now}-{number}-{what}")
        with contextlib.suppress(FileExistsError):
            try:
                make_folder(folder, exist_ok=False)
            except FileExistsError:
                if not folder.is_dir():  # runs is a file
                    raise FolderError(f"cannot make {folder}; choose another --output") from None
                raise
            except OSError as error:
                raise FolderError(f"cannot make {folder}: {refused(error)}; choose another --output") from None
            break
    try:
        yield folder
    finally:
        with contextlib.suppress(OSError):  # not empty: something was written
            folder.rmdir()
            folder.parent.rmdir()
