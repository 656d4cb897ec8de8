"""From what a user names to models that can be scored: checkpoints, recipes, runs' folders, patterns, names of a pool.

What is of the Hub is fetched; else nothing is opened here, and torch is not loaded, so that a slip is said
before any work.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from pathlib import Path

from merging.errors import CheckpointError, near_path, showable, unknown
from merging.storage.file_kind import SUFFIXES
from merging.storage.hub.fetching import folder_of
from merging.storage.hub.spelling import written
from merging.storage.model_folder import is_model_folder
from merging.storage.result import ENSEMBLE, MODELS, RECIPE
from merging.storage.sources import expand, identity, natural_key, short_names, unmatched

FEW = 2
"""Up to so many models are called as they were typed."""


@dataclass(frozen=True)
class Wanted:
    """One model that is to be scored, not opened yet.

    Attributes:
        typed: what was typed, or found by a pattern.
        path: the file or folder.
        key: key of the state dict in a file with several.
        member: its name in the pool, where it was named by that.
    """

    typed: str
    path: Path
    key: str = ""
    member: str = ""


Members = Mapping[str, tuple[Path, str]]
"""Name of a model in the pool → its path and key."""


def find(names: Sequence[str], pool: Members | None, key: str = "") -> tuple[dict[str, Wanted], list[str]]:
    """The models that somebody names, each once, and what is wrong with the names.

    Args:
        names: files, folders of runs or of checkpoints, recipes, patterns, ids of the Hub, names of models in the pool.
        pool: the pool's models; None: not known yet, and what may be one of its names is left out.
        key: key of the state dict in files with several.

    Returns:
        What tables call each model → where it is; and a sentence for each name that stands for nothing.
    """
    found, wrong, seen = list[Wanted](), list[str](), set[object]()
    for name in names:
        some, said = _one(name, pool, key)
        wrong += [said] if said else []
        for wanted in some:
            which = (identity(wanted.path), wanted.key)
            if which not in seen:
                seen.add(which)
                found.append(wanted)
    return _called(found), wrong


def is_result(path: Path) -> bool:
    """Whether a folder is one thing to score: an ensemble's, a run's, or that of a single model."""
    results = (ENSEMBLE, RECIPE, *MODELS.values())
    return path.is_dir() and (any((path / name).is_file() for name in results) or is_model_folder(path))


def _one(name: str, pool: Members | None, key: str) -> tuple[list[Wanted], str]:
    """What one name stands for, or what is wrong with it."""
    path = Path(name).expanduser()
    if path.exists():
        if path.is_dir() and not is_result(path):
            inside = _within(sorted(path.iterdir()), expand(path))
            said = "" if inside else f"no models in {showable(name)}{unmatched(name)}"
            return [Wanted(str(each), each, key) for each in inside], said
        return [Wanted(name, path, key)], ""
    if pool is not None and name in pool:
        return [Wanted(name, *pool[name], member=name)], ""
    if glob.has_magic(name):
        matches = _within([Path(match) for match in glob.glob(str(path), recursive=True)], expand(name))
        there = [Wanted(str(each), each, key) for each in matches]
        if not there and pool:
            there = [Wanted(each, *pool[each], member=each) for each in pool if fnmatchcase(each, name)]
        late = not there and pool is None and Path(name).name == name
        return there, "" if there or late else f"no models match '{showable(name)}'{unmatched(name)}"
    try:
        if (fetched := folder_of(name)) is not None:
            return [Wanted(name, fetched, key)], ""
    except CheckpointError as error:
        return [], str(error)
    if Path(name).name != name or Path(name).suffix in (*SUFFIXES, ".json"):
        return [], f"no such checkpoint: {showable(name)}{near_path(name)}{written(name)}"
    if pool is None:
        return [], ""
    if not pool:
        return [], f"no such checkpoint: {showable(name)}{near_path(name)}"
    return [], str(unknown("model", name, pool, "or name a checkpoint, a recipe.json or a run's folder"))


def _within(entries: Sequence[Path], models: Sequence[Path]) -> list[Path]:
    """The models among some entries, and the runs, ensembles and recipes."""
    own = {identity(path) for path in models}
    others = [path for path in entries if is_result(path) or path.name == RECIPE]
    both = [*models, *(path for path in others if identity(path) not in own)]
    return sorted(both, key=lambda path: natural_key(str(path)))


def _called(found: Sequence[Wanted]) -> dict[str, Wanted]:
    """What tables call each model: as it was typed; of several by short names, and by its own name in the pool."""
    if len(found) <= FEW:
        return {wanted.typed: wanted for wanted in found}
    others = [wanted.path for wanted in found if not wanted.member]
    short = iter(short_names(others) if others else [])
    names = [wanted.member or next(short) for wanted in found]
    return {
        (wanted.typed if names.count(name) > 1 and not wanted.member else name): wanted
        for name, wanted in zip(names, found, strict=True)
    }
