"""From what a user names (files, folders, patterns, tables with a key) to checkpoints on disk, each once."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TypeAlias

from merging.errors import PoolError, near_path, showable, unknown
from merging.storage.atomic import LEFTOVER
from merging.storage.checkpoint import stem
from merging.storage.file_kind import SUFFIXES, looks_like_a_model
from merging.storage.hub.fetching import folder_of, folders, id_of
from merging.storage.hub.spelling import as_id, written
from merging.storage.model_folder import foreign, is_leftover, is_model_folder, is_weights


def natural_key(name: str) -> list[tuple[int, int, str]]:
    """Makes a sort key that reads runs of digits as numbers.

    >>> sorted(["model_10", "model_2"], key=natural_key)
    ['model_2', 'model_10']
    """
    parts = re.split(r"(\d+)", name)
    return [(0, int(part), part) if part.isdecimal() else (1, 0, part) for part in parts]


Source: TypeAlias = str | Path | Mapping[str, str]
"""A path, a pattern or an id of the Hub, or a mapping with ``path`` and ``key``."""


def divided(source: Source) -> tuple[str, str]:
    """Divides a source into its path and its key (empty: none was chosen).

    Raises:
        PoolError: a mapping without a path, or with something else in it.
    """
    if not isinstance(source, Mapping):
        return str(source), ""
    for key in source:
        if key not in ("path", "key"):
            raise unknown("key of a model:", key, ("path", "key"), error=PoolError)
    if not source.get("path"):
        raise PoolError("a model needs a path, such as { path = 'run/last.ckpt', key = 'state_dict_ema' }")
    return str(source["path"]), str(source.get("key") or "")


def fetch(sources: Iterable[Source]) -> None:
    """Fetches what ids of the Hub stand for: all are looked at before anything large comes.

    Raises:
        CheckpointError: one cannot be had.
    """
    folders([found for source in sources if (found := as_id(divided(source)[0])) is not None])


def place_of(source: str | os.PathLike[str]) -> Path:
    """The file or folder that is named: a path, or, as a text, an id of the Hub, which is fetched.

    Raises:
        CheckpointError: it is an id, and the model cannot be had.
    """
    return (folder_of(source) if isinstance(source, str) else None) or Path(source).expanduser()


def selected(sources: Iterable[Source], taken: Iterable[Path] = ()) -> list[tuple[Path, str]]:
    """The checkpoints that sources name, each once, with their keys; paths as they were given.

    Args:
        sources: files, folders, patterns, ids of the Hub, or mappings with ``path`` and ``key``.
        taken: what is left out, such as the base.

    Raises:
        PoolError: a source matches nothing.
        CheckpointError: an id of the Hub, whose model cannot be had.
    """
    found, seen = list[tuple[Path, str]](), {(identity(path), "") for path in taken}
    for source in sources:
        wanted, key = divided(source)
        paths = expand(wanted)
        if not paths:
            raise PoolError(f"no models match '{wanted}'{unmatched(wanted)}{written(wanted)}")
        for path in paths:
            if (which := (identity(path), key)) not in seen and (which[0], "") not in seen:
                seen.add(which)
                found.append((path, key))
    _check_ranks([path for path, _ in found])
    return found


_RANK = re.compile(r"((?:[mptd]p_rank_|world_size_\d+_rank_|consolidated\.|-shard|model_part-|model-(?=\d{5}-of-)))\d+")
"""The number of one part of a model, as Megatron, Llama, fairseq, DeepSpeed and FSDP write it."""


def _check_ranks(paths: Sequence[Path]) -> None:
    """Refuses files that are the parts of one model, each of which would count as a model.

    Raises:
        PoolError: names that differ in nothing but the number of a part.
    """
    seen: dict[str, Path] = {}
    for path in paths:
        if not _RANK.search(str(path)):
            continue
        other = seen.setdefault(_RANK.sub(r"\1*", str(path)), path)
        if other is not path:
            raise PoolError(
                f"{other} and {path} are parts of one model by their names, and would be merged as two; put the parts "
                "together first with the tool of the library that wrote them"
            )


def unmatched(source: str) -> str:
    """Says why a source may have matched nothing: by the nearest path, or what was looked for, or where models are."""
    if near := near_path(source):
        return near
    path = Path(source).expanduser()
    below = [entry for entry in sorted(path.iterdir()) if entry.is_dir()] if path.is_dir() else []
    inside = [str(entry) for entry in below if expand(entry)]
    if path.is_dir() and not inside and foreign(path):
        return f" (it is {foreign(path)})"
    return (
        f" (but its folders hold some: {', '.join(inside[:3])})" if inside else f" (looked for {', '.join(SUFFIXES)})"
    )


def identity(path: Path) -> tuple[int, int] | str:
    """A value that is the same for all links to a file or folder."""
    try:
        found = path.stat()
    except OSError:
        return str(path)
    return found.st_dev, found.st_ino


def expand(source: str | Path) -> list[Path]:
    """The checkpoints that a path, a pattern or an id names, in natural order; none where it matches nothing.

    A folder made by ``merge finetune``, or a pattern there, names its models, and not the base beside them. Leading
    folders of a pattern that exist as written are taken literally, whatever brackets are in their names.
    """
    fetched = folder_of(source) if isinstance(source, str) else None
    if fetched is not None:
        return [fetched]
    path = Path(source).expanduser()
    if is_model_folder(path):
        return [path]
    if path.is_dir():
        return sorted((p for p in path.iterdir() if _is_model(p)), key=lambda p: natural_key(p.name))
    if path.is_file():
        return [path]
    matches = [Path(match) for match in glob.glob(_literal_folder(path), recursive=True)]
    return sorted((p for p in matches if _is_model(p, by_content=True)), key=lambda p: natural_key(str(p)))


def _literal_folder(pattern: Path) -> str:
    """Escapes those of a pattern's first folders that exist as written."""
    known = Path(pattern.anchor)
    for depth, part in enumerate(pattern.parts[1:] if pattern.anchor else pattern.parts):
        if not (known / part).is_dir():
            rest = pattern.parts[depth + (1 if pattern.anchor else 0) :]
            return str(Path(glob.escape(str(known)), *rest)) if str(known) != "." else str(Path(*rest))
        known = known / part
    return glob.escape(str(known))


def _is_model(path: Path, *, by_content: bool = False) -> bool:
    """Whether an entry is a model; a file of a pattern without a telling suffix (a Hub cache's blob) by its content."""
    if path.name in ("base.safetensors", "base") and (path.parent / "finetune.json").is_file():
        return False
    if path.is_dir():
        return is_model_folder(path) and not path.name.startswith(LEFTOVER)
    if is_weights(path):
        return True
    return by_content and path.is_file() and not is_leftover(path) and looks_like_a_model(path)


def short_names(files: Sequence[Path]) -> list[str]:
    """Names models by their files' stems, and by as many folders as tell them apart: run_1/model, run_2/model.

    A model of the Hub is ``name`` or ``org/name``; of several of its revisions each has seven digits of the commit.
    """
    ids = {path: found for path in files if (found := id_of(path)) is not None}
    several = [each.repository for each in set(ids.values())]
    shown = {p: i.short if several.count(i.repository) > 1 else i.repository for p, i in ids.items()}

    def parts_of(path: Path, depth: int) -> tuple[str, ...]:
        if path in shown:
            return tuple(shown[path].split("/", 1)[-depth:])
        return (*path.parts[-depth:-1], path.name if path.is_dir() else stem(path))

    for depth in range(1, max(len(path.parts) for path in files) + 1):
        parts = (parts_of(path, depth) for path in files)
        names = [showable("/".join(part)) for part in parts]
        if len(set(names)) == len(names):
            return names
    return [showable(path) for path in files]


def names_apart(files: Sequence[Path], base: Path | None) -> tuple[list[str], str]:
    """The models' short names, and the base's, which is empty where its own stem will do.

    A base that is called as a model is gets a longer name, and so do the models.
    """
    names = short_names(files)
    if base is None or (id_of(base) is None and stem(base) not in names):
        return names, ""
    *names, called = short_names([*files, base])
    return names, called
