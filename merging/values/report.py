"""The report of a run: rows and verdicts that every renderer reads."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from merging.values.formats import REPORT
from merging.values.leaderboard import Single
from merging.values.outcome import is_score
from merging.values.shown import Sheet, Shown
from merging.values.spread import Spread
from merging.values.states import RunState, status_of, worded
from merging.values.sums import in_order
from merging.values.units import TOKENS, written
from merging.values.verdict import (
    ACCURACY,
    MARKS,
    Role,
    Standing,
    Verdict,
    sentence,
    sentences,
)
from merging.values.views import ReportViews
from merging.values.wording import plural, some
from merging.values.workers import WorkerFacts

HELD_OUT = str(Role.HELD_OUT)
UNTESTED = "a run tests the strategy that it was asked for"
SMALL_SAMPLE = 1000
"""Below this many held-out samples a selection by accuracy is easily luck."""


@dataclass(frozen=True, kw_only=True, repr=False)
class Row(Shown):
    """One strategy's line in the table of a report.

    Attributes:
        strategy: its name.
        label: what the table calls it.
        held_out: score on the data that selected it (optimistic for what was selected).
        tests: name → score by the objective; accuracies are fractions.
        shifted: mean over the shifted sets, or None without any.
        ingredients: names of the models in it.
        evaluations: distinct held-out evaluations it would have needed alone.
        cached: asked again and answered from memory.
        forward_equivalents: held-out passes, backward counted as two.
        seconds: what these evaluations and its own work took.
        inference_cost: forward passes for each sample: 1, or the members of an ensemble.
        accuracies: set → top-1 accuracy, a fraction, beside another objective and where the labels are classes.
        digest: the same for merges that give the same outputs, in runs and benchmarks of any partition and numerics.
        coefficients: how far the coefficients of a linear merge went; None of others, and in earlier reports.
    """

    strategy: str
    label: str
    held_out: float
    tests: Mapping[str, float]
    shifted: float | None
    ingredients: tuple[str, ...]
    evaluations: int
    cached: int
    forward_equivalents: float
    seconds: float
    inference_cost: int = 1
    accuracies: Mapping[str, float] = field(default_factory=dict)
    digest: str = ""
    coefficients: Spread | None = None

    def _sheet(self) -> Sheet:
        scores = {HELD_OUT: self.held_out, **self.tests}
        said = [f"{name} {number(value, percent=False)}" for name, value in scores.items()]
        facts = (self.named, some(said, 6), plural(len(self.ingredients), "model"), self.told_coefficients)
        return Sheet(name="Row", facts=facts)

    @property
    def told_coefficients(self) -> str:
        """Says how far the coefficients went; empty of plain averages, and where it is not known."""
        return "" if self.coefficients is None or self.coefficients.even else self.coefficients.words()

    @property
    def named(self) -> str:
        """The label, and of the best single model which one it is."""
        return f"{self.label} ({', '.join(self.ingredients)})" if self.strategy == "best" else self.label


@dataclass(frozen=True)
class Certificate:
    """Whether held-out samples that selected nothing accept the merge: it must beat the best single model there.

    Attributes:
        samples: how many accepted; the others selected.
        best_single: the best single model's score on them (best on the samples that selected).
        merged: the merge's score.
        accepted: whether the merge was written; the best single model was otherwise.
    """

    samples: int
    best_single: float
    merged: float
    accepted: bool


@dataclass(frozen=True, kw_only=True, repr=False)
class Report(ReportViews):
    """All that is known about a finished (or interrupted) run; ``to_json`` is ``report.json``.

    Attributes:
        state: how it has ended; ``status`` says it in words, as ``report.json`` does.
        saved: strategy of the row whose merge was written, and which ``ingredients`` and ``content_hash`` are of: the
            one that was asked for, unless a baseline was better when the run was interrupted, or certifying refused it.
        best_single_name: the best single model on the held-out data, once the models were ranked.
        verdicts: verdicts on the strategy that was asked for against the best single model: one for each set, one for
            the average of the shifted ones.
        measure: what they compare: ``accuracy``, or the objective's name.
        samples: set → number of samples.
        limit: the evaluations that it was allowed, where these are used up.
        leaderboard: the models of the pool, best held-out score first; none where nothing was scored.
        doubt: the warning that a model is no better than a guess, which is a note too; empty where there is none.
        workers: the workers that have evaluated, those that were lost too; none where this process did it alone.
    """

    strategy: str
    options: Mapping[str, Any]
    partitioner: str
    optimizer: str
    objective: str
    task: str | None
    state: RunState
    seed: int
    components: int
    active_components: int
    component_names: tuple[str, ...]
    pool: tuple[str, ...]
    ingredients: tuple[str, ...]
    evaluations: int
    cached: int
    forward_equivalents: float
    wall_seconds: float
    peak_memory_bytes: int
    held_out_samples: int
    shifts: tuple[str, ...]
    numerics: Mapping[str, Any]
    versions: Mapping[str, str]
    content_hash: str
    top_single: float | None = None
    rows: tuple[Row, ...] = ()
    verdicts: tuple[Verdict, ...] = ()
    decisions: tuple[Mapping[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    certificate: Certificate | None = None
    inference_cost: int = 1
    ensemble: bool = False
    saved: str = ""
    best_single_name: str | None = None
    measure: str = ACCURACY
    samples: Mapping[str, int] = field(default_factory=dict)
    limit: int | None = None
    leaderboard: tuple[Single, ...] = ()
    doubt: str = ""
    workers: tuple[WorkerFacts, ...] = ()

    def __post_init__(self) -> None:
        """What is saved is the strategy's merge unless another row is named."""
        if not self.saved:
            object.__setattr__(self, "saved", self.strategy)

    @property
    def status(self) -> str:
        """The state in words: ``finished``, ``interrupted``, or which limit was reached."""
        return status_of(self.state, self.limit)

    @property
    def written(self) -> Row | None:
        """The row whose merge was written; None where nothing was scored."""
        return next((row for row in self.rows if row.strategy == self.saved), None)

    @property
    def saved_instead(self) -> str:
        """Says which other merge than the strategy's was written, and why; empty where it is the strategy's own."""
        if self.saved == self.strategy:
            return ""
        row = self.written
        said = f"the {row.named}" if row is not None else self.saved
        if self.certificate is not None and not self.certificate.accepted:
            return f"{said}, because {self.strategy} was refused on samples that selected nothing"
        if self.state is RunState.FINISHED:
            return f"{said}, not the merge by {self.strategy}"
        limited = self.state is RunState.LIMIT
        when = f"--max-evaluations {self.limit} was reached" if limited else "the run was interrupted"
        if self.merged is None:
            return f"{said}: {self.strategy} had no result yet when {when}"
        return f"{said}, which was better than {self.strategy} when {when}"

    @property
    def merged(self) -> Row | None:
        """The row of the strategy that was asked for; None where it had no result yet."""
        return next((row for row in self.rows if row.strategy == self.strategy), None)

    @property
    def best_single(self) -> Row | None:
        """The row of the best single model."""
        return next((row for row in self.rows if row.strategy == "best"), None)

    def is_best_single(self, row: Row) -> bool:
        """Whether a row's merge is the best single model itself: by its digest, or as the only model in it."""
        single = self.best_single
        same = single is not None and bool(row.digest) and row.digest == single.digest
        unlike = row is self.merged and any(verdict.difference for verdict in self.verdicts)
        return not unlike and (same or row.ingredients == (self.best_single_name,))

    @property
    def made_of(self) -> str:
        """Says in words how many models are in the merge, such as "3 of 4 models and the base"."""
        count = models_of(self.ingredients, self.pool)
        return f"{count} of {len(self.pool)} models" + (" and the base" if count < len(self.ingredients) else "")

    def to_json(self) -> dict[str, Any]:
        """JSON-ready values; scores are fractions, seconds and bytes as named."""
        data = {"format": REPORT, **worded(asdict(replace(self, verdicts=())))}
        data["verdicts"] = [verdict.to_json() for verdict in self.verdicts]
        data["best_single"] = data.pop("best_single_name")
        merged, single = self.merged, self.best_single
        data["validation"] = {
            "best_single": single.held_out if single else self.top_single,
            "merged": merged.held_out if merged else None,
        }
        names = list(merged.tests) if merged else []
        data["tests"] = {
            name: {"best_single": single.tests.get(name) if single else None, "merged": merged.tests[name]}
            for name in names
            if merged
        }
        return data

    def verdict(self) -> list[str]:
        """A sentence a set: whether the difference from the best single model can be told from chance (paired)."""
        return [*(f"{sets}: {sentence(verdict)}" for sets, verdict in sentences(self.verdicts)), *self.remarks()]

    def remarks(self) -> list[str]:
        """Says of the rows whether the merge was accepted, and which ones were not compared; a line each."""
        lines = [] if self.certificate is None else [self.certificate_line(self.certificate)]
        if self.untested:
            lines.append(
                f"{', '.join(self.untested)}: {MARKS[Standing.NOT_TESTED]} not tested; merge benchmark tests them all"
            )
        return lines

    @property
    def untested(self) -> tuple[str, ...]:
        """Rows that are compared with nothing: a run tests the strategy that it was asked for."""
        return tuple(row.label for row in self.rows if row.strategy not in ("best", self.strategy))

    def certificate_line(self, found: Certificate) -> str:
        """Says whether the samples that selected nothing accepted the merge."""
        against = f"{found.best_single:.4f} of {best_single(self.best_single_name)}"
        scores = f"{found.merged:.4f} against {against} on {found.samples} samples that selected nothing"
        return f"accepted: {scores}" if found.accepted else f"refused: {scores}; that model was written instead"


def number(value: float | None, *, percent: bool, measure: str = "") -> str:
    """An accuracy in percent with two decimals, other scores with four digits; NaN where there is none, – unscored.

    Args:
        value: the score.
        percent: whether it is an accuracy.
        measure: what it is otherwise; of texts the perplexity is shown.
    """
    if value is None:
        return "–"
    if not is_score(value):
        return "NaN"
    return written(ACCURACY if percent else measure, value)


def scored(value: float | None, measure: str = ACCURACY) -> str:
    """A score with its unit: an accuracy in percent, of texts the perplexity, others as :func:`number` writes them.

    >>> scored(0.9325), scored(-0.25, "nll"), scored(None), scored(-2.0, "token-nll")
    ('93.25 %', '-0.25', '–', 'perplexity 7.39')
    """
    percent = measure == ACCURACY
    text = number(value, percent=percent, measure=measure)
    if value is None or not is_score(value):
        return text
    return f"{text} %" if percent else f"perplexity {text}" if measure == TOKENS else text


def best_single(name: str | None) -> str:
    """The best single model, and which one it is where that is known."""
    return "the best single model" + (f" ({name})" if name else "")


def in_words(reference: str, ingredients: Sequence[str]) -> str:
    """Names a row in words, for sentences that compare others with it.

    Args:
        reference: the name of its method.
        ingredients: the models in it.
    """
    if reference == "best":
        return best_single(ingredients[0] if len(ingredients) == 1 else None)
    return "the greedy soup" if reference == "greedy" else reference


def models_of(ingredients: Iterable[str], pool: Iterable[str]) -> int:
    """Counts the models of the pool that a merge has; the base is none of them."""
    return len(set(ingredients) & set(pool))


def average(values: Sequence[float]) -> float | None:
    """Averages values; None where there is none."""
    return in_order(values) / len(values) if values else None
