"""Objects that a user names as ``python:module:name``."""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import traceback
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from merging.errors import MergingError, TaskError, raised, unknown


class ExitedError(MergingError):
    """Somebody's code called ``sys.exit``, which would end the command without its result."""

    exit_code = 1


@contextlib.contextmanager
def contained() -> Iterator[None]:
    """Runs somebody's code: where it exits, that is an error of it, and the working folder is ours again afterwards.

    Raises:
        ExitedError: it exited, with whatever code: nobody has a result then.
    """
    try:
        before = os.open(".", os.O_RDONLY)  # a path would lead elsewhere once a folder above is renamed
    except OSError:  # it is gone, or may not be read
        before = None
    try:
        yield
    except SystemExit as error:
        raise ExitedError(exited(error)) from error
    finally:
        if before is not None:
            with contextlib.suppress(OSError):
                os.fchdir(before)
            os.close(before)


def exited(error: SystemExit) -> str:
    """Who called ``sys.exit``, for a message."""
    frames = traceback.extract_tb(error.__traceback__)
    place = next((frame for frame in reversed(frames) if not frame.filename.startswith("<")), frames[-1])
    return (
        f"{place.filename}:{place.lineno} called sys.exit({error.code!r}), which would end the command without its "
        "result; a plug-in returns, or raises an error"
    )


def import_object(spec: str) -> Any:
    """The object behind ``python:module:name``; installed packages first, then the working folder.

    Raises:
        TaskError: the module or the name does not exist, or importing it fails.
        ExitedError: it exits.
    """
    _, _, rest = spec.partition(":")
    module, _, name = rest.partition(":")
    if not module or not name:
        raise TaskError(f"'{spec}' is incomplete; write python:module:function")
    here = str(Path.cwd())
    if here not in sys.path:
        sys.path.append(here)  # last: a file there must not shadow an installed package
    try:
        with contained():
            found = importlib.import_module(module)
    except ExitedError:
        raise
    except Exception as error:  # a user's module may raise anything while it is imported
        raise TaskError(f"'{spec}': importing {module} failed: {raised(error, whole=True)}") from error
    if not hasattr(found, name):
        raise TaskError(str(unknown(f"name in module {module}:", name, [n for n in vars(found) if n[0] != "_"])))
    return getattr(found, name)
