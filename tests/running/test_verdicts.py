"""What runs, benchmarks and reports of both say of real merges: losses too, one model once, any objective."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from rich.console import Console
from torch import Tensor

import merging
from merging import Best, Greedy, Layer, Recipe, Uniform
from merging.benchmarking.reading import read_folder
from merging.benchmarking.rendering.forms import render
from merging.benchmarking.side_by_side import combine
from merging.cli.showing.benchmark_view import show_benchmark
from merging.cli.showing.table import show_report
from merging.cli.showing.terminal import TerminalProgress
from merging.evaluation.comparing import Comparer
from merging.objectives.accuracy import Accuracy
from merging.objectives.macro_f1 import MacroF1
from merging.objectives.mse import MeanSquaredError
from merging.plugins.objective import Objective
from merging.plugins.problem import Problem
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Split, Task
from merging.running.run import Result
from merging.storage.pool import ModelPool
from merging.testing import tiny_task
from merging.testing.fixtures import blobs, open_tiny_pool
from merging.values.outcome import Outcome
from merging.values.statistics import mcnemar
from merging.values.verdict import Family, Role, Verdict
from tests.conftest import TASK, Merge


@dataclass(frozen=True)
class Last(MixStrategy):
    """Takes the model that scores worst."""

    name: ClassVar[str] = "last"
    needs = frozenset({"model", "objective"})

    def mix(self, problem: Problem) -> Recipe:
        return problem.single(problem.rank()[-1][0])


@pytest.fixture
def pool(pool_folder: Path) -> ModelPool:
    return open_tiny_pool(pool_folder, base=False)


def large_task() -> Task:
    """The blobs with a shifted set on which small losses are significant."""
    task = tiny_task()
    return replace(task, tests={**task.tests, "fog": blobs(4000, seed=5, shift=1.2)}, shifts=("shifted", "fog"))


def numbers(split: Split) -> Split:
    """The same inputs with three numbers to be met, instead of a class."""
    noise = np.random.default_rng(len(split)).normal(size=(len(split), 3)).astype(np.float32)
    return Split.of(split.inputs, split.inputs[:, :3] / 2 + torch.from_numpy(noise))


def regression() -> Task:
    task = tiny_task()
    tests = {name: numbers(split) for name, split in task.tests.items()}
    return replace(task, held_out=numbers(task.held_out), tests=tests, train=None)


def screen(result: Result, folder: Path) -> str:
    out = io.StringIO()
    show_report(Console(file=out, width=400), result.report, folder, "safetensors", built_in=False)
    return out.getvalue()


def told(verdicts: tuple[Verdict, ...]) -> Mapping[str, Verdict]:
    return {verdict.set: verdict for verdict in verdicts if not verdict.extra}


def test_a_loss_on_one_shifted_set_is_said_everywhere(pool: ModelPool, tmp_path: Path) -> None:
    result = merging.merge(pool, Last(), task=large_task(), partitioner=Layer(), output=tmp_path / "out")
    found = told(result.report.verdicts)
    assert list(found) == ["held-out", "test", "shifted", "fog", "average of shifts"]
    assert [v.role for v in found.values()] == [Role.HELD_OUT, Role.TEST, Role.SHIFT, Role.SHIFT, Role.AVERAGE]
    assert [v.tests for v in found.values()] == [1, 2, 2, 2, 2]
    assert found["fog"].worse
    assert found["fog"].family == Family.SECONDARY
    name = result.report.best_single_name
    size = 100 * (found["fog"].difference or 0)
    shown = " ".join(screen(result, tmp_path / "out").split())
    assert f"that can be told from luck; ▼ worse on fog {size:+.1f} [" in shown.partition(" level ")[0], "first of all"
    assert f"fog ▼ {size:+.2f} [" in shown, "and among all the others"
    said = f"fog: ▼ worse than the best single model ({name}): {size:+.2f} points"
    assert said in (tmp_path / "out/README.md").read_text()
    kept = json.loads((tmp_path / "out/report.json").read_text())["verdicts"]
    assert next(v for v in kept if v["set"] == "fog")["verdict"] == "worse"
    row = next(row for row in read_folder(tmp_path / "out").rows if row.strategy == "last")
    assert row.verdicts == result.report.verdicts


def test_counts_are_those_of_the_models(pool: ModelPool) -> None:
    """Against models loaded by hand."""
    task = large_task()
    result = merging.merge(pool, Last(), task=task, partitioner=Layer())
    hits = []
    for name in (result.report.best_single_name, result.report.ingredients[0]):
        checkpoint = next(c for c in pool.checkpoints if c.name == name)
        module = task.build(pool)
        module.load_state_dict({key: checkpoint.read(key) for key in checkpoint.tensors})
        with torch.inference_mode():
            hits.append(module.eval()(task.tests["fog"].inputs).argmax(1) == task.tests["fog"].labels)
    found = told(result.report.verdicts)["fog"]
    assert found.gained == int((hits[1] & ~hits[0]).sum())
    assert found.lost == int((hits[0] & ~hits[1]).sum())
    assert found.samples == 4000


def test_a_run_and_a_benchmark_show_one_model_once(merge: Merge, pool_folder: Path) -> None:
    models = ["--models", str(pool_folder / "model_*.safetensors"), "--task", TASK, "--partitioner", "layer"]
    assert merge("run", *models, "--strategy", "greedy", "--output", "run").code == 0
    assert merge("benchmark", *models, "--strategies", "best,uniform,greedy", "--output", "bench").code == 0
    for order in (["run", "bench"], ["bench", "run"]):
        ran = merge("report", *order, "--output", "both")
        assert ran.code == 0, ran.err
        rows = {row["label"]: row for row in json.loads(Path("both/benchmark.json").read_text())["rows"]}
        assert sorted(rows) == ["best", "greedy", "uniform"], "no label tells folders apart: each model is there once"
        own = {row["label"]: row for row in json.loads(Path("bench/benchmark.json").read_text())["rows"]}
        for label in ("uniform", "greedy"):
            mine = {v["set"]: v for v in rows[label]["verdicts"] if v["reference"] == "best"}
            bench = {v["set"]: v for v in own[label]["verdicts"] if v["reference"] == "best"}
            assert mine == bench, "tested once, corrected over the same table"
            assert mine["test"]["tests"] == 4
        assert "– not tested" not in ran.out.partition("Against")[2]
    assert merge("run", *models, "--strategy", "uniform", "--output", "other").code == 0
    both = combine({name: read_folder(Path(name)) for name in ("run", "other")})
    assert {row.label: sum(v.tested for v in row.verdicts) > 0 for row in both.rows} == {
        "best": False,
        "uniform": True,
        "greedy": True,
    }
    assert {v.tests for row in both.rows for v in row.verdicts if v.family == Family.PRIMARY} == {4}


def test_what_was_not_tested_is_not_taken_for_a_gain(merge: Merge, pool_folder: Path) -> None:
    models = ["--models", str(pool_folder / "model_*.safetensors"), "--task", TASK, "--partitioner", "layer"]
    assert merge("run", *models, "--strategy", "greedy", "--output", "run").code == 0
    ran = merge("report", "run", "--json")
    rows = {row["label"]: row for row in json.loads(ran.out)["rows"]}
    assert {v["verdict"] for v in rows["uniform"]["verdicts"]} == {"not tested"}
    assert rows["best"]["verdicts"] == []
    shown = merge("report", "run").out
    line = next(line for line in shown.splitlines() if line.startswith("uniform"))
    assert line.count("–") >= 3
    assert not set("▲▼") & set(line)


@pytest.mark.parametrize("objective", ["accuracy", "nll"])
def test_a_run_of_an_earlier_version_is_read(pool: ModelPool, tmp_path: Path, objective: str) -> None:
    """Its tests were of accuracies, whatever the objective; they stand beside it now."""
    merging.merge(pool, Last(), task=tiny_task(), partitioner=Layer(), output=tmp_path)
    today = read_folder(tmp_path)
    report = json.loads((tmp_path / "report.json").read_text())
    verdicts = [v for v in report.pop("verdicts") if v["role"] not in ("average of shifts", "certify")]
    report["paired"] = {
        v["set"]: {
            "difference": v["difference"],
            "p_value": v["p"],
            "samples": v["samples"],
            "gained": v["gained"],
            "lost": v["lost"],
            "interval": compare_95(v),
        }
        for v in verdicts
    }
    for key in ("measure", "samples", "saved", "best_single"):
        report.pop(key)
    for row in report["rows"]:
        row.pop("accuracies")
        row.pop("digest")
        if objective != "accuracy":
            row["held_out"] = -0.5
    (tmp_path / "report.json").write_text(json.dumps(report | {"objective": objective}))
    found = read_folder(tmp_path)
    row, before = (next(row for row in each.rows if row.strategy == "last") for each in (found, today))
    told = {verdict.set: verdict for verdict in row.verdicts}
    assert {name: v.p for name, v in told.items()} == {v["set"]: v["p"] for v in verdicts}
    if objective == "accuracy":
        assert (row.tests, row.intervals) == (before.tests, before.intervals)
        assert told["test"].family == Family.PRIMARY
    else:
        assert (row.tests, row.accuracies["test"]) == ({}, before.tests["test"])
        assert row.intervals["test (accuracy)"] == before.intervals["test"]
        assert told["test"].extra
        assert not found.percent("test")
        assert found.percent("test (accuracy)")
    render(found, tmp_path / "again")


def compare_95(found: dict[str, Any]) -> tuple[float, float]:
    return mcnemar(int(found["gained"]), int(found["lost"]), found["samples"])[1]


def test_without_baselines_only_the_ranking_is_compared_with(pool: ModelPool) -> None:
    for task, objective in ((tiny_task(), None), (regression(), MeanSquaredError())):
        asked = {"task": task, "partitioner": Layer(), "objective": objective, "baselines": False}
        found = merging.merge(pool, Last(), pool_tests=False, **asked)
        told_of = told(found.report.verdicts)
        assert told_of["held-out"].tested
        name = found.report.best_single_name
        assert told_of["test"].why == f"the best single model ({name}) was not scored there"
        assert not any(v.tested for name, v in told_of.items() if name != "held-out")
        whole = told(merging.merge(pool, Last(), **asked).report.verdicts)
        assert not any("not scored" in verdict.why for verdict in whole.values()), "the pool was scored there"


@pytest.mark.parametrize("objective", [MeanSquaredError(), MacroF1(), Accuracy()], ids=lambda o: o.name)
def test_an_objective_is_what_every_set_is_compared_by(
    pool: ModelPool, tmp_path: Path, objective: Objective, monkeypatch: pytest.MonkeyPatch
) -> None:
    if objective.name == "macro-f1":
        monkeypatch.setattr("merging.values.statistics.RESAMPLES", 399)  # what is no mean takes a tenth of a ms a draw
    task = regression() if objective.name == "mse" else tiny_task()
    result = merging.merge(
        pool, Last(), task=task, partitioner=Layer(), objective=objective, output=tmp_path / "run", certify_split=0.5
    )
    report = result.report
    row = next(row for row in report.rows if row.strategy == "last")
    single = report.best_single
    assert single is not None
    for name, found in told(report.verdicts).items():
        assert found.measure == objective.name
        assert found.tested, name
        if name in row.tests:
            assert found.difference == pytest.approx(row.tests[name] - single.tests[name], abs=1e-12)
    texts = [screen(result, tmp_path / "run"), (tmp_path / "run/README.md").read_text()]
    methods = [Best(), Uniform(), Greedy()]
    table = merging.benchmark(pool, methods, task=task, partitioners=[Layer()], objective=objective)
    render(table, tmp_path / "bench")
    out = io.StringIO()
    show_benchmark(Console(file=out, width=200), table)
    texts += [out.getvalue()]
    texts += [(tmp_path / "bench" / f"benchmark.{kind}").read_text() for kind in ("md", "html", "tex")]
    for text in texts:
        assert objective.name in text
        if objective.name == "mse":
            said = re.sub("<script.*?</script>", "", text.rpartition("</style>")[2], flags=re.DOTALL)
            said = said.replace("right of the line", "")  # where a forest's better methods stand
            assert [word for word in ("accuracy", " right", "top-1", " points", "gained") if word in said] == []
        elif objective.name == "macro-f1":
            assert "test (accuracy)" in text or "accuracy" in text
        else:
            assert "(accuracy)" not in text
    beside = [verdict for verdict in report.verdicts if verdict.extra]
    assert bool(beside) == bool(row.accuracies) == (objective.name == "macro-f1")
    assert all(verdict.measure == "accuracy" and verdict.gained is not None for verdict in beside)
    assert all({"held-out", "test", "shifted"} <= set(each.intervals) for each in table.rows)


@dataclass(frozen=True)
class Median(Objective):
    """A score that is no mean of its terms, though it says nothing of that."""

    name: ClassVar[str] = "median-margin"

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits.gather(1, labels[:, None])[:, 0]

    def reduce(self, terms: Tensor) -> float:
        return float(terms.median())


@dataclass(frozen=True)
class Fragile(Median):
    """A reduce that samples drawn twice break."""

    name: ClassVar[str] = "fragile"

    def reduce(self, terms: Tensor) -> float:
        if len(terms.unique()) < len(terms):
            raise ValueError("ties")
        return float(terms.median())


@dataclass(frozen=True)
class Within(Objective):
    """A score of numbers that lies between 0 and 1, as shares of explained variance do."""

    name: ClassVar[str] = "within"

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        return (-(logits - labels).square().mean(dim=1)).exp()

    def reduce(self, terms: Tensor) -> float:
        return float(terms.double().mean())


def test_only_accuracies_are_in_percent(pool: ModelPool) -> None:
    """Also where another score happens to lie between 0 and 1."""
    for task, objective, percent in ((regression(), Within(), False), (tiny_task(), Accuracy(), True)):
        out = io.StringIO()
        with TerminalProgress(Console(file=out, width=200)) as progress:
            merging.merge(pool, Greedy(), task=task, partitioner=Layer(), objective=objective, progress=progress)
        said = [line for line in out.getvalue().splitlines() if "held-out" in line or "average" in line]
        assert len(said) >= 3
        assert all((" %" in line) == percent for line in said)


def outcomes(objective: Any, split: Split, shift: float, seed: int) -> dict[str, tuple[Outcome]]:
    logits = torch.from_numpy(np.random.default_rng(seed).normal(size=(len(split), 3)).astype(np.float32))
    logits[torch.arange(len(split)), split.labels] += shift
    terms = objective.terms(logits, split.labels)
    return {"test": (Outcome(score=objective.reduce(terms), samples=len(split), terms=terms.numpy()),)}


def test_a_score_that_is_no_mean_is_drawn_again_by_its_own_reduce() -> None:
    task = tiny_task()
    comparer = Comparer(Median(), task)
    before, after = (outcomes(Median(), task.tests["test"], shift, 1) for shift in (0.0, 0.8))
    found = comparer.compare(["test"], before, after)
    assert not isinstance(found, str)
    assert found.difference == pytest.approx(0.8, abs=1e-6)
    assert found.interval[0] == pytest.approx(0.8, abs=1e-5), "the same for every draw, so no spread"
    other = comparer.compare(["test"], before, outcomes(Median(), task.tests["test"], 0.0, 2))
    assert not isinstance(other, str)
    assert other.interval[0] < 0 < other.interval[1]


def test_what_cannot_be_drawn_again_says_why() -> None:
    task = tiny_task()
    before, after = (outcomes(Fragile(), task.tests["test"], 0.5, seed) for seed in (1, 2))
    found = Comparer(Fragile(), task).compare(["test"], before, after)
    assert found == "fragile fails on samples drawn again: ValueError: ties"
    few = {"test": (Outcome(score=0.5, samples=4, terms=np.ones(4)),)}
    assert Comparer(Median(), task).compare(["test"], few, few) == "4 samples say nothing about others"
    bare = {"test": (Outcome(score=0.5, samples=90),)}
    assert Comparer(Median(), task).compare(["test"], bare, bare) == "the objective tells no samples apart"
    blank = {"test": (Outcome(score=-1e300, samples=90, terms=np.full(90, np.nan)),)}
    assert Comparer(Median(), task).compare(["test"], blank, blank) == "a model has no finite score there"


def test_seeds_and_sets_are_paired_together() -> None:
    """Two seeds on two sets of different size, against each draw made by hand."""
    task = replace(tiny_task(), tests={"test": blobs(40, seed=2), "shifted": blobs(70, seed=3)})
    comparer, objective = Comparer(Median(), task), Median()
    before = {name: outcomes(objective, split, 0.0, 1)["test"] for name, split in task.tests.items()}
    after = {
        name: (*outcomes(objective, split, 0.3, 2)["test"], *outcomes(objective, split, 0.1, 3)["test"])
        for name, split in task.tests.items()
    }
    found = comparer.compare(["test", "shifted"], before, after)
    assert not isinstance(found, str)
    steps = [np.mean([o.score for o in after[name]]) - before[name][0].score for name in task.tests]
    assert found.difference == pytest.approx(float(np.mean(steps)))
    assert found.samples == 110
    assert (
        comparer.verdicts(["test", "shifted"], before, after, reference="best", against="it")[-1].role == Role.AVERAGE
    )
