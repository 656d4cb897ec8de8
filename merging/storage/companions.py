"""What lies beside the weights and belongs to the model: known names, regular files, and no way out of the folder.

A model's folder may come from strangers. ``tokenizer.json`` that is a link to a private key, a file that runs as its
owner, code and pickles must not reach a result that is then published.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import Path

from merging.errors import CheckpointError, refused
from merging.storage.atomic import put
from merging.storage.file_kind import SUFFIXES
from merging.storage.model_folder import COMPANIONS, INDEX_SUFFIX, SMALL, is_transformers

_OURS = ("report.json", "recipe.json", "README.md", "events.jsonl", "overrides.safetensors")
_CODE = (".py", ".pyc", ".pyd", ".so", ".dll", ".dylib", ".sh", ".bat", ".ps1", ".exe", ".js", ".ipynb")
_PICKLES = (".pkl", ".pickle", ".joblib", ".dill", ".npy", ".npz")
_SHOWN = 8
"""Files left out that are named, at most."""
_SHARED_BLOB = re.compile(r"blobs/([0-9a-f]{2})/\1[0-9a-f]{62}")


@dataclass(frozen=True)
class Companions:
    """What lies beside a model.

    Attributes:
        files: what goes along with the model, where it lies.
        left_out: what does not, and why: (name, reason), in the order of the names.
    """

    files: tuple[Path, ...] = ()
    left_out: tuple[tuple[str, str], ...] = ()

    def __str__(self) -> str:
        """What is left out, in a few words; empty where nothing is."""
        named = [f"{shown(name)} ({why})" for name, why in self.left_out[:_SHOWN]]
        more = len(self.left_out) - len(named)
        return ", ".join(named) + (f" and {more} more" if more else "")


def companions(path: Path) -> Companions:
    """The small files that belong to a model, such as configuration and tokenizer.

    Of a folder they are those with a known name; beside a single file the same, where its ``config.json`` is that of a
    transformers model.

    Args:
        path: a checkpoint, file or folder.
    """
    folder = path if path.is_dir() else path.parent
    if not path.is_dir():
        config = folder / "config.json"
        if refusal(config) or not is_transformers(config):
            return Companions()
        names = [name for name in COMPANIONS if os.path.lexists(folder / name)]
    else:
        names = sorted(name for name in os.listdir(folder) if _may_belong(folder, name))
    files, left_out = list[Path](), list[tuple[str, str]]()
    for name in names:
        why = refusal(folder / name) if name in COMPANIONS else _kind(name)
        if why:
            left_out.append((name, why))
        else:
            files.append(folder / name)
    return Companions(tuple(files), tuple(left_out))


def readable(folder: Path, names: tuple[str, ...]) -> tuple[Path, ...]:
    """Those of several files in a folder that may be read as a model's own."""
    return tuple(folder / name for name in names if not refusal(folder / name))


def refusal(file: Path) -> str:
    """Why a file is not taken as part of the model beside it; empty where it may be."""
    try:
        found = file.lstat()
        if stat.S_ISLNK(found.st_mode):
            folder, real = file.parent.resolve(), file.resolve()
            if real.is_relative_to(folder):  # .git/config may hold a token
                if any(part.startswith(".") for part in real.relative_to(folder).parts):
                    return "a link to a hidden file"
            elif not _in_hub_cache(real, folder):
                return "a link out of the folder"
            found = real.stat()
    except FileNotFoundError:
        return "a broken link" if file.is_symlink() else "not there"
    except (OSError, RuntimeError):  # a circle of links
        return "a broken link"
    if not stat.S_ISREG(found.st_mode):
        return "no regular file"
    if found.st_size > SMALL:
        return f"larger than {SMALL >> 20} MiB"
    return "" if os.access(file, os.R_OK) else "cannot be read"


def read_companion(file: Path) -> bytes:
    """The content of one of a model's companions; what it is was looked at before, and is looked at again.

    Raises:
        CheckpointError: it is another file now, or cannot be read.
    """
    why = refusal(file)
    try:
        if not why:
            flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
            with os.fdopen(os.open(file.resolve() if file.is_symlink() else file, flags), "rb") as opened:
                content = opened.read(SMALL + 1) if stat.S_ISREG(os.fstat(opened.fileno()).st_mode) else None
            why = "no regular file" if content is None else f"larger than {SMALL >> 20} MiB"
            if content is not None and len(content) <= SMALL:
                return content
    except OSError as error:
        why = refused(error)
    raise CheckpointError(f"{file}: cannot go along with the model ({why}); start again without it")


def copy_companion(file: Path, target: Path) -> None:
    """Writes a companion's content to a new file; its mode is a new file's own, whatever the old one's was.

    Raises:
        CheckpointError: it is another file than it was, or cannot be read.
    """
    put(target, read_companion(file))


def shown(text: str) -> str:
    r"""Text out of a stranger's file, without what a terminal would obey.

    >>> print(shown("cat\x1b[31m"))
    cat\x1b[31m
    """
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in text)


def _may_belong(folder: Path, name: str) -> bool:
    """Neither ours, nor weights, nor hidden, nor a folder."""
    return not (
        name.startswith(".")
        or name in _OURS
        or Path(name).suffix in SUFFIXES
        or name.endswith(INDEX_SUFFIX)
        or (name not in COMPANIONS and os.path.isdir(folder / name))
    )


def _kind(name: str) -> str:
    """Why a file of an unknown name is left out."""
    suffix = Path(name).suffix.lower()
    return "code" if suffix in _CODE else "a pickle" if suffix in _PICKLES else "of no known name"


def _in_hub_cache(real: Path, folder: Path) -> bool:
    """Whether a file is a blob of the repository in the Hub's cache of which the folder is a snapshot.

    ``models--…/snapshots/REVISION/file`` is a link to ``models--…/blobs/HASH``, which may be one to the store that all
    repositories share, ``blobs/HA/HASH`` (huggingface_hub, manage-cache).
    """
    for above in (folder, *folder.parents):
        if above.parent.name == "snapshots":
            repository = above.parent.parent
            if real.parent == repository / "blobs":
                return True
            cache = repository.parent
            return real.is_relative_to(cache) and _SHARED_BLOB.fullmatch(real.relative_to(cache).as_posix()) is not None
    return False
