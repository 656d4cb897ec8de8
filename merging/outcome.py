"""What one evaluation saw, and how two of them on the same samples compare."""

from __future__ import annotations

import base64
import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Outcome:
    """The result of one forward pass over a whole split.

    Attributes:
        score: the objective's value, to be maximised (a fraction for accuracies).
        samples: number of samples.
        correct: packed bits, one a sample in the split's order (top-1 right or not), or None where the
            objective has no notion of it.
        seconds: what the pass took when it was made.
        passes: what it cost, as a share of a whole forward pass; less than 1 where it went on from kept activations.
    """

    score: float
    samples: int
    correct: NDArray[np.uint8] | None = None
    seconds: float = 0.0
    passes: float = 1.0

    @property
    def hits(self) -> NDArray[np.bool_]:
        """Per-sample correctness, shape ``(samples,)``."""
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
        """95 % interval of the accuracy (Wilson 1927, https://doi.org/10.2307/2276774)."""
        from scipy.stats import binomtest

        found = binomtest(self.right, self.samples).proportion_ci(0.95, method="wilson")
        return float(found.low), float(found.high)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values; the bits as base64."""
        bits = None if self.correct is None else base64.b64encode(self.correct.tobytes()).decode()
        return {
            "score": self.score,
            "samples": self.samples,
            "correct": bits,
            "seconds": self.seconds,
            "passes": self.passes,
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Outcome:
        """Reads :meth:`to_json` back."""
        bits = data["correct"]
        correct = None if bits is None else np.frombuffer(base64.b64decode(bits), dtype=np.uint8)
        return cls(
            float(data["score"]), int(data["samples"]), correct, float(data["seconds"]), float(data.get("passes", 1.0))
        )


@dataclass
class Meter:
    """What a strategy, or a whole run, has cost on the held-out data.

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
    """Answer to "does this merge score above the threshold?", perhaps given before every sample was seen."""

    exceeds: bool
    samples_seen: int


@dataclass(frozen=True)
class Solution:
    """Where a derivative-free search ended.

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


@dataclass(frozen=True)
class Paired:
    """Two outcomes on the same samples: McNemar's exact test on the samples where they disagree.

    Attributes:
        gained: wrong before, right after.
        lost: right before, wrong after.
        samples: number of samples.
        p_value: two-sided exact binomial p (McNemar 1947); 1 when nothing changed.
        interval: 95 % interval of the difference in accuracy, which excludes 0 just where p < 0.05 (:func:`mcnemar`).
    """

    gained: int
    lost: int
    samples: int
    p_value: float
    interval: tuple[float, float]

    @property
    def difference(self) -> float:
        """Gain in accuracy, a fraction."""
        return (self.gained - self.lost) / self.samples

    @property
    def distinguishable(self) -> bool:
        """Whether the difference is significant at the 5 % level."""
        return self.p_value < 0.05

    def sentence(self, than: str) -> str:
        """The comparison in words, ``than`` naming what came before."""
        word = "distinguishable" if self.distinguishable else "not distinguishable"
        low, high = (100 * bound for bound in self.interval)
        return (
            f"{self.gained - self.lost:+d} of {self.samples} right ({self.gained} gained, {self.lost} lost; "
            f"{100 * self.difference:+.2f} points, 95 % interval {low:+.2f} to {high:+.2f}): "
            f"{word} from {than} (McNemar p = {self.p_value:.2g})"
        )


def compare(before: Outcome, after: Outcome) -> Paired:
    """Compares two outcomes on the same samples.

    >>> bits = lambda *b: np.packbits(np.array(b, dtype=bool))
    >>> pair = compare(Outcome(0.5, 4, bits(1, 1, 0, 0)), Outcome(0.75, 4, bits(1, 0, 1, 1)))
    >>> pair.gained, pair.lost, pair.p_value
    (2, 1, 1.0)
    """
    if before.samples != after.samples:
        raise ValueError(f"outcomes on {before.samples} and {after.samples} samples cannot be paired")
    old, new = before.hits, after.hits
    gained, lost, n = int((new & ~old).sum()), int((old & ~new).sum()), before.samples
    p, interval = mcnemar(gained, lost, n)
    return Paired(gained, lost, n, p, interval)


def mcnemar(gained: int, lost: int, samples: int) -> tuple[float, tuple[float, float]]:
    """McNemar's exact test (1947), and a 95 % interval of the difference in accuracy that agrees with it.

    The interval is Tango's score interval (1998, https://doi.org/10.1002/(SICI)1097-0258(19980430)17:8<891::AID-SIM780>
    3.0.CO;2-B), widened where the exact test's own is wider: that of the share of gains among the changed samples, by
    Clopper and Pearson (1934). So it excludes 0 just where p < 0.05, and does not take the number of changed samples
    for certain.

    >>> p, (low, high) = mcnemar(9, 2, 800)
    >>> round(p, 4), round(100 * low, 2), round(100 * high, 2)
    (0.0654, -0.05, 1.9)
    """
    from scipy.stats import binomtest

    low, high = _tango(gained, lost, samples), -_tango(lost, gained, samples)
    changed = gained + lost
    if not changed:
        return 1.0, (low, high)
    test = binomtest(gained, changed, 0.5)
    shares = test.proportion_ci(0.95, method="exact")
    own = [float(2 * share - 1) * changed / samples for share in shares]
    return float(test.pvalue), (min(low, own[0]), max(high, own[1]))


def _tango(gained: int, lost: int, samples: int) -> float:
    """The lower end of Tango's interval: where the score test of "the difference is δ" gives z = 1.96."""
    from scipy.optimize import brentq

    def z(delta: float) -> float:
        # maximum likelihood of the probability of a loss, given the difference
        b = (2 * samples - gained + lost) * delta - gained - lost
        root = b * b + 8 * samples * lost * delta * (1 - delta)  # (2·samples − 2·lost)² at δ = −1: never below 0
        lose = (math.sqrt(max(root, 0.0)) - b) / (4 * samples)
        variance = samples * (2 * lose + delta * (1 - delta))
        return (gained - lost - samples * delta) / math.sqrt(max(variance, 1e-300)) - 1.959963984540054

    top = (gained - lost) / samples
    return -1.0 if z(-1 + 1e-12) <= 0 else float(brentq(z, -1 + 1e-12, top, xtol=1e-12))
