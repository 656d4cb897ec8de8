"""The suite of the model-soups papers: ImageNet, and five test sets under shift, from their usual folders.

Held-out are 26 images per class of ImageNet's training set: those of model-soups' index file, or a seeded draw.
"""

from __future__ import annotations

import functools
import importlib.util
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np

from merging.data.folders import listed, load_images
from merging.data.images import normalise
from merging.errors import DAMAGED, TaskError
from merging.models.catalogue import model_source
from merging.plugins.progress import Progress
from merging.plugins.task import Split, Task, identity
from merging.tasks.own_data import place, tolerated
from merging.values.strata import by_class

PER_CLASS = 26
"""Held-out images of each class: 2 % of the training set."""
KNOWN = (1_281_167, 1000, "n01675722_4108.JPEG")
"""Size of the whole training set; which held-out image of the published index file has which name."""
SETS = {
    "imagenet-v2": ("imagenetv2-matched-frequency-format-val", "imagenetv2-matched-frequency"),
    "imagenet-r": ("imagenet-r",),
    "imagenet-sketch": ("sketch", "imagenet-sketch"),
    "objectnet": ("objectnet-1.0/images", "objectnet-1.0"),
    "imagenet-a": ("imagenet-a",),
}
"""Shifted set → folders under the data's folder where it is looked for."""


def imagenet_shifts(
    data: str | Path | None = None,
    model: str = "open_clip:ViT-B-32-quickgelu",
    held_out: str | Path | None = None,
    *,
    corrupt: float | None = None,
    progress: Progress | None = None,
) -> Task:
    """Makes the task of ImageNet with its shifted test sets.

    Args:
        data: folder that holds ``imagenet/train`` and ``imagenet/val`` (class folders by WordNet id) and, as far as
            there are, the folders of :data:`SETS`.
        model: the architecture.
        held_out: model-soups' ``imagenet_98_idxs.npy``, an array with 1 at each held-out position of the training set
            in the order of its files; None: 26 images of each class, drawn with a fixed seed.
        corrupt: share of a set's images that may be damaged; None: 1 %.
        progress: told how far decoding is.

    Raises:
        TaskError: a folder that is missing, or an index file that belongs to other files.
    """
    root = place("imagenet-shifts", data, "the folder that holds imagenet/train and the rest")
    source = model_source(model)
    transform = source.transform()
    ids = {name: rank for rank, name in enumerate(_wordnet_ids("imagenet"))}
    chosen = _held_out(listed(root / "imagenet" / "train", ids), held_out)
    load = functools.partial(load_images, transform=transform, corrupt=tolerated(corrupt), progress=progress)
    tests = {"test": load(listed(_first(root, "imagenet/val_in_folder", "imagenet/val"), ids))}
    for name, places in SETS.items():
        folder = next((root / place for place in places if (root / place).is_dir()), None)
        if folder is not None:
            tests[name] = _shifted(name, folder, ids, load)
    return Task(
        name="imagenet-shifts",
        build=source.build,
        fresh=source.module,
        held_out=load(chosen),
        tests=tests,
        shifts=tuple(name for name in tests if name != "test"),
        prepare=normalise(transform) if transform.divided else identity,
    )


def _shifted(name: str, folder: Path, ids: dict[str, int], load: Callable[..., Split]) -> Split:
    """A shifted set with its own classes."""
    if name == "imagenet-sketch":
        return load(listed(folder, ids))
    if name == "imagenet-v2":  # folders are called by class index
        return load(listed(folder, {str(k): k for k in range(1000)}))
    if name == "objectnet":  # a folder may stand for several classes; images have a red border of two pixels
        folders = objectnet_folders()
        order = sorted(folders)
        images = listed(folder, {place: rank for rank, place in enumerate(order)})
        return load(images, border=2, classes=[folders[place] for place in order])
    subset = _wordnet_ids(name)
    images = listed(folder, {place: rank for rank, place in enumerate(subset)})
    return load(images, classes=[[ids[place]] for place in subset])


def objectnet_folders() -> dict[str, list[int]]:
    """ObjectNet folder → the ImageNet classes that are right for its images."""
    content = json.loads(Path(__file__).with_name("objectnet_folders.json").read_text("utf-8"))
    folders: dict[str, list[int]] = content["folders"]
    return folders


def _held_out(images: list[tuple[Path, int]], index: object) -> list[tuple[Path, int]]:
    if index is None:
        labels = np.array([label for _, label in images])
        ordered, turns = by_class(labels, np.random.default_rng(0).permutation(len(images)))
        return [images[k] for k in np.sort(ordered[turns < PER_CLASS])]
    if not isinstance(index, str | Path):
        raise TaskError("[task] held_out of imagenet-shifts is the name of an index file")
    try:
        marks = np.load(index, allow_pickle=False)
    except (*DAMAGED, EOFError) as error:
        raise TaskError(f"[task] held_out: {index} is no array of marks ({error})") from None
    if marks.shape != (len(images),):
        raise TaskError(
            f"[task] held_out: {index} marks {marks.size} training images, but there are {len(images)}; it belongs to "
            "another set of files. Leave it out for a seeded draw"
        )
    chosen = [images[k] for k in np.flatnonzero(marks)]
    whole, position, name = KNOWN
    if len(images) == whole and chosen[position][0].name != name:
        raise TaskError(f"{index}: image {position} should be {name}, is {chosen[position][0].name}: files are missing")
    return chosen


def _wordnet_ids(subset: str) -> list[str]:
    """The classes of ImageNet, or of a set that covers some of them, by WordNet id, sorted; timm ships the lists."""
    found = importlib.util.find_spec("timm")
    home = Path(found.submodule_search_locations[0]) if found and found.submodule_search_locations else Path()
    try:
        lines = (home / "data" / "_info" / f"{subset.replace('-', '_')}_synsets.txt").read_text("utf-8-sig").split()
    except OSError as error:
        raise TaskError(f"timm does not list the classes of {subset} ({error}); install timm 1.0 or newer") from None
    return sorted(lines)


def _first(root: Path, *places: str) -> Path:
    return next((root / place for place in places if (root / place).is_dir()), root / places[-1])
