"""What somebody else writes against this package; mypy and pyright must accept it (tests/project/test_typing.py)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar, assert_type

import torch
from torch import nn

import merging
from merging.plugins.registry import forms, models, objectives, optimizers, partitioners, strategies, tasks
from merging.plugins.watcher import Watcher
from merging.running.given import Destination, Parts
from merging.running.settings import Passes, Search, Settings
from merging.training.regime import regimes

if TYPE_CHECKING:
    from torch import Tensor

    from merging.drawing import Picture


@strategies.register("typed-top-k")
@dataclass(frozen=True)
class TopK(merging.MixStrategy):
    """The average of the k best models, refined by a search."""

    summary: ClassVar[str] = "the average of the k best models"
    needs: ClassVar[frozenset[str]] = frozenset({"model", "objective"})

    k: int = merging.option(3, "how many models", low=1)

    def mix(self, problem: merging.Problem) -> merging.Recipe:
        """Ranks, averages, searches the line to the best model."""
        ranking = problem.rank()
        assert_type(ranking, list[tuple[int, merging.Outcome]])
        best, soup = problem.single(ranking[0][0]), problem.mean([index for index, _ in ranking[: self.k]])
        path: merging.Path = problem.search.between(best, soup)
        outcome = path(problem.generator.random(len(problem.partition)))
        problem.decide(score=outcome.score)
        problem.keep(soup, problem.evaluate(soup))
        return soup


@strategies.register("typed-numbers")
@dataclass(frozen=True)
class Towards(merging.MixStrategy):
    """The average, drawn towards the first model by a number that may vary."""

    summary: ClassVar[str] = "the average, drawn towards the first model"

    share: merging.Varying = merging.varying_option(0.5, "how far", "components", low=0.0, high=1.0)

    def mix(self, problem: merging.Problem) -> merging.Recipe:
        """Reads the number of every component."""
        shares = merging.numbers_of(self, "share", problem)
        assert_type(shares.at(0, "weight"), float)
        return problem.mean(range(len(problem.pool))).lerp(problem.single(0), shares.row)


@strategies.register("typed-parts")
@dataclass(frozen=True)
class EveryPart(merging.MixStrategy):
    """Uses each part of what it is given."""

    summary: ClassVar[str] = "every part"
    needs: ClassVar[frozenset[str]] = frozenset({"model", "objective", "gradients", "train"})

    def mix(self, problem: merging.Problem) -> merging.Recipe:
        """Looks at answers, searches, and takes a gradient."""
        scores: merging.Scores = problem.scores
        first, second = problem.single(0), problem.single(1)
        assert_type(scores.splits, tuple[str, ...])
        assert_type(scores.score(scores.logits(first)), float)
        search: merging.Searches = problem.search
        box = problem.generator.random(len(problem.partition))
        solution = search.maximize(search.between(first, second), lower=box * 0, upper=box, start=box, budget=5)
        assert_type(solution, merging.Solution)
        slopes: merging.Slopes = problem.slopes
        blend: merging.Blend = slopes.blend([first, second])
        for batch in slopes.batches("train", problem.generator, 16):
            loss, _, _ = blend.gradient(problem.generator.random((2, len(box))), batch)
            assert_type(loss, float)
        return first.lerp(second, solution.x)


@partitioners.register("typed-halves")
@dataclass(frozen=True)
class Halves(merging.Partitioner):
    """The first half of the tensors, and the second."""

    summary: ClassVar[str] = "two halves"

    def split(self, tensors: Mapping[str, merging.TensorInfo], module: nn.Module | None = None) -> merging.Partition:
        """Cuts the list of names in the middle."""
        del module
        names = list(tensors)
        middle = len(names) // 2
        components = [
            merging.Component("first", tuple(names[:middle])),
            merging.Component("rest", tuple(names[middle:])),
        ]
        return merging.Partition(tuple(components))


@optimizers.register("typed-climb")
@dataclass(frozen=True)
class Climb(merging.Optimizer):
    """Random steps from the best point so far."""

    summary: ClassVar[str] = "random steps"

    def maximize(self, search: merging.Search) -> merging.Solution:
        """Asks until the budget is spent."""
        best, score = search.start, search.evaluate(search.start)
        while True:
            point: merging.Vector = best + search.generator.normal(scale=0.1, size=search.dimension)
            found = search.evaluate(point)
            best, score = (point, found) if found > score else (best, score)


@objectives.register("typed-margin")
@dataclass(frozen=True)
class Margin(merging.Objective):
    """The mean logit of the right class."""

    summary: ClassVar[str] = "mean logit"

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """One a sample."""
        return logits.gather(1, labels[:, None])[:, 0]

    def reduce(self, terms: Tensor) -> float:
        """Their mean."""
        return float(terms.double().mean())


@objectives.register("typed-groups")
@dataclass(frozen=True)
class Groups(merging.Objective):
    """Asks for labels and groups too, and has several terms a sample."""

    summary: ClassVar[str] = "a mean over groups"
    takes: ClassVar[str] = "classes"
    decomposable: ClassVar[bool] = False

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """A row a sample."""
        del labels
        return logits.softmax(1)

    def reduce(self, terms: Tensor, labels: Tensor, groups: Tensor) -> float:
        """By their names."""
        return float(terms.gather(1, labels[:, None])[groups == 0].mean())


@objectives.register("typed-count")
@dataclass(frozen=True)
class Count(merging.WholeModelObjective):
    """How many samples there are."""

    summary: ClassVar[str] = "a count"

    def measure(self, model: nn.Module, split: merging.SplitView) -> float:
        """Looks at the labels only."""
        del model
        return float(sum(len(labels) for _, labels in split))


@regimes.register("typed-half")
@dataclass(frozen=True)
class Half(merging.Regime):
    """Trains a share of the epochs."""

    summary: ClassVar[str] = "a share of the epochs"

    share: float = merging.option(0.5, "of the epochs", low=0.0, high=1.0)

    def train(self, runs: Sequence[merging.Run]) -> Iterator[None]:
        """Step by step, epoch by epoch."""
        (run,) = runs
        while run.epoch < self.share * run.settings.epochs:
            for _ in range(run.steps):
                run.step()
            yield


@models.register("typed-source")
class Source(merging.ModelSource):
    """An architecture of mine."""

    def __init__(self, name: str, arguments: Mapping[str, Any]) -> None:
        super().__init__(f"typed-source:{name}", arguments)

    def module(self, classes: int | None = None, tensors: Mapping[str, merging.TensorInfo] | None = None) -> nn.Module:
        """A linear one."""
        del tensors
        return nn.Linear(4, classes or 2)


@forms.register("typed-form")
@dataclass(frozen=True)
class Form(merging.DataForm):
    """Zeros."""

    summary: ClassVar[str] = "zeros"
    suffixes: ClassVar[tuple[str, ...]] = (".zeros",)

    def open(self, reader: merging.Reader) -> merging.Opened:
        """One sample."""
        return reader.samples(merging.Split.of(torch.zeros(1, 4), torch.zeros(1, dtype=torch.int64)))


assert_type(Form(), Form)


@tasks.register("typed-task")
def task_of_mine(data: str | None = None) -> merging.Task:
    """A registered function keeps its type."""
    return merging.load_task(data or "digits")


assert_type(task_of_mine(data="digits"), merging.Task)
assert_type(TopK(k=2), TopK)
assert_type(merging.ManifoldMix(tau=0.99), merging.ManifoldMix)
assert_type(merging.WiseFt(inner=merging.Greedy()), merging.WiseFt)


def everything(pool: merging.ModelPool, task: merging.Task) -> merging.Report:
    """One call with a plug-in of each kind."""
    result = merging.merge(
        pool, TopK(k=2), partitioner=Halves(), optimizer=Climb(), objective=Margin(), task=task, budget=20
    )
    assert_type(result, merging.Result)
    merging.merge(pool, merging.ManifoldMix(tau=0.99), partitioner=merging.ClipC8(), task=task)
    return result.report


def merged_twice(pool: merging.ModelPool, task: merging.Task) -> merging.Result:
    """A program passes values, a notebook keywords."""
    settings = Settings(search=Search(budget=60, freeze=("head",)), passes=Passes(device="cpu"))
    parts, there = Parts(task=task, partitioner=Halves()), Destination(output="runs/values")
    assert_type(settings.search.budget, int | None)
    assert_type(merging.merge(pool, TopK(k=2), parts=parts, settings=settings, destination=there), merging.Result)
    return merging.merge(pool, TopK(k=2), task=task, partitioner=Halves(), budget=60, output="runs/keywords")


def read_back(pool: merging.ModelPool, task: merging.Task) -> None:
    """What a notebook does with results."""
    result = merging.merge(pool, merging.Greedy(), task=task, progress=True)
    assert_type(result.recipe, merging.Recipe)
    assert_type(result.recipe.names, tuple[str, ...])
    run = merging.load_run("runs/greedy")
    assert_type(run, merging.SavedRun)
    assert_type(run.recipe, merging.Recipe)
    assert_type(run.report, merging.Report)
    assert_type(run.pool, merging.ModelPool)
    assert_type(run.state_dict(), "dict[str, Tensor]")
    assert_type(merging.Report.from_json("runs/greedy"), merging.Report)
    assert_type(merging.__version__, str)
    figure: Picture = run.plot()
    figure.save("differences.png")
    found = merging.benchmark(pool, [merging.Greedy()], task=task, watcher=Watcher(progress=False))
    assert_type(found, merging.Benchmark)
    other: Picture = found.plot("forest")
    other.save("forest.png")
    for frame in (result.to_frame(), found.to_frame("greedy"), result.recipe.to_frame()):
        frame.groupby("set")
    merging.render(run, "rendered")


def by_name(net: nn.Module, states: Sequence[dict[str, Tensor]]) -> merging.Result:
    """Names, classes, paths, patterns and things in memory stand where objects do."""
    task = merging.task(lambda: nn.Linear(4, 4), (states, [0, 1]), tests={"test": (states, [0, 1])}, classes=4)
    assert_type(task, merging.Task)
    merging.merge("runs/*.pt", "greedy", task="digits", partitioner="clip-c8", base="base.pt")
    merging.merge([net, "a.pt"], merging.Greedy, task="merge.toml")
    merging.merge(states, merging.Greedy())
    merging.merge({"first": net, "second": net}, "uniform")
    parts = Parts(partitioner="clip-c8", objective=merging.MacroF1, optimizer="random", task="merge.toml")
    assert_type(parts.task, merging.Task | None)
    assert_type(parts.partitioner, merging.Partitioner | None)
    merging.benchmark(states, ["greedy", merging.Uniform], task=task)
    merging.evaluate(net, "digits")
    merging.interpolate([net, net], task)
    assert_type(merging.check(states, merging.Greedy), merging.Checked)
    assert_type(merging.apply("runs/first", models=states), merging.Applied)
    assert_type(merging.Checkpoint.of(net), merging.Checkpoint)
    assert_type(merging.ModelPool({"first": net, "second": states[0]}), merging.ModelPool)
    return merging.merge(merging.ModelPool.open(states), merging.Greedy, parts=parts)
