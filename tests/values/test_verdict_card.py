"""The card of a verdict: the decision is the answer's, tiles are the sets that count, and names in it are inert."""

from __future__ import annotations

from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import pytest

from merging.benchmarking.rendering.answer import answer as answer_of
from merging.benchmarking.rendering.card import card
from merging.benchmarking.results import Benchmark
from merging.values.answer import Answer, answer
from merging.values.report import Report
from merging.values.states import RunState
from merging.values.statistics import PairedTest
from merging.values.verdict import Family, Role, Standing, Verdict, counted
from merging.values.verdict_card import Tile, VerdictCard, card_of, losses

RESULTS = Path(__file__).parents[2] / "docs" / "results"


@pytest.fixture(scope="module")
def run() -> Report:
    return Report.from_json(RESULTS / "animals" / "first")


@pytest.fixture(scope="module")
def found() -> Benchmark:
    return Benchmark.read(RESULTS / "digits" / "compared")


class Read(HTMLParser):
    """Text and tags of a fragment; every tag that is opened is closed."""

    def __init__(self) -> None:
        super().__init__()
        self.text, self.tags, self.open = "", set[str](), list[str]()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += "" if self.open and self.open[-1] == "style" else data

    @classmethod
    def of(cls, shown: VerdictCard) -> Read:
        made = cls()
        made.feed(shown.html())
        assert made.open == []
        return made


def test_the_card_of_a_run_is_its_own_answer(run: Report) -> None:
    shown, said = card_of(run), answer(run)
    assert shown.answer == said
    assert shown.decision == "Take the merge by greedy soup"
    assert [tile.place for tile in shown.tiles] == [verdict.set for verdict in counted(run.verdicts)]
    text = Read.of(shown).text
    for line in (said.headline, said.cost, *said.next, shown.lost):
        assert line in text
    assert shown.lost == "nothing: on none of the 4 sets tested is it shown to be worse"


def test_the_card_of_a_benchmark_takes_its_winner(found: Benchmark) -> None:
    shown = card(found)
    assert shown.answer == answer_of(found)
    assert shown.decision == "Take the merge by learned"
    assert [(tile.place, tile.figure, tile.standing) for tile in shown.tiles] == [
        ("at home: test", "+0.2 points", Standing.NEITHER),
        ("under shift: the average of printed, inverted, rotated and 2 more", "+1.6 points", Standing.BETTER),
    ]
    assert shown.tiles[1].interval == "[+0.4, +2.8], p=.003"
    assert shown.kind == "up"


def test_without_a_winner_the_card_says_what_to_keep_and_who_came_nearest(found: Benchmark) -> None:
    def unsure(verdict: Verdict) -> Verdict:
        return replace(verdict, p=0.4, corrected=0.4) if verdict.tested else verdict

    rows = tuple(replace(row, verdicts=tuple(map(unsure, row.verdicts))) for row in found.rows)
    shown = card(replace(found, rows=rows))
    assert shown.decision == "Keep the best single model (model_05)"
    assert [tile.who for tile in shown.tiles] == ["greedy", "learned"]
    assert shown.lost == ""


def test_what_is_not_finished_decides_nothing(found: Benchmark, run: Report) -> None:
    shown = card(replace(found, state=RunState.INTERRUPTED))
    assert (shown.decision, shown.unfinished) == (
        "Not decided yet: the benchmark is not finished",
        "interrupted",
    )
    shown = card_of(replace(run, state=RunState.LIMIT, limit=9))
    assert shown.decision == "Not decided yet: the run is not finished"
    assert "Not finished: limit of 9 evaluations reached" in Read.of(shown).text


def test_a_benchmark_that_compares_nothing_has_a_card(found: Benchmark) -> None:
    alone = replace(found, rows=(replace(found.rows[0], verdicts=()),))
    assert card(alone).decision == "Not decided: nothing to compare the methods with"
    assert card(replace(found, rows=())).tiles == ()


def test_losses_name_the_sets_and_what_was_not_tested() -> None:
    named = {"reference": "best", "against": "x", "measure": "accuracy", "family": Family.SECONDARY, "role": Role.SHIFT}
    tested = {"level": 0.95, "tests": 2, "test": PairedTest.NORMAL, "samples": 50}
    fog = Verdict(set="fog", difference=-0.02, interval=(-0.03, -0.01), p=0.01, corrected=0.01, **named, **tested)  # type: ignore[arg-type]
    snow = replace(fog, set="snow", difference=-0.04)
    mist = Verdict(set="mist", why="it was not scored there", **named)  # type: ignore[arg-type]
    assert losses([fog, snow]).startswith("▼ -4.0 [-3.0, -1.0] p=.010 on snow, ▼ -2.0")
    assert losses([fog, mist]).endswith("; not tested on mist")
    assert Tile.of(mist) == Tile(
        place="mist", standing=Standing.NOT_TESTED, figure="–", interval="it was not scored there"
    )


def test_names_in_a_card_are_text() -> None:
    hostile = "</section><script>alert(1)</script>\u202e"
    said = Answer(standing=Standing.BETTER, headline=hostile, cost=hostile, next=(hostile,), decision=f"take {hostile}")
    shown = VerdictCard(answer=said, against=hostile, lost=hostile, unfinished=hostile)
    read = Read.of(shown)
    assert "script" not in read.tags
    assert "\u202e" not in read.text
    assert "alert(1)" in read.text
