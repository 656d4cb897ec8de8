"""Where results go: a folder that is nobody else's, and never one that is read."""

from __future__ import annotations

import contextlib
import itertools
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from merging.errors import FolderError, refused
from merging.storage.output_file import is_same


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
            if whole or (name.is_dir() and is_same(name, output)):
                raise FolderError(f"{path} is read, and --output {output} would replace it; choose another --output")


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
