"""A folder of Hugging Face's ``save_to_disk`` with images."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from merging.data.form import PICTURES, DataForm
from merging.plugins.registry import forms

if TYPE_CHECKING:
    from merging.data.opened import Opened
    from merging.data.reader import Reader


@forms.register("saved")
@dataclass(frozen=True)
class SavedImages(DataForm):
    """A folder that ``save_to_disk`` wrote, or a split of it (``folder:split``); columns are found by their types."""

    summary: ClassVar[str] = "a folder of Hugging Face's save_to_disk with images"
    formula: ClassVar[str] = "sample i: the image of row i, turned upright as datasets does, and its label"
    limits: ClassVar[str] = "Needs the extra data. Where several columns could be the one, name it."
    paper: ClassVar[str] = "Lhoest et al. 2021, https://arxiv.org/abs/2109.02846"
    written: ClassVar[str] = "a folder of save_to_disk"
    keys: ClassVar[tuple[str, ...]] = (*PICTURES, "image", "label", "group")
    rank: ClassVar[int] = 4
    packages: ClassVar[tuple[str, ...]] = ("datasets",)

    def reads(self, path: str) -> bool:
        """Whether the path is a folder with the files that ``save_to_disk`` writes, or a split of one."""
        from merging.data.saved import names_saved

        return names_saved(path)

    def open(self, reader: Reader) -> Opened:
        """Opens the saved set and reads its labels; no image is decoded yet."""
        from merging.data.saved import Saved

        image = [reader.options["image"]] if "image" in reader.options else ()
        data = Saved(
            str(Path(reader.path).expanduser()),
            "image",
            image,
            reader.options.get("label"),
            labelled=reader.labelled,
            group=reader.options.get("group"),
            say=reader.progress.say,
        )
        return reader.images(
            data.labels,
            data.pictures,
            data.decided,
            len(data),
            names=data.names,
            spelled=data.names is None,
            groups=data.groups,
            upright=True,
        )

    @staticmethod
    def tiny(folder: Path) -> str:
        """Nine pictures of three classes."""
        import datasets

        from merging.data.examples import CLASSES, numbers, pixels, png

        images = [{"bytes": png(picture), "path": None} for picture in pixels(9)]
        kinds = datasets.Features({"image": datasets.Image(), "label": datasets.ClassLabel(names=list(CLASSES))})
        data = datasets.Dataset.from_dict({"image": images, "label": numbers(9).tolist()}, features=kinds)
        data.save_to_disk(str(folder / "set"))
        return str(folder / "set")
