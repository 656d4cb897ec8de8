"""Answers: which sets count, what a headline says, what advice there is, and what a pipeline is told."""

from __future__ import annotations

import io
import itertools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from merging.cli.showing.answer import show_answer
from merging.values.advice import basins, detectable, few
from merging.values.answer import Answer, changes, headline_of, standing_of
from merging.values.states import Wanted
from merging.values.statistics import PairedTest, paired
from merging.values.verdict import Family, Role, Standing, Verdict, counted, distinct, selection, short, unselected

SINGLE = "the best single model (run4)"
SETS = {
    "held-out": Role.HELD_OUT,
    "test": Role.TEST,
    "fog": Role.SHIFT,
    "snow": Role.SHIFT,
    "average of shifts": Role.AVERAGE,
}


def verdict(name: str, step: float | None = 0.0, *, sure: bool = False, extra: bool = False) -> Verdict:
    """A verdict on a set: a difference that is significant where ``sure``; None: it was not tested."""
    role = SETS[name]
    named = {"set": name, "role": role, "reference": "best", "against": SINGLE, "measure": "accuracy"}
    if step is None:
        return Verdict(**named, family=Family.of(role, extra=extra), why="it was not scored there", extra=extra)  # type: ignore[arg-type]
    half = abs(step) / 2 if sure else abs(step) + 0.01
    return Verdict(
        **named,  # type: ignore[arg-type]
        family=Family.of(role, extra=extra),
        difference=step,
        interval=(step - half, step + half),
        p=0.001 if sure else 0.4,
        corrected=0.002 if sure else 0.8,
        level=0.95,
        tests=2,
        test=PairedTest.NORMAL,
        samples=500,
        extra=extra,
    )


def test_the_sets_that_count_are_tests_and_the_average_of_shifts() -> None:
    told = [verdict(name, 0.01) for name in SETS]
    assert [v.set for v in counted(told)] == ["test", "average of shifts"]
    assert [v.set for v in counted(told[:1])] == ["held-out"], "where there is no test set"
    assert [v.set for v in counted(told[2:4])] == ["fog", "snow"], "where nothing else was compared"
    certified = replace(told[0], set="certify", role=Role.CERTIFY, family=Family.CERTIFICATION)
    assert counted([told[0], certified]) == (certified,), "what selected nothing goes before what did"
    assert counted([*told, verdict("test", -0.5, sure=True, extra=True)]) == counted(told)


OUTCOMES = {"better": (0.03, True), "worse": (-0.03, True), "neither": (0.01, False), "untested": (None, False)}


@pytest.mark.parametrize(("one", "other"), list(itertools.product(OUTCOMES, OUTCOMES)))
def test_what_a_pipeline_is_told(one: str, other: str) -> None:
    """Better: on one at least, worse on none, tested on all. Not worse: worse on none, tested on all."""
    told = [
        verdict(name, OUTCOMES[each][0], sure=OUTCOMES[each][1])
        for name, each in (("test", one), ("average of shifts", other))
    ]
    found = Answer(standing=standing_of(told), headline=headline_of("it", told))
    sound = not {"worse", "untested"} & {one, other}
    assert (found.shortfall(Wanted.BETTER) == "") == (sound and "better" in (one, other))
    assert (found.shortfall(Wanted.NOT_WORSE) == "") == sound
    if said := found.shortfall(Wanted.BETTER):
        assert said.startswith("not shown to be better: ")
        assert found.headline in said
        assert "\n" not in said


def test_a_single_shifted_set_counts_for_no_pipeline_and_is_said_first_of_all() -> None:
    told = [verdict("test", 0.01), verdict("fog", -0.024, sure=True), verdict("average of shifts", 0.0)]
    told.append(replace(told[1], set="snow", difference=0.0, interval=(-0.01, 0.01), corrected=1.0))
    assert standing_of(told) == Standing.NEITHER
    said = headline_of("greedy soup (6 of 6 models)", told)
    assert said == (
        f"greedy soup (6 of 6 models): no gain over {SINGLE} that can be told from luck; "
        "▼ worse on fog -2.4 [-3.6, -1.2] p=.002"
    )
    assert "nothing lost" not in said


def test_headlines() -> None:
    gain, loss = verdict("average of shifts", 0.064, sure=True), verdict("test", -0.048, sure=True)
    level = verdict("test", 0.005)
    assert headline_of("x", [level, gain]) == (
        f"▲ x: better than {SINGLE} on average of shifts +6.4 [+3.2, +9.6] p=.002; nothing lost"
    )
    assert headline_of("x", [loss, gain]) == (
        f"▲▼ x: better than {SINGLE} on average of shifts +6.4 [+3.2, +9.6] p=.002, but worse on test "
        "-4.8 [-7.2, -2.4] p=.002"
    )
    assert headline_of("x", [loss]) == f"▼ x: worse than {SINGLE} on test -4.8 [-7.2, -2.4] p=.002"
    assert headline_of("x", [level]) == f"x: no gain over {SINGLE} that can be told from luck; nothing lost"
    assert headline_of("x", [level], itself=True) == f"x: it is {SINGLE} itself; nothing gained, nothing lost"
    assert headline_of("x", [verdict("test", None)]) == "– x: not tested on test: it was not scored there"
    assert headline_of("x", []) == "– x: not tested"
    assert headline_of("x", [level, verdict("average of shifts", None)]).endswith("not tested on average of shifts")


def test_data_that_chose_the_merge_show_no_gain() -> None:
    """They flatter it: a loss there is one, a gain or none is nothing."""
    for step, sure in ((0.03, True), (0.01, False)):
        chosen = [verdict("held-out", step, sure=sure)]
        found = Answer(standing=standing_of(chosen), headline=headline_of("x", chosen))
        assert found.standing == Standing.NOT_TESTED
        assert found.headline.startswith("– x: tested on no data but those that chose it, held-out +")
        assert all(found.shortfall(wanted) for wanted in Wanted)
        free = unselected(chosen, selected=False)
        assert standing_of(free) == (Standing.BETTER if sure else Standing.NEITHER)
    assert standing_of([verdict("held-out", -0.03, sure=True)]) == Standing.WORSE


def test_a_headline_and_the_lines_below_it_agree() -> None:
    """Nothing is "lost" without being named above, and no gain is denied that stands below."""
    level = verdict("test", 0.005)
    lost, gained = verdict("held-out", -0.03, sure=True), verdict("held-out", 0.03, sure=True)
    said = headline_of("x", [*unselected([lost], selected=False), level])
    assert said.endswith("; ▼ worse on held-out -3.0 [-4.5, -1.5] p=.002")
    said = headline_of("x", [gained, level])
    assert said.endswith("; ▲ better on held-out +3.0 [+1.5, +4.5] p=.002, which chose it; nothing lost")


def test_each_set_is_named_once_and_its_p_stands_beside_its_numbers() -> None:
    told = [
        verdict("held-out", 0.004),
        verdict("test", 0.02, sure=True),
        verdict("fog", -0.001),
        verdict("snow", 0.012),
        verdict("average of shifts", 0.006),
    ]
    lines = [str(change) for change in changes(told)]
    assert lines == [
        "▲ gained: test +2.0 [+1.0, +3.0] p=.002",
        "level: average of shifts +0.6 [-1.0, +2.2] p=.80; 2 single shifted sets -0.1 to +1.2 p≥.80; "
        "held-out +0.4 [-1.0, +1.8] p=.80 (chose the merge)",
    ]
    many = [replace(verdict("fog", 0.01 * k, sure=True), set=f"fog{k}") for k in range(1, 9)]
    (gained,) = changes([*many, verdict("average of shifts", 0.04, sure=True)])
    assert [each.set for each in gained.sets] == [
        "average of shifts",
        "fog8",
        "fog7",
        "fog6",
        "fog5",
        "4 more shifted sets",
    ]
    assert str(gained.sets[-1]) == "4 more shifted sets +1.0 to +4.0 p≤.002"


def test_one_shifted_set_is_its_own_average() -> None:
    told = [verdict("test", 0.01), verdict("fog", 0.02, sure=True), verdict("average of shifts", 0.02, sure=True)]
    kept = distinct(told)
    assert [(v.set, v.family) for v in kept] == [("test", Family.PRIMARY), ("fog", Family.PRIMARY)]
    assert distinct([*told, verdict("snow")]) == (*told, verdict("snow"))
    assert distinct(told[:2]) == tuple(told[:2]), "no average was made of it"


@given(st.floats(-0.5, 0.5), st.floats(0, 0.2))
def test_short_figures_keep_their_signs(step: float, half: float) -> None:
    """No end of an interval that is not zero is shown as zero, unless it is next to nothing."""
    ends = (step - half, step + half)
    shown = short(replace(verdict("test", 0.01), difference=step, interval=ends))
    numbers = [float(text.strip("[],")) for text in shown.split()[:3]]
    for value, number in zip((step, *ends), numbers, strict=True):
        assert abs(100 * value - number) <= 0.0500001
        assert number * value > 0 or abs(100 * value) < 1e-3


def test_what_held_out_data_did_not_choose() -> None:
    chosen = [verdict("held-out"), verdict("test")]
    free = unselected(chosen, selected=False)
    assert [v.family for v in free] == [Family.UNCHOSEN, Family.PRIMARY]
    assert list(unselected(chosen, selected=True)) == chosen
    assert "optimistic" in selection({"": chosen})
    assert "optimistic" not in selection({"": free})
    assert "as good as a test set" in selection({"": free})
    both = selection({"greedy": chosen, "uniform": free})
    assert both.startswith("Held-out data chose greedy: optimistic there; for uniform they are as good as a test set")


def test_models_in_different_basins() -> None:
    (said,) = basins({"uniform soup": 0.12}, [0.9, 0.91, 0.88], "accuracy", 800)
    assert "one basin: uniform soup 12.00 % held-out, the worst single model 88.00 %" in said
    assert "(merge inspect, interpolate)" in said
    assert not basins({"uniform soup": 0.87}, [0.9, 0.91, 0.88], "accuracy", 800), "a little below is no basin"
    assert not basins({"uniform soup": 0.75}, [0.9, 0.91, 0.88], "accuracy", 30), "as far as luck goes with 30 samples"
    assert not basins({"uniform soup": 0.12}, [0.9], "accuracy", 800)
    assert basins({"uniform soup": -9.0}, [-0.5, -0.4, -0.6], "nll", 800)
    assert not basins({"uniform soup": -0.65}, [-0.5, -0.4, -0.6], "nll", 800)


def test_few_samples_are_said_where_nothing_was_found() -> None:
    told = [verdict("held-out", 0.01), verdict("test", 0.01)]
    (said,) = few(told, Standing.NEITHER)
    assert said.startswith(
        "few samples: differences below about 2.9 points (held-out: 500 samples), about 2.9 points ("
    )
    assert not few(told, Standing.BETTER), "what was found was found"
    assert not few([replace(v, samples=1000) for v in told], Standing.NEITHER)
    free = list(unselected(told, selected=False))
    assert "held-out" not in few(free, Standing.NEITHER)[0]


def test_a_detectable_difference_is_found_in_four_of_five_cases() -> None:
    """By simulation: paired answers of two models, one better by what is said to be detectable."""
    generator, size, discordant = np.random.default_rng(0), 800, 0.1

    def drawn(step: float) -> Verdict:
        change = generator.random(size) < discordant
        better = generator.random(size) < 0.5 + step / discordant / 2
        before = np.where(change, ~better, True).astype(float)
        after = np.where(change, better, True).astype(float)
        named = {"set": "test", "role": Role.TEST, "reference": "best", "against": SINGLE, "measure": "accuracy"}
        return Verdict.of(paired([before], [after]), **named)  # type: ignore[arg-type]

    sizes = [detectable(drawn(0.0)) for _ in range(20)]
    step = float(np.mean([size for size in sizes if size is not None]))
    found = np.mean([drawn(step).better for _ in range(200)])
    assert 0.7 < found < 0.9
    assert detectable(verdict("test", None)) is None


SCREEN = """\
greedy soup (4 of 14 models): no gain over the best single model (run4) that can
be told from luck; ▼ worse on fog -2.4 [-3.6, -1.2] p=.002
▼ lost  fog       -2.4 [-3.6, -1.2] p=.002
level   test      +0.9 [-1.0, +2.8] p=.80
        snow      +0.1 [-1.0, +1.2] p=.80
        held-out  +0.6 [-1.0, +2.2] p=.80  chose the merge
cost    28 evaluations (greedy soup: 27), 8 s; inference as of one model
advice  few samples: differences below about 2.7 points (test: 500 samples) are
        easily luck; hold out and test on more
next    keep run4, unless more test samples show a gain
        merge benchmark tests the uniform soup and other methods, too
"""


def test_the_screen_at_80_columns() -> None:
    told = [
        verdict("held-out", 0.006),
        verdict("test", 0.009),
        verdict("fog", -0.024, sure=True),
        verdict("snow", 0.001),
    ]
    found = Answer(
        standing=standing_of(told),
        headline=headline_of("greedy soup (4 of 14 models)", told),
        changes=changes(told),
        cost="28 evaluations (greedy soup: 27), 8 s; inference as of one model",
        advice=tuple(few(told[1:], Standing.NEITHER)),
        next=(
            "keep run4, unless more test samples show a gain",
            "merge benchmark tests the uniform soup and other methods, too",
        ),
    )
    out = io.StringIO()
    show_answer(Console(file=out, width=80), found)
    assert "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n" == SCREEN
