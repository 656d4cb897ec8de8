"""Tar files in webdataset's layout: the files of a sample share a name, ``0001.jpg`` and ``0001.cls``.

A label stands in ``.cls`` (a number or a name), or in ``.json`` under ``label``. The images stay in the tar files and
are read in their order. What belongs to no sample is counted.
"""

from __future__ import annotations

import gzip
import json
import tarfile
import zlib
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.data.cache import content_of, remembered
from merging.data.decoding import VERSION
from merging.data.folders import left_out
from merging.data.pictures import Picture
from merging.errors import DAMAGED, TaskError, near_path
from merging.models.extras import needed
from merging.values.labels import Written, is_number, read, whole

IMAGES = (
    "jpg",
    "jpeg",
    "png",
    "webp",
    "jfif",
    "jpe",
    "bmp",
    "gif",
    "tif",
    "tiff",
    "ppm",
    "pgm",
    "pbm",
    "pnm",
    "apng",
    "jp2",
)
"""Suffixes of images, of those that webdataset decodes; where a sample has several, the first of these is taken."""


def shards(pattern: str) -> list[Path]:
    """Finds the files behind ``shards-{000..003}.tar``.

    Raises:
        TaskError: one is missing, or ``webdataset`` is not installed.
    """
    _webdataset()
    import braceexpand  # comes with webdataset

    try:
        files = [Path(name) for name in braceexpand.braceexpand(pattern)]
    except ValueError as error:
        raise TaskError(f"{pattern}: {error}") from None
    for file in files:
        if not file.is_file():
            raise TaskError(f"no such tar file: {file}{near_path(file)}")
    return files


@dataclass(frozen=True)
class Listing:
    """The samples that stand in tar files.

    Attributes:
        labels: labels of the samples, as they are written; none where they were not asked for.
        names: names of the samples.
        others: files that belong to no sample with an image, by their suffix → how many.
        several: samples with more than one image.
        said: what is to be known of the labels.
    """

    labels: list[Written]
    names: list[str]
    others: dict[str, int]
    several: int
    said: list[str]

    def remarks(self, where: str) -> list[str]:
        """A line for what is left out."""
        said = [*(f"{where}: {text}" for text in self.said), *left_out(where, self.others)]
        if self.several:
            said.append(
                f"{where}: {self.several:,} of {len(self.names):,} samples have several images: the first of "
                f"{', '.join(f'.{suffix}' for suffix in IMAGES[:4])}, … is taken"
            )
        return said


def listing(files: list[Path], *, labelled: bool, column: str) -> Listing:
    """Labels and names of the samples; remembered by the files' content.

    Args:
        files: tar files, in order.
        labelled: whether samples need a label.
        column: key of the label in ``.json`` files.

    Raises:
        TaskError: a file that is no tar, or a sample without image or label.
    """

    def make() -> list[Any]:
        labels, names, places = list[Any](), list[str](), list[str]()
        others, several, said = Counter[str](), 0, list[str]()
        for file in files:
            _check_whole(file)
        for file, sample in _samples(files, others):
            names.append(sample["__key__"])
            places.append(_place(file, sample["__key__"]))
            several += sum(kind in sample for kind in IMAGES) > 1
            if labelled:
                labels.append(_label(file, sample, column))
        if not names:
            dotted = any(suffix.rpartition(".")[2] in IMAGES for suffix in others)
            why = "; to webdataset all behind a name's first dot is the suffix: rename what has dots before it"
            raise TaskError(
                f"{files[0]} holds no samples: images ({', '.join(IMAGES[:4])}, …) with labels (.cls or .json)"
                f"{why if dotted else ''}"
            )
        found = read(labels, lambda number: places[number], said.append)
        if all(map(is_number, found)):
            found = [whole(label) for label in found]  # type: ignore[misc]
        return [found, names, dict(others), several, said]

    return Listing(*remembered([VERSION, "tar", [content_of(file) for file in files], labelled, column], make))


def pictures(files: list[Path]) -> Iterator[Picture]:
    """Reads the samples' images one after the other."""
    for file, sample in _samples(files):
        yield Picture(f"{file.name}/{sample['__key__']}", next(sample[kind] for kind in IMAGES if kind in sample))


def _samples(files: list[Path], others: Counter[str] | None = None) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Samples with an image; in ``others`` files that belong to none are counted by their suffix.

    Files are opened here: what webdataset would open by name may be a shell command.
    """
    tariterators = _webdataset()
    for file in files:
        try:
            with file.open("rb") as stream:
                members = _named(tariterators.tar_file_expander([{"url": str(file), "stream": stream}]), others)
                for sample in tariterators.group_by_keys(members):
                    if any(kind in sample for kind in IMAGES):
                        yield file, sample
                    elif others is not None:
                        others.update(f".{suffix}" for suffix in sample if not suffix.startswith("__"))
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            if isinstance(error, TaskError):
                raise
            reason = str(error.args[0] if error.args else error).partition(" @ <")[0]
            raise TaskError(f"{file} cannot be read as a tar file ({reason})") from None


def _named(members: Iterable[dict[str, Any]], others: Counter[str] | None) -> Iterator[dict[str, Any]]:
    """Members of a tar file; those without a suffix, which webdataset drops, are counted."""
    for member in members:
        if others is not None and "fname" in member and _webdataset().base_plus_ext(member["fname"])[0] is None:
            others[Path(member["fname"]).suffix.lower() or "no suffix"] += 1
        yield member


def _check_whole(file: Path) -> None:
    """Refuses a file that was cut off: reading it would end early, without a word.

    Raises:
        TaskError: the block of zeros is missing that every archive ends with.
    """
    try:
        with file.open("rb") as plain:
            if plain.read(2) != b"\x1f\x8b":
                plain.seek(max(0, file.stat().st_size - tarfile.BLOCKSIZE))
                last = plain.read()
            else:
                last = b""
                with gzip.open(file) as packed:
                    while piece := packed.read(1 << 20):
                        last = (last + piece)[-tarfile.BLOCKSIZE :]
    except (OSError, EOFError, zlib.error) as error:
        raise TaskError(f"{file} cannot be read as a tar file ({error})") from None
    if len(last) < tarfile.BLOCKSIZE or any(last):
        raise TaskError(f"{file} cannot be read as a tar file (its end is missing: was it cut off?)")


def _label(file: Path, sample: dict[str, Any], column: str) -> Any:
    where, label = _place(file, sample["__key__"]), None
    if "cls" in sample:
        label = sample["cls"].decode("utf-8-sig", errors="replace").strip()
    elif "json" in sample:
        try:
            label = json.loads(sample["json"])[column]
        except DAMAGED:
            raise TaskError(f"{where}: its .json has no '{column}'") from None
    if label in (None, ""):
        raise TaskError(f"{where} has no label; give it a .cls file (a number or a name), or a .json with '{column}'")
    return label


def _place(file: Path, key: str) -> str:
    return f"{file}: sample '{key}'"


def _webdataset() -> Any:
    return needed("webdataset", "tar files need webdataset", "data").tariterators
