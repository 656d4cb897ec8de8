"""Strategies that use gradients: learned soups and Fisher-weighted averages, against float64 by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.functional import cross_entropy

import merging
from merging.errors import Stopped
from merging.evaluation.evaluator import Evaluator
from merging.forward.fisher import squared_gradients
from merging.mixing.arithmetic import materialise
from merging.partitioners.whole import Whole
from merging.running.problem import MergeProblem
from merging.storage.pool import ModelPool
from merging.strategies.fisher import Fisher
from merging.strategies.learned import Learned
from merging.testing import tiny_problem, tiny_task
from merging.testing.fixtures import TinyNet
from merging.values.recipe import Recipe

pytestmark = pytest.mark.gpu


def held_out_loss(problem: MergeProblem, recipe: Recipe, scale: float = 1.0) -> float:
    return float(cross_entropy(problem.scores.logits(recipe).double() * scale, problem.scores.labels()))


def by_hand(
    states: list[dict[str, Tensor]],
    table: Tensor,
    columns: dict[str, int],
    inputs: Tensor,
    labels: Tensor,
    scale: Tensor,
) -> Tensor:
    """The loss of the mix, in float64, open to autograd in the table."""
    module = TinyNet().double()
    mixed = {
        name: sum(table[k, columns[name]] * state[name].double() for k, state in enumerate(states))
        for name in states[0]
        if states[0][name].is_floating_point()
    }
    return cross_entropy(functional_call(module, mixed, (inputs.double(),)) * scale, labels)


def test_coefficient_gradients_are_those_of_autograd(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    rows = [problem.single(index) for index in range(3)]
    generator = np.random.default_rng(0)
    table = generator.uniform(-0.5, 1.0, (3, len(problem.partition)))
    inputs, labels = next(iter(problem.slopes.batches("held-out", generator, 37)))
    assert len(labels) == 37
    loss, slopes, slope = problem.slopes.blend(rows).gradient(table, (inputs, labels), 1.7)
    exact, scale = torch.tensor(table, requires_grad=True), torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    columns = {name: c for c, component in enumerate(problem.partition.components) for name in component.tensors}
    states = [pool.checkpoints[k].load() for k in range(3)]
    wanted = by_hand(states, exact, columns, inputs, labels, scale)
    wanted.backward()
    assert loss == pytest.approx(float(wanted.detach()), rel=1e-5)
    assert slope == pytest.approx(float(scale.grad), rel=1e-4)
    assert np.allclose(slopes, exact.grad.numpy(), rtol=1e-4, atol=1e-6)
    assert not slopes[:, [c for c in range(len(problem.partition)) if c not in problem.partition.active]].any()


def test_frozen_parameters_and_layouts_have_the_same_gradient(pool: ModelPool) -> None:
    """A module that came with gradients turned off is learned through like any other."""
    own = tiny_task()

    def frozen(pool: ModelPool) -> nn.Module:
        del pool
        return TinyNet().requires_grad_(False)

    task = merging.Task(name=own.name, build=frozen, held_out=own.held_out, train=own.train)
    found = []
    for problem in (tiny_problem(pool), tiny_problem(pool, task=task)):
        batch = (own.held_out.inputs[:20], own.held_out.labels[:20])
        table = np.full((2, len(problem.partition)), 0.5)
        found.append(problem.slopes.blend([problem.single(0), problem.single(1)]).gradient(table, batch)[1])
    assert np.array_equal(found[0], found[1])
    assert found[0].any()


def test_a_convolution_s_gradient_in_channels_last(tmp_path: Path) -> None:
    """Filters lie permuted in the buffer; so must their gradients. Against finite differences in float64."""

    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 5, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.b(self.a(x).relu()).mean((2, 3))

    states = []
    for number in range(2):
        torch.manual_seed(number)
        states.append(Small().state_dict())
        torch.save(states[-1], tmp_path / f"m{number}.pt")
    data = merging.Split.of(torch.randn(12, 3, 7, 7), torch.arange(12) % 5)
    problem = tiny_problem(
        ModelPool.open([tmp_path]), task=merging.Task(name="conv", build=lambda pool: Small(), held_out=data)
    )
    assert problem.evaluator.numerics.layout == "channels_last"
    table = np.array([[0.7] * len(problem.partition), [0.4] * len(problem.partition)])
    _, slopes, _ = problem.slopes.blend([problem.single(0), problem.single(1)]).gradient(
        table, (data.inputs, data.labels)
    )

    def loss(given: np.ndarray) -> float:
        module = Small().double()
        columns = {name: c for c, component in enumerate(problem.partition.components) for name in component.tensors}
        mixed = {n: sum(given[k, columns[n]] * states[k][n].double() for k in range(2)) for n in states[0]}
        with torch.no_grad():
            return float(cross_entropy(functional_call(module, mixed, (data.inputs.double(),)), data.labels))

    for place in np.ndindex(table.shape):
        step = np.zeros_like(table)
        step[place] = 1e-5
        assert slopes[place] == pytest.approx((loss(table + step) - loss(table - step)) / 2e-5, rel=1e-3, abs=1e-6)


def test_a_set_s_own_classes_are_learned_and_measured(pool: ModelPool) -> None:
    """Held-out data whose two classes are outputs 2, and 0 or 1 of the model."""
    own = tiny_task()
    labels = torch.tensor([1, 1, 0])[own.held_out.labels]
    held_out = merging.Split.of(own.held_out.inputs, labels, [[2], [0, 1]])
    problem = tiny_problem(pool, task=merging.Task(name="two", build=own.build, held_out=held_out))
    soup = problem.mean(range(5))
    assert problem.scores.logits(soup).shape == (120, 2)
    assert problem.scores.score(problem.scores.logits(soup)) == problem.evaluate(soup).score
    found = problem.slopes.squared_gradients(problem.single(0), "held-out", 120, sampled=False)
    module = TinyNet().double()
    module.load_state_dict(
        {n: t.double() if t.is_floating_point() else t for n, t in pool.checkpoints[0].load().items()}
    )
    total = torch.zeros(3, 8, dtype=torch.float64)
    for sample, label in zip(held_out.inputs, labels, strict=True):
        logits = held_out.project(module(sample[None].double()))
        total += torch.autograd.grad(cross_entropy(logits, label[None]), module.fc2.weight)[0].square()
    assert torch.allclose(found["fc2.weight"], total / 120, rtol=1e-3)
    Learned(epochs=1).mix(problem)


def test_blends_are_counted_and_can_be_stopped(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    problem.evaluator.ledger.should_stop = lambda: problem.evaluator.ledger.total.forward_equivalents > 4
    with pytest.raises(Stopped):
        Learned(epochs=9).mix(problem)
    assert problem.evaluator.ledger.total.forward_equivalents < 9
    problem = tiny_problem(pool)
    before = problem.evaluator.ledger.total.forward_equivalents
    Learned(epochs=2).mix(problem)
    assert problem.evaluator.ledger.total.forward_equivalents - before == pytest.approx(2 * 3 + 3, abs=1e-6)


@pytest.mark.parametrize("coefficients", ["convex", "affine"])
@pytest.mark.parametrize("block", [2, 18])
def test_learning_lowers_the_loss(pool: ModelPool, coefficients: str, block: int) -> None:
    problem = tiny_problem(pool)
    strategy = Learned(coefficients=coefficients, block=block, epochs=30)
    recipe = strategy.mix(problem)
    scale = strategy._temperature(problem, recipe)
    uniform = problem.mean(range(len(pool)))
    assert held_out_loss(problem, recipe, scale) < held_out_loss(
        problem, uniform, strategy._temperature(problem, uniform)
    )
    assert np.allclose(recipe.coefficients.sum(0), 1.0)
    if coefficients == "convex":
        assert (recipe.coefficients >= 0).all()
    assert set(recipe.names) == set(pool.names), "every block must have had its turn"


def test_without_steps_the_blocks_make_the_uniform_soup(pool: ModelPool) -> None:
    """A rate of nothing leaves the start: each block joins with the weight that it has in the mean of all."""
    recipe = Learned(rate=0.0, block=2, epochs=1).mix(tiny_problem(pool))
    assert np.allclose(recipe.coefficients, 1 / 5)


def test_the_temperature_is_the_best_one(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    soup = problem.mean(range(5))
    found = Learned()._temperature(problem, soup)
    grid = np.exp(np.linspace(-3, 3, 601))
    wanted = min(grid, key=lambda scale: held_out_loss(problem, soup, scale))
    assert found == pytest.approx(wanted, rel=0.02)


def test_frozen_components_are_not_learned(pool: ModelPool) -> None:
    problem = tiny_problem(pool, freeze=("^fc2$",))
    recipe = Learned(epochs=2).mix(problem)
    column = problem.partition.names.index("fc2")
    assert recipe.terms(column) == [(pool.ingredients[0], 1.0)]


def plain_fisher(state: dict[str, Tensor], inputs: Tensor, labels: Tensor) -> dict[str, Tensor]:
    """Sample by sample, in float64."""
    module = TinyNet().double()
    module.load_state_dict({n: t.double() if t.is_floating_point() else t for n, t in state.items()})
    total = {name: torch.zeros_like(p) for name, p in module.named_parameters()}
    for sample, label in zip(inputs, labels, strict=True):
        module.zero_grad()
        (-cross_entropy(module(sample[None].double()), label[None])).backward()
        for name, parameter in module.named_parameters():
            total[name] += 0.0 if parameter.grad is None else parameter.grad.square()
    return {name: t.detach() / len(inputs) for name, t in total.items()}


def test_squared_gradients_sample_by_sample(pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    state, split = pool.checkpoints[0].load(), tiny_task().held_out
    module = TinyNet().eval()
    module.load_state_dict(state)
    inputs, labels = split.inputs[:40], split.labels[:40]
    wanted = plain_fisher(state, inputs, labels)
    names = list(wanted)
    found = squared_gradients(
        module, [inputs[:30], inputs[30:]], lambda logits: labels[:30] if len(logits) == 30 else labels[30:], names
    )
    for name, tensor in wanted.items():
        assert torch.allclose(found[name] / 40, tensor, rtol=1e-3, atol=1e-9), name
    assert not found["unused"].any(), "no logit sees it"
    mean = torch.autograd.grad(cross_entropy(module(inputs), labels), module.fc2.weight)[0]
    assert not torch.allclose(found["fc2.weight"] / 40, mean.square().double(), rtol=0.1), "a batch's gradient squared"
    monkeypatch.setattr("merging.forward.fisher.MEMORY", 1)  # one sample at a time
    again = squared_gradients(module, [inputs], lambda logits: labels, names)
    assert all(torch.allclose(again[name], found[name], rtol=1e-5) for name in names)


class Branching(nn.Module):
    """Looks at values, which cannot be vectorised."""

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(4, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.fc1(inputs)
        return logits * 2 if float(logits.sum()) > -1e9 else logits


def test_models_that_cannot_be_vectorised_go_one_by_one() -> None:
    module, inputs = Branching().eval(), tiny_task().held_out.inputs[:6]
    labels = tiny_task().held_out.labels[:6]
    found = squared_gradients(module, [inputs], lambda logits: labels, ["fc1.weight", "fc1.bias"])
    total = torch.zeros(3, 4)
    for sample, label in zip(inputs, labels, strict=True):
        total += torch.autograd.grad(cross_entropy(module(sample[None]), label[None]), module.fc1.weight)[0].square()
    assert torch.allclose(found["fc1.weight"], total.double(), rtol=1e-4)


@pytest.mark.parametrize("normalize", [True, False])
def test_fisher_averages_are_the_formula(pool: ModelPool, normalize: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    problem = tiny_problem(pool)
    strategy = Fisher(data="held-out", labels="true", normalize=normalize, floor=1e-8)
    merged = strategy.mix(problem)
    split, states = tiny_task().held_out, [checkpoint.load() for checkpoint in pool.checkpoints]
    measured = [plain_fisher(state, split.inputs, split.labels) for state in states]
    norms = [float(torch.cat([t.reshape(-1) for t in f.values()]).norm()) for f in measured]
    usual = [1 / n if normalize else 1.0 for n in norms]
    for name in measured[0]:
        weights = [c * f[name].clamp(min=1e-8) for c, f in zip(usual, measured, strict=True)]
        wanted = sum(w * state[name].double() for w, state in zip(weights, states, strict=True)) / sum(weights)
        assert torch.allclose(merged.tensors[name].double(), wanted, rtol=1e-3, atol=1e-5), name


def test_fisher_with_one_information_for_all_is_the_uniform_soup(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    merged = Fisher(floor=1e9, normalize=False).mix(problem)
    uniform = materialise(problem.mean(range(5)), pool)
    assert all(torch.allclose(merged.tensors[n], t, atol=1e-6) for n, t in uniform.items() if t.is_floating_point())


def test_sampled_labels_follow_the_seed_and_the_model(pool: ModelPool) -> None:
    first, again, other = (tiny_problem(pool, seed=seed) for seed in (1, 1, 2))
    found = [p.slopes.squared_gradients(p.single(0), "train", 60)["fc1.weight"] for p in (first, again, other)]
    assert torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert first.scores.splits == ("held-out", "train")
    assert first.evaluator.ledger.total.forward_equivalents == pytest.approx(4 * 60 / 120)


def test_a_search_never_takes_worse_coefficients(pool: ModelPool) -> None:
    plain, searched = tiny_problem(pool), tiny_problem(pool)
    before = plain.evaluate(Fisher(samples=50).mix(plain)).score
    merged = Fisher(samples=50, draws=8).mix(searched)
    assert searched.evaluate(merged).score >= before
    assert len(searched.decisions) == 8
    two = ModelPool(pool.checkpoints[:2], pool.base)
    problem = tiny_problem(two)
    Fisher(samples=50, draws=5).mix(problem)
    assert [fact["coefficients"][1] for fact in problem.decisions] == [0.0, 0.25, 0.5, 0.75, 1.0]


def test_tied_tensors_have_one_information(tmp_path: Path) -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a = nn.Linear(4, 3, bias=False)
            self.b = nn.Linear(4, 3, bias=False)
            self.b.weight = self.a.weight

        def forward(self, inputs: Tensor) -> Tensor:
            return self.a(inputs) + self.b(inputs)

    for number in range(2):
        weight = torch.randn(3, 4, generator=torch.Generator().manual_seed(number))
        torch.save({"a.weight": weight, "b.weight": weight}, tmp_path / f"m{number}.pt")
    own = tiny_task()
    task = merging.Task(name="tied", build=lambda pool: Tied(), held_out=own.held_out, train=own.train)
    result = merging.merge(ModelPool.open([tmp_path]), Fisher(), partitioner=Whole(), task=task, baselines=False)
    state = result.state_dict()
    assert torch.equal(state["a.weight"], state["b.weight"])


def test_evaluators_hand_out_labels(pool: ModelPool) -> None:
    problem = tiny_problem(pool)
    assert isinstance(problem.evaluator, Evaluator)
    assert torch.equal(problem.scores.labels(), tiny_task().held_out.labels)
