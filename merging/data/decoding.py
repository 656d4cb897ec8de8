"""From the bytes of a picture, whatever it is stored as, to RGB with 8 bits a channel; and what was changed for that.

Pillow's ``convert("RGB")`` is what torchvision's ``ImageFolder`` and webdataset do. Where that changes what a
picture shows, it is mended or counted: 16 bits (Pillow cuts them off at 255), transparency, CMYK, further
frames, the orientation. A picture whose numbers have no fixed range is refused.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import ExifTags, Image, ImageOps

from merging.errors import TaskError
from merging.values.wording import plural

Content: TypeAlias = Path | bytes
"""An image file, or its bytes."""
VERSION = 3
"""Counts the ways of decoding; part of the key under which decoded images are kept."""

DEEP, TRANSPARENT, CMYK, FRAMES = "deep", "transparent", "cmyk", "frames"
TURNED, STORED = "turned", "stored"
SAID: Mapping[str, tuple[str, str]] = {
    DEEP: ("has 16 bits a channel: scaled to 8", "have 16 bits a channel: scaled to 8"),
    TRANSPARENT: ("is transparent in places: that is dropped", "are transparent in places: that is dropped"),
    CMYK: ("is CMYK: converted to RGB without a profile", "are CMYK: converted to RGB without a profile"),
    FRAMES: ("has several frames or pages: the first is taken", "have several frames or pages: the first is taken"),
    TURNED: (
        "has an EXIF orientation: turned upright (upright = false takes it as stored)",
        "have an EXIF orientation: turned upright (upright = false takes them as stored)",
    ),
    STORED: (
        "has an EXIF orientation: taken as stored (upright = true turns it)",
        "have an EXIF orientation: taken as stored (upright = true turns them)",
    ),
}
"""Kind of change → what is said of one picture, and of several."""

_APPLE_DOUBLE = b"\x00\x05\x16\x07"


class UnfitPicture(TaskError):
    """A picture that is whole, and of a kind that means nothing without a decision of the user."""


def rgb(content: Content, *, upright: bool = False) -> tuple[Image.Image, frozenset[str]]:
    """Decodes one picture into mode RGB.

    Args:
        content: the file, or its bytes.
        upright: turned as its EXIF orientation says; otherwise as it is stored, as ``ImageFolder`` has it. (Pillow
            turns TIFF files while it reads them, for everybody.)

    Returns:
        The picture in mode ``RGB``, and the kinds of change that were made or left (keys of ``SAID``).

    Raises:
        UnfitPicture: floating-point or 32-bit numbers, which have no fixed range.
        OSError, ValueError, SyntaxError: Pillow cannot decode it.
    """
    with opened(content) as file:
        changes = {FRAMES} if _is_animated(file) else set[str]()
        stored = " ".join(str(tile[3]) for tile in getattr(file, "tile", ()))  # gone once it is loaded
        file.load()
        image: Image.Image = file
        if file.getexif().get(ExifTags.Base.Orientation) in range(2, 9):
            changes.add(TURNED if upright else STORED)
            image = ImageOps.exif_transpose(image) if upright else image
        if image.mode == "F" or (image.mode == "I" and not _is_deep(file, stored)):
            kind = "floating-point" if image.mode == "F" else "32-bit or signed"
            raise UnfitPicture(
                f"its pixels are {kind} numbers, which have no fixed range; convert it to 8 or 16 bits a channel, or "
                "give arrays (python:module:function)"
            )
        if image.mode.startswith("I"):
            changes.add(DEEP)
            scaled = _scaled(image, 4095 if ";12" in stored else 65535)
            if _white_is_zero(file):
                scaled = ImageOps.invert(scaled)
            return scaled.convert("RGB"), frozenset(changes)
        if ";16" in stored or (file.format == "PPM" and "65535" in stored):
            changes.add(DEEP)  # of several channels Pillow keeps the upper eight bits
        if image.has_transparency_data and image.convert("RGBA").getchannel("A").getextrema()[0] < 255:  # type: ignore[operator]
            changes.add(TRANSPARENT)
        if image.mode == "CMYK":
            changes.add(CMYK)
        image.info.pop("transparency", None)  # Pillow would warn of what is dropped
        return image.convert("RGB"), frozenset(changes)


def size_of(content: Content, *, upright: bool = False) -> tuple[int, int]:
    """Width and height that :func:`rgb` will give, from the header alone where it says them (errors as there)."""
    with opened(content) as image:
        width, height = image.size
        turned = upright and image.format != "TIFF" and image.getexif().get(ExifTags.Base.Orientation) in range(5, 9)
        return (height, width) if turned else (width, height)


def opened(content: Content) -> Image.Image:
    """Opens a picture and reads its header.

    Raises:
        OSError: it is none.
    """
    try:
        found = Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)
    except OSError:
        if _begins(content, _APPLE_DOUBLE):
            raise OSError(
                "it is no picture but what a Mac keeps beside one (AppleDouble); remove such files: "
                "find . -name '._*' -delete"
            ) from None
        raise
    if found.format == "EPS":  # whatever it is called
        found.close()
        raise OSError("it is PostScript, a program, which Pillow has Ghostscript run; convert it to PNG")
    return found


def counted(changes: Iterable[frozenset[str]]) -> dict[str, int]:
    """Counts the pictures that were changed in each way."""
    found: dict[str, int] = {}
    for kinds in changes:
        for kind in kinds:
            found[kind] = found.get(kind, 0) + 1
    return {kind: found[kind] for kind in SAID if kind in found}


def sentences(where: str, total: int, changed: Mapping[str, int]) -> list[str]:
    """Writes a line for each kind of change.

    >>> sentences("photos", 500, {"deep": 500})
    ['photos: 500 of 500 pictures have 16 bits a channel: scaled to 8']

    Args:
        where: the set.
        total: pictures in it.
        changed: kind → how many.
    """
    return [
        f"{where}: {count:,} of {plural(total, 'picture', ',')} {SAID[kind][count != 1]}"
        for kind, count in changed.items()
        if kind in SAID
    ]


def _is_animated(image: Image.Image) -> bool:
    """Whether there are frames after the first; a damaged one among them is nobody's concern."""
    with contextlib.suppress(Exception):
        return bool(getattr(image, "is_animated", False))
    return False


def _is_deep(image: Image.Image, stored: str) -> bool:
    """Whether what Pillow holds as 32-bit numbers are 16 bits, from 0 to 65535: portable graymaps and PNG."""
    return image.format in ("PPM", "PNG") and "32" not in stored


def _white_is_zero(image: Image.Image) -> bool:
    """Whether a TIFF file says that zero is white, which Pillow heeds up to 8 bits alone."""
    tags = getattr(image, "tag_v2", {})
    return image.format == "TIFF" and tags.get(ExifTags.Base.PhotometricInterpretation) == 0


def _scaled(image: Image.Image, highest: int) -> Image.Image:
    """One channel from 0 to ``highest`` → 8 bits, rounded."""
    values = np.asarray(image).astype(np.int64)
    return Image.fromarray(((values * 510 + highest) // (2 * highest)).clip(0, 255).astype(np.uint8))


def _begins(content: Content, magic: bytes) -> bool:
    if isinstance(content, bytes):
        return content.startswith(magic)
    try:
        with content.open("rb") as file:
            return file.read(len(magic)) == magic
    except OSError:
        return False
