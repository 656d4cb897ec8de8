"""Tar files in webdataset's layout: the files of a sample share a name, ``0001.jpg`` and ``0001.cls``.

A label stands in ``.cls`` (a number or a name), or in ``.json`` under ``label``. The images stay in the tar files and
are read in their order.
"""

from __future__ import annotations

import gzip
import json
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from merging.data.cache import content_of, remembered
from merging.data.classes import Written
from merging.data.pictures import Picture
from merging.errors import TaskError

IMAGES = ("jpg", "jpeg", "png", "webp")


def shards(pattern: str) -> list[Path]:
    """The files behind ``shards-{000..003}.tar``.

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
            raise TaskError(f"no such tar file: {file}")
    return files


def listing(files: list[Path], *, labelled: bool, column: str) -> tuple[list[Written], list[str]]:
    """Labels (none where they are not asked for) and names of the samples; remembered by the files' content.

    Args:
        files: tar files, in order.
        labelled: whether samples need a label.
        column: key of the label in ``.json`` files.

    Raises:
        TaskError: a file that is no tar, or a sample without image or label.
    """

    def make() -> list[Any]:
        labels, names = [], []
        for file in files:
            _check_whole(file)
        for file, sample in _samples(files):
            names.append(sample["__key__"])
            if labelled:
                labels.append(_label(file, sample, column))
        if not names:
            raise TaskError(f"{files[0]} holds no samples: images ({', '.join(IMAGES)}) with labels (.cls or .json)")
        return [labels, names]

    labels, names = remembered(["tar", [content_of(file) for file in files], labelled, column], make)
    return labels, names


def pictures(files: list[Path]) -> Iterator[Picture]:
    """The samples' images, read one after the other."""
    for file, sample in _samples(files):
        yield Picture(f"{file.name}/{sample['__key__']}", next(sample[kind] for kind in IMAGES if kind in sample))


def _samples(files: list[Path]) -> Iterator[tuple[Path, dict[str, Any]]]:
    """Samples with an image. Files are opened here: what webdataset would open by name may be a shell command."""
    tariterators = _webdataset()
    for file in files:
        try:
            with file.open("rb") as stream:
                members = tariterators.tar_file_expander([{"url": str(file), "stream": stream}])
                for sample in tariterators.group_by_keys(members):
                    if any(kind in sample for kind in IMAGES):
                        yield file, sample
        except (tarfile.TarError, OSError, EOFError, ValueError) as error:
            if isinstance(error, TaskError):
                raise
            reason = str(error.args[0] if error.args else error).partition(" @ <")[0]
            raise TaskError(f"{file} cannot be read as a tar file ({reason})") from None


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


def _label(file: Path, sample: dict[str, Any], column: str) -> Written:
    where, text = f"{file}: sample '{sample['__key__']}'", None
    if "cls" in sample:
        text = sample["cls"].decode(errors="replace").strip()
    elif "json" in sample:
        try:
            text = json.loads(sample["json"])[column]
        except (ValueError, KeyError, TypeError):
            raise TaskError(f"{where}: its .json has no '{column}'") from None
    if isinstance(text, str) and text:
        return int(text) if text.removeprefix("-").isdecimal() else text
    if isinstance(text, int) and not isinstance(text, bool):
        return text
    raise TaskError(f"{where} has no label; give it a .cls file (a number or a name), or a .json with '{column}'")


def _webdataset() -> Any:
    try:
        from webdataset import tariterators
    except ImportError:
        raise TaskError("tar files need webdataset; install it with: pip install 'merging[data]'") from None
    return tariterators
