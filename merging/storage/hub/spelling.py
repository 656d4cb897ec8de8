"""Which texts are ids of the Hub: those that begin with ``hf-hub:``, and ``org/name`` where no path can be meant.

Behind the name may stand ``@revision`` and, with the prefix, ``#file``.
``open_clip:NAME/TAG`` is the id under which open_clip publishes these weights.
"""

from __future__ import annotations

import contextlib
import re
from dataclasses import dataclass
from pathlib import Path

from merging.errors import CheckpointError, near_path
from merging.storage.tensor_file import FORMATS

PREFIX = "hf-hub:"
"""Begins what is an id whatever lies on the disk, but for a file or folder of that very name."""
OPEN_CLIP = "open_clip:"
_NAME = r"[A-Za-z0-9_](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?"
_BARE = re.compile(rf"(?P<repository>{_NAME}/{_NAME})(?:@(?P<revision>[^\s@:?#\\]+))?")
_PREFIXED = re.compile(
    rf"(?P<repository>(?:{_NAME}/)?{_NAME})(?:@(?P<revision>[^\s@:?#\\]+))?(?:#(?P<files>[^\s@:?#/\\]+))?"
)
_FILES = (".json", ".toml", ".yml", ".yaml", ".py", ".npz", ".npy", ".csv", ".tar", ".zip", ".gz", ".gguf", ".git")
_COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class HubId:
    """A model of the Hub.

    Attributes:
        repository: ``org/name``; some old models have a name alone.
        revision: branch, tag or commit; empty: the main branch, as it is when it is asked.
        files: names of a file of weights, the first of which that is there is meant; none: what libraries load.
    """

    repository: str
    revision: str = ""
    files: tuple[str, ...] = ()

    def __str__(self) -> str:
        return PREFIX + self.repository + (f"@{self.revision}" if self.revision else "") + self._file

    @property
    def pinned(self) -> bool:
        """Whether it names a commit, so that it means the same for ever."""
        return _COMMIT.fullmatch(self.revision) is not None

    @property
    def short(self) -> str:
        """The id as people are shown it: without the prefix, and seven digits of the commit."""
        revision = self.revision[:7] if self.pinned else self.revision
        return self.repository + (f"@{revision}" if revision else "") + self._file

    @property
    def _file(self) -> str:
        return f"#{'|'.join(self.files)}" if self.files else ""


def as_id(text: str, folder: Path | None = None) -> HubId | None:
    """The id that a text is, or None where it is a path.

    A path that is there wins. Without the prefix, an id has one slash, and no path can be meant: neither is its first
    part there, nor anything of nearly that name.

    Args:
        text: what somebody has written where a model is named.
        folder: what paths are relative to; default: the working folder.

    Raises:
        CheckpointError: it has the prefix, and no id follows.
    """
    if text.startswith(OPEN_CLIP) and "/" in text and not _there((folder or Path()) / text):
        from merging.storage.hub.open_clip_tags import published

        return HubId(*published(text))
    if text.startswith(PREFIX):
        found = _PREFIXED.fullmatch(text.removeprefix(PREFIX))
        if _there((folder or Path()) / text):
            return None
        if found is None or not _sound(found["repository"]):
            raise CheckpointError(
                f"'{text}' is no id of the Hub: write {PREFIX}ORG/NAME, perhaps with @ and a branch, tag or commit"
            )
        files = tuple((found["files"] or "").split("|")) if found["files"] else ()
        return HubId(found["repository"], found["revision"] or "", files)
    found = _plausible(text)
    if found is None:
        return None
    place = (folder or Path()) / text
    if _there(place) or _there(place.parent) or near_path(place):
        return None
    return HubId(found["repository"], found["revision"] or "")


def written(text: str) -> str:
    """The end of an error about a path that is not there, nor one near it, and that may have been meant as an id."""
    with contextlib.suppress(OSError, ValueError):  # requests hold whole paths
        text = str(Path(text).relative_to(Path.cwd()))
    if _plausible(text) is None or near_path(text):
        return ""
    return f"; for a model of the Hub, write {PREFIX}{text}"


def _plausible(text: str) -> re.Match[str] | None:
    """Whether a text looks like an id, whatever lies on the disk."""
    found = _BARE.fullmatch(text)
    suffixes = (*(suffix for known in FORMATS for suffix in known.suffixes), *_FILES)
    if found is None or not _sound(found["repository"]) or text.lower().endswith(suffixes):
        return None
    return found


def _sound(repository: str) -> bool:
    """Whether the Hub would take such a name."""
    return "--" not in repository and ".." not in repository and not repository.endswith(".git")


def _there(path: Path) -> bool:
    try:
        return path.exists()
    except (OSError, ValueError):
        return False
