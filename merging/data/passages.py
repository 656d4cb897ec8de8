"""What a language model is scored on, sample by sample: rows of tokens, of which some are scored."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from merging.plugins.sequences import Sequences

Coded = NDArray[np.int32]
"""Tokens of a row: the id of one that is context, ``~id`` of one that is scored."""
MOST = 32
"""Windows of a sample: a longer document is several samples, so that no batch is without bounds."""


@dataclass(frozen=True, eq=False, kw_only=True)
class Passage:
    """One sample: its rows, and what is right.

    Attributes:
        rows: tokens of each row.
        slots: the output that each row adds to.
        weights: factor of each row's log-likelihood.
        label: the right choice of a question; None: a document, whose scored tokens are counted.
        place: number of its row in what the user wrote.
    """

    rows: tuple[Coded, ...]
    slots: tuple[int, ...] = ()
    weights: tuple[float, ...] = ()
    label: int | None = None
    place: int = 0

    @property
    def scored(self) -> int:
        """Tokens that are scored, of all rows."""
        return sum(int((row < 0).sum()) for row in self.rows)


def coded(ids: Sequence[int], scored: slice | NDArray[np.bool_] = slice(1, None)) -> Coded:
    """Token ids, some of which are scored.

    Args:
        ids: the tokens.
        scored: which ones are, by default all but the first, before which nothing stands; it never is.
    """
    found = np.asarray(ids, dtype=np.int32).copy()
    found[scored] = ~found[scored]
    found[:1] = np.where(found[:1] < 0, ~found[:1], found[:1])
    return found


def windows(tokens: Coded, context: int, stride: int) -> list[Coded]:
    """Cuts a long text into rows, each with as much context as a model takes; every scored token is scored once.

    The first window scores what it can. Each later one moves on by ``stride`` tokens, which it scores, and the tokens
    before them are context; the last one moves on by what is left.

    >>> [row.tolist() for row in windows(coded([5, 6, 7, 8, 9]), 2, 2)]
    [[5, -7, -8], [7, -9, -10]]

    Args:
        tokens: the text.
        context: tokens that the model reads; a row has one more, which is only predicted.
        stride: tokens by which a window moves on, ``context`` at the most.

    Returns:
        The rows that score something.
    """
    end = context + 1
    rows = [tokens[:end]]
    while end < len(tokens):
        new = min(stride, len(tokens) - end)
        row = tokens[end + new - context - 1 : end + new].copy()
        earlier = row[: len(row) - new]
        earlier[earlier < 0] = ~earlier[earlier < 0]
        rows.append(row)
        end += new
    return [row for row in rows if (row < 0).any()]


def divided(passage: Passage) -> Iterator[Passage]:
    """A document in parts of at most :data:`MOST` windows."""
    for start in range(0, len(passage.rows), MOST):
        yield replace(passage, rows=passage.rows[start : start + MOST])


def gathered(passages: Iterable[Passage], padding: int) -> tuple[Sequences, NDArray[np.generic], NDArray[np.int64]]:
    """Puts samples together, the shortest first; of one length they keep their order.

    Args:
        passages: the samples.
        padding: id that fills short rows up.

    Returns:
        The samples; their labels, int64 ``(N,)`` of questions, float32 of documents; and the places of their rows.
    """
    there = sorted(passages, key=lambda each: max(map(len, each.rows)))
    rows = [row for each in there for row in each.rows]
    counts = [len(each.rows) for each in there]
    slots = [slot for each in there for slot in each.slots or (0,) * len(each.rows)]
    weights = [weight for each in there for weight in each.weights or (1.0,) * len(each.rows)]
    made = Sequences(
        tokens=np.concatenate(rows),
        starts=np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64),
        weights=np.array(weights, dtype=np.float32),
        slots=np.array(slots, dtype=np.int16),
        samples=np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
        outputs=max(slots) + 1,
        padding=padding,
    )
    labels: NDArray[np.generic] = made.scored.astype(np.float32)
    if there[0].label is not None:
        labels = np.array([each.label for each in there], dtype=np.int64)
    return made, labels, np.array([each.place for each in there], dtype=np.int64)
