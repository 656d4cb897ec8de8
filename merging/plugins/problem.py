"""What a strategy is given to work with."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

import numpy as np

from merging.moved import forwarding
from merging.plugins.ahead import Announced
from merging.plugins.scores import Scores
from merging.plugins.searches import Searches
from merging.plugins.slopes import Slopes
from merging.values.outcome import Outcome
from merging.values.partition import Partition
from merging.values.recipe import Merge, Recipe, Weights

if TYPE_CHECKING:
    from torch import Tensor

    from merging.plugins.options import Plugin
    from merging.plugins.progress import Progress
    from merging.storage.pool import ModelPool

T = TypeVar("T")


class Problem(Protocol):
    """The pool that a strategy merges, and the ways to score a merge; :meth:`MixStrategy.mix` is given it.

    Everything that is evaluated is counted, journalled and cached at one door. Where the strategy's ``needs`` hold
    neither ``model`` nor ``objective``, there may be no task, and nothing can be evaluated.

    What only some strategies need stands behind ``scores``, ``search`` and ``slopes``, each there where the strategy's
    ``needs`` say so; asking for one that they do not hold is a :class:`RequirementError` that says what to add.
    """

    @property
    def pool(self) -> ModelPool:
        """The checkpoints to merge."""

    @property
    def partition(self) -> Partition:
        """The components, one coefficient each; ``partition.active`` are those worth searching."""

    @property
    def blocks(self) -> Mapping[str, Sequence[str]]:
        """The network's blocks in the order of its depth, stem first, head last: name → its tensors.

        As the partitioner ``block`` finds them, whatever the partition is; tied tensors stand where their first is.
        """

    @property
    def generator(self) -> np.random.Generator:
        """The seeded generator of random numbers: the only source of randomness that a strategy may use."""

    @property
    def progress(self) -> Progress:
        """The receiver of news: tell it what is being done and how far that is (:class:`merging.Progress`)."""

    def single(self, index: int) -> Recipe:
        """The recipe of one model as it is; ``index`` counts the pool's models from 0, in pool order."""

    def mean(self, indices: Sequence[int]) -> Recipe:
        """The recipe of the uniform average of some models; ``indices`` count the pool's models from 0."""

    def weights(
        self,
        strategy: Plugin,
        combine: Callable[[str, list[Tensor], Tensor | None], Tensor],
        *,
        base: bool = True,
    ) -> Weights:
        """A merge that no recipe can express, computed tensor by tensor.

        Integer and boolean tensors and those of frozen components come from the first model.

        Args:
            strategy: the strategy that makes it; its name and options are kept with the result.
            combine: takes a tensor's name, that tensor in every model of the pool, in pool order, and in the base
                (None without one), all float64; returns the merged tensor, of the same shape.
            base: whether the base is an ingredient; False hands None to ``combine`` in its place.

        Raises:
            StrategyError: ``combine`` returns something else; where there is no task, not before the merge is written.
            TypeError: the arguments are no strategy and function.
        """

    def evaluate(self, merged: Merge) -> Outcome:
        """Scores a merge on the held-out data; answered from memory where the same merge was scored before.

        Raises:
            RequirementError: there is no task.
            Stopped: the run was interrupted or has used up its evaluations; let it pass.
            TypeError: it is no merge.
        """

    def rank(self) -> list[tuple[int, Outcome]]:
        """Scores every model of the pool: (index in the pool, outcome), best first, ties in pool order.

        Raises:
            RequirementError: there is no task.
            Stopped: the run was interrupted or has used up its evaluations; let it pass.
        """

    @property
    def scores(self) -> Scores:
        """Logits, labels and the objective of given logits; there where ``needs`` hold ``model`` or ``objective``."""

    @property
    def search(self) -> Searches:
        """Mixing factors to search over, and the user's optimizer; there where ``needs`` hold ``objective``."""

    @property
    def slopes(self) -> Slopes:
        """Gradients and batches; there where ``needs`` hold ``gradients`` or ``per_sample_gradients``."""

    def ahead(self, items: Iterable[Announced]) -> None:
        """Says what will probably be asked next, in that order, in the place of what was said before.

        Where a run has workers, idle ones make it beforehand; what is never asked for is thrown away, and decides,
        counts and journals nothing. Without workers nothing happens, and ``items`` is not gone through.

        Args:
            items: merges, attempts (:class:`merging.Attempt`), or pieces as ``partial(function, name=value, …)``; may
                be a generator, which is gone through as far as there is use for it, perhaps later.
        """

    def apart(self, function: Callable[..., T], **given: Any) -> T:
        """Runs ``function(problem, **given)``: a piece of the strategy that asks for many scores one after the other.

        Where a run has workers, one of them runs it too, with a problem of its own, and the piece takes the outcomes
        that were made there. So the function must do the same each time, draw no numbers from ``generator``, and leave
        decisions and ``keep`` to its caller.

        Args:
            function: a function or a method of the strategy; its first argument is the problem.
            given: the other arguments; values that can be copied into another process.

        Returns:
            What it returns.
        """

    def decide(self, **facts: Any) -> None:
        """Journals a decision and shows it; ``accepted=`` says which way it went."""

    def keep(self, recipe: Recipe, outcome: Outcome) -> None:
        """Tells the core the best merge so far and its held-out outcome: what an interrupted run saves."""


__getattr__ = forwarding(__name__)  # Path and Blend have moved
