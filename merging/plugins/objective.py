"""The interface of objectives that score logits."""

from __future__ import annotations

import inspect
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

from merging.errors import OptionError, StrategyError, TaskError
from merging.moved import forwarding
from merging.plugins.options import Plugin
from merging.plugins.sequences import Sequences
from merging.plugins.user_code import file_of, kind_of, named, number, running
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.storage.dtypes import dtype_name
from merging.values.units import ACCURACY

if TYPE_CHECKING:
    from torch import Tensor

    from merging.plugins.task import Split, Task


TAKES = ("any", "classes", "numbers", "tokens", "classes or tokens")
"""Words that an objective may say of the labels that it takes."""


@dataclass(frozen=True)
class Objective(Plugin):
    """Base of objectives: frozen dataclasses that score logits against labels, in terms a sample; larger is better.

    An objective has no loop and no device: the evaluator has those.

    Attributes:
        decomposable: whether the score of a split is the mean of the samples' terms.
        bounds: smallest and largest value of such a term, so that a threshold test may stop early; None: unbounded.
        takes: what the labels must be: ``classes``, one integer a sample; ``numbers``, which the outputs are compared
            with; ``tokens``, the number of those that are scored of a document, whose output is their log-likelihood;
            or ``any``. A task with others is refused.
        counts_hits: whether a term says that its sample is right, and no more; ``Outcome.correct`` says as much then.
        asks: what :meth:`reduce` is given besides the terms, by the names of its parameters: ``labels``, ``groups``.
    """

    decomposable: ClassVar[bool] = True
    bounds: ClassVar[tuple[float, float] | None] = None
    takes: ClassVar[str] = "any"
    counts_hits: ClassVar[bool] = False
    asks: ClassVar[tuple[str, ...]] = ()

    def __init_subclass__(cls, **settings: Any) -> None:
        super().__init_subclass__(**settings)
        if cls.takes not in TAKES:
            raise OptionError(f"objective {cls.__name__} takes '{cls.takes}'; {', '.join(TAKES)} are possible")
        cls.asks = _asked(cls)

    @abstractmethod
    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Per-sample terms, shape ``(N,)`` or ``(N, k)``, of logits ``(N, classes)`` and labels ``(N,)`` int64."""

    @abstractmethod
    def reduce(self, terms: Tensor, *more: Any, **named: Any) -> float:
        """The score of all samples' terms (on the CPU, in the split's order).

        A subclass declares what it takes: ``reduce(self, terms)``, ``reduce(self, terms, labels)``, or
        ``reduce(self, terms, labels, groups)``, where ``groups`` is int64 of shape ``(N,)``.
        """

    def measure_on(self, *, tokens: bool) -> str:
        """Says as what people read its scores (:mod:`merging.values.units`): its own name for most.

        Args:
            tokens: whether the samples are documents.
        """
        del tokens
        return ACCURACY if self.counts_hits else self.name

    def details(self, terms: Tensor, split: Split) -> list[tuple[str, str, float]]:
        """Scores that its score is made of, where it is a sum: what each is of, its measure, and its value.

        Args:
            terms: the terms of all samples, on the CPU.
            split: the samples.
        """
        del terms, split
        return []

    @property
    def inside(self) -> tuple[Objective, ...]:
        """Objectives that it is made of; of most there are none."""
        return ()

    def score(self, terms: Tensor, labels: Tensor, groups: Tensor | None = None, names: Sequence[str] = ()) -> float:
        """Scores terms by :meth:`reduce`, given what it asks for.

        Args:
            terms: terms of some samples, on the CPU.
            labels: labels of the same samples, on the CPU.
            groups: groups of the same samples, where the data names any.
            names: names of the groups, which sums over parts go by.

        Raises:
            TaskError: it asks for groups, and there are none.
        """
        if "groups" in self.asks and groups is None:
            raise TaskError(f"objective '{self.name}' scores groups, and the data name none")
        there = {"labels": labels, "groups": groups}
        return reduced(self, terms, **{name: there[name] for name in self.asks})

    def check(self, split: Split, name: str) -> None:
        """Refuses a set that it cannot score.

        Args:
            split: the samples.
            name: name of the set, for messages.

        Raises:
            TaskError: its labels are of another kind, or name no groups where groups are scored.
        """
        if split.counts_tokens and self.takes in ("classes", "numbers"):
            raise TaskError(
                f"objective '{self.name}' scores {self.takes}, but the samples of {name} are texts; take one for their "
                "tokens, such as `objective=nll`"
            )
        if self.takes == "tokens" and not split.counts_tokens:
            raise TaskError(f"objective '{self.name}' scores texts, and {name} has none")
        if isinstance(split.inputs, Sequences) and split.labels.ndim == 2 and self.takes != "any":
            raise TaskError(
                f"objective '{self.name}' scores samples of one kind, and {name} has documents and questions; take a "
                f"weighted sum over its parts, such as `objective=1*{(*split.group_names, 'SET')[0]}:nll + …`"
            )
        if self.takes in ("classes", "classes or tokens") and not (split.categorical or split.counts_tokens):
            kind, shape = dtype_name(split.labels), list(split.labels.shape)
            raise TaskError(
                f"objective '{self.name}' scores classes, but the labels of {name} are numbers ({kind}, shape "
                f"{shape}); take one for numbers, such as `objective=mse`"
            )
        if "groups" in self.asks and split.groups is None:
            raise TaskError(
                f"objective '{self.name}' scores groups, and {name} names none; give its table a column for them: "
                f'{{ path = "{name}.csv", group = "COLUMN" }}'
            )


def _asked(kind: type[Objective]) -> tuple[str, ...]:
    """Which of labels and groups its ``reduce`` takes.

    Raises:
        OptionError: it takes something else.
    """
    known = ("labels", "groups")
    found = [
        parameter
        for parameter in list(inspect.signature(kind.reduce).parameters.values())[2:]
        if parameter.kind not in (parameter.VAR_POSITIONAL, parameter.VAR_KEYWORD)
    ]
    for parameter in found:
        if parameter.kind == parameter.POSITIONAL_ONLY or (
            parameter.name not in known and parameter.default is parameter.empty
        ):
            raise OptionError(
                f"reduce of objective {kind.__name__} asks for '{parameter.name}'; it takes terms, and after them "
                "labels and groups, by these names"
            )
    return tuple(parameter.name for parameter in found if parameter.name in known)


def terms_of(objective: Objective, logits: Tensor, labels: Tensor) -> Tensor:
    """An objective's terms, a number or a row of numbers for each sample.

    Raises:
        PluginError: it fails; one line with its name, the error, its file and line.
        StrategyError: it returns something else.
    """
    who = named("objective", objective)
    with running(who, objective):
        terms = objective.terms(logits, labels)
    import torch

    numbers = isinstance(terms, torch.Tensor) and not terms.is_complex()
    if not numbers or terms.ndim not in (1, 2) or len(terms) != len(logits):
        raise StrategyError(
            f"{who}: terms returned {kind_of(terms)} for {len(logits)} samples; it gives a tensor of numbers, "
            f"[{len(logits)}] or [{len(logits)}, k]{file_of(objective)}"
        )
    return terms


def reduced(objective: Objective, terms: Tensor, **more: Tensor | None) -> float:
    """The score of terms, as a number.

    Raises:
        PluginError: it fails; one line with its name, the error, its file and line.
        StrategyError: it returns something else.
    """
    with running(named("objective", objective), objective):
        found = objective.reduce(terms, **more)
    return number(found, f"{named('objective', objective)}: reduce", objective)


def check_labels(objective: Objective | WholeModelObjective, task: Task, names: Iterable[str]) -> None:
    """Refuses an objective that cannot score a task's sets.

    Args:
        objective: objective of the run.
        task: the data.
        names: names of the sets that it is to score.

    Raises:
        TaskError: the labels of a set are numbers where it scores classes, or name no groups where it needs them.
    """
    if not isinstance(objective, Objective):
        return
    for name in names:
        objective.check(task.split(name), name)


def measure_of(objective: Objective | WholeModelObjective, task: Task) -> str:
    """Says as what people read an objective's scores of a task, one measure for all that is scored.

    Args:
        objective: objective of the run.
        task: the data.
    """
    if not isinstance(objective, Objective):
        return objective.name
    found = {objective.measure_on(tokens=split.counts_tokens) for split in (task.held_out, *task.tests.values())}
    return found.pop() if len(found) == 1 else objective.name


__getattr__ = forwarding(__name__)  # SplitView has moved
