"""Images that cannot be decoded: left out, counted and named; an error where they are more than a set may lose."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from merging.data.decoding import sentences
from merging.errors import TaskError
from merging.plugins.progress import Progress, Silent
from merging.values.wording import some

CORRUPT = 0.01
"""Share of a set's images that may be damaged, where the user does not say."""
NAMED = 5
"""A message names so many of the damaged images."""


@dataclass(frozen=True)
class Damage:
    """An image that was left out, and the reason.

    Attributes:
        number: its place in the set, from 0.
        name: file, or number in a container.
        why: what the decoder said.
    """

    number: int
    name: str
    why: str


class Losses(list[Damage]):
    """The images of a set that could not be decoded, in their order.

    Args:
        damaged: images that were left out, each with the reason.
        changed: kind of change (:data:`merging.data.decoding.SAID`) → how many of the others were changed so.
    """

    def __init__(self, damaged: Iterable[Damage] = (), changed: Mapping[str, int] | None = None) -> None:
        super().__init__(damaged)
        self.changed = dict(changed or {})


def undamaged(count: int, damaged: Sequence[Damage]) -> NDArray[np.int64]:
    """Numbers of the images that could be decoded, of ``count`` in the set."""
    return np.setdiff1d(np.arange(count), [damage.number for damage in damaged])


@dataclass(frozen=True)
class Tolerance:
    """The limit to how much of a set may be damaged.

    Attributes:
        where: the set, for messages.
        share: share of its images that may be damaged, 0 to 1.
        progress: told what was left out.
    """

    where: str
    share: float = CORRUPT
    progress: Progress = field(default_factory=Silent)

    def __post_init__(self) -> None:
        if not 0 <= self.share < 1:
            raise TaskError(f"corrupt is {self.share:g}; it is the share of images that may be damaged, 0 to below 1")

    def accept(self, total: int, damaged: Sequence[Damage]) -> None:
        """Says which images of a set are left out, and how many were changed where :class:`Losses` know it.

        Args:
            total: images in the set, damaged ones included.
            damaged: the damaged images, in their order.

        Raises:
            TaskError: they are more than the share.
        """
        for line in sentences(self.where, total, damaged.changed if isinstance(damaged, Losses) else {}):
            self.progress.say(line)
        if not damaged:
            return
        names = some([damage.name for damage in damaged], NAMED)
        verb = "is" if len(damaged) == 1 else "are"
        said = f"{self.where}: {names} {verb} damaged ({damaged[0].why}), {len(damaged)} of {total:,} images"
        if len(damaged) > self.share * total or len(damaged) == total:
            raise TaskError(f"{said}: more than corrupt = {self.share:g} allows; replace or remove them, or allow more")
        self.progress.say(f"warning: {said}: left out")
