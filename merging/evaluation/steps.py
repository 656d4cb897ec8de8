"""Progress over scores, some of which are known: that is said, and they are no steps, so that the time left is true."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from merging.plugins.progress import Progress
from merging.plugins.task import HELD_OUT
from merging.values.recipe import Merge
from merging.values.wording import plural

if TYPE_CHECKING:
    from merging.evaluation.evaluator import Evaluator


class Steps:
    """A piece of work of which every step is a score.

    Args:
        evaluator: knows what needs no pass.
        progress: told that the piece begins, how many scores are known, and of each pass.
        text: name of the piece.
        merged: the models that are scored, in order.
        splits: the sets that each of them is scored on, in order.
        record: outcomes of record are wanted, not those of a search.
    """

    def __init__(
        self,
        evaluator: Evaluator,
        progress: Progress,
        text: str,
        merged: Sequence[Merge],
        splits: Sequence[str] = (HELD_OUT,),
        *,
        record: bool = False,
    ) -> None:
        self._progress = progress
        wanted, memory = [(each, split) for each in merged for split in splits], evaluator.remembered
        had = [evaluator.has(each, split, record=record) for each, split in wanted]
        self._known = [
            own or (memory is not None and memory.knows(each, split, record=record))
            for own, (each, split) in zip(had, wanted, strict=True)
        ]
        count = sum(self._known)
        said = f" ({count} of {plural(len(wanted), 'score')} known)" if count > sum(had) else ""
        progress.stage(text + said, len(wanted) - count or None)
        self._left = iter(self._known)

    def done(self) -> None:
        """Says that the next score is there; one that was known is no step."""
        if not next(self._left, False):
            self._progress.advance()
