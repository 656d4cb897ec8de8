"""A run's folder as a model of the Hub: the files that the run has written, in one commit."""

from __future__ import annotations

import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.errors import DAMAGED, CheckpointError, FolderError, MergingError, near_path, raised
from merging.storage.hub.listing import ADAPTER, ADAPTERS
from merging.storage.hub.refusals import LOG_IN, address, reason, refusal
from merging.storage.hub.spelling import PREFIX, HubId, as_id
from merging.storage.licence import front_matter_of
from merging.storage.model_folder import INDEX_SUFFIX, LOADED, is_shard
from merging.storage.result import CARD, MEMBERS, RECIPE, REPORT, lies_in, member_files, named_files
from merging.values.formats import parsed


@dataclass(frozen=True, kw_only=True)
class Parcel:
    """A run's files on their way to a model of the Hub.

    Attributes:
        target: the model of the Hub; its revision is a branch.
        folder: the run's folder.
        files: the files, as paths within the folder.
        size: bytes of all of them.
        remarks: sentences about what others will see.
    """

    target: HubId
    folder: Path
    files: tuple[str, ...]
    size: int
    remarks: tuple[str, ...]


@dataclass(frozen=True)
class Pushed:
    """A commit that was made.

    Attributes:
        url: address of the model's page.
        commit: its name.
        removed: files of an earlier model that it removes.
    """

    url: str
    commit: str
    removed: tuple[str, ...]


def parcel(folder: Path, target: str) -> Parcel:
    """Puts together what a push would send; asks nobody.

    Args:
        folder: a run's folder.
        target: ``org/name``, perhaps with ``@branch``.

    Raises:
        FolderError: it is no finished run's folder.
        CheckpointError: the target is no id of the Hub.
    """
    wanted = as_id(target if target.startswith(PREFIX) else PREFIX + target)
    if wanted is None or "/" not in wanted.repository or wanted.files:
        raise CheckpointError(f"'{target}' is no model of the Hub to push to: write ORG/NAME")
    files = _files(folder)
    size = sum((folder / name).stat().st_size for name in files)
    return Parcel(target=wanted, folder=folder, files=files, size=size, remarks=_remarks(folder, files))


def send(sent: Parcel, *, private: bool = False, overwrite: bool = False) -> Pushed:
    """Sends it, in one commit; the repository is made where it is not there.

    Args:
        sent: what :func:`parcel` put together.
        private: whether a repository that is made is private.
        overwrite: whether a model that is there may be replaced.

    Raises:
        MergingError: there is no token, a model is there, or the Hub refuses.
    """
    from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi, constants, get_token

    api, name, branch = HfApi(library_name="merging"), sent.target.repository, sent.target.revision or "main"
    if constants.HF_HUB_OFFLINE:
        raise MergingError(f"{sent.target}: nothing is pushed offline (HF_HUB_OFFLINE)")
    if get_token() is None:
        raise MergingError(f"{sent.target}: pushing to {address(api)} needs a token: {LOG_IN}")
    with _asking(sent.target, api):
        api.create_repo(name, private=private, exist_ok=True)
        if branch != "main":
            api.create_branch(name, branch=branch, exist_ok=True)
        there = [file.rfilename for file in api.model_info(name, revision=branch).siblings or ()]
    stale = [file for file in there if _is_models(file)]
    taken = [*stale, *(file for file in there if file in sent.files and file != CARD)]
    if taken and not overwrite:
        raise FolderError(
            f"{address(api)}/{name} holds a model already ({taken[0]}); pass `overwrite`, or push to another name"
        )
    removed = tuple(file for file in stale if file not in sent.files)
    operations: list[Any] = [CommitOperationDelete(file) for file in removed]
    with _asking(sent.target, api):
        operations += [CommitOperationAdd(file, sent.folder / file) for file in sent.files]
        made = api.create_commit(name, operations, commit_message="Upload a merged model with merging", revision=branch)
    return Pushed(f"{address(api)}/{name}", made.oid, removed)


@contextlib.contextmanager
def _asking(target: HubId, api: Any) -> Iterator[None]:
    """Says in one line what the Hub refuses; bars are shown in a terminal alone.

    Raises:
        MergingError: it refuses something.
    """
    from huggingface_hub import errors, utils

    bars: Any = utils
    silenced = not sys.stderr.isatty() and not bars.are_progress_bars_disabled()
    if silenced:
        bars.disable_progress_bars()
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # advice about the card's front matter
            yield
    except errors.RevisionNotFoundError as error:
        raise refusal(error, target, api) from None
    except Exception as error:  # of the Hub's own, of its HTTP library, or of a file that cannot be read
        inner = error.__cause__ if isinstance(error, RuntimeError) and error.__cause__ is not None else error
        said = reason(inner, address(api)) if isinstance(inner, Exception) else raised(error)
        raise MergingError(f"{target}: {said}") from None
    finally:
        if silenced:
            bars.enable_progress_bars()


def _files(folder: Path) -> tuple[str, ...]:
    """The files that a run says it has written, those of an ensemble's members too; nothing else of the folder.

    Raises:
        FolderError: it says nothing, or one is not there.
    """
    try:
        named = named_files(folder)
    except FileNotFoundError:
        raise FolderError(f"{folder} is no folder of a finished run (no {REPORT}){near_path(folder)}") from None
    except DAMAGED as error:
        raise FolderError(f"{folder / REPORT} is damaged: {raised(error, whole=True)}") from None
    files = [name for name in named if name != MEMBERS]
    if MEMBERS in named:
        members = (path.relative_to(folder).as_posix() for path in member_files(folder))
        files += [name for name in members if not Path(name).name.startswith(".")]
    away = next((name for name in (*named, *files) if (folder / name).exists() and not lies_in(folder, name)), None)
    if away is not None:
        raise FolderError(f"{folder}: {away} that the run has written is not there any more, but a link; copy it there")
    lost = [name for name in files if not (folder / name).is_file()]
    if lost or not files:
        raise FolderError(f"{folder}: {lost[0] if lost else 'nothing'} that the run has written is not there any more")
    return tuple(files)


def _remarks(folder: Path, files: Sequence[str]) -> tuple[str, ...]:
    """What whoever pushes should know of what others will see."""
    told = []
    try:
        licence = front_matter_of((folder / CARD).read_text("utf-8")).get("license")
    except Exception:  # whoever has edited it
        licence = None
    if CARD in files and not licence:
        told.append(f"{CARD} states no licence: write one above it (license: …) if you may")
    try:
        rows = parsed((folder / REPORT).read_bytes())["lineage"]
        local = any(not str(row["file"]).startswith(PREFIX) and row["file"] for row in rows)
    except DAMAGED:
        local = False
    if local:
        told.append(f"{REPORT}, {RECIPE} and {CARD} name paths of this machine")
    return tuple(told)


def _is_models(name: str) -> bool:
    """Whether a file of a repository is what a library would load as the model."""
    known = (ADAPTER, *ADAPTERS, *(name for names in LOADED for name in names))
    return name in known or is_shard(name) or ("/" not in name and name.endswith(INDEX_SUFFIX))
