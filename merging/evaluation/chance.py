"""Whether a model is better than a guess on a few held-out samples: what a wrong setting makes of it is said at once.

Classes in another order, another normalisation, another activation raise no error; they make of every model a guesser.
So one model is scored on a few samples before anything else, and a warning names these where it is no better than the
guess that looks at no picture. Where another order of the classes would make it much better, that order is said.

The samples are drawn by seed, as many of each class as of the next, as far as there are. The guess gives the model's
own answers, each as often as the model does, whatever is shown: it is right on the sum over the classes of (share of
the answers) × (share of the samples). That is one over the classes where the draw is even. Where a class has a few
samples only, a model that finds them passes, one that answers the commonest class alone does not.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray

from merging.errors import Stopped, StopReason, showable
from merging.forward.device import batch_for
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.plugins.objective import Objective
from merging.plugins.progress import Progress, Silent
from merging.plugins.sequences import Sequences, in_batches
from merging.plugins.task import Split, Task
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.values.outcome import answered
from merging.values.recipe import Recipe
from merging.values.statistics import LEVEL
from merging.values.strata import by_class

SAMPLES = 256
"""Held-out samples that are scored."""
FEWEST = 20
"""Below so many nothing can be said."""
GAIN = 0.3
"""Share of samples that another order of the classes must gain before it is proposed."""
NAMED = 30
"""Classes that a proposed order lists at most."""


@dataclass(frozen=True, kw_only=True)
class Chance:
    """The answers of one model on a few held-out samples, compared with guessing.

    Attributes:
        model: its name.
        samples: number of samples that were scored.
        right: number of them that the model has right.
        guess: share that would be right were the same answers given whatever is shown.
        p: one-sided, of so many right answers or more by guessing (exact binomial).
        permuted: share that would be right were the outputs' classes in another order, as far as that holds on samples
            which did not choose it; None: that is not much more.
        order: this other order: for each output the class whose place it has; None: not every class was seen.
        questions: whether the classes are the choices of questions, which are in no order that could be wrong.
    """

    model: str
    samples: int
    right: int
    guess: float
    p: float
    permuted: float | None = None
    order: tuple[int, ...] | None = None
    questions: bool = False

    @property
    def suspicious(self) -> bool:
        """Whether there is anything to be said."""
        return self.p >= LEVEL or self.permuted is not None

    def warning(self, names: Sequence[str] = ()) -> str:
        """Words a warning in one line: how often the model is right, and which settings may be wrong.

        Args:
            names: names of the classes; where there are none, their numbers are said.
        """
        score = f"{self.model} is right on {self.right} of {self.samples} held-out samples"
        line = f"{score} ({_percent(self.right / self.samples)})"
        if self.p >= LEVEL:
            line += f", no better than a guess ({_percent(self.guess)}, p = {self.p:.2g})"
        if self.permuted is not None:
            order = "in another order"
            if self.order is not None and len(self.order) <= NAMED:
                order = "in the order " + ", ".join(showable(names[k]) if names else str(k) for k in self.order)
            return (
                f"{line}; with the classes {order} it would be right on {_percent(self.permuted)}: see [task] classes "
                "(where labels are numbers, list the present order as classes in the sets' tables)"
            )
        if self.questions:
            return (
                f"{line}: do the answers count from 0, is the prompt (template) the one that the models know, and are "
                "long choices at a disadvantage (length = 'bytes')?"
            )
        return (
            f"{line}: are the labels in the order of the model's outputs, is the normalisation (mean, std) the "
            "model's, and its activation (QuickGELU for OpenAI's CLIP)?"
        )


def against_chance(
    live: LiveModel,
    task: Task,
    objective: Objective | WholeModelObjective,
    numerics: Numerics,
    seed: int,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
) -> str | None:
    """Scores the pool's first model on a few held-out samples; counts nowhere and leaves no random number changed.

    Args:
        live: the model; its weights are overwritten.
        task: the data.
        objective: the run's objective.
        numerics: batch, threads and precision.
        seed: seed of the draw.
        progress: told how far this is.
        should_stop: asked between batches.

    Returns:
        A warning, also where classes are not named as the model has outputs; None where the model is better than a
            guess, where the objective is another than accuracy, and where outputs and labels are no classes.

    Raises:
        Stopped: the run was interrupted.
    """
    split = task.held_out
    if not isinstance(objective, Objective) or not objective.counts_hits:  # nobody knows what a guess scores otherwise
        return None
    if not _are_classes(split) or len(split) < FEWEST:
        return None
    progress = progress or Silent()
    chosen = drawn(split.labels.cpu().numpy(), SAMPLES, seed)
    labels = split.labels.cpu()[torch.from_numpy(chosen)].numpy()
    name = live.pool.names[0]
    progress.stage(f"looking whether {name} is better than a guess", len(chosen))
    live.load(Recipe.single(live.pool.ingredients[0], live.partition))
    answers = list[NDArray[np.int64]]()
    for rows in in_batches(split.inputs[torch.from_numpy(chosen)], numerics.batch):
        if should_stop():
            raise Stopped(StopReason.INTERRUPTED)
        with torch.inference_mode():
            outputs = live.module(batch_for(task, rows, numerics.device, live.dtype))
            if not isinstance(outputs, torch.Tensor) or outputs.ndim != 2 or outputs.shape[1] < 2:
                return None
            logits = split.project(outputs).float().cpu()
        if split.classes is None and int(split.labels.max()) >= logits.shape[1]:
            return None  # the evaluator says so
        answers.append(answered(logits).numpy())
        classes = logits.shape[1]
        progress.advance(len(rows))
    found = compared(name, np.concatenate(answers), labels, classes)
    if isinstance(split.inputs, Sequences):
        found = replace(found, permuted=None, order=None, questions=True)
    uneven = unnamed(task, classes)
    if not found.suspicious:
        return uneven
    if uneven is not None:
        return f"{uneven}; {found.warning()}"
    if split.classes is None:
        return found.warning(task.classes)
    own = [task.classes[outputs[0]] for outputs in split.classes if len(outputs) == 1 and task.classes]
    if len(own) < classes:  # places among a set's own classes are none among the model's
        found = replace(found, order=None)
    return found.warning(own)


def unnamed(task: Task, outputs: int) -> str | None:
    """Warns where not as many classes are named as the model has outputs; None where they are.

    Names that come from the data lack a class without a sample, and those after it move up: their labels are wrong.
    """
    count = len(task.classes)
    if not count or count == outputs or task.held_out.classes is not None:
        return None
    why = ": where one has no samples, the labels of those after it are wrong" if count < outputs else ""
    return (
        f"{count} classes are named, and the model has {outputs} outputs{why}; list all of them, in the order of the "
        "outputs, as [task] classes"
    )


def compared(model: str, answers: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> Chance:
    """Compares a model's answers with guessing, and with the same answers in another order of the classes.

    Args:
        model: its name.
        answers: the class of the largest logit, shape ``(N,)``; −1: none.
        labels: the right classes, shape ``(N,)``.
        classes: how many there are.
    """
    from scipy.stats import binomtest

    right, samples = int((answers == labels).sum()), len(labels)
    guess = _guessed(answers, labels, classes)
    p = float(binomtest(right, samples, guess, alternative="greater").pvalue)
    permuted = _permuted(answers, labels, classes)
    if permuted is None or permuted - right / samples <= GAIN:
        return Chance(model=model, samples=samples, right=right, guess=guess, p=p)
    meant = _meant(answers, labels, classes)
    order = np.empty(classes, np.int64)
    order[meant] = np.arange(classes)
    seen = len(np.unique(labels)) == classes
    return Chance(
        model=model,
        samples=samples,
        right=right,
        guess=guess,
        p=p,
        permuted=permuted,
        order=tuple(order.tolist()) if seen else None,
    )


def drawn(labels: NDArray[np.int64], count: int, seed: int) -> NDArray[np.int64]:
    """Places of ``count`` samples at most, drawn by seed: as many of each class as there are, up to the same number.

    >>> labels = np.array([0] * 90 + [1] * 10)
    >>> np.bincount(labels[drawn(labels, 20, seed=0)]).tolist()
    [10, 10]
    """
    mixed = np.random.default_rng([seed, len(labels), count]).permutation(len(labels))
    ordered, turns = by_class(labels, mixed)
    place = np.empty(len(labels), np.int64)
    place[mixed] = np.arange(len(labels))
    return np.sort(ordered[np.lexsort((place[ordered], turns))[:count]])


def _percent(share: float) -> str:
    """A share in percent, with a digit more where it is small: of many classes a guess is right on less than 1 %."""
    return f"{share:.1%}" if 0 < share < 0.02 else f"{share:.0%}"


def _guessed(answers: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float:
    """Share that would be right were the answers dealt to the samples at random, and at least one over the classes.

    Of one class alone every answer of it is right: there it is one over the classes.
    """
    shown = np.bincount(labels, minlength=classes) / len(labels)
    given = np.bincount(answers[answers >= 0], minlength=classes) / len(labels)
    return max(1 / classes, float(shown @ given) if shown.max() < 1 else 0.0)


def _are_classes(split: Split) -> bool:
    labels = split.labels
    return labels.ndim == 1 and not labels.is_floating_point() and int(labels.min()) >= 0


def _meant(answers: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> NDArray[np.int64]:
    """For each class the output that answers it best, each output once; where nothing speaks against it, its own."""
    from scipy.optimize import linear_sum_assignment

    matrix = np.zeros((classes, classes))
    known = answers >= 0
    np.add.at(matrix, (labels[known], answers[known]), 1)
    matrix[np.diag_indices(classes)] += 1e-3
    _, meant = linear_sum_assignment(matrix, maximize=True)
    return np.asarray(meant, dtype=np.int64)


def _permuted(answers: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float | None:
    """Share that is right in the best order of the classes, each half judged by the order that the other half chooses.

    With few samples a class some order always fits what was seen: it must hold where it was not chosen. Classes with
    one sample are in one half alone, and say nothing for an order. None: no class has two.
    """
    if classes > len(labels):  # at most a few of them are seen twice; and the assignment would take long
        return None
    ordered, turns = by_class(labels)
    halves = np.empty(len(labels), bool)
    halves[ordered] = turns % 2 == 0
    right = 0
    for chooses in (halves, ~halves):
        meant = _meant(answers[chooses], labels[chooses], classes)
        right += int((answers[~chooses] == meant[labels[~chooses]]).sum())
    return right / len(labels)
