"""``python -m benchmarks.workers --simulate``: makespans by hand, the published traces, and a run of ours."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import merging
from benchmarks.workers import published
from benchmarks.workers.bound import bound, clairvoyant, singles
from benchmarks.workers.command import main
from benchmarks.workers.program import AtOnce, Candidate, Chain, Costs, InOrder, Phase, asked, sequential
from benchmarks.workers.recorded import recorded
from benchmarks.workers.schedule import Policy, Timeline, simulate
from merging.testing import tiny_pool

ONE = Chain(1, 1.0)
REFUSED, ACCEPTED = Candidate(ONE), Candidate(ONE, accepted=True)
SEARCHED = Candidate(ONE, (Chain(4, 4.0),))
TAKEN = Candidate(ONE, (Chain(4, 4.0), Chain(2, 2.0)), accepted=True)


def went(phases: list[Phase], workers: int, *, rounds: bool = False, cut: str = "nothing", **costs: float) -> Timeline:
    return simulate(phases, Policy(workers, Costs(**costs), rounds=rounds, cut=cut))  # type: ignore[arg-type]


def test_evaluations_at_once() -> None:
    five: list[Phase] = [AtOnce((ONE,) * 5)]
    assert went(five, 2) == Timeline(3.0, made=5)
    assert bound(five, 2, Costs()) == 3.0, "one worker makes three"
    assert went(five, 2, overhead=0.5, loading=0.25).seconds == 3 * 1.75
    assert sequential(five, Costs(overhead=0.5, loading=0.25)) == 5 * 1.25, "one process sends no requests"
    assert singles([4.0, 1.0, 1.0], 2) == 4.0
    assert singles([3.0, 3.0, 2.0], 2) == 5.0


def test_what_follows_an_acceptance_is_made_again() -> None:
    soup: list[Phase] = [InOrder((REFUSED, ACCEPTED, REFUSED, REFUSED))]
    assert went(soup, 1) == Timeline(4.0, made=4, rounds=2)
    assert went(soup, 2) == Timeline(2.0, made=4, rounds=2)
    assert went(soup, 4) == Timeline(2.0, made=6, rounds=2)
    assert bound(soup, 4, Costs()) == 2.0
    assert clairvoyant(soup, 4, Costs()) == 2.0


def test_a_worker_ends_the_evaluation_that_it_is_in() -> None:
    """The long one is dropped at 1.5 and ends at 2; the other worker begins with it anew at once."""
    soup: list[Phase] = [InOrder((Candidate(Chain(1, 1.5), accepted=True), Candidate(Chain(1, 2.0))))]
    assert went(soup, 2) == Timeline(3.5, made=3, rounds=2)
    search = [Candidate(Chain(1, 1.5), accepted=True), Candidate(Chain(0, 0.0), (Chain(4, 4.0),)), *[REFUSED] * 2]
    found = went([InOrder(tuple(search))], 2)
    # Two of the dropped search's four are made by 2; the search begins anew at 1.5, the averages run beside it.
    assert found == Timeline(5.5, made=1 + 2 + 4 + 2, rounds=2)


def test_searches_are_whole_or_shared() -> None:
    mix: list[Phase] = [InOrder((SEARCHED, TAKEN))]
    assert went(mix, 1).seconds == sequential(mix, Costs()) == 12.0
    assert went(mix, 2) == Timeline(7.0, made=12, rounds=1)
    assert bound(mix, 2, Costs()) == 7.0, "an average, and both searches of the accepted one"
    two = Costs(batches=2)
    assert went(mix, 2, cut="later", batches=2) == Timeline(6.0, made=12, rounds=1)
    assert bound(mix, 2, two, cut="later") == 6.0
    assert went(mix, 2, cut="all", batches=2) == Timeline(6.0, made=12, rounds=2)
    assert went(mix, 8, cut="all", batches=2).seconds == 6.0, "no more than two can share two batches"
    assert went(mix, 2, cut="all", batches=3).seconds == pytest.approx(12 * 2 / 3)
    assert went(mix, 2, cut="later", batches=2, overhead=0.5).seconds == 1.5 + 4.5 + 2 * (0.5 + 0.5)


def test_what_is_only_reported_waits_for_the_refusal() -> None:
    near = Candidate(ONE, (Chain(4, 4.0),), after=(ONE, ONE))
    found = went([InOrder((near, TAKEN))], 3)
    # Worker 3 has nothing before 5; one of the two is made by it, the other by the worker that searched.
    assert found == Timeline(7.0, made=14, rounds=1)


def test_rounds_wait_for_all_of_a_window() -> None:
    mix: list[Phase] = [InOrder((REFUSED, SEARCHED, SEARCHED, REFUSED))]
    assert went(mix, 2, rounds=True) == Timeline(1.0 + 4.0 + 1.0 + 4.0, made=12, rounds=2)
    assert went(mix, 2) == Timeline(6.0, made=12, rounds=1), "the third one's average is made beside the first search"
    assert bound(mix, 2, Costs()) == 6.0


CHAINS = st.builds(lambda count, unit: Chain(count, count * unit), st.integers(1, 5), st.sampled_from([0.5, 1.0, 3.0]))
SINGLES = st.builds(Chain, st.just(1), st.sampled_from([0.5, 1.0, 3.0]))
CANDIDATES = st.builds(
    Candidate, SINGLES, st.lists(CHAINS, max_size=2).map(tuple), st.lists(SINGLES, max_size=2).map(tuple), st.booleans()
)
PHASES = st.one_of(
    st.builds(AtOnce, st.lists(SINGLES, max_size=6).map(tuple)),
    st.builds(InOrder, st.lists(CANDIDATES, max_size=8).map(tuple)),
)
COSTS = st.builds(Costs, st.just(0.0), st.sampled_from([0.0, 0.25]), st.integers(1, 4))


@given(
    st.lists(PHASES, max_size=3), st.integers(1, 5), COSTS, st.booleans(), st.sampled_from(["nothing", "later", "all"])
)
def test_no_simulation_beats_its_bound(phases: list[Phase], workers: int, costs: Costs, rounds: bool, cut: str) -> None:
    found = simulate(phases, Policy(workers, costs, rounds=rounds, cut=cut))
    least = bound(phases, workers, costs, cut=cut)
    assert least <= found.seconds + 1e-9
    assert least >= sequential(phases, costs) / workers - 1e-9
    assert found.made >= asked(phases)
    if cut == "nothing":
        assert clairvoyant(phases, workers, costs) <= least + 1e-9
    if workers == 1 and cut == "nothing":
        assert found.seconds == pytest.approx(sequential(phases, costs))
        assert found.made == asked(phases)


def test_the_published_search_is_all_there() -> None:
    phases = published.manifoldmix(1.0)
    assert asked(phases) == sequential(phases, Costs()) == 8034
    assert asked([published.ranking(1.0), *phases[1:]]) == 8105
    assert asked(published.greedy(1.0)) == 72 + 71
    assert asked([published.tests(1.0, 1)]) == 6
    assert sequential([published.tests(1.0, 1)], Costs()) == pytest.approx(6.4, abs=0.05)
    assert simulate(phases, Policy(8, rounds=True)).rounds == 12


def test_the_published_search_on_two_workers() -> None:
    """By hand, in searches: 21 of 33 where they are whole, 18 where second ones are shared."""
    search = published.manifoldmix(1 / 240)[1]
    assert isinstance(search, InOrder)
    bare: list[Phase] = [
        InOrder(tuple(Candidate(Chain(0, 0.0), each.searches, accepted=each.accepted) for each in search.candidates))
    ]
    assert sequential(bare, Costs()) == pytest.approx(33)
    assert went(bare, 2).seconds == pytest.approx(21)
    assert went(bare, 2, cut="later", batches=2).seconds == pytest.approx(18)
    assert bound(bare, 2, Costs()) == pytest.approx(2 + 2 + 2 + 2.5 + 2 + 4.5 + 4)


def test_a_run_of_ours(tmp_path: Path) -> None:
    """Every evaluation of its journal is in the program, and candidates are what was decided about."""
    tiny_pool(tmp_path / "pool", models=5)
    result = merging.merge(
        [str(tmp_path / "pool/model_*.safetensors")],
        merging.ManifoldMix(tau=0.9, barrier=None),
        task="python:merging.testing.fixtures:tiny_task",
        partitioner="layer",
        optimizer="random",
        budget=6,
        output=tmp_path / "run",
    )
    phases = recorded(tmp_path / "run")
    ranking, uniform, greedy, mix, *tests = phases
    assert [len(phase.chains) for phase in (ranking, uniform)] == [5, 1]
    assert isinstance(greedy, InOrder)
    assert isinstance(mix, InOrder)
    decisions = result.report.decisions
    assert [each.accepted for each in mix.candidates] == [fact["accepted"] for fact in decisions]
    assert [bool(each.searches) for each in mix.candidates] == ["searches" in fact for fact in decisions]
    assert len(greedy.candidates) == 4
    assert asked(phases[:4]) == result.report.evaluations
    assert all(isinstance(phase, AtOnce) for phase in tests)
    assert 0 < sequential(phases, Costs()) < result.report.wall_seconds


def test_the_command_says_what_the_simulation_finds(tmp_path: Path) -> None:
    ran = CliRunner().invoke(main, ["--simulate", "--json", str(tmp_path / "rows.json")], catch_exceptions=False)
    assert ran.exit_code == 0, ran.output
    rows = json.loads((tmp_path / "rows.json").read_text("utf-8"))["rows"]
    (row,) = (
        row
        for row in rows
        if (row["run"], row["cut"], row["workers"]) == ("manifoldmix C8, as published", "nothing", 2)
    )
    assert row["evaluations"] == 8034
    assert row["speed_up"] == pytest.approx(1.575, abs=0.001)
