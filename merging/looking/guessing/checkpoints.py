"""The checkpoints in a folder: of each training run the one that is meant, and where they lie."""

from __future__ import annotations

import json
import os
import re
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from merging.data.folders import SUFFIXES as PICTURES
from merging.errors import DAMAGED
from merging.looking.guessing.earlier import is_result
from merging.storage.checkpoint import stem
from merging.storage.model_folder import is_model_folder, is_weights
from merging.storage.sources import identity, natural_key

DEPTH = 6
"""Folders that are looked into, one in the other."""
PEEK = 50
"""Entries that say whether a folder is one of pictures."""
_BEST = re.compile(r"(model|checkpoint|ckpt|weights|net)?[-_.]?best([-_.].*)?|(best)[-_.]?\w*", re.IGNORECASE)
_LAST = re.compile(r"(model|checkpoint|ckpt|weights|net)?[-_.]?(last|final|latest)([-_.].*)?", re.IGNORECASE)
_EPOCH = re.compile(
    r"(checkpoint|ckpt|recovery|epoch|step|iter|global_step)[-_=.]?\d+([-_.].*)?|"
    r".*(epoch|step|iter)[-_=.]?\d+([-_.].*)?",
    re.IGNORECASE,
)
"""Names (without suffix) of what a training run keeps: its best checkpoint, its last one, those of its epochs."""
_NUMBER = re.compile(r"\d[\d.]*(e-?\d+)?", re.IGNORECASE)
_MEASURED = re.compile(r"ep|step|iter|acc|loss|val|top|score|map|f1|(?<![a-z])v#", re.IGNORECASE)
"""What a name numbers where all are of one run: epochs, steps, scores, Lightning's versions."""


@dataclass
class Listed:
    """The checkpoints that lie in a folder.

    Attributes:
        paths: files and folders that are models, in natural order.
        left_out: why others were not taken → these.
        results: folders of earlier runs and benchmarks.
    """

    paths: list[Path] = field(default_factory=list)
    results: list[Path] = field(default_factory=list)
    left_out: dict[str, list[Path]] = field(default_factory=lambda: defaultdict(list))

    def leave(self, why: str, *paths: Path) -> None:
        """Keeps in mind that checkpoints were left out."""
        self.left_out[why].extend(paths)


def listed(folder: Path) -> Listed:
    """Looks for checkpoints in a folder and the folders in it; of each training run one is taken.

    Hidden folders, folders of pictures and results of ``merge run`` are not looked into.
    """
    found = Listed()
    _look(folder, found, DEPTH)
    seen: set[object] = set()
    once = [path for path in found.paths if (own := identity(path)) not in seen and not seen.add(own)]  # type: ignore[func-returns-value]
    found.paths = sorted(once, key=lambda path: natural_key(str(path)))
    return found


def is_pictures(folder: Path) -> bool:
    """Whether pictures lie right in a folder, by its first entries."""
    try:
        with os.scandir(folder) as entries:
            return any(entry.name.lower().endswith(PICTURES) for entry in islice(entries, PEEK))
    except OSError:
        return False


def _look(folder: Path, found: Listed, depth: int) -> None:
    """Adds the checkpoints of a folder, then those of the folders in it."""
    try:
        entries = sorted(folder.iterdir(), key=lambda path: natural_key(path.name))
    except OSError:  # not ours to read
        return
    if is_result(folder):
        found.results.append(folder)
        if any(is_weights(path) for path in entries):
            found.leave("results of merge run", folder)
        return
    if is_model_folder(folder):
        found.paths.append(folder)
        epochs = [path for path in entries if _EPOCH.fullmatch(path.name) and is_model_folder(path)]
        if epochs:
            found.leave("epochs of a run whose model was taken", *epochs)
        return
    files = [path for path in entries if is_weights(path)]
    kept = meant(files)
    found.paths += kept
    if len(kept) < len(files):
        found.leave("other checkpoints of the same run", *(path for path in files if path not in kept))
    if depth:
        _look_below(_folders(folder, entries), found, depth - 1)


def _look_below(folders: Sequence[Path], found: Listed, depth: int) -> None:
    """Goes into the folders of a folder; those that are checkpoints of one run count as one."""
    whole = [path for path in folders if is_model_folder(path)]
    kept = meant(whole)
    if len(kept) < len(whole):
        found.leave("other checkpoints of the same run", *(path for path in whole if path not in kept))
    for path in folders:
        if path in kept or path not in whole:
            _look(path, found, depth)


def _folders(folder: Path, entries: Sequence[Path]) -> list[Path]:
    """The folders that are worth a look; none where they are classes of pictures."""
    below = [path for path in entries if path.is_dir() and not path.name.startswith(".") and path.name != "blobs"]
    if below and all(is_pictures(path) for path in below[:3]):
        return []
    return [path for path in below if not is_pictures(path) or (path / "args.yaml").is_file()]


def meant(paths: Sequence[Path]) -> list[Path]:
    """Finds those checkpoints, of several side by side in one folder, that are models of their own.

    A training run writes its best one, its last one, and those of its epochs: the first of these kinds that is there is
    taken. Where another name lies among them, or nothing but epochs, nobody can tell, and all of them are.

    >>> [p.name for p in meant([Path("last.pth.tar"), Path("model_best.pth.tar"), Path("checkpoint-9.pth.tar")])]
    ['model_best.pth.tar']
    >>> [p.name for p in meant([Path("model_0.pt"), Path("model_1.pt")])]
    ['model_0.pt', 'model_1.pt']
    """
    best = [path for path in paths if _BEST.fullmatch(stem(path))]
    last = [path for path in paths if _LAST.fullmatch(stem(path))]
    epochs = [path for path in paths if path not in best + last and _EPOCH.fullmatch(stem(path))]
    if len(best) + len(last) + len(epochs) < len(paths) or len(paths) < 2:
        return list(paths)
    if not best and (chosen := _best_of(paths)) is not None:
        return [chosen]
    if _numbered_runs(best or last):
        return best or last
    if best or last:
        return sorted(best or last, key=lambda path: (len(path.name), path.name))[:1]
    return [epochs[-1]] if _of_a_run(epochs[0].parent) else list(paths)


def _numbered_runs(paths: Sequence[Path]) -> bool:
    """Whether names differ in numbers alone that are no epochs or scores: ``best_seed0`` and ``best_seed1``."""
    names = {_NUMBER.sub("#", stem(path)) for path in paths}
    return len(paths) > 1 and len(names) == 1 and not _MEASURED.search(next(iter(names)))


def _of_a_run(folder: Path) -> bool:
    """Whether a folder of epochs lies beside others, each of which is then one run's."""
    beside = list(_beside(folder))
    return (folder / "args.yaml").is_file() or (folder / "hparams.yaml").is_file() or len(beside) > 0


def _beside(folder: Path) -> Iterator[Path]:
    """Folders beside one that hold epochs too."""
    try:
        around = sorted(folder.resolve().parent.iterdir())
    except OSError:
        return
    for other in around:
        if other.is_dir() and other != folder.resolve():
            with os.scandir(other) as entries:
                if any(_EPOCH.fullmatch(stem(Path(entry.name))) for entry in islice(entries, PEEK)):
                    yield other


def _best_of(paths: Sequence[Path]) -> Path | None:
    """The best checkpoint of a run of transformers' Trainer, as its own record has it."""
    for path in reversed(paths):
        try:
            said = json.loads((path / "trainer_state.json").read_bytes())["best_model_checkpoint"]
            name = Path(said).name
        except DAMAGED:
            continue
        return next((each for each in paths if each.name == name), None)
    return None


def _common(names: Sequence[str]) -> str:
    """The characters that all names begin with."""
    low, high = min(names), max(names)
    return low[: next((place for place, (a, b) in enumerate(zip(low, high, strict=False)) if a != b), len(low))]


def as_patterns(paths: Sequence[Path]) -> list[str]:
    """The shortest way to name checkpoints: one pattern that matches these and no others, else their paths.

    Args:
        paths: relative to the folder that merge.toml lies in, which is the working folder.
    """
    from merging.storage.sources import expand

    names = [str(path) for path in paths]
    parts = [path.parts for path in paths]
    if len(paths) > 1 and len({len(each) for each in parts}) == 1:
        differ = [place for place, column in enumerate(zip(*parts, strict=True)) if len(set(column)) > 1]
        if len(differ) == 1:
            column = [each[differ[0]] for each in parts]
            start, end = _common(column), _common([name[::-1] for name in column])[::-1]
            start = re.sub(r"\d[\d.]*$", "", start)
            room = min(map(len, column)) - len(start)
            end = end[len(end) - room :] if room < len(end) else end
            end = re.sub(r"^\d+", "", end)
            whole = differ[0] + 1 == len(parts[0])  # the last part: a star alone would match whatever comes later
            if whole and not Path(f"x{end}").suffix:
                return names
            pattern = str(Path(*parts[0][: differ[0]], f"{start}*{end}", *parts[0][differ[0] + 1 :]))
            if not re.search(r"[\[\]?]", pattern) and sorted(map(str, expand(pattern))) == sorted(names):
                return [pattern]
    return names
