"""The card that a page and a notebook show first: which model to take, by how much it is better, what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from merging.values.answer import Answer, answer
from merging.values.report import Report
from merging.values.shown import environment
from merging.values.states import RunState, ended
from merging.values.units import unit as unit_of
from merging.values.verdict import MARKS, Family, Role, Standing, Verdict, counted, distinct, p_value, short, word
from merging.values.wording import plural, some

PACKAGE = "merging.values"
"""The package that holds the template."""
WORDS = {
    Standing.BETTER: "better",
    Standing.WORSE: "worse",
    Standing.NEITHER: "level",
    Standing.NOT_TESTED: "not tested",
}
"""Standing → what a tile says of it."""
TILES = 4
"""Sets that a card has a tile for at the most; table and picture have all of them."""
INGREDIENTS = 4
"""Models of a merge that are named."""
NAMED = 3
"""Sets with a loss that are named."""


@dataclass(frozen=True, kw_only=True)
class Tile:
    """One difference, as large as it is important: where, how much, how certain.

    Attributes:
        place: the set, or the use in words.
        standing: how the model stands there.
        figure: the difference with its unit; a dash where nothing was tested.
        interval: its interval and p, or why nothing was tested.
        who: the model that the difference is of, where it is not the one to take.
    """

    place: str
    standing: Standing
    figure: str
    interval: str
    who: str = ""

    @classmethod
    def of(cls, verdict: Verdict, place: str = "", who: str = "") -> Tile:
        """The tile of a verdict, under its set's name unless another one is given."""
        size, _, rest = short(verdict).partition(" ") if verdict.tested else (MARKS[Standing.NOT_TESTED], "", "")
        interval, _, p = rest.partition("] ")
        unit = f" {unit_of(verdict.measure).removeprefix('% ')}" if verdict.tested else ""
        chose = " on the data that chose it" if verdict.family == Family.SELECTION else ""
        return cls(
            place=(place or verdict.set) + chose,
            standing=word(verdict),
            figure=f"{size}{unit}".replace("-", "−", 1),
            interval=f"{interval}], {p}".replace("-", "−") if p else p_value(verdict.corrected) or verdict.why,
            who=who,
        )

    @property
    def word(self) -> str:
        """The mark of the standing, and a word for it."""
        return f"{MARKS[self.standing]} {WORDS.get(self.standing, '')}".strip()


@dataclass(frozen=True, kw_only=True)
class VerdictCard:
    """The findings that a reader who was not there needs, at one glance.

    Attributes:
        answer: the answer that it shows.
        against: what the differences are from, in words.
        tiles: the differences that decide.
        made_of: which models are in the model to take.
        lost: what is lost with the model to take; empty where none is to be taken.
        unfinished: how the work has ended before its end; empty where it is finished.
    """

    answer: Answer
    against: str = ""
    tiles: tuple[Tile, ...] = ()
    made_of: str = ""
    lost: str = ""
    unfinished: str = ""

    @property
    def decision(self) -> str:
        """The decision as the beginning of a sentence."""
        said = self.answer.decision or self.answer.headline
        return said[:1].upper() + said[1:]

    @property
    def kind(self) -> str:
        """The class of HTML that colours the card: a gain, a loss, or neither."""
        taken = self.answer.decision.startswith("take")
        return "up" if taken else "down" if self.answer.standing == Standing.WORSE else "none"

    def html(self) -> str:
        """The card as a fragment of HTML that brings its own style, no whole page."""
        module = environment(PACKAGE).get_template("card.html.j2").module
        return f"{module.style()}{module.card(self)}"  # type: ignore[attr-defined]


def card_of(report: Report) -> VerdictCard:
    """Makes the card of a run from its own answer.

    Args:
        report: the run's report; its result will do, too.

    Raises:
        OptionError: it is something else.
    """
    found = answer(report)
    report = getattr(report, "report", report)
    known = counted(report.verdicts)
    itself = report.merged is not None and report.is_best_single(report.merged)
    told = () if itself else known
    return VerdictCard(
        answer=found,
        against=next((verdict.against for verdict in told), ""),
        tiles=tuple(map(Tile.of, told[:TILES])),
        made_of=_made_of(report) if found.decision.startswith("take") else "",
        lost=losses(report.verdicts) if found.decision.startswith("take") else "",
        unfinished="" if report.state is RunState.FINISHED else ended(report.state, report.limit),
    )


def _made_of(report: Report) -> str:
    own = [name for name in report.ingredients if name in report.pool]
    return report.made_of + (f": {some(own, INGREDIENTS)}" if 0 < len(own) < len(report.pool) else "")


def losses(verdicts: Iterable[Verdict]) -> str:
    """Says on which sets a model is worse, single shifted ones too, the largest loss first."""
    own = [verdict for verdict in distinct(verdicts) if not verdict.extra and verdict.role != Role.CERTIFY]
    tested = [verdict for verdict in own if verdict.tested]
    worse = sorted((verdict for verdict in own if verdict.worse), key=lambda verdict: verdict.difference or 0.0)
    silent = _untested([verdict for verdict in own if not verdict.tested])
    if worse:
        return some([f"{MARKS[Standing.WORSE]} {short(v)} on {v.set}" for v in worse], NAMED) + silent
    many = plural(len([verdict for verdict in tested if verdict.role != Role.AVERAGE]), "set")
    return (f"nothing: on none of the {many} tested is it shown to be worse" if len(tested) > 1 else "") + silent


def _untested(verdicts: Sequence[Verdict]) -> str:
    return f"; not tested on {some([verdict.set for verdict in verdicts], NAMED)}" if verdicts else ""
