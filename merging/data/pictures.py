"""Images from any container: opened one by one, decoded on all cores, prepared as the model's library does, kept."""

from __future__ import annotations

import itertools
import struct
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from merging.data.cache import Images, cached_images
from merging.data.damage import Damage, Losses, Tolerance
from merging.data.decoding import VERSION, Content, UnfitPicture, counted, rgb, size_of
from merging.data.images import Preparation, say_size
from merging.errors import TaskError
from merging.machine import cores
from merging.plugins.progress import Progress
from merging.plugins.task import Split

AT_ONCE = 256
"""Images that are read ahead: what bounds the memory when they come out of a stream."""


@dataclass(frozen=True)
class Picture:
    """An image that has not been decoded.

    Attributes:
        name: for messages.
        content: the file, or its bytes.
    """

    name: str
    content: Content


def load_pictures(
    where: str,
    pictures: Callable[[], Iterable[Picture]],
    labels: NDArray[np.int64],
    decided: Any,
    how: Preparation,
    progress: Progress,
    *,
    upright: bool = False,
) -> Split:
    """Decodes images with Pillow and prepares each; from disk where that was done before.

    What is kept is uint8 ``(N, H, W, 3)``, or float32 ``(N, 3, H, W)`` where the transform is not divided.

    Args:
        where: the set, for messages.
        pictures: begins to hand out the N images, in order; called once to find their sizes, once to decode them.
        labels: ``(N,)``.
        decided: what decides the images' content, JSON-ready.
        how: transform, border, and how many may be damaged.
        progress: told how far decoding is, and what was left out or changed.
        upright: images are turned as their EXIF orientation says.

    Raises:
        TaskError: images that come out in different sizes, too many that are damaged, or one whose numbers have no
            fixed range.
    """
    transform = how.transform
    expected: tuple[int, ...] = ()

    def shape() -> tuple[int, ...]:
        nonlocal expected
        if transform.sides is not None:
            expected = transform.kept(*transform.sides)
        else:
            sizes = sizes_of(pictures(), how.border, upright=upright)
            if len(sizes) > 1:
                raise differ(where)
            size = next(iter(sizes), (8, 8))  # no image at all can be opened: decoding says why
            expected = transform(Image.new("RGB", size)).shape
        say_size(where, len(labels), expected, transform, progress)
        return (len(labels), *expected)

    def one(image: Image.Image) -> Images:
        made = transform(cut(image, how.border))
        if made.shape != expected:  # it would be stretched, or taken for a damaged one
            raise differ(where)
        return made

    def fill(array: Images) -> Losses:
        progress.stage(f"decoding {where}", len(array))
        return decode(where, pictures(), one, array, progress, upright=upright)

    key = ["pictures", VERSION, upright, decided, labels.tolist(), transform.key, how.border]
    tolerance = Tolerance(where, how.corrupt, progress)
    return cached_images(key, labels, shape, fill, tolerance, dtype=transform.dtype)


def differ(where: str) -> TaskError:
    """What is said of images of several sizes, where one is needed."""
    return TaskError(f"{where}: images differ in size; store them in one size, or give the [task] a size in pixels")


def decode(
    where: str,
    pictures: Iterable[Picture],
    one: Callable[[Image.Image], Images],
    array: Images,
    progress: Progress,
    *,
    upright: bool = False,
) -> Losses:
    """Puts images into an array, several at a time, as Pillow and torch let other threads run.

    Args:
        where: the set, for messages.
        pictures: as many as the array has rows, in order.
        one: RGB picture → pixels.
        array: N rows, filled.
        progress: advanced.
        upright: pictures are turned as their EXIF orientation says.

    Returns:
        The images that could not be decoded, whose rows hold anything; and how many of the others were changed.

    Raises:
        TaskError: a picture whose numbers have no fixed range.
    """

    def attempt(numbered: tuple[int, Picture]) -> Damage | frozenset[str]:
        number, picture = numbered
        try:
            image, changes = rgb(picture.content, upright=upright)
            array[number] = one(image)
        except UnfitPicture as error:
            raise TaskError(f"{where}: {picture.name}: {error}") from None
        except (TaskError, MemoryError):
            raise
        except Exception as error:  # decoders raise whatever the bytes provoke: OSError, SyntaxError, struct.error, …
            return Damage(number, picture.name, _reason(error, picture.content))
        return changes

    found: list[Damage | frozenset[str]] = []
    numbered = enumerate(pictures)
    with ThreadPoolExecutor(cores()) as workers:
        while batch := list(itertools.islice(numbered, AT_ONCE)):
            for one_found in workers.map(attempt, batch):
                found.append(one_found)
                progress.advance()
    changes = counted(each for each in found if not isinstance(each, Damage))
    return Losses((each for each in found if isinstance(each, Damage)), changes)


def cut(image: Image.Image, border: int) -> Image.Image:
    """The image without its border.

    Raises:
        TaskError: nothing would be left.
    """
    if not border:
        return image
    if border < 0 or 2 * border >= min(image.size):
        raise TaskError(f"border is {border}; an image of {image.width} × {image.height} pixels has no such border")
    return image.crop((border, border, image.width - border, image.height - border))


def sizes_of(pictures: Iterable[Picture], border: int = 0, *, upright: bool = False) -> set[tuple[int, int]]:
    """Widths and heights of images that occur, by their headers; two at the most, as more say nothing new.

    Args:
        pictures: the images; those whose header cannot be read are left to the decoding.
        border: pixels that are cut off on each side.
        upright: images are turned as their EXIF orientation says.
    """
    found: set[tuple[int, int]] = set()
    for picture in pictures:
        try:
            width, height = size_of(picture.content, upright=upright)
            found.add((width - 2 * border, height - 2 * border))
        except (OSError, ValueError, SyntaxError, struct.error, Image.DecompressionBombError):
            continue  # decoding counts and names it
        if len(found) > 1:
            break
    return found


def _reason(error: Exception, content: Content) -> str:
    """What a decoder said, in one line, without the file's place or the address of a buffer in memory."""
    text = " ".join(str(error).split()).partition(" <_io")[0]
    return (
        text.replace(f" {str(content)!r}", "") if text and isinstance(content, Path) else text or type(error).__name__
    )


def paths(files: Iterable[Path], root: Path) -> Iterator[Picture]:
    """Image files, named from a folder on."""
    for file in files:
        yield Picture(str(file.relative_to(root)) if file.is_relative_to(root) else str(file), file)
