"""The answers of real runs and benchmarks: said first, from facts of the run, and the same in every form."""

from __future__ import annotations

import io
import json
import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pytest
import torch
from rich.console import Console
from torch import Tensor

import merging
from merging import Best, Fisher, Greedy, Layer, Learned, Recipe, Uniform
from merging.benchmarking.reading import read_folder
from merging.benchmarking.rendering.answer import answer as answer_of
from merging.benchmarking.rendering.documents import to_markdown
from merging.benchmarking.rendering.forms import render
from merging.benchmarking.rendering.page import to_html
from merging.benchmarking.results import Benchmark
from merging.cli.showing.benchmark_view import show_benchmark
from merging.cli.showing.table import show_report
from merging.plugins.options import Plugin
from merging.plugins.problem import Problem
from merging.plugins.strategy import MixStrategy
from merging.running.run import Result
from merging.storage.atomic import save_safetensors
from merging.storage.pool import ModelPool
from merging.strategies.model_stock import ModelStock
from merging.strategies.weighted import Weighted
from merging.strategies.wise_ft import WiseFt
from merging.testing import tiny_task
from merging.testing.fixtures import TinyNet, blobs, open_tiny_pool
from merging.values.answer import answer, bare
from merging.values.score_table import ScoreTable
from merging.values.states import RunState, Wanted
from merging.values.verdict import Family, Standing


@pytest.fixture
def pool(pool_folder: Path) -> ModelPool:
    return open_tiny_pool(pool_folder)


def screen(result: Result, width: int = 80) -> str:
    out = io.StringIO()
    console = Console(file=out, width=width)
    show_report(console, result.report, result.folder or Path("run"), "safetensors", built_in=False)
    return out.getvalue()


def table(found: Benchmark, width: int = 80) -> str:
    out = io.StringIO()
    show_benchmark(Console(file=out, width=width), found)
    return out.getvalue()


@dataclass(frozen=True)
class Peeking(MixStrategy):
    """Averages all models, after a look at the logits of one."""

    name: ClassVar[str] = "peeking"
    needs = frozenset({"model", "objective"})

    def mix(self, problem: Problem) -> Recipe:
        problem.scores.logits(problem.single(0))
        return problem.mean(range(len(problem.pool)))


SELECTING = {
    "uniform": (Uniform(), False),
    "weighted": (Weighted(weights=("model_*=1", "model_0=2")), False),
    "model-stock": (ModelStock(), False),
    "wise-ft": (WiseFt(), False),
    "wise-ft over greedy": (WiseFt(inner=Greedy()), True),
    "wise-ft, swept": (WiseFt(alpha=None, steps=2), True),
    "greedy": (Greedy(), True),
    "learned": (Learned(epochs=1), True),
    "fisher, training data": (Fisher(samples=8), False),
    "fisher, held-out data": (Fisher(samples=8, data="held-out"), True),
    "own": (Peeking(), True),
}
"""Whether a strategy, with these options, looks at held-out data before it decides."""


@pytest.mark.parametrize("name", SELECTING)
def test_whether_held_out_data_chose_is_a_fact_of_the_run(pool: ModelPool, name: str) -> None:
    strategy, looks = SELECTING[name]
    report = merging.merge(pool, strategy, task=tiny_task(), partitioner=Layer()).report
    held_out = next(verdict for verdict in report.verdicts if verdict.role == "held-out")
    assert held_out.family == (Family.SELECTION if looks else Family.UNCHOSEN)
    said = " ".join(report.verdict())
    assert ("these samples chose the merge" in said) == looks
    assert ("as good as a test set" in said) != looks
    row = merging.benchmark(pool, [Best(), strategy], task=tiny_task(), partitioners=[Layer()], singles=False).rows[1]
    assert row.verdict("best", "held-out").family == held_out.family  # type: ignore[union-attr]


def test_a_plain_average_is_called_optimistic_nowhere(pool: ModelPool, tmp_path: Path) -> None:
    result = merging.merge(pool, Uniform(), task=tiny_task(), partitioner=Layer(), output=tmp_path / "run")
    texts = [screen(result, 400), (tmp_path / "run/README.md").read_text()]
    for text in texts:
        assert "optimistic" not in text
        assert "as good as a test set" in text
    found = merging.benchmark(pool, [Best(), Uniform(), Greedy()], task=tiny_task(), partitioners=[Layer()])
    said = table(found, 400)
    assert "Held-out data chose greedy: optimistic there; for uniform they are as good as a test set" in said
    assert said.count("optimistic") == 1, "said once"


def test_the_answer_is_the_first_that_is_read(pool: ModelPool, tmp_path: Path) -> None:
    result = merging.merge(pool, Greedy(), task=tiny_task(), partitioner=Layer(), output=tmp_path / "run")
    found = answer(result.report)
    shown = " ".join(screen(result).split())
    assert shown.startswith(found.headline)
    assert f"the best single model ({result.report.best_single_name})" in found.headline
    card = (tmp_path / "run/README.md").read_text().split("---\n", 2)[2]
    assert card.startswith(f"# Merged model\n\n**{found.headline.replace('<', '&lt;')}**\n\n- ")
    for line in found.told()[1:]:
        assert f"- {bare(line).replace('<', '&lt;').replace('`', chr(92) + '`')}" in card
    places = [shown.index(head) for head in ("cost ", "next ", "held-out samples", "Against the best single model")]
    assert places == sorted(places), "answer, cost, what to do; table; all verdicts"
    assert json.loads(json.dumps(found.to_json()))["standing"] == found.standing
    assert max(map(len, screen(result).splitlines())) <= 80 or "The merged model:" in shown


def test_one_shifted_set_stands_once(pool: ModelPool, tmp_path: Path) -> None:
    """Its average is the set itself: one line, one column, one test."""
    result = merging.merge(pool, Greedy(), task=tiny_task(), partitioner=Layer(), output=tmp_path / "run")
    assert len(result.report.verdicts) == 4, "kept in files as ever"
    assert [name for name, _, _ in ScoreTable(result.report).lines()] == ["held-out", "test", "shifted"]
    assert [line.partition(":")[0] for line in result.report.verdict()][:3] == ["held-out", "test", "shifted"]
    for text in (screen(result, 400), (tmp_path / "run/README.md").read_text()):
        assert "secondary" not in text
        assert not any(
            line.startswith(("│ average of", "average of shifts ", "- average of")) for line in text.splitlines()
        )
    found = merging.benchmark(pool, [Best(), Greedy()], task=tiny_task(), partitioners=[Layer()], output=tmp_path / "b")
    render(found, tmp_path / "b")
    for name in ("md", "tex"):
        text = (tmp_path / f"b/benchmark.{name}").read_text()
        head = next(line for line in text.splitlines() if line.startswith(("| method", "method &")))
        assert head.count("shifted") == 1
        assert "average" not in head
    rows = [line for line in table(found).splitlines() if re.match(r"(held-out|test|shifted|average) +\d", line)]
    assert [row.split()[0] for row in rows] == ["held-out", "test", "shifted"]


def test_without_a_test_set_that_is_said(pool: ModelPool) -> None:
    bare = replace(tiny_task(), tests={}, shifts=())
    chosen = answer(merging.merge(pool, Greedy(), task=bare, partitioner=Layer()).report)
    assert any(line.startswith("no test set was scored: held-out data that chose a merge") for line in chosen.advice)
    free = answer(merging.merge(pool, Uniform(), task=bare, partitioner=Layer()).report)
    assert any("the held-out data are as good as one" in line for line in free.advice)
    assert "tested on no data but those that chose it, held-out " in chosen.headline
    assert chosen.standing == Standing.NOT_TESTED
    assert free.standing == Standing.NEITHER
    left = answer(merging.merge(pool, Greedy(), task=tiny_task(), partitioner=Layer(), tests=False).report)
    assert left.advice == chosen.advice
    found = answer_of(merging.benchmark(pool, [Best(), Greedy()], task=bare, partitioners=[Layer()]))
    assert any(line.startswith("no test set was scored: held-out data that chose a merge") for line in found.advice)
    assert not any("certify" in line for line in found.advice), "a benchmark has no such setting"


def test_advice_only_where_there_is_some(pool: ModelPool) -> None:
    large = replace(tiny_task(), held_out=blobs(1200, seed=1), tests={"test": blobs(3000, seed=2)}, shifts=())
    found = answer(merging.merge(pool, Uniform(), task=large, partitioner=Layer()).report)
    assert found.advice == ()


@dataclass(frozen=True)
class First(MixStrategy):
    """Keeps the best single model."""

    name: ClassVar[str] = "first"
    needs = frozenset({"model", "objective"})

    def mix(self, problem: Problem) -> Recipe:
        return problem.single(problem.rank()[0][0])


def test_a_merge_of_one_model_is_said_to_be_that(pool: ModelPool) -> None:
    report = merging.merge(pool, First(), task=tiny_task(), partitioner=Layer()).report
    found = answer(report)
    assert found.standing == Standing.NEITHER
    assert f"it is the best single model ({report.best_single_name}) itself" in found.headline
    assert [f"keeps {report.best_single_name} alone" in line for line in found.advice] == [True]
    assert found.next[0] == f"keep {report.best_single_name}"
    both = answer_of(merging.benchmark(pool, [Best(), First()], task=tiny_task(), partitioners=[Layer()]))
    assert any(f"first keeps {report.best_single_name} alone" in line for line in both.advice)


def test_what_was_written_is_what_a_pipeline_is_told_of(pool: ModelPool) -> None:
    """Where a baseline is written instead, the verdicts on the strategy say nothing of it."""
    report = merging.merge(pool, Greedy(), task=tiny_task(), partitioner=Layer()).report
    assert answer(report).standing == Standing.NEITHER
    found = answer(replace(report, saved="uniform", state=RunState.INTERRUPTED))
    assert found.standing == Standing.NOT_TESTED
    assert found.headline.endswith("; another model was written")
    assert all(found.shortfall(wanted) for wanted in Wanted)
    sure = [replace(v, difference=0.1, interval=(0.05, 0.15), p=1e-6, corrected=1e-5) for v in report.verdicts]
    refused = answer(replace(report, saved="best", verdicts=tuple(sure)))
    assert refused.standing == Standing.NEITHER
    assert refused.shortfall(Wanted.BETTER)
    assert refused.next[0] == f"keep {report.best_single_name}"


def test_a_method_that_a_benchmark_names_is_not_one_that_held_out_data_chose(pool: ModelPool) -> None:
    bare = replace(tiny_task(), tests={}, shifts=())
    found = merging.benchmark(pool, [Best(), Uniform(), Greedy()], task=bare, partitioners=[Layer()])
    sure = {"difference": 0.1, "interval": (0.05, 0.15), "p": 1e-6, "corrected": 1e-5}
    rows = tuple(replace(row, verdicts=tuple(replace(v, **sure) for v in row.verdicts)) for row in found.rows[1:])
    told = answer_of(replace(found, rows=(found.rows[0], *rows)))
    assert "▲ on held-out data uniform +10.0" in told.headline
    assert "--strategy" not in told.next[0]
    assert "`strategy=uniform`" in told.next[0]
    (use,) = told.uses
    assert "chosen by these data, which flatter them: greedy +10.0 [+5.0, +15.0] p<.001" in str(use)
    told = answer_of(replace(found, rows=(found.rows[0], rows[1])))
    assert told.standing == Standing.NOT_TESTED
    assert told.headline.endswith("on held-out data")
    assert "is shown to beat" in told.headline
    assert told.next == (f"keep the best single model ({found.rows[0].ingredients[0]})",)


def permuted(state: dict[str, Tensor], seed: int) -> dict[str, Tensor]:
    """The same function in another basin: hidden units in another order."""
    order = torch.randperm(8, generator=torch.Generator().manual_seed(seed))
    moved = {"fc1.weight": state["fc1.weight"][order], "fc1.bias": state["fc1.bias"][order]}
    return state | moved | {"fc2.weight": state["fc2.weight"][:, order].contiguous()}


def test_models_in_different_basins_are_told(pool: ModelPool, tmp_path: Path) -> None:
    first = pool.checkpoints[0]
    state = {name: first.read(name).clone() for name in first.tensors}
    for number in range(4):
        save_safetensors(tmp_path / f"model_{number}.safetensors", permuted(state, number))
    scattered = ModelPool.open([tmp_path / "model_*.safetensors"])
    task = replace(tiny_task(), held_out=blobs(400, seed=1))
    found = answer_of(merging.benchmark(scattered, [Best(), Uniform()], task=task, partitioners=[Layer()]))
    assert any("do not lie in one basin: uniform " in line for line in found.advice)
    assert TinyNet().fc1.out_features == 8
    together = answer_of(merging.benchmark(pool, [Best(), Uniform()], task=task, partitioners=[Layer()]))
    assert not any("basin" in line for line in together.advice)


def test_an_interrupted_run_says_so(pool: ModelPool) -> None:
    report = merging.merge(pool, Greedy(), task=tiny_task(), partitioner=Layer(), max_evaluations=7).report
    assert report.state is RunState.LIMIT
    found = answer(report)
    assert any(line.startswith("the run ended early (--max-evaluations 7 reached)") for line in found.advice)
    assert found.next[0] == "go on with the run, same bits: `resume`, with more `max_evaluations`"
    assert not any("alone" in line for line in found.advice), "a search that was cut has not found that"


def test_a_doubt_is_advice_and_said_once(pool: ModelPool, tmp_path: Path) -> None:
    task = tiny_task()
    wrong = replace(task, held_out=replace(task.held_out, labels=(task.held_out.labels + 1) % 3))
    result = merging.merge(pool, Greedy(), task=wrong, partitioner=Layer(), output=tmp_path / "run")
    assert result.report.doubt
    assert answer(result.report).advice[0] == result.report.doubt
    assert screen(result, 4000).count(result.report.doubt) == 1
    assert result.report.doubt in result.report.notes
    found = merging.benchmark(pool, [Best(), Greedy()], task=wrong, partitioners=[Layer()], output=tmp_path / "bench")
    assert found.doubt == result.report.doubt
    for told in (found, read_folder(tmp_path / "bench"), read_folder(tmp_path / "run")):
        assert answer_of(told).advice[0] == found.doubt
        assert table(told, 4000).count(found.doubt) == 1


def test_no_task_is_said_first(pool: ModelPool, tmp_path: Path) -> None:
    result = merging.merge(pool, Uniform(), output=tmp_path / "run")
    found = answer(result.report)
    assert found.standing == Standing.NOT_TESTED
    assert screen(result).startswith("– not scored: without a task there is no data to score it on")


def test_the_best_single_model_is_what_others_are_compared_with(pool: ModelPool) -> None:
    report = merging.merge(pool, Best(), task=tiny_task(), partitioner=Layer()).report
    found = answer(report)
    assert found.standing == Standing.REFERENCE
    assert found.headline.startswith(f"best single model ({report.best_single_name}): ")


def test_a_benchmark_says_which_method_for_which_use(pool: ModelPool) -> None:
    methods: list[Plugin] = [Best(), Uniform(), Greedy(), WiseFt(alpha=0.0)]
    task = replace(
        tiny_task(), tests={"test": blobs(2000, seed=2), "fog": blobs(4000, seed=5, shift=1.2)}, shifts=("fog",)
    )
    found = merging.benchmark(pool, methods, task=task, partitioners=[Layer()])  # type: ignore[arg-type]
    told = answer_of(found)
    name = found.rows[0].ingredients[0]
    assert f"the best single model ({name})" in told.headline
    assert [use.name for use in told.uses] == ["at home", "under shift"]
    for use, column in zip(told.uses, ("test", "average of shifts"), strict=True):
        for row in found.rows[1:]:
            verdict = row.verdict("best", column)
            assert verdict is not None
            marked = [phrase for standing, phrase in use.told if row.label in phrase and standing == "better"]
            assert bool(marked) == verdict.better
            assert any(row.label in phrase for _, phrase in use.told)
    page, text = to_html(found, {}), to_markdown(found)
    for document in (page, text):
        said = document.replace("&lt;", "<")
        assert said.index(told.headline) < said.index("Samples: ")
        assert "`" not in said.partition("Samples: ")[0].rpartition("</style>")[2]
    shown = " ".join(table(found).split())
    assert shown.index(told.headline) < shown.index("held-out")
    alone = answer_of(merging.benchmark(pool, [Uniform()], task=task, partitioners=[Layer()]))
    assert alone.standing == Standing.NOT_TESTED
    assert "name best among them" in alone.headline


def test_what_is_read_from_files_of_runs_has_an_answer(pool: ModelPool, tmp_path: Path) -> None:
    """Also one written before there was any: the verdict is made of what every version has kept."""
    merging.merge(pool, Greedy(), task=tiny_task(), partitioner=Layer(), output=tmp_path / "run")
    path = tmp_path / "run/report.json"
    report = json.loads(path.read_text())
    report.pop("doubt")
    path.write_text(json.dumps(report))
    found = answer_of(read_folder(tmp_path / "run"))
    assert "the best single model" in found.headline
    assert any("greedy" in phrase for use in found.uses for _, phrase in use.told)
    assert any("not tested: uniform" in phrase for use in found.uses for _, phrase in use.told)


def test_a_baseline_read_from_a_run_keeps_what_held_out_data_chose(pool: ModelPool, tmp_path: Path) -> None:
    """Whatever they did for the strategy that was asked for."""
    for strategy in (Uniform(), Greedy()):
        merging.merge(pool, strategy, task=tiny_task(), partitioner=Layer(), output=tmp_path / strategy.name)
        rows = {row.strategy: row for row in read_folder(tmp_path / strategy.name).rows}
        families = {name: rows[name].verdict("best", "held-out").family for name in ("uniform", "greedy")}  # type: ignore[union-attr]
        assert families == {"uniform": Family.UNCHOSEN, "greedy": Family.SELECTION}


def test_a_winner_that_loses_on_one_shifted_set_is_told_so(pool: ModelPool) -> None:
    """The average may hide it."""
    found = merging.benchmark(pool, [Best(), Uniform()], task=tiny_task(), partitioners=[Layer()])
    row = found.rows[1]
    told = {verdict.set: verdict for verdict in row.verdicts if verdict.reference == "best"}
    sure = replace(told["shifted"], p=1e-6, corrected=1e-5)
    gain = replace(told["average of shifts"], difference=0.1, interval=(0.05, 0.15), p=1e-6, corrected=1e-5)
    loss = replace(sure, set="fog", difference=-0.03, interval=(-0.04, -0.02))
    other = replace(sure, difference=0.23, interval=(0.2, 0.26))
    changed = replace(row, verdicts=(told["test"], gain, loss, other))
    said = answer_of(replace(found, rows=(found.rows[0], changed), shifts=("shifted", "fog"))).headline
    assert "under shift uniform +10.0 [+5.0, +15.0] p<.001, nothing lost at home" in said
    assert said.endswith("; ▼ -3.0 [-4.0, -2.0] p<.001 on fog")


def test_what_loses_on_no_set_is_recommended_before_what_gains_more(pool: ModelPool) -> None:
    """Many tests hide a loss in the average: a set on which a method is worse speaks against it."""
    found = merging.benchmark(pool, [Best(), Uniform()], task=tiny_task(), partitioners=[Layer()])
    row = found.rows[1]
    told = {verdict.set: verdict for verdict in row.verdicts if verdict.reference == "best"}
    gain = replace(told["test"], difference=0.03, interval=(0.01, 0.05), p=1e-6, corrected=1e-5)
    level = replace(told["average of shifts"], difference=-0.01, interval=(-0.02, 0.01), p=0.07, corrected=0.2)
    loss = replace(told["shifted"], set="fog", difference=-0.03, interval=(-0.04, -0.02), p=1e-6, corrected=1e-5)
    sound = replace(row, strategy="greedy", label="greedy", verdicts=(gain, level, told["shifted"]))
    more = replace(gain, difference=0.04, interval=(0.02, 0.06))
    fond = replace(row, strategy="learned", label="learned", verdicts=(more, level, told["shifted"], loss))
    made = answer_of(replace(found, rows=(found.rows[0], fond, sound), shifts=("shifted", "fog")))
    assert made.headline.startswith("▲ at home greedy +3.0 [+1.0, +5.0] p<.001, nothing lost under shift")
    assert "strategy=greedy" in made.next[0]
    assert "same verdicts" not in made.cost
    (line,) = [said for _, said in made.uses[0].told if said.startswith("▲ learned")]
    assert line == "▲ learned +4.0 [+2.0, +6.0] p<.001; ▼ -3.0 [-4.0, -2.0] p<.001 on fog"


def test_what_was_known_took_less_than_a_second(pool: ModelPool) -> None:
    made = merging.merge(pool, Uniform(), task=tiny_task())
    found = merging.benchmark(pool, [Uniform()], task=tiny_task())
    for shown in (
        screen(replace(made, report=replace(made.report, wall_seconds=0.3)), 200),
        table(replace(found, wall_seconds=0.3), 200),
    ):
        assert "; less than 1 s\n" in shown
        assert " 0 s" not in shown
