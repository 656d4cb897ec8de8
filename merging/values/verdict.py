"""What a paired test says of a model on one set, and how the tests of a whole table are corrected.

A verdict is a value: terminal, card, JSON, Markdown, CSV, LaTeX and page read the same ones, and none of them reads
another's text. Its words and marks stand here, once.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from enum import StrEnum
from typing import Any

from merging.values.formats import check_types
from merging.values.shown import Sheet, Shown
from merging.values.statistics import (
    LEVEL,
    Comparison,
    Interval,
    PairedTest,
    agreeing,
    holm_levels,
    mcnemar,
    normal_quantile,
)
from merging.values.units import ACCURACY as ACCURACY
from merging.values.units import after, is_percent, steps_in, unit
from merging.values.wording import plural


class Role(StrEnum):
    """The part that a set, or an average of sets, plays in a comparison."""

    HELD_OUT = "held-out"
    CERTIFY = "certify"
    TEST = "test"
    SHIFT = "shift"
    AVERAGE = "average of shifts"


class Family(StrEnum):
    """The family of a test: tests from which one conclusion could be picked are corrected together."""

    PRIMARY = "primary"
    """All methods on the plain test sets and on the average of the shifted ones."""
    SECONDARY = "secondary"
    """All methods on single shifted sets; and accuracies where another objective was asked for, among themselves."""
    SELECTION = "selection"
    """Held-out data chose the merge: optimistic, in no family, never corrected."""
    UNCHOSEN = "unchosen"
    """Held-out data that had no say in the merge: as good as a test set, but that they chose the single model."""
    CERTIFICATION = "certification"
    """Samples that selected nothing, asked once."""

    @classmethod
    def of(cls, role: Role, *, extra: bool = False) -> Family:
        """The family of a set's tests; ``extra``: of an accuracy beside another objective."""
        fixed = {Role.HELD_OUT: cls.SELECTION, Role.CERTIFY: cls.CERTIFICATION, Role.SHIFT: cls.SECONDARY}
        return fixed.get(role, cls.SECONDARY if extra else cls.PRIMARY)


class Standing(StrEnum):
    """The standing of a model against the one that it is compared with; its value is the word for it."""

    BETTER = "better"
    WORSE = "worse"
    NEITHER = "neither"
    NOT_TESTED = "not tested"
    REFERENCE = "reference"
    """There is no verdict to be had: it is what the others are compared with."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Verdict(Shown):
    """The verdict on one model against a reference, on one set, by one measure.

    Attributes:
        set: the set's name.
        role: what it is there for.
        reference: the name of the row that it is compared with, such as ``best``.
        against: the same row in words, such as "the best single model (run4)".
        measure: ``accuracy``, or the objective's name.
        family: the tests that it was corrected with.
        difference: the model's score less the reference's: a fraction for accuracies; None where the model has
            no score to compare.
        interval: interval of the difference, at ``level``; None where nothing was tested.
        p: two-sided, of this test alone; None where nothing was tested.
        corrected: the same after Holm's correction over the family.
        level: level of the interval, 0.95 and above: 1 − 0.05/k, where k is what the correction has multiplied p by.
        tests: how many tests were corrected together.
        test: how it was tested.
        gained: samples that the reference has wrong and the model right (with seeds: the sum of the shares gained);
            None where nothing is counted.
        lost: the other way round.
        samples: how many there are.
        why: the reason where nothing was tested.
        extra: an accuracy that stands beside another objective, which is the one that counts.
        lower: a smaller score is the better one, so that a difference below 0 is a gain.
        comparison: what has been computed, while it is at hand; not kept in files.
    """

    set: str
    role: Role
    reference: str
    against: str
    measure: str
    family: Family
    difference: float | None = None
    interval: Interval | None = None
    p: float | None = None
    corrected: float | None = None
    level: float | None = None
    tests: int = 0
    test: PairedTest | None = None
    gained: float | None = None
    lost: float | None = None
    samples: int = 0
    why: str = ""
    extra: bool = False
    lower: bool = False
    comparison: Comparison | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        found: Comparison | str,
        *,
        set: str,
        role: Role,
        reference: str,
        against: str,
        measure: str,
        extra: bool = False,
        samples: int = 0,
    ) -> Verdict:
        """A verdict of its own, not corrected for any other test.

        Args:
            found: what was computed, or why nothing was.
            set: the set's name.
            role: what it is there for.
            reference: the name of the row that it is compared with.
            against: the same row in words.
            measure: ``accuracy``, or the objective's name.
            extra: an accuracy that stands beside another objective.
            samples: how many there are, where nothing was computed.
        """
        named: dict[str, Any] = {"set": set, "role": role, "reference": reference, "against": against, "extra": extra}
        named |= {"measure": measure, "family": Family.of(role, extra=extra)}
        if isinstance(found, str):
            return cls(**named, why=found, samples=samples)
        return cls(
            **named,
            difference=found.difference,
            interval=found.interval,
            p=found.p_value,
            corrected=found.p_value,
            level=1 - LEVEL,
            tests=1,
            test=found.test,
            gained=found.gained,
            lost=found.lost,
            samples=found.samples,
            comparison=found,
        )

    def _sheet(self) -> Sheet:
        return Sheet(name="Verdict", facts=(f"{title(self)}: {sentence(self)}",))

    @property
    def tested(self) -> bool:
        """Whether a test was made, so that the verdict has a p-value."""
        return self.p is not None

    @property
    def significant(self) -> bool:
        """Whether the difference is significant at the 5 % level, after the correction."""
        return self.corrected is not None and self.corrected < LEVEL

    @property
    def better(self) -> bool:
        """Whether the model is significantly better."""
        return self.significant and self._gain > 0

    @property
    def worse(self) -> bool:
        """Whether the model is significantly worse."""
        return self.significant and self._gain < 0

    @property
    def _gain(self) -> float:
        return (-1 if self.lower else 1) * (self.difference or 0.0)

    @property
    def percent(self) -> bool:
        """Whether the difference is in points."""
        return self.measure == ACCURACY

    def interval_at(self, alpha: float) -> Interval | None:
        """The interval at level 1 − ``alpha``; of a bootstrap that was read from a file, by normal quantiles."""
        if self.comparison is not None:
            return self.comparison.interval_at(alpha)
        if self.p is None or self.difference is None or self.interval is None or self.level is None:
            return None
        if self.test == PairedTest.MCNEMAR and self.gained is not None and self.lost is not None:
            found = mcnemar(int(self.gained), int(self.lost), self.samples, alpha)[1]
        else:
            wider = normal_quantile(alpha) / normal_quantile(1 - self.level)
            found = (
                self.difference - wider * (self.difference - self.interval[0]),
                self.difference + wider * (self.interval[1] - self.difference),
            )
        return agreeing(found, self.difference, significant=self.p < alpha)

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values; what follows from the others stands there too: ``verdict``, in a word."""
        interval = None if self.interval is None else list(self.interval)
        unsaid = {"comparison"} | ({"lower"} if not self.lower else set())  # which files of older versions lack, too
        kept = {name: getattr(self, name) for name in self.__dataclass_fields__ if name not in unsaid}
        words = {name: str(kept[name]) for name in ("role", "family")} | {"test": self.test and str(self.test)}
        return kept | words | {"interval": interval, "verdict": str(word(self))}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Verdict:
        """Makes the verdict from what :meth:`to_json` gave.

        Raises:
            KeyError, TypeError, ValueError: it is none.
        """
        values = {name: data[name] for name in cls.__dataclass_fields__ if name not in ("comparison", "lower")}
        check_types(cls, values)
        tested = () if values["p"] is None else ("difference", "interval", "corrected", "level", "test")
        counted = ("gained", "lost") if {values["gained"], values["lost"]} != {None} else ()
        for name in (*tested, *counted):
            if values[name] is None:
                raise ValueError(f"a verdict has no {name}")
        values["lower"] = bool(data.get("lower", False))
        values |= {"role": Role(data["role"]), "family": Family(data["family"])}
        values["test"] = None if data["test"] is None else PairedTest(data["test"])
        values["interval"] = None if data["interval"] is None else (data["interval"][0], data["interval"][1])
        return cls(**values)


def distinct(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """Leaves out what would stand twice: one shifted set is its own average, whose verdicts get the set's name."""
    verdicts = tuple(verdicts)
    shifts = {verdict.set for verdict in verdicts if verdict.role == Role.SHIFT}
    if len(shifts) != 1 or not any(verdict.role == Role.AVERAGE for verdict in verdicts):
        return verdicts
    (name,) = shifts
    kept = (verdict for verdict in verdicts if verdict.role != Role.SHIFT)
    return tuple(replace(verdict, set=name) if verdict.role == Role.AVERAGE else verdict for verdict in kept)


def counted(verdicts: Iterable[Verdict]) -> tuple[Verdict, ...]:
    """The verdicts that count for a conclusion: those on plain test sets and the average of the shifted ones.

    Where there are none: samples that selected nothing, else the held-out data, else single shifted sets. Accuracies
    beside another objective never count.
    """
    own = [verdict for verdict in distinct(verdicts) if not verdict.extra]
    orders = [(Family.PRIMARY,), (Family.CERTIFICATION,), (Family.SELECTION, Family.UNCHOSEN), (Family.SECONDARY,)]
    found = ([verdict for verdict in own if verdict.family in families] for families in orders)
    return tuple(next(filter(None, found), ()))


def corrected(rows: Sequence[Sequence[Verdict]]) -> list[tuple[Verdict, ...]]:
    """Corrects the verdicts of a table's rows by Holm: p and interval both, over all rows' tests of a family.

    Tests against another reference, and of another measure, are other families. What chose the merge, and what has
    certified it, is left as it is.

    Args:
        rows: the verdicts of each method.
    """
    families: dict[tuple[str, ...], list[tuple[int, int]]] = {}
    found = [list(row) for row in rows]
    for i, row in enumerate(found):
        for j, verdict in enumerate(row):
            if verdict.tested and verdict.family in (Family.PRIMARY, Family.SECONDARY):
                key = (verdict.family, verdict.reference, verdict.against, verdict.measure)
                families.setdefault(key, []).append((i, j))
    for places in families.values():
        levels = holm_levels([found[i][j].p or 0.0 for i, j in places])
        for (i, j), (p, alpha) in zip(places, levels, strict=True):
            verdict = found[i][j]
            found[i][j] = replace(
                verdict, corrected=p, interval=verdict.interval_at(alpha), level=1 - alpha, tests=len(places)
            )
    return [tuple(row) for row in found]


def unselected(verdicts: Iterable[Verdict], *, selected: bool) -> tuple[Verdict, ...]:
    """Verdicts on held-out data that had no say in the merge say so; ``selected``: they had one."""
    return tuple(
        replace(verdict, family=Family.UNCHOSEN) if verdict.family == Family.SELECTION and not selected else verdict
        for verdict in verdicts
    )


MARKS = {
    Standing.BETTER: "▲",
    Standing.WORSE: "▼",
    Standing.NEITHER: "",
    Standing.NOT_TESTED: "–",
    Standing.REFERENCE: "",
}
"""Standing of a model → the sign that a table shows."""


def word(verdict: Verdict | None) -> Standing:
    """Says in a word how the model of a verdict stands; ``REFERENCE`` where there is no verdict to be had."""
    if verdict is None:
        return Standing.REFERENCE
    if not verdict.tested:
        return Standing.NOT_TESTED
    return Standing.BETTER if verdict.better else Standing.WORSE if verdict.worse else Standing.NEITHER


def mark(verdict: Verdict | None) -> str:
    """Gives the sign that a table shows beside a score."""
    return MARKS[word(verdict)]


def legend(against: str) -> str:
    """Explains the marks of verdicts against a reference."""
    return (
        f"▲ better or ▼ worse than {against} (5 % level), no mark: no difference that can be told from luck, "
        f"{MARKS[Standing.NOT_TESTED]} not tested."
    )


def difference(verdict: Verdict) -> str:
    """The difference with its interval, in points or in the measure's own unit.

    >>> from merging.values.verdict import Family, Role, Verdict
    >>> told = {"set": "test", "role": Role.TEST, "reference": "best", "against": "x", "family": Family.PRIMARY}
    >>> difference(Verdict(**told, measure="accuracy", difference=-0.017, interval=(-0.0314, -0.0027), p=0.02))
    '-1.70 [-3.14, -0.27]'
    """
    if verdict.difference is None:
        return MARKS[Standing.NOT_TESTED]
    steps = steps_in(verdict.measure, verdict.difference, verdict.interval)
    shown = [f"{value:+{'.2f' if is_percent(verdict.measure) else '.4g'}}" for value in steps]
    first = f"{shown[0]}{after(verdict.measure)}"
    return f"{first} [{shown[1]}, {shown[2]}]" if verdict.interval is not None else first


def short(verdict: Verdict) -> str:
    """Difference, interval and p in as few characters as tell them apart: a decimal more where one would be zero.

    >>> from merging.values.verdict import Family, Role, Verdict
    >>> told = {"set": "test", "role": Role.TEST, "reference": "best", "against": "x", "family": Family.PRIMARY}
    >>> told |= {"measure": "accuracy"}
    >>> short(Verdict(**told, difference=0.0263, interval=(0.0157, 0.0349), p=0.0, corrected=0.0))
    '+2.6 [+1.6, +3.5] p<.001'
    >>> short(Verdict(**told, difference=0.0088, interval=(-0.0004, 0.02), p=0.064, corrected=0.064))
    '+0.88 [-0.04, +2.00] p=.064'
    """
    if verdict.difference is None:
        return MARKS[Standing.NOT_TESTED]
    values = [value + 0.0 for value in steps_in(verdict.measure, verdict.difference, verdict.interval)]
    if is_percent(verdict.measure):
        enough = (k for k in range(1, 4) if all(round(value, k) or not value for value in values))
        digits = next(enough, 4)
        shown = [f"{value:+.{digits}f}" for value in values]
    else:
        shown = [f"{value:+.3g}" for value in values]
    between = f" [{shown[1]}, {shown[2]}]" if verdict.interval is not None else ""
    return f"{shown[0]}{after(verdict.measure)}{between} {p_value(verdict.corrected)}".rstrip()


def p_value(p: float | None) -> str:
    """Writes p with two digits, and no more zeros than help.

    >>> p_value(0.0312), p_value(1e-7), p_value(1.0), p_value(0.067)
    ('p=.031', 'p<.001', 'p=1', 'p=.067')
    """
    if p is None:
        return ""
    if p < 0.001:
        return "p<.001"
    if p >= 0.995:
        return "p=1"
    return f"p={f'{p:.3f}' if p < 0.0995 else f'{p:.2f}'}".replace("=0.", "=.")


def compact(verdict: Verdict) -> str:
    """Mark, difference, interval and p in one cell; why there are none, where nothing was tested."""
    if not verdict.tested:
        return f"{MARKS[Standing.NOT_TESTED]} not tested"
    return f"{mark(verdict)} {difference(verdict)} {p_value(verdict.corrected)}".lstrip()


def title(verdict: Verdict) -> str:
    """The set's name, with the measure where it is an accuracy beside another objective."""
    return f"{verdict.set} ({ACCURACY})" if verdict.extra else verdict.set


def sentence(verdict: Verdict) -> str:
    """Says the verdict in words, without the set's name.

    The words "better", "worse", "not distinguishable" and "not tested" stand at the beginning.
    """
    if not verdict.tested:
        return f"{MARKS[Standing.NOT_TESTED]} not tested: {verdict.why}"
    head = {
        Standing.BETTER: f"better than {verdict.against}",
        Standing.WORSE: f"worse than {verdict.against}",
        Standing.NEITHER: f"not distinguishable from {verdict.against}",
    }[word(verdict)]
    shown, _, interval = difference(verdict).partition(" ")
    said = [f"{TESTS[verdict.test]}: {counts(verdict)}"] if verdict.test is not None else []
    said += [CAUTIONS[verdict.family]] if verdict.family in CAUTIONS else []
    beside = f" ({'; '.join(said)})" if said else ""
    size = f"{shown} {unit(verdict.measure).removeprefix('% ')} {interval}"
    return f"{mark(verdict)} {head}: {size}, {p_value(verdict.corrected)}{beside}".lstrip()


TESTS = {PairedTest.MCNEMAR: "McNemar", PairedTest.NORMAL: "normal", PairedTest.BOOTSTRAP: "bootstrap"}
"""Test → what tables call it."""


def counts(verdict: Verdict) -> str:
    """Says in words what a test has counted."""
    if verdict.test != PairedTest.MCNEMAR:
        return f"{verdict.samples:,} samples"
    return f"{verdict.gained:g} gained, {verdict.lost:g} lost of {verdict.samples:,}"


CAUTIONS = {
    Family.SELECTION: "optimistic, these samples chose the merge",
    Family.UNCHOSEN: "as good as a test set, these samples did not choose the merge, only the single model",
    Family.CERTIFICATION: "these samples selected nothing",
    Family.SECONDARY: "secondary",
}
"""Says of a family's tests what its reader should know."""


def sentences(verdicts: Iterable[Verdict]) -> list[tuple[str, Verdict]]:
    """The verdicts, each with its sets: those that were not tested, for one reason, are said at once."""
    found: dict[tuple[str, str], tuple[list[str], Verdict]] = {}
    for verdict in distinct(verdicts):
        key = ("", verdict.why) if not verdict.tested else (title(verdict), verdict.reference)
        found.setdefault(key, ([], verdict))[0].append(title(verdict))
    return [(", ".join(sets), verdict) for sets, verdict in found.values()]


def correction(verdicts: Iterable[Verdict]) -> str:
    """Explains how intervals and p values were corrected, above a table or below the sentences."""
    sizes: dict[tuple[Family, bool], int] = {}
    verdicts = distinct(verdicts)
    for verdict in verdicts:
        if verdict.tested and verdict.family in (Family.PRIMARY, Family.SECONDARY):
            kind = (verdict.family, verdict.extra)
            sizes[kind] = max(sizes.get(kind, 0), verdict.tests)
    if not sizes:
        return ""
    what = {
        (Family.PRIMARY, False): "of test sets and the average of shifts",
        (Family.SECONDARY, False): "of single shifted sets (secondary)",
        (Family.SECONDARY, True): "of accuracies (secondary)",
    }
    said = [f"{plural(count, 'test')} {what[kind]}" for kind, count in sizes.items()]
    if max(sizes.values()) == 1:
        return f"Intervals are at 95 %, nothing needs correcting: {' and '.join(said)}."
    rest = "; those on held-out data are not" if _any(verdicts, Family.SELECTION, Family.UNCHOSEN) else ""
    return f"Intervals and p are both corrected by Holm over {' and, apart, over '.join(said)}{rest}."


def selection(told: Mapping[str, Sequence[Verdict]]) -> str:
    """Says which merges held-out data chose, so that their scores there are optimistic, and which they did not.

    Args:
        told: what a method is called → its verdicts.
    """
    chosen = [label for label, own in told.items() if _any(own, Family.SELECTION)]
    free = [label for label, own in told.items() if _any(own, Family.UNCHOSEN)]
    but = "as good as a test set, but that they chose the single model"
    if chosen and free:
        return f"Held-out data chose {', '.join(chosen)}: optimistic there; for {', '.join(free)} they are {but}."
    if chosen:
        return f"Held-out data chose the merge{'s' if len(told) > 1 else ''}: scores there are optimistic."
    return f"Held-out data did not choose the merge{'s' if len(told) > 1 else ''}: they are {but}." if free else ""


def _any(verdicts: Iterable[Verdict], *families: Family) -> bool:
    return any(verdict.family in families for verdict in verdicts)
