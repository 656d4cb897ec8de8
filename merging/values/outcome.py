"""What one evaluation saw, what a search or a threshold test answered, and what it all has cost."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merging.moved import by_position
from merging.values.shown import Sheet, Shown
from merging.values.statistics import wilson

if TYPE_CHECKING:
    from torch import Tensor

WORST = -1e300
"""The score of what cannot be scored; finite, so that means and JSON can hold it."""


@by_position
@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Outcome(Shown):
    """The result of one forward pass over a whole split.

    Attributes:
        score: the objective's value, to be maximised (a fraction for accuracies).
        samples: number of samples.
        correct: packed bits, one a sample in the split's order (top-1 right or not), or None where the
            objective has no notion of it.
        seconds: what the pass took when it was made.
        passes: what it cost, as a share of a whole forward pass; less than 1 where it went on from kept activations.
        nan: samples for which the model answered NaN.
        terms: the objective's per-sample terms in the split's order, shape ``(samples,)`` or ``(samples, k)``; kept for
            what is compared in pairs, and None for the many outcomes of a search.
        loss: mean cross-entropy of the logits; kept for searches that tell points of one score apart by it.
        failed: why there is no result: whoever was asked for it died of it. Its score is the worst.
    """

    score: float
    samples: int
    correct: NDArray[np.uint8] | None = None
    seconds: float = 0.0
    passes: float = 1.0
    nan: int = 0
    terms: NDArray[Any] | None = None
    loss: float | None = None
    failed: str = ""

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Tells which samples are right, bool, shape ``(samples,)``."""
        if self.correct is None:
            raise ValueError("this objective keeps no per-sample correctness")
        return np.unpackbits(self.correct, count=self.samples).astype(bool)

    @property
    def right(self) -> int:
        """Number of samples classified correctly."""
        return int(self.hits.sum())

    @property
    def accuracy(self) -> float:
        """Top-1 accuracy, a fraction; equals ``score`` under the accuracy objective."""
        return self.right / self.samples

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval of the accuracy, see :func:`merging.values.statistics.wilson`."""
        return wilson(self.accuracy, self.samples)

    def _sheet(self) -> Sheet:
        facts = [f"score {self.score:.4g}" if is_score(self.score) else "no score"]
        if self.correct is not None:
            low, high = self.interval
            facts.append(f"{self.right:,} of {self.samples:,} right [{100 * low:.2f}, {100 * high:.2f}] %")
        else:
            facts.append(f"{self.samples:,} samples")
        facts += [f"NaN for {self.nan:,} of them"] if self.nan else []
        return Sheet(name="Outcome", facts=tuple(facts))

    def to_json(self) -> dict[str, Any]:
        """Gives all fields as JSON-ready values; the bits as base64."""
        bits = None if self.correct is None else base64.b64encode(self.correct.tobytes()).decode()
        rare: dict[str, Any] = {"nan": self.nan} if self.nan else {}
        if self.failed:
            rare["failed"] = self.failed
        if self.loss is not None:
            rare["loss"] = self.loss
        if self.terms is not None:
            rare["terms"] = _array_to_json(self.terms)
        return rare | {
            "score": self.score,
            "samples": self.samples,
            "correct": bits,
            "seconds": self.seconds,
            "passes": self.passes,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        """Makes the value from what :meth:`to_json` gave."""
        bits = data["correct"]
        correct = None if bits is None else np.frombuffer(base64.b64decode(bits), dtype=np.uint8)
        terms, loss = data.get("terms"), data.get("loss")
        return cls(
            score=float(data["score"]),
            samples=int(data["samples"]),
            correct=correct,
            seconds=float(data["seconds"]),
            passes=float(data.get("passes", 1.0)),
            nan=int(data.get("nan", 0)),
            terms=None if terms is None else _array_from_json(terms),
            loss=None if loss is None else float(loss),
            failed=str(data.get("failed", "")),
        )


def _array_to_json(values: NDArray[Any]) -> dict[str, Any]:
    whole = np.ascontiguousarray(values)
    return {"dtype": whole.dtype.str, "shape": list(whole.shape), "bytes": base64.b64encode(whole.tobytes()).decode()}


def _array_from_json(data: dict[str, Any]) -> NDArray[Any]:
    flat: NDArray[Any] = np.frombuffer(base64.b64decode(data["bytes"]), dtype=np.dtype(data["dtype"]))
    return flat.reshape(data["shape"]).copy()  # torch warns of tensors that share memory which may not be written


@dataclass
class Meter:
    """Counts what a strategy, or a whole run, has cost on the held-out data.

    Attributes:
        evaluations: distinct ones.
        cached: asked again and answered from memory.
        forward_equivalents: held-out passes made; forward and backward count as 3, parts as their share.
        seconds: time in these passes, also where a pass was made earlier and only looked up here.
    """

    evaluations: int = 0
    cached: int = 0
    forward_equivalents: float = 0.0
    seconds: float = 0.0


@dataclass(frozen=True)
class Decision:
    """Answer to "does this merge score above the threshold?", perhaps given before every sample was seen.

    Attributes:
        exceeds: the answer.
        samples_seen: samples that were looked at.
        within: smallest and largest score that these leave possible.
        passes: what it cost, as a share of a whole forward pass.
        outcome: the whole outcome, where every sample was seen.
    """

    exceeds: bool
    samples_seen: int
    within: tuple[float, float] = (WORST, -WORST)
    passes: float = 0.0
    outcome: Outcome | None = None

    def facts(self, name: str) -> dict[str, Any]:
        """Says what is known of the score, for ``problem.decide``: itself, or a bound and by how many samples.

        Args:
            name: what the score is called, such as ``average``.
        """
        if self.outcome is not None:
            return {name: self.outcome.score}
        bound = {f"{name}_at_least": self.within[0]} if self.exceeds else {f"{name}_at_most": self.within[1]}
        return {**bound, "samples_seen": self.samples_seen}

    def to_json(self) -> dict[str, Any]:
        """Gives the answer and what it is known by, as JSON-ready values; an outcome is kept as one."""
        return {
            "exceeds": self.exceeds,
            "samples_seen": self.samples_seen,
            "within": list(self.within),
            "passes": self.passes,
        }

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Decision:
        """Makes the value from what :meth:`to_json` gave.

        Raises:
            ValueError: it is not what it gave.
        """
        least, most = (float(score) for score in data["within"])
        exceeds, seen = data["exceeds"], data["samples_seen"]
        if not isinstance(exceeds, bool) or not isinstance(seen, int):
            raise ValueError("not a decision")
        return cls(exceeds, seen, (least, most), float(data["passes"]))


@dataclass(frozen=True, repr=False)
class Solution(Shown):
    """The end of a derivative-free search: its best point, and why it went no further.

    Attributes:
        x: best point seen, shape ``(dimensions,)``.
        score: its score.
        asked: points the optimiser asked for, repeats included.
        stopped: why it ended.
    """

    x: NDArray[np.float64]
    score: float
    asked: int
    stopped: str

    def _sheet(self) -> Sheet:
        facts = (f"score {self.score:.4g}", f"{len(self.x)} dimensions", f"{self.asked} points asked", self.stopped)
        return Sheet(name="Solution", facts=facts)


def answered(logits: Tensor) -> Tensor:
    """The class that a model answers for each sample: that of its largest logit, −1 where one of them is NaN.

    Args:
        logits: ``(N, classes)``.

    Returns:
        int64 ``(N,)``.
    """
    return logits.argmax(dim=1).masked_fill(logits.isnan().any(dim=1), -1)


def top1(logits: Tensor, labels: Tensor) -> Tensor:
    """Whether each sample's largest logit is its label's; a sample with a NaN among its logits is wrong.

    Args:
        logits: ``(N, classes)``.
        labels: int64 ``(N,)``, 0 or more.

    Returns:
        bool ``(N,)``.
    """
    right: Tensor = answered(logits) == labels
    return right


def is_score(value: float) -> bool:
    """Whether a score, or a mean of some, has no part in what could not be scored."""
    return value > WORST / 1e9


def unscored(outcomes: Mapping[str, Outcome], objective: str) -> str:
    """Says on which sets a model answers NaN, or its score is no number; empty where neither is.

    Args:
        outcomes: set → what was seen there.
        objective: what the score is.
    """
    said = [f"NaN for {o.nan:,} of {o.samples:,} samples ({name})" for name, o in outcomes.items() if o.nan]
    said += [f"no finite {objective} ({name})" for name, o in outcomes.items() if o.score == WORST and not o.nan]
    return ", ".join(said)
