"""A picture's file, whole or not there: what ``merging.storage.atomic`` does, for this wing, which is below it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from merging.errors import FolderError, refused


def put(path: Path, content: bytes) -> None:
    """Writes a file: beside its name, synced, then renamed into place.

    Args:
        path: the file; an earlier one is replaced.
        content: what stands in it.

    Raises:
        FolderError: it cannot be written.
    """
    aside = path.with_name(f".writing-{secrets.token_hex(4)}")
    try:
        try:
            with aside.open("xb") as file:
                file.write(content)
                file.flush()
                os.fsync(file.fileno())
            os.replace(aside, path)
        finally:
            aside.unlink(missing_ok=True)
    except OSError as error:
        raise FolderError(f"cannot write to {path}: {refused(error)}") from None
