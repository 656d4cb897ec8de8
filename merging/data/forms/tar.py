"""Tar files in webdataset's layout."""

from __future__ import annotations

import io
import tarfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from merging.data.form import PICTURES, DataForm
from merging.plugins.registry import forms

if TYPE_CHECKING:
    from merging.data.opened import Opened
    from merging.data.reader import Reader


@forms.register("tar")
@dataclass(frozen=True)
class Tar(DataForm):
    """Tar files where a sample's files share a name, ``0001.jpg`` and ``0001.cls``; shards: ``set-{000..003}.tar``."""

    summary: ClassVar[str] = ".tar files in webdataset's layout"
    formula: ClassVar[str] = "sample 0001: the image 0001.jpg, its label in 0001.cls, or in 0001.json under label"
    limits: ClassVar[str] = "Images stay in the tar files and are read in their order. Needs the extra data."
    paper: ClassVar[str] = "https://github.com/webdataset/webdataset"
    written: ClassVar[str] = "a .tar"
    suffixes: ClassVar[tuple[str, ...]] = (".tar", ".tar.gz", ".tgz")
    keys: ClassVar[tuple[str, ...]] = (*PICTURES, "label")
    rank: ClassVar[int] = 3
    packages: ClassVar[tuple[str, ...]] = ("webdataset",)

    def open(self, reader: Reader) -> Opened:
        """Lists the samples of all shards, and their labels; nothing is decoded yet."""
        from merging.data import tars
        from merging.data.cache import content_of

        files = tars.shards(str(Path(reader.path).expanduser()))
        reader.progress.stage(f"listing {reader.path}")
        found = tars.listing(files, labelled=reader.labelled, column=reader.options.get("label", "label"))
        reader.say(found.remarks(reader.path))
        decided = [content_of(file) for file in files]
        return reader.images(found.labels, lambda: tars.pictures(files), decided, len(found.names))

    @staticmethod
    def tiny(folder: Path) -> str:
        """Nine pictures of three classes."""
        from merging.data.examples import CLASSES, pixels, png
        from merging.storage import atomic

        whole = io.BytesIO()
        with tarfile.TarFile(fileobj=whole, mode="w") as archive:
            for number, picture in enumerate(pixels(9)):
                for suffix, content in (("png", png(picture)), ("cls", CLASSES[number % 3].encode())):
                    entry = tarfile.TarInfo(f"{number:04}.{suffix}")
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
        atomic.write(folder / "set.tar", whole.getvalue())
        return str(folder / "set.tar")
