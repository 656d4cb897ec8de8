"""The answer of a run: what was gained and lost, on which set, at what cost, what to do next; read first.

Terminal, model card, documents and exit codes say it from this one value, which is made of the verdicts alone.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from merging.errors import OptionError
from merging.values.advice import advice_of
from merging.values.markdown import plain
from merging.values.report import Report, Row, models_of, scored
from merging.values.states import RunState, Wanted
from merging.values.verdict import (
    MARKS,
    Family,
    Role,
    Standing,
    Verdict,
    counted,
    distinct,
    p_value,
    short,
    title,
    word,
)
from merging.values.wording import kind_of, lasted, plural

_SETTING = re.compile(r"(?<!\S)`([a-z][a-z_.]*(?:=[^`]*)?)`")
_COMMAND = re.compile(r"\bmerge [a-z]+(?: `[a-z_]+=[^`]+`)+")
"""A command with settings, as the core says it."""
_VALUE = re.compile(r"`([a-z_]+)=([^`]+)`")
GROUPS = {
    Standing.BETTER: "gained",
    Standing.WORSE: "lost",
    Standing.NEITHER: "level",
    Standing.NOT_TESTED: "not tested",
}
"""Standing → what a group of sets with it is called, in the order in which they are shown."""
SHIFTS = 4
"""Single shifted sets of one standing that are told one by one; of many, those with the largest differences."""
DEAR = 3
"""Passes for each evaluation, above which a method's passes are told beside its evaluations: it went backward."""
NAMED = 2
"""Sets that a headline names at the most."""


@dataclass(frozen=True)
class Told:
    """The figures of one set (difference, interval, p) with its name, and a remark on them."""

    set: str
    figures: str
    remark: str = ""

    def __str__(self) -> str:
        """The three in one phrase."""
        return f"{self.set} {self.figures}" + (f" ({self.remark})" if self.remark else "")


@dataclass(frozen=True)
class Change:
    """The sets on which a model stands alike: gained, lost, level or not tested."""

    standing: Standing
    sets: tuple[Told, ...]

    @property
    def head(self) -> str:
        """The mark and the word for the group."""
        return f"{MARKS[self.standing]} {GROUPS[self.standing]}".lstrip()

    def __str__(self) -> str:
        """The group in one line; each set is named once."""
        return f"{self.head}: {'; '.join(map(str, self.sets))}"


@dataclass(frozen=True)
class Use:
    """The methods for one use, such as data under shift: which are better, level or worse there.

    Attributes:
        name: the use in words.
        told: standing and phrase of each method, or of several that stand alike.
    """

    name: str
    told: tuple[tuple[Standing, str], ...]

    def __str__(self) -> str:
        """The use in one line."""
        return f"{self.name}: {'; '.join(phrase for _, phrase in self.told)}"


@dataclass(frozen=True, kw_only=True)
class Answer:
    """The findings of a run or a benchmark in a few lines, in the order in which they are read.

    Attributes:
        standing: how the merge stands against the best single model, by the sets that count; of a benchmark, the best
            standing of a method.
        headline: one line, complete in itself.
        changes: sets by what happened to them; of a run.
        uses: uses with the methods for them; of a benchmark.
        cost: what it took, and what a sample costs from now on.
        advice: what to do where a merge cannot help, or where the answer is uncertain; each from a fact.
        next: what to do now.
        decision: which model to take, in a few words; of what is not finished, that it is not decided yet.
    """

    standing: Standing
    headline: str
    changes: tuple[Change, ...] = ()
    uses: tuple[Use, ...] = ()
    cost: str = ""
    advice: tuple[str, ...] = ()
    next: tuple[str, ...] = ()
    decision: str = ""

    @property
    def lines(self) -> tuple[str, ...]:
        """The lines below the headline: gained, lost and level of a run, uses of a benchmark."""
        return (*map(str, self.changes), *map(str, self.uses))

    def told(self) -> list[str]:
        """All of it as plain text, in lines, the headline first."""
        told = [self.headline, *self.lines, *([f"cost: {self.cost}"] if self.cost else [])]
        return told + [f"advice: {line}" for line in self.advice] + [f"next: {line}" for line in self.next]

    def to_json(self) -> dict[str, Any]:
        """Gives the answer as JSON-ready values."""
        told: dict[str, Any] = {"standing": str(self.standing), "headline": self.headline, "cost": self.cost}
        return told | {"lines": list(self.lines), "advice": list(self.advice), "next": list(self.next)}

    def shortfall(self, wanted: Wanted) -> str:
        """Says why the answer is not what was wanted; empty where it is.

        A model that was not tested is neither better nor shown to be not worse.
        """
        enough = {Wanted.BETTER: (Standing.BETTER,), Wanted.NOT_WORSE: (Standing.BETTER, Standing.NEITHER)}[wanted]
        return "" if self.standing in enough else f"not shown to be {wanted}: {self.headline}"


def bare(text: str) -> str:
    """A line for documents: a command as it is typed, other settings without their backticks.

    >>> bare("write it: merge run `strategy=wise-ft` `max_evaluations=9`, then `resume`")
    'write it: merge run --strategy wise-ft --max-evaluations 9, then resume'
    """
    return _SETTING.sub(r"\1", _COMMAND.sub(lambda found: _VALUE.sub(_typed, found[0]), text))


def _typed(setting: re.Match[str]) -> str:
    return f"--{setting[1].replace('_', '-')} {shlex.quote(setting[2])}"


def markdown(found: Answer) -> list[str]:
    """The answer as lines of Markdown: the headline in bold, the rest as a list; names in it are text."""
    headline, *lines = map(bare, found.told())
    return [f"**{plain(headline)}**", "", *(f"- {plain(line)}" for line in lines)]


def standing_of(verdicts: Iterable[Verdict]) -> Standing:
    """Says how a model stands by the sets that count (:func:`merging.values.verdict.counted`).

    ``WORSE`` where it is worse on any, whatever it gains on others; ``NOT_TESTED`` where one was not tested, and where
    nothing but the data that chose it says that it is not worse.
    """
    known = counted(verdicts)
    words = {word(verdict) for verdict in known}
    if flattered(known) and Standing.WORSE not in words:
        return Standing.NOT_TESTED
    for standing in (Standing.WORSE, Standing.NOT_TESTED, Standing.BETTER, Standing.NEITHER):
        if standing in words:
            return standing
    return Standing.NOT_TESTED


def gains_and_losses(verdicts: Iterable[Verdict]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The sets that count on which a model is better, and those on which it is worse.

    Data that chose a merge show no gain.
    """
    known = counted(verdicts)
    gained = () if flattered(known) else tuple(verdict.set for verdict in known if verdict.better)
    return gained, tuple(verdict.set for verdict in known if verdict.worse)


def flattered(known: Sequence[Verdict]) -> bool:
    """Whether the verdicts that count are on data that chose the merge, and can show no gain."""
    return bool(known) and all(verdict.family == Family.SELECTION for verdict in known)


def answer(report: Report) -> Answer:
    """Makes the answer of a run: the strategy that was asked for against the best single model.

    Where another merge was written than the strategy's, nothing is shown to be better; not worse where it is the best
    single model.

    Args:
        report: the run's report; its result will do, too.

    Raises:
        OptionError: it is something else.
    """
    report = getattr(report, "report", report)
    if not isinstance(report, Report):
        raise OptionError(f"answer was given {kind_of(report)}; it takes a run's report, or its result")
    row = report.merged
    if not report.rows:
        headline = "not scored: without a task there is no data to score it on"
        then = "give data to score it on: `task`, or a [task] in merge.toml"
        undecided = "not decided: nothing was scored"
        return Answer(standing=Standing.NOT_TESTED, headline=f"– {headline}", next=(then,), decision=undecided)
    standing = standing_of(report.verdicts)
    itself = row is not None and report.is_best_single(row)
    if row is not None and row.strategy == "best":
        standing = Standing.REFERENCE
        headline = f"{row.named}: {scored(row.held_out, report.measure)} held-out; it is what merges are compared with"
    elif row is None:
        headline = f"– {report.strategy}: no result yet"
    else:
        standing = Standing.NEITHER if itself else standing
        headline = headline_of(subject(report, row), report.verdicts, itself=itself)
    if report.rows and report.saved_instead:
        standing = Standing.NEITHER if report.saved == "best" else Standing.NOT_TESTED
        headline += "; another model was written"
    return Answer(
        standing=standing,
        headline=headline,
        changes=() if itself else changes(report.verdicts),
        cost=_cost(report),
        advice=advice_of(report, standing),
        next=_next(report, standing),
        decision=_decision(report, standing),
    )


def subject(report: Report, row: Row) -> str:
    """The row's label, and how many models are in it."""
    return f"{row.label} ({models_of(row.ingredients, report.pool)} of {plural(len(report.pool), 'model')})"


def headline_of(subject: str, verdicts: Iterable[Verdict], *, itself: bool = False) -> str:
    """One line: better or worse than what it is compared with, on which sets, by how much; or neither.

    Args:
        subject: the model in words.
        verdicts: verdicts on it, against one reference.
        itself: it is the very model that it is compared with.
    """
    verdicts = distinct(verdicts)
    known = counted(verdicts)
    if itself and known:
        return f"{subject}: it is {known[0].against} itself; nothing gained, nothing lost"
    aside = [verdict for verdict in verdicts if verdict not in known and not verdict.extra]
    if not any(verdict.tested for verdict in known):
        why = next((f" on {', '.join(v.set for v in known)}: {v.why}" for v in known if v.why), "")
        return f"{MARKS[Standing.NOT_TESTED]} {subject}: not tested{why}"
    against = known[0].against
    if standing_of(known) == Standing.NOT_TESTED and flattered(known):
        told = " and ".join(f"{verdict.set} {short(verdict)}" for verdict in known)
        return f"{MARKS[Standing.NOT_TESTED]} {subject}: tested on no data but those that chose it, {told}"
    gains, losses = (_sets(known, standing) for standing in (Standing.BETTER, Standing.WORSE))
    silent = [verdict.set for verdict in known if not verdict.tested]
    said = f"better than {against} on {gains}" if gains else ""
    if losses:
        said = f"{said}, but worse on {losses}" if gains else f"worse than {against} on {losses}"
    marks = MARKS[Standing.BETTER] * bool(gains) + MARKS[Standing.WORSE] * bool(losses)
    said = said or f"no gain over {against} that can be told from luck"
    for standing, verb in ((Standing.BETTER, "better"), (Standing.WORSE, "worse")):
        if (more := _sets(aside, standing)) and not (gains and standing == Standing.BETTER):
            said += f"; {MARKS[standing]} {verb} on {more}"
    lost = losses or any(verdict.worse for verdict in aside)
    said += "" if lost else "; nothing lost"
    said += f"; not tested on {', '.join(silent)}" if silent else ""
    return f"{marks} {subject}: {said}".lstrip()


def _sets(verdicts: Sequence[Verdict], standing: Standing) -> str:
    """The sets with a standing, each with its figures; the largest differences first, the rest counted."""
    found = [verdict for verdict in verdicts if word(verdict) == standing]
    found.sort(key=lambda verdict: -abs(verdict.difference or 0.0))
    chose = {Family.SELECTION: ", which chose it"}
    named = [f"{verdict.set} {short(verdict)}{chose.get(verdict.family, '')}" for verdict in found[:NAMED]]
    rest = len(found) - NAMED
    return " and ".join(named) + (f" and {plural(rest, 'more set')}" if rest > 0 else "")


def changes(verdicts: Iterable[Verdict]) -> tuple[Change, ...]:
    """The sets by what happened to them; single shifted sets that are level are told together."""
    verdicts = [verdict for verdict in distinct(verdicts) if not verdict.extra]
    first = counted(verdicts)
    verdicts.sort(key=lambda verdict: (verdict not in first, verdict.role in (Role.HELD_OUT, Role.CERTIFY)))
    found = []
    for standing in GROUPS:
        own = [verdict for verdict in verdicts if word(verdict) == standing]
        level = [v for v in own if v.role == Role.SHIFT and v not in first and standing == Standing.NEITHER]
        together = level if len(level) > 1 else []
        aside = [verdict for verdict in own if verdict.role == Role.SHIFT and verdict not in [*first, *together]]
        aside.sort(key=lambda verdict: -abs(verdict.difference or 0.0))
        told = [_told(verdict) for verdict in own if verdict in first]
        told += [_told(verdict) for verdict in aside[:SHIFTS]]
        told += [_together(aside[SHIFTS:])] if aside[SHIFTS:] else []
        told += [_together(together)] if together else []
        told += [_told(verdict) for verdict in own if verdict not in [*first, *aside, *together]]
        if standing == Standing.NOT_TESTED and told:
            told = [_untested(own)]
        if told:
            found.append(Change(standing, tuple(told)))
    return tuple(found)


REMARKS = {
    Family.SELECTION: "chose the merge",
    Family.UNCHOSEN: "did not choose it",
    Family.CERTIFICATION: "selected nothing",
}
"""Family → remark on the figures of a set."""


def _told(verdict: Verdict) -> Told:
    return Told(title(verdict), short(verdict), REMARKS.get(verdict.family, ""))


def _together(verdicts: Sequence[Verdict]) -> Told:
    """Several single shifted sets in one: the smallest and the largest difference, and the p that bounds the others."""
    ordered = sorted(verdicts, key=lambda verdict: verdict.difference or 0.0)
    low, high = (short(verdict).partition(" ")[0] for verdict in (ordered[0], ordered[-1]))
    values = [verdict.corrected or 0.0 for verdict in verdicts]
    clear = all(verdict.significant for verdict in verdicts)
    p = p_value(max(values)).replace("p=", "p≤") if clear else p_value(min(values)).replace("p=.", "p≥.")
    more = "more" if clear else "single"
    return Told(f"{len(verdicts)} {more} shifted sets", f"{low} to {high} {p}" if len(verdicts) > 1 else f"{low} {p}")


def _untested(verdicts: Sequence[Verdict]) -> Told:
    return Told(", ".join(verdict.set for verdict in verdicts), "", verdicts[0].why)


def _cost(report: Report) -> str:
    """What the run took, and what a sample costs from now on."""
    took, row = plural(report.evaluations, "evaluation", ","), report.merged
    if row is not None and row.strategy != "best" and row.evaluations != report.evaluations:
        dear = row.forward_equivalents > DEAR * max(row.evaluations, 1)
        more = f", {row.forward_equivalents:,.0f} forward-equivalents" if dear else ""
        took += f" ({row.label}: {row.evaluations:,}{more})"
    passes = report.inference_cost
    then = "one model" if passes == 1 else f"{passes} models"
    return f"{took}, {lasted(report.wall_seconds)}; inference as of {then}"


def _decision(report: Report, standing: Standing) -> str:
    """Says which model to take, with the grounds where there is more than one to take."""
    single, row, known = report.best_single_name or "the best single model", report.merged, counted(report.verdicts)
    gains = [verdict.set for verdict in known if verdict.better]
    merge = "the merge" if row is None else f"the {'ensemble' if report.ensemble else 'merge'} by {row.label}"
    if report.state is not RunState.FINISHED:
        return "not decided yet: the run is not finished"
    if report.doubt and standing != Standing.BETTER:
        return "not decided: a model is no better than a guess"
    if standing == Standing.WORSE and gains:
        return f"take {merge} for data such as {', '.join(gains)} alone, else keep {single}"
    if standing == Standing.BETTER:
        return f"take {merge}"
    if standing == Standing.NOT_TESTED and not flattered(known):
        return "not decided: not tested"
    return f"keep {single}"


def _next(report: Report, standing: Standing) -> tuple[str, ...]:
    """What to do now."""
    found = []
    single, row = report.best_single_name or "the best single model", report.merged
    known = counted(report.verdicts)
    gains = [verdict.set for verdict in known if verdict.better]
    if report.state is not RunState.FINISHED:
        more = ", with more `max_evaluations`" if report.state is RunState.LIMIT else ""
        found.append(f"go on with the run, same bits: `resume`{more}")
    elif report.doubt and standing != Standing.BETTER:
        found.append("first find out why a model is no better than a guess (advice), and run it again")
    elif standing == Standing.WORSE and gains:
        found.append(f"take the merged model for data such as {', '.join(gains)} alone; for the others keep {single}")
    elif (
        standing == Standing.WORSE
        or report.saved_instead
        or (row is not None and standing == Standing.NEITHER and report.is_best_single(row))
    ):
        found.append(f"keep {single}")
    elif standing == Standing.NEITHER:
        found.append(f"keep {single}, unless more test samples show a gain")
    elif standing == Standing.BETTER:
        found.append(f"take the {'ensemble' if report.ensemble else 'merged model'}")
    elif flattered(known):
        found.append(f"keep {single} until data that did not choose the merge show a gain")
    elif known and report.best_single is None:
        found.append(
            "run it again without `baselines=False` or `pool_tests=False`: the best single model is scored then"
        )
    names = ", ".join(report.untested)
    if names or standing in (Standing.NEITHER, Standing.WORSE, Standing.REFERENCE):
        found.append(f"merge benchmark tests {f'the {names} and ' if names else ''}other methods, too")
    return tuple(found)
