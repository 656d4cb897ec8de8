"""Advice where a merge cannot help, or where an answer is uncertain: each from a fact, each with what to do."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from statistics import median

from merging.values.report import SMALL_SAMPLE, Report, Row, scored
from merging.values.states import RunState
from merging.values.statistics import LEVEL, normal_quantile
from merging.values.units import is_percent
from merging.values.units import unit as unit_of
from merging.values.verdict import ACCURACY, Family, Role, Standing, Verdict, counted, distinct
from merging.values.wording import plural, some

POWER = 0.8
"""Share of cases in which a detectable difference is found."""
FAR = 0.05
"""An accuracy that lies so far below the median single model's is no noise of a held-out set."""


def advice_of(report: Report, standing: Standing) -> tuple[str, ...]:
    """Collects what is to be said of a run beside its verdicts.

    Args:
        report: the run's report.
        standing: how the merge stands.
    """
    row = report.merged
    if row is None or not report.rows:
        return ()
    found = [report.doubt] if report.doubt else []
    if report.state is not RunState.FINISHED:
        found.append(f"the run ended early ({report.status}): what it says is of the best so far")
    averages = {other.label: other.held_out for other in report.rows if other.strategy == "uniform"}
    singles = [single.held_out for single in getattr(report, "leaderboard", ()) if single.held_out is not None]
    found += basins(averages, singles, report.measure, report.held_out_samples)
    searched = any(verdict.family == Family.SELECTION for verdict in report.verdicts)
    if row.strategy != "best" and searched and _single(row) and report.state is RunState.FINISHED:
        averages_above = [o.label for o in report.rows if o.held_out > row.held_out and len(o.ingredients) > 1]
        found += [alone(row.label, row.ingredients[0], averages_above)]
    if row.strategy != "best":
        split = " (`tests=False` leaves it out), or keep a part of the held-out data for the verdict "
        found += untested(report.verdicts, report.state, f"{split}(`certify_split=0.3`)")
        found += [] if report.is_best_single(row) else few(report.verdicts, standing)
    return tuple(found)


def basins(averages: dict[str, float], singles: Sequence[float], measure: str, samples: int) -> list[str]:
    """Says that models do not lie in one basin: their plain average falls far below every one of them.

    Args:
        averages: name → held-out score of plain averages of all models.
        singles: held-out scores of the single models.
        measure: what the scores are.
        samples: number of held-out samples.
    """
    if len(singles) < 2:
        return []
    worst, best, middle = min(singles), max(singles), median(singles)
    noise = 3 * (0.5 / max(samples, 1)) ** 0.5  # three standard errors of a difference of accuracies, at the most
    margin = max(FAR, noise) if measure == ACCURACY else best - worst
    low = {name: score for name, score in averages.items() if score < worst and middle - score > margin}
    return [
        f"the models do not lie in one basin: {name} {scored(score, measure)} held-out, the worst single model "
        f"{scored(worst, measure)}. Were they fine-tuned from one and the same base? Look at the line between two of "
        "them (merge inspect, interpolate); fine-tune with a lower learning rate or fewer epochs, or stay near the "
        "base (wise-ft)"
        for name, score in low.items()
    ]


def _single(row: Row) -> bool:
    """Whether a merge is one model."""
    return row.inference_cost == 1 and len(row.ingredients) == 1


def alone(label: str, model: str, above: Sequence[str] = ()) -> str:
    """Says that a search has ended with one model of the pool.

    Args:
        label: what tables call the strategy.
        model: the model.
        above: labels of the averages of others that scored higher on the same data.
    """
    if above:
        return (
            f"{label} keeps {model} alone, but {some(above, 3)} scored higher held-out: take that, or a larger budget"
        )
    return (
        f"{label} keeps {model} alone: no average with another one that it tried scored higher. Fine-tune more "
        "models from one start with other settings, or average outputs (ensemble) where several passes a sample can "
        "be paid for"
    )


def untested(verdicts: Iterable[Verdict], state: RunState, more: str = "") -> list[str]:
    """Says that no test set was scored, and what the held-out data are worth then.

    Args:
        verdicts: all verdicts of a run, or on all methods of a benchmark.
        state: how it has ended.
        more: the other way to an honest verdict, where there is one.
    """
    verdicts = tuple(verdicts)
    families = {verdict.family for verdict in verdicts}
    if families & {Family.PRIMARY, Family.CERTIFICATION} or state is not RunState.FINISHED:
        return []
    if Family.UNCHOSEN in families and Family.SELECTION not in families:
        return ["no test set was scored; the held-out data are as good as one, for they did not choose this merge"]
    return [
        "no test set was scored: held-out data that chose a merge flatter it; name a test set under [task] tests" + more
    ]


def few(verdicts: Iterable[Verdict], standing: Standing) -> list[str]:
    """Says which difference so few samples can show, where none was found.

    Args:
        verdicts: the verdicts on the merge.
        standing: how it stands.
    """
    if standing != Standing.NEITHER:
        return []
    known = distinct(verdicts)
    asked = [v for v in known if v.family == Family.SELECTION and not v.extra]
    asked += [verdict for verdict in counted(known) if verdict.role != Role.AVERAGE and verdict not in asked]
    small = [verdict for verdict in asked if 0 < verdict.samples < SMALL_SAMPLE]
    if not small:
        return []
    told = []
    for verdict in small:
        size = detectable(verdict)
        unit = f" {unit_of(verdict.measure)}"
        share = is_percent(verdict.measure)
        shown = f"about {100 * size:.1f}" if size and share else f"about {size:.2g}" if size else ""
        where = f"{verdict.set}: {plural(verdict.samples, 'sample', ',')}"
        told.append(f"{shown}{unit} ({where})" if shown else where)
    return [f"few samples: differences below {some(told, 3)} are easily luck; hold out and test on more"]


def detectable(verdict: Verdict) -> float | None:
    """The smallest difference that a test of this size finds with a power of 80 %; None where nothing is known.

    It follows from the width of the 95 % interval: z₀.₉₇₅ standard errors on each side, and z₀.₉₇₅ + z₀.₈ are needed.
    """
    interval = verdict.interval_at(LEVEL)
    if interval is None or interval[1] <= interval[0]:
        return None
    needed = normal_quantile(LEVEL) + normal_quantile(2 * (1 - POWER))
    return (interval[1] - interval[0]) / 2 * needed / normal_quantile(LEVEL)
