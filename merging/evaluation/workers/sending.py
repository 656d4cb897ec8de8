"""Files that a machine does not have: sent to one of its workers, piece by piece, and checked by their hash there."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from blake3 import blake3

from merging.errors import WorkersError, refused
from merging.evaluation.workers.blobs import Blobs
from merging.storage.atomic import move

CHUNK = 32 << 20
"""Bytes of a file that are on their way at once."""
GOES = (".json", ".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".txt", ".model")
"""Suffixes of the files of a model's folder that go along."""


@dataclass(frozen=True)
class Chunk:
    """A part of a file on its way.

    Attributes:
        name: digest of a tensor; or the file of a model, below the folder of this machine.
        start: bytes before it.
        data: its bytes.
        digest: hash of the whole file, with the last part; empty with all others.
    """

    name: str
    start: int
    data: bytes
    digest: str = ""


def chunks(wanted: Iterable[str], blobs: Blobs) -> Iterator[bytes]:
    """The files that a worker lacks, as messages for it.

    Args:
        wanted: digests of tensors, and paths of models.
        blobs: the driver's files.

    Raises:
        WorkersError: one is not here either.
    """
    for each in wanted:
        path = Path(each)
        if not path.is_absolute():
            found = blobs.where(each)
            if found is None:
                raise WorkersError(f"file {each[:12]}… is gone from the run's folder")
            yield from _parts(found, each)
        elif path.is_dir():
            for file in sorted(path.iterdir()):
                if file.is_file() and file.suffix in GOES:
                    yield from _parts(file, f"{folder_for(path)}/{path.name}/{file.name}")
        else:
            yield from _parts(path, f"{folder_for(path)}/{path.name}")


def folder_for(path: Path) -> str:
    """Name of the folder in which a model that was sent lies: by its path where the run was started."""
    return blake3(str(path).encode()).hexdigest()[:32]


def _parts(path: Path, name: str) -> Iterator[bytes]:
    digest, start = blake3(), 0
    try:
        with path.open("rb") as file:
            data = file.read(CHUNK)
            while True:
                digest.update(data)
                following = file.read(CHUNK)
                yield pickle.dumps(Chunk(name, start, data, "" if following else digest.hexdigest()))
                if not following:
                    return
                start, data = start + len(data), following
    except OSError as error:
        raise WorkersError(f"{path} cannot be sent to a worker: {refused(error)}") from None


def take(chunk: Chunk, folder: Path) -> None:
    """Keeps a part of a file on the worker's machine; the last one puts the whole into place.

    Raises:
        WorkersError: the whole has another hash than it was sent with.
    """
    target = folder / chunk.name
    aside = target.with_name(f".{target.name}.part")
    target.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with aside.open("r+b" if chunk.start else "wb") as file:
        file.seek(chunk.start)
        file.write(chunk.data)
        file.truncate()
    if not chunk.digest:
        return
    digest = blake3()
    with aside.open("rb") as file:
        while data := file.read(CHUNK):
            digest.update(data)
    if digest.hexdigest() != chunk.digest:
        aside.unlink()
        raise WorkersError(f"{target.name} has other bytes than were sent")
    move([aside], target.parent, [target.name])
