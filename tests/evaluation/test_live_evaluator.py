"""The hot path equals its definition run naively; caching, early stopping and gradients are exact."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

from merging.errors import PoolError, Stopped, TaskError
from merging.evaluation.bar import Bar
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.hardness import Hardness
from merging.evaluation.ledger import Ledger
from merging.forward.fitting import check_fits, untouched
from merging.forward.numerics import Numerics
from merging.mixing.arithmetic import materialise
from merging.objectives.accuracy import Accuracy
from merging.objectives.brier import BrierScore
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.layer import Layer
from merging.partitioners.whole import Whole
from merging.plugins.objective import Objective
from merging.plugins.task import Split, Task
from merging.running.plan import plan
from merging.running.problem import MergeProblem
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.best import Best
from merging.testing import TinyNet, tiny_pool, tiny_problem, tiny_task
from merging.values.outcome import WORST, Outcome
from merging.values.recipe import Recipe


def evaluator_of(
    pool: ModelPool,
    *,
    batch: int = 256,
    objective: Objective | None = None,
    task: Task | None = None,
    limit: int | None = None,
    freeze: tuple[str, ...] = (),
    exact_savings: bool = True,
) -> Evaluator:
    task = task or tiny_task()
    made = plan(pool, Best(), partitioner=Layer(), task=task, freeze=freeze, device="cpu")
    assert made.live is not None
    numerics = Numerics(device="cpu", batch=batch, threads=1)
    ledger = Ledger(Journal(None), limit=limit, exact_savings=exact_savings)
    return Evaluator.over(made.live, task, objective or Accuracy(), numerics, ledger)


def logits_of(state: dict[str, Tensor]) -> Tensor:
    module = TinyNet().eval()
    module.load_state_dict(state, strict=True)
    with torch.inference_mode():
        return module(tiny_task().held_out.inputs)


FACTORS = st.lists(st.floats(-0.5, 1.5, width=32), min_size=4, max_size=4)


@pytest.fixture(scope="module")
def frozen_problem(pool: ModelPool) -> MergeProblem:
    return tiny_problem(pool, freeze=("fc2.bias",))


@pytest.fixture(scope="module")
def frozen_evaluator(pool: ModelPool) -> Evaluator:
    """Makes every trial: one from memory would mix nothing."""
    return evaluator_of(pool, freeze=("fc2.bias",), exact_savings=False)


@pytest.mark.parametrize("mixing", ["lerp", "sum"])
@given(values=FACTORS)
def test_a_trial_is_its_definition_run_naively(
    pool: ModelPool, frozen_problem: MergeProblem, frozen_evaluator: Evaluator, mixing: str, values: list[float]
) -> None:
    problem = frozen_problem
    assert sorted(problem.partition.names) == ["fc1", "fc2", "fc2 (frozen)", "steps", "unused"]
    factors = np.array([*values, 0.5])
    incumbent, candidate = problem.mean([0, 1]), problem.single(2)
    frozen_evaluator.between(incumbent, candidate, mixing)(factors)
    with torch.inference_mode():
        found = frozen_evaluator.scorer.live.module(tiny_task().held_out.inputs)
    ahead, behind = materialise(incumbent, pool), materialise(candidate, pool)
    mixed = dict(ahead)
    for column in problem.partition.active:
        factor = float(factors[column])
        for name in problem.partition.components[column].tensors:
            lerp = torch.lerp(behind[name], ahead[name], factor)
            mixed[name] = lerp if mixing == "lerp" else factor * ahead[name] + (1.0 - factor) * behind[name]
    assert torch.equal(found, logits_of(mixed))


@given(indices=st.lists(st.integers(0, 3), min_size=1, max_size=4, unique=True))
def test_a_recipe_s_logits_are_those_of_its_state_dict(
    pool: ModelPool, frozen_problem: MergeProblem, indices: list[int]
) -> None:
    problem = frozen_problem
    recipe = problem.mean(indices)
    wanted = logits_of(materialise(recipe, pool))
    assert torch.equal(problem.scores.logits(recipe), wanted)
    right = int((wanted.argmax(1) == tiny_task().held_out.labels).sum())
    outcome = problem.evaluate(recipe)
    assert (outcome.right, outcome.score) == (right, right / 120)


def test_trials_and_evaluations_may_alternate(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    a, b, c = (problem.single(i) for i in range(3))
    factors, other = np.full(4, 0.25), np.full(4, 0.75)
    path = problem.search.between(a, b)
    path(factors)
    problem.evaluate(c)
    problem.search.between(c, a)(other)
    fresh = tiny_problem(pool).search.between(a, b)(other)
    assert path(other).hits.tolist() == fresh.hits.tolist()


def test_inert_moves_cost_nothing(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    total = problem.evaluator.ledger.total
    active = list(problem.partition.active)
    assert sorted(problem.partition.names[i] for i in active) == ["fc1", "fc2"]
    path = problem.search.between(problem.single(0), problem.single(1))
    first = path(np.full(4, 0.5))
    moved = np.full(4, 0.125)
    moved[active] = 0.5
    assert path(moved) is first
    assert (total.evaluations, total.cached, total.forward_equivalents) == (1, 1, 1.0)
    moved[active[0]] = 0.25
    path(moved)
    assert total.evaluations == 2


def test_the_same_recipe_is_evaluated_once(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    total = problem.evaluator.ledger.total
    problem.evaluate(problem.mean([0, 1]))
    problem.evaluate(problem.single(0).lerp(problem.single(1), 0.5))
    assert (total.evaluations, total.cached) == (1, 1)
    problem.evaluator.evaluate(problem.mean([0, 1]), "test")
    assert (total.evaluations, total.cached) == (1, 1), "test sets are not counted"


def test_the_limit_stops_the_run_but_not_the_cache(pool: ModelPool) -> None:
    evaluator = evaluator_of(pool, limit=1)
    recipes = [Recipe.single(ingredient, evaluator.keys.partition) for ingredient in pool.ingredients]
    evaluator.evaluate(recipes[0])
    evaluator.evaluate(recipes[0])
    with pytest.raises(Stopped, match="--max-evaluations 1"):
        evaluator.evaluate(recipes[1])


@dataclasses.dataclass(frozen=True)
class Columns(Objective):
    """The mean of two numbers a sample."""

    name = "columns"
    bounds = (0.0, 1.0)

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        own = logits.softmax(1).gather(1, labels[:, None])
        return torch.cat([own, own.square()], dim=1)

    def reduce(self, terms: Tensor) -> float:
        return float(terms.double().mean())


class Single(Objective):
    """A mean in float32, of terms whose sum depends on its order."""

    name = "single-precision"
    bounds = (0.0, 1.0)

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        return logits.softmax(1).gather(1, labels[:, None])[:, 0].pow(7)

    def reduce(self, terms: Tensor) -> float:
        return float(terms.mean())


OBJECTIVES = [Accuracy(), NegativeLogLikelihood(), BrierScore(), Columns(), Single()]


@pytest.mark.parametrize("objective", OBJECTIVES, ids=lambda o: o.name)
@settings(max_examples=15)
@given(data=st.data())
def test_a_test_answers_as_the_whole_outcome_would(pool: ModelPool, objective: Objective, data: st.DataObject) -> None:
    """To the last bit, ties included, in whatever order the samples come; what it says of the score is true."""
    evaluator = evaluator_of(pool, batch=data.draw(st.sampled_from([1, 7, 16, 50, 256])), objective=objective)
    exact = evaluator_of(pool, batch=evaluator.numerics.batch, objective=objective)
    singles = [Recipe.single(ingredient, evaluator.keys.partition) for ingredient in pool.ingredients]
    for _ in range(data.draw(st.integers(0, 2))):
        evaluator.evaluate(data.draw(st.sampled_from(singles)))  # samples have an order from now on
    for recipe in (Recipe.mean(pool.ingredients[:3], evaluator.keys.partition), *singles[1:3]):
        score = exact.evaluate(recipe).score
        near = (score, math.nextafter(score, -math.inf), math.nextafter(score, math.inf), score - 0.01, score + 0.01)
        for threshold in data.draw(st.permutations([*near, data.draw(st.floats(-2, 1))])):
            ties, whole = data.draw(st.booleans()), data.draw(st.booleans())
            decision = evaluator.exceeds(recipe, Bar(threshold, ties, whole))
            assert decision.exceeds == (score >= threshold if ties else score > threshold)
            assert decision.within[0] <= score <= decision.within[1]
            assert decision.outcome is not None or decision.samples_seen < 120
            if decision.outcome is not None:
                assert decision.outcome.score == score
                assert np.array_equal(decision.outcome.hits, exact.evaluate(recipe).hits)
            assert not (whole and decision.exceeds) or decision.outcome is not None
        assert evaluator.evaluate(recipe).score == score
        assert evaluator.ledger.known(evaluator.keys.evaluation(recipe)) is not None


def test_a_test_costs_what_it_saw_and_counts_once(pool: ModelPool) -> None:
    evaluator = evaluator_of(pool, batch=1)
    recipe = Recipe.single(pool.ingredients[0], evaluator.keys.partition)
    low, meter = evaluator.exceeds(recipe, Bar(0.1)), evaluator.ledger.total
    assert low.exceeds
    assert low.samples_seen < 60
    assert not evaluator.exceeds(recipe, Bar(low.within[1])).exceeds
    assert (meter.evaluations, meter.cached, meter.forward_equivalents) == (1, 1, low.samples_seen / 120)
    high = evaluator.exceeds(recipe, Bar(low.within[1], ties=True))
    assert not high.exceeds
    assert high.samples_seen < 120
    paid = (low.samples_seen + high.samples_seen) / 120
    assert (meter.evaluations, meter.cached, meter.forward_equivalents) == (1, 1, paid)
    score = evaluator.evaluate(recipe).score
    assert (meter.evaluations, meter.forward_equivalents) == (1, paid + 1.0)
    again = evaluator_of(pool, batch=1)
    seen = again.exceeds(recipe, Bar(math.nextafter(score, -math.inf), whole=True))
    assert seen.outcome is not None
    assert again.evaluate(recipe) is seen.outcome
    assert (again.ledger.total.evaluations, again.ledger.total.forward_equivalents) == (1, 1.0)


def test_a_tested_model_may_be_scored_at_the_limit(pool: ModelPool) -> None:
    evaluator = evaluator_of(pool, batch=16, limit=1)
    first, second = (Recipe.single(pool.ingredients[i], evaluator.keys.partition) for i in (0, 1))
    assert not evaluator.exceeds(first, Bar(0.99)).exceeds
    assert evaluator.evaluate(first).samples == 120
    for ask in (lambda: evaluator.exceeds(second, Bar(0.99)), lambda: evaluator.evaluate(second)):
        with pytest.raises(Stopped):
            ask()


@pytest.mark.parametrize("objective", [Accuracy(), BrierScore()], ids=lambda o: o.name)
def test_a_nan_among_the_last_samples_counts(pool: ModelPool, objective: Objective) -> None:
    """Of terms that are floats the worst may still come; a wrong answer is a term like others."""
    task = tiny_task()
    inputs = task.held_out.inputs.clone()
    inputs[-1] = math.nan
    task = dataclasses.replace(task, held_out=Split.of(inputs, task.held_out.labels))
    evaluator = evaluator_of(pool, batch=10, objective=objective, task=task)
    recipe = Recipe.single(pool.ingredients[0], evaluator.keys.partition)
    decision = evaluator.exceeds(recipe, Bar(-1.9))
    assert decision.exceeds == (evaluator.evaluate(recipe).score > -1.9) == (objective.name == "accuracy")


def test_visiting_the_hardest_first_rejects_sooner(pool: ModelPool) -> None:
    seen = []
    for hardest in (False, True):
        evaluator = evaluator_of(pool, batch=4)
        best, other = (Recipe.single(pool.ingredients[i], evaluator.keys.partition) for i in (0, 1))
        score = evaluator_of(pool).evaluate(other).score
        if hardest:
            evaluator.evaluate(best)
        decision = evaluator.exceeds(other, Bar(score + 0.05))
        assert not decision.exceeds
        seen.append(decision.samples_seen)
    assert seen[1] < 0.8 * seen[0]


def test_what_the_best_has_wrong_is_hardest() -> None:
    hardness = Hardness()
    assert hardness.easiness() is None
    for score, hits in ((0.5, [1, 1, 0, 0]), (0.75, [1, 0, 1, 1]), (0.25, [1, 0, 0, 0]), (0.75, [0, 1, 1, 1])):
        hardness.saw(Outcome(score=score, samples=4, correct=np.packbits(np.array(hits, dtype=bool))))
    hardness.saw(Outcome(score=1.0, samples=4))  # says nothing of single samples
    easiness = hardness.easiness()
    assert easiness is not None
    assert np.argsort(easiness, kind="stable").tolist() == [1, 2, 3, 0]


def test_the_gradient_is_that_of_finite_differences(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    rows = (*pool.ingredients[:2], pool.base_ingredient)
    table = np.array([[0.5, 0.2, 1.0, 1.0], [0.3, 0.9, 0.0, 0.0], [0.1, -0.2, 0.0, 0.0]])
    recipe = Recipe(rows, problem.partition, table)
    batch = next(iter(problem.slopes.batches("train", np.random.default_rng(0))))
    loss, slopes = problem.evaluator.gradients.gradient(recipe, batch)
    states = [{name: t.double() for name, t in pool.find(row).load().items()} for row in rows]

    def slow(at: np.ndarray) -> float:
        w = {
            name: sum(float(at[row, column]) * state[name] for row, state in enumerate(states))
            for column, component in enumerate(problem.partition.components)
            for name in component.tensors
        }
        hidden = torch.relu(batch[0].double() @ w["fc1.weight"].T + w["fc1.bias"])
        return float(F.cross_entropy(hidden @ w["fc2.weight"].T + w["fc2.bias"], batch[1]))

    assert loss == pytest.approx(slow(table), rel=1e-5)
    step = 1e-6
    for index in np.ndindex(*table.shape):
        ahead, behind = table.copy(), table.copy()
        ahead[index] += step
        behind[index] -= step
        assert slopes[index] == pytest.approx((slow(ahead) - slow(behind)) / (2 * step), rel=1e-3, abs=1e-4), index
    assert problem.evaluator.ledger.total.forward_equivalents == pytest.approx(3 * len(batch[1]) / 120)


def test_batches_are_one_pass_in_an_order_of_the_generator(pool: ModelPool) -> None:
    evaluator = evaluator_of(pool, batch=16)
    batches = list(evaluator.gradients.batches("train", np.random.default_rng(1)))
    order = np.random.default_rng(1).permutation(150)
    train = tiny_task().train
    assert train is not None
    assert torch.equal(torch.cat([labels for _, labels in batches]), train.labels[order])
    assert torch.equal(torch.cat([inputs for inputs, _ in batches]), train.inputs[order])


def test_the_live_module_is_open_to_autograd(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    module = problem.slopes.live(problem.mean([0, 1]))
    module(tiny_task().held_out.inputs).sum().backward()
    assert all(p.grad is not None for name, p in module.named_parameters() if name != "unused")


def test_nan_logits_score_as_the_worst_number(pool: ModelPool) -> None:
    broken = dataclasses.replace(tiny_task(), prepare=lambda inputs: inputs * float("nan"))
    evaluator = evaluator_of(pool, objective=NegativeLogLikelihood(), task=broken)
    outcome = evaluator.evaluate(Recipe.single(pool.ingredients[0], evaluator.keys.partition))
    assert outcome.score == WORST


@pytest.mark.parametrize("label", [-1, 3])
def test_labels_outside_the_classes_are_refused(pool: ModelPool, label: int) -> None:
    good = tiny_task().held_out
    labels = good.labels.clone()
    labels[7] = label
    evaluator = evaluator_of(pool, task=dataclasses.replace(tiny_task(), held_out=Split.of(good.inputs, labels)))
    with pytest.raises(TaskError, match=f"'held-out' has labels from .*{label}.*3 classes"):
        evaluator.evaluate(Recipe.single(pool.ingredients[0], evaluator.keys.partition))


def test_a_module_that_does_not_fit_is_refused(pool: ModelPool) -> None:
    other = TinyNet()
    other.fc1 = nn.Linear(5, 8)
    with pytest.raises(PoolError, match=r"'fc1\.weight' is \[8, 4\], the model's is \[8, 5\]"):
        check_fits(other, pool)
    other.more = nn.Linear(1, 1)
    with pytest.raises(PoolError, match=r"needs 'more\.weight' \(2 such\)"):
        check_fits(other, pool)
    del other.more, other.unused
    with pytest.raises(PoolError, match="have 'unused'"):
        check_fits(other, pool)


class Reader(nn.Module):
    """Reads one buffer, ignores another; has a batch norm, a weight reached only through a zero head."""

    def __init__(self) -> None:
        super().__init__()
        self.inner, self.head, self.norm = nn.Linear(4, 4), nn.Linear(4, 2), nn.BatchNorm1d(4)
        self.register_buffer("scale", torch.ones(4))
        self.register_buffer("ignored", torch.ones(4))
        self.alone = nn.Parameter(torch.ones(1))
        nn.init.zeros_(self.head.weight)

    def forward(self, inputs: Tensor) -> Tensor:
        return self.head(self.norm(self.inner(inputs)) * self.scale)


def test_untouched_is_structure_not_value() -> None:
    module = Reader().eval()
    module.alone.requires_grad_(False)
    assert untouched(module, torch.ones(2, 4))[0] == {"ignored", "alone", "norm.num_batches_tracked"}
    assert not module.alone.requires_grad
    assert all(parameter.grad is None for parameter in module.parameters())


def test_untouched_sees_the_tiny_net_s_leftovers() -> None:
    assert untouched(TinyNet().eval(), tiny_task().held_out.inputs[:2])[0] == {"unused", "steps"}


def test_models_whose_component_is_bit_equal_have_no_variable(tmp_path: Path) -> None:
    problem = tiny_problem(tiny_pool(tmp_path, equal=True))
    assert problem.partition.active == ()
    assert tiny_problem(tiny_pool(tmp_path / "other"), partitioner=Whole()).partition.active == (0,)
