"""Files and folders as candidates: models, results, files of a kind; folders always, because more lies in them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

from click.shell_completion import CompletionItem

from merging.cli.completing.shells import PATH

MODELS = (".safetensors", ".pt", ".pth", ".bin", ".ckpt", ".pth.tar", ".pt.tar", ".index.json")
"""Ends of the names that checkpoints have."""
MANY = 2000
"""Entries of one folder that are looked at."""


def files(incomplete: str, suffixes: tuple[str, ...]) -> Iterator[CompletionItem]:
    """Files with one of these suffixes, and folders; folders alone where there is no suffix."""
    return _entries(incomplete, lambda entry: bool(suffixes) and entry.name.endswith(suffixes))


def models(incomplete: str) -> Iterator[CompletionItem]:
    """Checkpoints, and folders, one of which may be a model or hold some."""
    return files(incomplete, MODELS)


def results(incomplete: str, names: tuple[str, ...]) -> Iterator[CompletionItem]:
    """Folders that hold one of these files, also those one level below; and folders on the way there."""
    for item in files(incomplete, ()):
        folder = Path(item.value).expanduser()
        if any((folder / name).is_file() for name in names):
            yield CompletionItem(item.value.removesuffix("/"), type=PATH)
            continue
        below = [each for each in _below(folder) if any((folder / each / name).is_file() for name in names)]
        yield from (CompletionItem(f"{item.value}{each}", type=PATH) for each in below)
        if not below:
            yield item


def _entries(incomplete: str, wanted: Callable[[os.DirEntry[str]], bool]) -> Iterator[CompletionItem]:
    """Entries of the folder that is typed already; hidden ones where their dot is typed."""
    head, slash, begun = incomplete.rpartition("/")
    typed = head + slash
    folder = os.path.expanduser(typed or ".")
    try:
        with os.scandir(folder) as listed:
            found = sorted((entry for _, entry in zip(range(MANY), listed, strict=False)), key=lambda each: each.name)
    except OSError:
        return
    for entry in found:
        if not entry.name.startswith(begun) or (entry.name.startswith(".") and not begun.startswith(".")):
            continue
        if _is_folder(entry):
            yield CompletionItem(f"{typed}{entry.name}/", type=PATH)
        elif wanted(entry):
            yield CompletionItem(f"{typed}{entry.name}", type=PATH)


def _below(folder: Path) -> list[str]:
    try:
        return sorted(entry.name for entry in os.scandir(folder) if _is_folder(entry) and entry.name[0] != ".")[:MANY]
    except OSError:
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False
