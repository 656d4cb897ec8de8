"""A page for the user's browser: opened where there is one, and named in any case."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

from merging.cli.showing.screen import marked
from merging.errors import FolderError, refused
from merging.storage import atomic
from merging.storage.user_cache import NOWHERE, PAGES, cache_folder

if TYPE_CHECKING:
    from rich.console import Console

KEPT = 20
"""Pages that stay in the cache; the oldest ones go."""
PATIENCE = 10.0
"""Seconds after which a browser that has not come back is one that stays open."""
_OPEN = "import sys, webbrowser; sys.exit(not webbrowser.open(sys.argv[1]))"


def open_page(path: Path, news: Console) -> None:
    """Opens a page in the user's browser, the one that BROWSER names where it is set, and says its path.

    Where it cannot be opened, only the path is said: that is no failure of the command.

    Args:
        path: the page.
        news: the screen for what is said, which is not that of the result.
    """
    why = _open(path)
    how = "opened in your browser" if not why else f"not opened: {why}"
    news.print(marked("page: [bold]{}[/] ({})", path, how), highlight=False, soft_wrap=True)


def _open(path: Path) -> str:
    """Opens a page; gives the reason where it cannot be."""
    shown = ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    if sys.platform not in ("darwin", "win32", "cygwin") and not any(os.environ.get(name) for name in shown):
        return "there is no display here; BROWSER names a browser"
    # A process of its own: what a browser prints does not come among the result, and a text browser finds no terminal.
    quiet = subprocess.DEVNULL
    try:
        begun = subprocess.Popen(  # noqa: S603 (our own command)
            [sys.executable, "-c", _OPEN, path.absolute().as_uri()],
            stdin=quiet,
            stdout=quiet,
            stderr=quiet,
            start_new_session=True,
        )
        return "no browser could be started" if begun.wait(PATIENCE) else ""
    except subprocess.TimeoutExpired:
        return ""
    except OSError as error:
        return refused(error)


def kept_page(text: str, name: str) -> Path:
    """Writes a page that has no folder of its own into the user's cache, in the place of the last one of that name.

    Args:
        text: the page.
        name: what it shows.

    Raises:
        FolderError: the cache cannot be written, or there is none.
    """
    from blake3 import blake3

    folder = cache_folder() / PAGES
    if cache_folder() == NOWHERE:
        raise FolderError("there is no home folder for the page: name one with MERGING_CACHE, or give --output")
    path = folder / f"{blake3(name.encode('utf-8', 'surrogateescape')).hexdigest()[:12]}.html"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        atomic.swap(path, text.encode("utf-8", "backslashreplace"))
        pages = sorted(folder.glob("*.html"), key=lambda page: page.stat().st_mtime, reverse=True)
        for page in pages[KEPT:]:
            page.unlink(missing_ok=True)
    except OSError as error:
        raise FolderError(f"cannot write a page to {folder}: {refused(error)}; give --output") from None
    return path
