"""``merging.push``: a run's result as a model of the Hugging Face Hub."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import FolderError
from merging.plugins.keywords import expected
from merging.storage.hub.pushing import Pushed, parcel, send

if TYPE_CHECKING:
    from merging.running.run import Result
    from merging.running.saved import SavedRun


def push(
    run: Result | SavedRun | Path | str, repository: str, *, private: bool = False, overwrite: bool = False
) -> Pushed:
    """Pushes what a run has written to the Hub, in one commit: model, card, recipe and report, and nothing else.

    The token is that of ``hf auth login`` or ``HF_TOKEN``, the place https://huggingface.co or ``HF_ENDPOINT``.

    Args:
        run: a result, a run read back, or a run's folder.
        repository: ``org/name``, perhaps with ``@branch``; it is made where it is not there.
        private: whether a repository that is made is private.
        overwrite: whether a model that is there may be replaced.

    Returns:
        Address, commit, and the files of an earlier model that it removes.

    Raises:
        FolderError: the run has no folder, or is not finished; or a model is there.
        MergingError: the name is none, there is no token, or the Hub refuses.
    """
    folder: Any = run if isinstance(run, str | os.PathLike) else getattr(run, "folder", run)
    if folder is None:
        raise FolderError("the run was written nowhere; give merge an `output`, and push that")
    expected("run", folder, (str, os.PathLike), "a result, or the path of a run's folder")
    expected("repository", repository, str, "ORG/NAME")
    return send(parcel(Path(folder).expanduser(), repository), private=private, overwrite=overwrite)
