"""Are a model's inputs the pixels that its library would give it? Every model and processor, against the library.

``python -m benchmarks.pixels`` writes a few photographs to disk, has a task prepare them for a model, and compares what
would go into the model with what the model's library makes of the same files. Once per *distinct* setting: over all of
timm's models (and its other published weights), torchvision's classifiers, open_clip's models, and the processors of
transformers in ``processors.json``. Those are written down from knowledge of what the Hub has; only DINOv2's and BEiT's
were held against published files. ``--every`` takes every model by itself. ``--json docs/pixels.json`` keeps the
figures that the documentation quotes.

Nothing here knows how a task prepares images. What is right comes from the libraries alone: timm's
``create_transform``, torchvision's ``weights.transforms()``, open_clip's ``image_transform_v2``, transformers'
``AutoImageProcessor``, each on a picture that Pillow has opened and made RGB.
"""

from __future__ import annotations

import contextlib
import functools
import importlib.metadata
import io
import itertools
import json
import multiprocessing
import os
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

import click
import torch
from PIL import Image
from torch import Tensor

from benchmarks.library_transforms import LIBRARIES, Subject, Transform, subjects
from merging.errors import MergingError
from merging.tasks.described import described_task

EQUAL = 1e-6
"""Two floats that stand for the same pixel differ by less, beyond 1 relatively: the order of their arithmetic."""


@dataclass(frozen=True)
class Compared:
    """What came of one subject.

    Attributes:
        library, model: as in the subject.
        models: how many share the setting.
        pictures: how many were compared.
        largest, mean: absolute difference of the pixels, in grey levels (1/255 of the range).
        standardised: the largest difference as the model meets it; relative where an input is beyond ±1.
        wrong: why there is no difference to tell: another shape, no line of refusal, or none where the library refuses.
        refused: what the task says if it does not take the model.
        alone: the task refuses a classifier that the library takes.
    """

    library: str
    model: str
    models: int
    pictures: int = 0
    largest: float = 0.0
    mean: float = 0.0
    standardised: float = 0.0
    wrong: str | None = None
    refused: str | None = None
    alone: bool = False

    @property
    def same(self) -> bool:
        """Whether the pixels are the library's."""
        return self.wrong is None and self.refused is None and self.standardised <= EQUAL


@dataclass
class Row:
    """One library of the table; counts are of settings, those in brackets of models."""

    library: str
    compared: list[Compared] = field(default_factory=list)

    def figures(self) -> dict[str, Any]:
        """Counts of settings, and how many models and pictures these are; differences in grey levels."""
        met = [c for c in self.compared if c.wrong is None and c.refused is None]
        return {
            "library": self.library,
            "models": sum(c.models for c in self.compared),
            "settings": len(self.compared),
            "pictures": sum(c.pictures for c in self.compared),
            "equal": sum(c.same for c in met),
            "differ": sum(not c.same for c in met),
            "wrong": sum(c.wrong is not None for c in self.compared),
            "refused": sum(c.refused is not None for c in self.compared),
            "alone": sum(c.alone for c in self.compared),
            "largest": float(f"{max((c.largest for c in met), default=0.0):.2g}"),
            "mean": float(f"{max((c.mean for c in met), default=0.0):.2g}"),
        }

    def cells(self) -> list[str]:
        """Texts of the columns of :data:`HEADINGS`; in brackets how many models that are."""
        met = [c for c in self.compared if c.wrong is None and c.refused is None]
        parts = {
            "equal": [c for c in met if c.same],
            "differ": [c for c in met if not c.same],
            "wrong": [c for c in self.compared if c.wrong is not None],
            "refused": [c for c in self.compared if c.refused is not None],
            "alone": [c for c in self.compared if c.alone],
        }
        found = self.figures() | {key: _counted(each) for key, each in parts.items()}
        return [str(found[heading]) for heading in HEADINGS]


HEADINGS = (
    "library",
    "models",
    "settings",
    "pictures",
    "equal",
    "differ",
    "wrong",
    "refused",
    "alone",
    "largest",
    "mean",
)
SAID = 160
"""Characters of a refusal that are kept; transformers names all the processors that it has."""


def _counted(compared: Sequence[Compared]) -> str:
    return f"{len(compared)} ({sum(c.models for c in compared)})" if compared else "0"


def photographs(folder: Path, exact: tuple[int, int]) -> Path:
    """Writes pictures cut from two photographs: JPEG and PNG, large and small, upright, lying and square, 1:5 and 5:1.

    Args:
        folder: for two class folders.
        exact: height and width of one picture more.
    """
    parts: dict[str, tuple[int, int, int, int]] = {  # left, top, width, height
        "a/landscape.jpg": (101, 37, 411, 293),
        "a/portrait.png": (60, 11, 211, 397),
        "a/square.jpg": (200, 90, 301, 301),
        "a/whole.jpg": (0, 0, 640, 427),
        "b/small.png": (300, 200, 61, 47),
        "b/tall.jpg": (410, 20, 79, 395),
        "b/wide.png": (33, 222, 505, 101),
    }
    china, flower = _china_and_flower()
    for number, (name, (left, top, width, height)) in enumerate(parts.items()):
        picture = (china, flower)[number % 2].crop((left, top, left + width, top + height))
        place = folder / name
        place.parent.mkdir(parents=True, exist_ok=True)
        picture.save(place, quality=90)
    flower.resize((exact[1], exact[0]), Image.Resampling.BICUBIC).save(folder / "b/exact.png")
    return folder


@functools.cache
def _china_and_flower() -> tuple[Image.Image, Image.Image]:
    import sklearn.datasets

    folder = Path(sklearn.datasets.__file__).parent / "images"
    china, flower = (Image.open(folder / name).convert("RGB") for name in ("china.jpg", "flower.jpg"))
    return china, flower


@contextlib.contextmanager
def workplace() -> Iterator[Path]:
    """A temporary folder, in which decoded images are kept too."""
    with tempfile.TemporaryDirectory(prefix="pixels-") as name:
        before = os.environ.get("MERGING_CACHE")
        os.environ["MERGING_CACHE"] = str(Path(name) / "cache")
        try:
            yield Path(name)
        finally:
            os.environ.pop("MERGING_CACHE")
            if before is not None:
                os.environ["MERGING_CACHE"] = before


def of_library(transform: Transform, folder: Path) -> list[Tensor]:
    """What the library makes of the files, in the order of torchvision's ``ImageFolder``."""
    from torchvision.datasets import ImageFolder

    return [transform(Image.open(path).convert("RGB")) for path, _ in ImageFolder(folder).samples]


def of_task(model: Any, folder: Path, **more: Any) -> Tensor:
    """What a task puts into the model: float, ``(N, 3, H, W)``.

    Args:
        model: ``[task] model``.
        folder: of class folders.
        more: other keys of ``[task]``.

    Raises:
        MergingError: the task is refused.
    """
    task = described_task({"model": model, "held_out": str(folder), **more})
    inputs: Tensor = task.prepare(task.held_out.inputs)
    return inputs


def grey_level(transform: Transform, like: tuple[int, int] = (224, 224)) -> Tensor:
    """How far one grey level moves the model's input, per channel: ``(3, 1, 1)``, tried with two grey pictures."""
    made = [transform(Image.new("RGB", (like[1], like[0]), (grey,) * 3)) for grey in (60, 180)]
    height, width = made[0].shape[1:]
    one, other = (picture[:, height // 2, width // 2].double() for picture in made)
    return ((other - one) / 120).abs()[:, None, None]


def compare(subject: Subject, folder: Path) -> Compared:
    """Both ways of one subject.

    Args:
        subject: the models.
        folder: where photographs are written, a folder for each size that a model may have and each process.
    """
    made = functools.partial(Compared, subject.library, str(subject.model), len(subject.names))
    try:
        transform = subject.transform()
        height, width = transform(Image.new("RGB", (300, 200))).shape[1:]
        files = folder / f"{os.getpid()}/{height}x{width}"
        right = of_library(transform, files if files.is_dir() else photographs(files, (height, width)))
        unit = grey_level(transform)
    except Exception as refusal:  # each library has its own way to refuse
        files, right, unit = folder / f"{os.getpid()}/any", [], torch.ones(3, 1, 1)
        own = f"{type(refusal).__name__}: {refusal}"
        if not files.is_dir():
            photographs(files, (224, 224))
    try:
        found = of_task(subject.model, files)
    except MergingError as refusal:
        alone = bool(right) and subject.classifier
        return made(refused=f"{type(refusal).__name__}: {refusal}", alone=alone)
    except Exception as error:  # a fault of the product; the others are compared all the same
        return made(wrong=f"raises {type(error).__name__}: {error}")
    if not right:
        return made(wrong=f"gives {tuple(found.shape[1:])} where the library refuses ({own})"[:200])
    if len(found) != len(right):
        return made(wrong=f"{len(found)} pictures, the library {len(right)}")
    largest, total, standardised, count = 0.0, 0.0, 0.0, 0
    for ours, own_pixels in zip(found, right, strict=True):
        if ours.shape != own_pixels.shape:
            return made(wrong=f"{tuple(ours.shape)}, the library {tuple(own_pixels.shape)}")
        difference = (ours - own_pixels).abs()
        levels = difference / unit
        standardised = max(standardised, float((difference / own_pixels.abs().clamp(min=1)).max()))
        largest, total, count = max(largest, float(levels.max())), total + float(levels.sum()), count + levels.numel()
    return made(pictures=len(right), largest=largest, mean=total / count, standardised=standardised)


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Without the warnings of the libraries about their own old files."""
    import transformers

    library: Any = transformers
    level = library.logging.get_verbosity()
    library.logging.set_verbosity_error()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
            warnings.simplefilter("ignore")
            yield
    finally:
        library.logging.set_verbosity(level)


def _named(result: Compared, subject: Subject) -> Compared:
    """Under the processor's name, not that of a temporary folder."""
    (name,), place = subject.names, str(subject.model).partition(":")[2]
    wrong, refused = (text and text.replace(place, name) for text in (result.wrong, result.refused))
    return replace(result, model=name, wrong=wrong, refused=refused)


def table(rows: Sequence[Row]) -> str:
    """The rows as a table of Markdown."""
    lines = [list(HEADINGS), *(row.cells() for row in rows)]
    widths = [max(len(line[k]) for line in lines) for k in range(len(HEADINGS))]
    padded = [[cell.ljust(w) for cell, w in zip(line, widths, strict=True)] for line in lines]
    padded.insert(1, ["-" * width for width in widths])
    return "\n".join("| " + " | ".join(line) + " |" for line in padded)


@click.command()
@click.option("--library", "only", type=click.Choice(LIBRARIES), multiple=True, help="Default: all of them.")
@click.option("--every", is_flag=True, help="Every model by itself; takes an hour.")
@click.option("--jobs", type=click.IntRange(min=1), default=os.cpu_count(), help="Processes. Default: one a core.")
@click.option("--json", "output", type=click.Path(path_type=Path), help="Keeps the figures in this file.")
@click.option("--list/--no-list", "listed", default=True, help="Names what differs.")
def main(only: Sequence[str], every: bool, jobs: int, output: Path | None, listed: bool) -> None:
    """Compares a task's inputs with what each model's library makes of the same files.

    The code is 1 where one differs, or is refused although its library takes it.
    """
    rows, began = [], time.perf_counter()
    torch.set_num_threads(1)
    with workplace() as folder:
        for library in only or LIBRARIES:
            row = Row(library)
            with quiet(), ProcessPoolExecutor(jobs, multiprocessing.get_context("fork")) as workers:
                found = subjects(library, folder, every=every)
                for subject, result in zip(
                    found, workers.map(compare, found, itertools.repeat(folder), chunksize=2), strict=True
                ):
                    if library == "transformers":
                        result = _named(result, subject)
                    row.compared.append(replace(result, refused=result.refused and result.refused[:SAID]))
            rows.append(row)
            click.echo(f"{library}: {time.perf_counter() - began:.0f} s", err=True)
    click.echo(table(rows))
    click.echo("\nSettings (models). Differences in grey levels, 1/255: the largest of a pixel, the largest mean.")
    if listed:
        for row in rows:
            for c in row.compared:
                if not c.same:
                    said = c.wrong or (
                        f"refused{' alone' * c.alone}: {c.refused}"
                        if c.refused
                        else f"{c.largest:.4g}, mean {c.mean:.3g}"
                    )
                    click.echo(f"  {row.library}: {c.model} ({c.models}): {said}")
    if output is not None:
        output.write_text(json.dumps(figures(rows), indent=1) + "\n", "utf-8")
    sys.exit(any(c.alone or not (c.same or c.refused) for row in rows for c in row.compared))


def figures(rows: Sequence[Row]) -> dict[str, Any]:
    """All that was found, JSON-ready: versions, a summary of each library, and what is not equal by its name."""
    packages = ("timm", "torchvision", "open_clip_torch", "transformers", "pillow", "torch")
    return {
        "versions": {name: importlib.metadata.version(name) for name in packages},
        "libraries": [row.figures() for row in rows],
        "not equal": [{k: v for k, v in asdict(c).items() if v} for row in rows for c in row.compared if not c.same],
    }


if __name__ == "__main__":
    main()
