"""The published runs, replayed: greedy and ManifoldMixMS see the logged accuracies and must decide as was logged.

The files in tests/published are results, with their sources and licences in the README there.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nevergrad
import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from merging.optimizers.nevergrad import NevergradReference, stopping_its_thread
from merging.plugins.optimizer import Vector
from merging.running.capabilities import MergeSearches
from merging.running.problem import MergeProblem
from merging.storage.pool import ModelPool
from merging.strategies.greedy import Greedy
from merging.strategies.manifoldmix import ManifoldMix
from merging.testing import tiny_pool, tiny_problem, tiny_task
from merging.testing.fixtures import TinyNet
from merging.values.outcome import Outcome, Solution
from merging.values.partition import Partition
from merging.values.recipe import Ingredient, Recipe

PUBLISHED = Path(__file__).parents[1] / "published"
IMAGES = 26_000
COMPONENTS = (
    "positional_embedding",
    "text_projection",
    "logit_scale",
    "visual",
    "token_embedding",
    "ln_final",
    "classification_head.weight",
    "classification_head.bias",
)
ACTIVE = {"visual": 3, "classification_head.weight": 6, "classification_head.bias": 7}
FACTORS = {
    "visual": [0.4793, 0.7865, 0.8404, 0.8716, 0.7570, 0.8183],
    "classification_head.weight": [0.4587, 0.6585, 0.8624, 0.7998, 0.9496, 0.8555],
    "classification_head.bias": [0.5386, 0.6622, 0.9128, 0.7977, 0.8284, 0.8555],
}
"""λ of the six merges, to four digits, of the components that reach the logits."""


def read(name: str) -> Any:
    return json.loads((PUBLISHED / name).read_text())


def exact(accuracy: float) -> float:
    """The accuracy as a fraction of 26,000 images; the log rounds it to six digits."""
    return round(accuracy * IMAGES) / IMAGES


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    """72 stand-ins with the names of the release: a number for each component. Only their order and names matter."""
    folder = tmp_path_factory.mktemp("release")
    for number in range(72):
        save_file({name: torch.tensor([float(number)]) for name in COMPONENTS}, folder / f"model_{number}.safetensors")
    return ModelPool.open([folder])


class Replay:
    """What greedy and manifold mix use of a problem, with scores that a log answers."""

    def __init__(self, pool: ModelPool, singles: dict[str, float]) -> None:
        self.pool, self.facts = pool, list[dict[str, Any]]()
        self.partition = Partition.of_groups({name: [name] for name in COMPONENTS})
        self.generator = np.random.default_rng(0)
        self.progress = self
        self.singles, self.averages = singles, iter(())
        self.evaluated = 0

    def ahead(self, items: Any) -> None:
        """Nothing is made beforehand."""

    def apart(self, function: Any, **given: Any) -> Any:
        return function(self, **given)

    def single(self, index: int) -> Recipe:
        return Recipe.single(self.pool.ingredients[index], self.partition)

    def mean(self, indices: list[int]) -> Recipe:
        return Recipe.mean([self.pool.ingredients[index] for index in indices], self.partition)

    def rank(self) -> list[tuple[int, Outcome]]:
        scores = [(i, Outcome(score=self.singles[name], samples=IMAGES)) for i, name in enumerate(self.pool.names)]
        return sorted(scores, key=lambda pair: -pair[1].score)

    def evaluate(self, recipe: Recipe) -> Outcome:
        if len(recipe.names) == 1:
            return Outcome(score=self.singles[recipe.names[0]], samples=IMAGES)
        self.evaluated += 1
        return Outcome(score=self.average(recipe), samples=IMAGES)

    def average(self, recipe: Recipe) -> float:
        raise NotImplementedError

    def decide(self, **facts: Any) -> None:
        self.facts.append(facts)

    def keep(self, recipe: Recipe, outcome: Outcome) -> None:
        pass

    def stage(self, text: str, total: int | None = None) -> None:
        pass

    def advance(self, steps: int = 1) -> None:
        pass


class GreedyReplay(Replay):
    """Averages are asked for in the order of the log."""

    def __init__(self, pool: ModelPool, log: dict[str, Any], singles: dict[str, float]) -> None:
        super().__init__(pool, singles)
        self.candidates: Iterator[dict[str, Any]] = iter(log["candidates"])

    def average(self, recipe: Recipe) -> float:
        candidate = next(self.candidates)
        return float(candidate["val_acc"])


def individual() -> dict[str, float]:
    lines = (PUBLISHED / "individual_model_results.jsonl").read_text().splitlines()
    return {row["model_name"]: row["ImageNet2p"] for row in map(json.loads, lines)}


def test_greedy_accepts_the_published_ingredients(pool: ModelPool) -> None:
    log = read("greedy_trace.json")
    problem = GreedyReplay(pool, log, individual())
    recipe = Greedy().mix(problem)  # type: ignore[arg-type]
    assert recipe.names == ("model_43", "model_44", "model_32", "model_47", "model_50")
    assert [fact["accepted"] for fact in problem.facts] == [candidate["accepted"] for candidate in log["candidates"]]
    assert max(fact["average"] for fact in problem.facts) == pytest.approx(0.8401538, abs=1e-7)


class ManifoldReplay(Replay):
    """Averages and searches are answered by the log of the published C8 run."""

    def __init__(self, pool: ModelPool, log: dict[str, Any]) -> None:
        tables = dict(zip(log["order"], map(exact, log["val_acc"]), strict=True))
        super().__init__(pool, tables | {log["order"][0]: exact(log["start_val_acc"])})
        self.log = {entry["model"]: entry for entry in log["candidates"]}
        self.order, self.searches = [], 0
        self.factors = iter(factors_of(read("manifoldmix_c8_result.json")))
        self.current: dict[str, Any] = {}
        self.boxes: list[tuple[float, float, int]] = []

    def average(self, recipe: Recipe) -> float:
        newest = recipe.ingredients[-1].name
        if newest == self.current.get("model") or newest in self.order:  # near misses: reported, nothing hangs on them
            return 0.5
        self.current, self.passes = self.log[newest], iter(self.log[newest]["passes"])
        self.order.append(newest)
        return exact(self.current["approx_average"])

    @property
    def search(self) -> ManifoldReplay:
        return self

    def between(self, incumbent: Recipe, candidate: Recipe, *, mixing: str) -> Callable[[Vector], Outcome]:
        assert mixing == "sum"
        return lambda factors: Outcome(score=0.0, samples=IMAGES)

    def maximize(
        self, function: Any, *, lower: Vector, upper: Vector, start: Vector, budget: int, rounded: bool, **more: Any
    ) -> Solution:
        assert not rounded
        self.searches += 1
        self.boxes.append((float(lower[0]), float(upper[0]), budget))
        score = 1.0 - (1.0 - exact(next(self.passes)))
        last = len(self.current["passes"]) > 1 and next(self.passes, None) is None
        if len(self.current["passes"]) > 1 and not last:  # put back what was looked at
            self.passes = iter(self.current["passes"][-1:])
        return Solution(next(self.factors) if last else start, score, budget, "budget spent")


def factors_of(result: dict[str, Any]) -> list[Vector]:
    """λ of each merge from the final β: β_j = (1 − λ_j) · Π_{i > j} λ_i, so the last one is known first."""
    beta = np.array([result["beta"][f"row_{k}"] for k in range(len(result["ingredientIndices"]))])
    rest, found = np.ones(beta.shape[1]), []
    for row in beta[:0:-1]:
        found.append(1.0 - row / rest)
        rest = rest * found[-1]
    return found[::-1]


def test_manifold_mix_makes_the_published_decisions(pool: ModelPool) -> None:
    log, result = read("manifoldmix_c8_trace.json"), read("manifoldmix_c8_result.json")
    problem = ManifoldReplay(pool, log)
    recipe = ManifoldMix(profile="reference").mix(problem)  # type: ignore[arg-type]

    def said(fact: dict[str, Any]) -> str:
        return "accepted" if fact["accepted"] else "rejected" if "searches" in fact else "skipped"

    assert len(problem.facts) == 71
    assert [fact["candidate"] for fact in problem.facts] == log["order"][1:]
    assert [said(fact) for fact in problem.facts] == [entry["decision"] for entry in log["candidates"]]
    chosen = [log["order"].index(ingredient.name) for ingredient in recipe.ingredients]
    assert chosen == result["ingredientIndices"] == [0, 1, 4, 10, 16, 17, 33]
    missed = [number + 1 for number, fact in enumerate(problem.facts) if said(fact) == "rejected"]
    assert missed == result["indicesNearMisses"]
    assert len(missed) == 21
    assert problem.searches == 33
    assert {budget for *_, budget in problem.boxes} == {240}
    # The published program also measures the average of one near miss, which is a model that it has a score of.
    measured = 1 + problem.evaluated + 1
    assert measured + sum(budget for *_, budget in problem.boxes) == 8034
    beta = np.array([result["beta"][f"row_{k}"] for k in range(7)])
    assert np.abs(recipe.coefficients - beta).max() < 1e-6
    assert np.allclose(recipe.coefficients.sum(axis=0), 1.0, atol=1e-12)


def test_bounds_of_the_published_searches(pool: ModelPool) -> None:
    """start ± half of what is missing to 1, then [0.3, 1]."""
    problem = ManifoldReplay(pool, read("manifoldmix_c8_trace.json"))
    ManifoldMix(profile="reference").mix(problem)  # type: ignore[arg-type]
    first = [box[:2] for box in problem.boxes if box[:2] != (0.3, 1.0)]
    assert first[0] == (0.25, 0.75)
    for models, box in ((2, (0.5, 5 / 6)), (6, (6 / 7 - 1 / 14, 6 / 7 + 1 / 14))):
        assert any(np.allclose(box, other) for other in first), (models, first)
    assert sum(box[:2] == (0.3, 1.0) for box in problem.boxes) == 6


def test_coefficients_follow_from_the_logged_factors() -> None:
    result = read("manifoldmix_c8_result.json")
    found = factors_of(result)
    partition = Partition.of_groups({name: [name] for name in FACTORS})
    rows = [Ingredient(f"model_{k}", str(k)) for k in range(7)]
    soup = Recipe.single(rows[0], partition)
    for step in range(6):
        factors = np.array([FACTORS[name][step] for name in FACTORS])
        soup = soup.lerp(Recipe.single(rows[step + 1], partition), factors)
        own = found[step][list(ACTIVE.values())]
        assert np.abs(own - factors).max() < 1e-4
    beta = np.array([result["beta"][f"row_{k}"] for k in range(7)])[:, list(ACTIVE.values())]
    assert np.abs(soup.coefficients - beta).max() < 1e-3
    assert np.allclose(soup.coefficients.sum(axis=0), 1.0, atol=1e-12)


def test_the_factors_come_back_from_the_coefficients() -> None:
    generator = np.random.default_rng(0)
    partition = Partition.of_groups({name: [name] for name in COMPONENTS})
    given = [generator.uniform(0.3, 1.0, len(COMPONENTS)) for _ in range(6)]
    soup = Recipe.single(Ingredient("0", "0"), partition)
    for step, factors in enumerate(given):
        soup = soup.lerp(Recipe.single(Ingredient(str(step + 1), str(step + 1)), partition), factors)
    beta = {f"row_{k}": row.tolist() for k, row in enumerate(soup.coefficients)}
    found = factors_of({"beta": beta, "ingredientIndices": list(range(7))})
    assert np.abs(np.array(found) - np.array(given)).max() < 1e-6


def accuracy(state: dict[str, Tensor]) -> float:
    """A plain forward pass over the tiny task's held-out part."""
    task, module = tiny_task(), TinyNet()
    module.load_state_dict(state)
    with torch.no_grad():
        hits = module(task.held_out.inputs).argmax(1) == task.held_out.labels
    return float(hits.sum()) / len(hits)


def published_search(
    ahead: dict[str, Tensor], behind: dict[str, Tensor], groups: dict[str, int], start: Vector, low: float, high: float
) -> tuple[Vector, float, list[Vector]]:
    """One optimiser call as the published code makes it, written anew and as plainly as it can be."""
    asked: list[Vector] = []

    def loss(factors: Vector) -> float:
        asked.append(factors.copy())
        mixed = {
            name: ahead[name] * factors[0, groups[name]] + behind[name] * (1.0 - factors[0, groups[name]])
            if ahead[name].is_floating_point()
            else ahead[name]
            for name in ahead
        }
        return 1.0 - accuracy(mixed)

    array = nevergrad.p.Array(init=start, lower=low, upper=high)
    whole = nevergrad.p.Instrumentation(factors=array)
    whole.random_state.seed(123456789)
    optimizer = nevergrad.optimizers.NGOpt(parametrization=whole, budget=30 * start.size)
    with stopping_its_thread(optimizer):  # which would keep this process alive
        best = optimizer.minimize(loss)
    return best.kwargs["factors"].astype(np.float32), 1.0 - best.loss, asked


def published_run(states: list[dict[str, Tensor]], groups: dict[str, int]) -> tuple[list[int], list[Vector]]:
    """The published program on a pool: ingredients by rank, and every point that an optimiser asked for."""
    table = [accuracy(state) for state in states]
    order = sorted(range(len(states)), key=lambda k: table[k])[::-1]
    soup, chosen, points = dict(states[order[0]]), [0], list[Vector]()
    score, size = accuracy(soup), len(set(groups.values()))
    for rank in range(1, len(order)):
        other, count = states[order[rank]], len(chosen)
        factor = count / (count + 1.0)
        average = {n: t * factor + other[n] * (1.0 - factor) if t.is_floating_point() else t for n, t in soup.items()}
        if accuracy(average) < 0.998 * score:
            continue
        start = np.ones((1, size)) * (count / (count + 1))
        half = 0.5 * (1 - start[0, 0])
        factors, reached, asked = published_search(soup, other, groups, start, start[0, 0] - half, start[0, 0] + half)
        points += asked
        if reached < score:
            continue
        before = reached
        for _ in range(2):
            factors, reached, asked = published_search(soup, other, groups, np.clip(factors, 0.3, 1.0), 0.3, 1.0)
            points += asked
            if reached < (1.0 + 0.3 * (1.0 - 0.998)) * before:
                break
            before = np.inf  # at most three searches
        chosen.append(rank)
        soup = {
            n: t * float(factors[0, groups[n]]) + other[n] * (1.0 - float(factors[0, groups[n]]))
            if t.is_floating_point()
            else t
            for n, t in soup.items()
        }
        score = reached
    return chosen, points


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("models", [4, 7])
def test_the_same_points_as_the_published_program(tmp_path: Path, models: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Same pool, all components included: the same points in the same order, the same ingredients."""
    pool = tiny_pool(tmp_path, models=models)
    problem: MergeProblem = tiny_problem(pool, optimizer=NevergradReference())
    asked: list[Vector] = []
    real = MergeSearches.between

    def between(self: MergeSearches, *ends: Recipe, mixing: str) -> Callable[[Vector], Outcome]:
        path = real(self, *ends, mixing=mixing)

        def noted(factors: Vector) -> Outcome:
            asked.append(factors.copy())
            return path(factors)

        return noted

    monkeypatch.setattr(MergeSearches, "between", between)
    strategy = ManifoldMix(profile="reference")
    assert strategy.default_optimizer() == NevergradReference.name
    recipe = strategy.mix(problem)
    groups = {name: c for c, component in enumerate(problem.partition.components) for name in component.tensors}
    chosen, points = published_run([checkpoint.load() for checkpoint in pool.checkpoints], groups)
    ranks = sorted(range(models), key=lambda k: accuracy(pool.checkpoints[k].load()))[::-1]
    assert [ranks.index(pool.names.index(name)) for name in recipe.names] == chosen
    assert len(chosen) > 1
    assert len(points) >= 120
    theirs = np.array([point[0] for point in points])
    ours = np.array(asked)
    # Ours also looks the accepted point up once more, after its search, to know which samples it gets right.
    assert len(ours) == len(theirs) + len(chosen) - 1
    kept, place = [], 0
    for point in ours:
        if place < len(theirs) and np.array_equal(point, theirs[place]):
            kept.append(place)
            place += 1
    assert kept == list(range(len(theirs)))
