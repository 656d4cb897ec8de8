"""Samples of a language model as text: what the model reads, and marked in it what it is scored on."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from merging.errors import showable
from merging.plugins.task import Split

if TYPE_CHECKING:
    from torch import Tensor

ROOM = 160
"""Characters of a stretch of text that are shown at most."""
OPEN, CLOSE = "⟦", "⟧"
"""Stand around what is scored."""


@dataclass(frozen=True)
class Stretch:
    """Tokens one after the other, all of them scored or none.

    Attributes:
        text: what they stand for, perhaps shortened; harmless to show.
        scored: whether they are scored.
    """

    text: str
    scored: bool

    def __str__(self) -> str:
        return f"{OPEN}{self.text}{CLOSE}" if self.scored else self.text


@dataclass(frozen=True)
class Shown:
    """A sample as lines: a document's first row, or what a question's rows begin with, and each choice.

    Attributes:
        stretches: what is read first.
        choices: the choices of a question; none of a document.
        right: number of the right choice; None: a document.
        scored: tokens that are scored.
        rows: rows that go through the model.
    """

    stretches: tuple[Stretch, ...]
    choices: tuple[Stretch, ...]
    right: int | None
    scored: int
    rows: int

    @property
    def label(self) -> str:
        """Says what is right, as a letter, or how many tokens are scored."""
        return f"{self.scored:,}" if self.right is None else chr(ord("A") + self.right) if self.right < 26 else "?"

    def __str__(self) -> str:
        return "".join(map(str, (*self.stretches, *self.choices)))


def shown(split: Split, index: int, decode: Callable[[Tensor], str], room: int = ROOM) -> Shown:
    """A sample as text.

    Args:
        split: samples that are rows of tokens.
        index: which one.
        decode: token ids → text; scored ones are ``~id``.
        room: characters of a stretch at most; of what is read before anything is scored the end is shown.
    """
    sample = split.sequences[index]
    first, last = int(sample.samples[0]), int(sample.samples[-1])
    rows = [sample.tokens[sample.starts[row] : sample.starts[row + 1]] for row in range(first, last)]
    right = _right(split, index)
    count = int(sample.scored[0])
    begin = _stretches(rows[0], decode, room)
    if right is None:
        return Shown(begin, (), None, count, len(rows))
    choices = [_stretches(row, decode, room)[-1] for row in rows]
    return Shown(begin[:-1], tuple(choices), right, count, len(rows))


def _right(split: Split, index: int) -> int | None:
    """The right choice of a question; None: it is a document."""
    label = split.labels[index]
    if label.ndim == 0:
        return None if label.is_floating_point() else max(int(label), 0)
    return int(label[0]) if int(label[0]) >= 0 else None


def _stretches(row: np.ndarray, decode: Callable[[Tensor], str], room: int) -> tuple[Stretch, ...]:
    """A row in stretches; decoded up to each border, since a tokenizer may drop a space where a text begins."""
    import torch

    ids = torch.from_numpy(np.array(row))
    borders = [0, *(np.flatnonzero(np.diff(row < 0)) + 1).tolist(), len(row)]
    texts = ["", *(decode(ids[:border]) for border in borders[1:])]
    found = []
    for number, (begin, end) in enumerate(itertools.pairwise(borders)):
        before, whole = texts[number], texts[number + 1]
        text = whole[len(before) :] if whole.startswith(before) else decode(ids[begin:end])
        scored = bool(row[begin] < 0)
        found.append(Stretch(_shortened(showable(text), room, keep_end=not begin and not scored), scored))
    return tuple(found)


def _shortened(text: str, room: int, *, keep_end: bool) -> str:
    if len(text) <= room:
        return text
    return f"…{text[1 - room :]}" if keep_end else f"{text[: room - 1]}…"
