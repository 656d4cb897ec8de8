"""What contracts run on: a tiny real problem (three blobs, a base, models tuned from it), and a bowl to climb."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from merging.errors import BudgetSpent
from merging.forward.numerics import Numerics
from merging.optimizers.random import Random
from merging.partitioners.layer import Layer
from merging.plugins.optimizer import Optimizer, Vector
from merging.plugins.partitioner import Partitioner
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Split, Task
from merging.running.plan import plan
from merging.running.problem import MergeProblem
from merging.running.run import Result, merge
from merging.running.search import BoxSearch
from merging.running.session import Session
from merging.storage.atomic import replacing, save_safetensors
from merging.storage.content import content_hash
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.best import Best
from merging.values.outcome import Outcome
from merging.values.recipe import Ensemble

FEATURES, HIDDEN, CLASSES = 4, 8, 3


class TinyNet(nn.Module):
    """Two linear layers, an integer buffer that nothing reads, and one parameter that reaches no logit.

    Shapes:
        inputs ``(N, 4)`` float32; logits ``(N, 3)``.
    """

    steps: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.fc1 = nn.Linear(FEATURES, HIDDEN)
        self.fc2 = nn.Linear(HIDDEN, CLASSES)
        self.unused = nn.Parameter(torch.zeros(2, 2))
        self.register_buffer("steps", torch.tensor(0))

    def forward(self, inputs: Tensor) -> Tensor:
        """Computes class logits, shape ``(N, classes)``."""
        logits: Tensor = self.fc2(torch.relu(self.fc1(inputs)))
        return logits


def blobs(samples: int, seed: int, shift: float = 0.0) -> Split:
    """Three Gaussian blobs in four dimensions that overlap a little; ``shift`` moves all of them."""
    generator = np.random.default_rng(seed)
    labels = generator.integers(CLASSES, size=samples)
    centres = np.array([[2.0, 0.0, 0.0, 0.5], [0.0, 2.0, 0.0, -0.5], [0.0, 0.0, 2.0, 0.0]])
    inputs = centres[labels] + generator.normal(scale=1.0, size=(samples, FEATURES)) + shift
    return Split.of(torch.from_numpy(inputs.astype(np.float32)), torch.from_numpy(labels))


def tiny_task() -> Task:
    """The blobs as a task: held-out part, training part, test set, one shifted set."""
    return Task(
        name="blobs",
        build=lambda pool: TinyNet(),
        held_out=blobs(120, seed=1),
        tests={"test": blobs(90, seed=2), "shifted": blobs(90, seed=3, shift=0.4)},
        shifts=("shifted",),
        train=blobs(150, seed=4),
    )


def tiny_pool(folder: Path, models: int = 4, *, base: bool = True, equal: bool = False) -> ModelPool:
    """Writes a trained base and models fine-tuned from it as safetensors, and opens them. The same bits every time.

    Args:
        folder: the folder that the files go to.
        models: how many, called ``model_0`` …
        base: open the pool with its base.
        equal: all models (and the base) are one and the same, under different names.
    """
    folder.mkdir(parents=True, exist_ok=True)
    start = _start()
    trained = _trained(start, seed=0, steps=40, rate=0.5)
    _save(trained, folder / "base.safetensors")
    for number in range(models):
        rate = 0.2 + 0.1 * (number % 3)
        model = trained if equal else _trained(trained, seed=number + 1, steps=6 + 2 * number, rate=rate)
        _save(model, folder / f"model_{number}.safetensors")
    return open_tiny_pool(folder, base=base)


def open_tiny_pool(folder: Path, *, base: bool = True) -> ModelPool:
    """Opens what :func:`tiny_pool` wrote."""
    return ModelPool.open([folder / "model_*.safetensors"], folder / "base.safetensors" if base else None)


def tiny_problem(
    pool: ModelPool,
    *,
    task: Task | None = None,
    partitioner: Partitioner | None = None,
    optimizer: Optimizer | None = None,
    journal: Journal | None = None,
    freeze: Sequence[str] = (),
    seed: int = 0,
    budget: int | None = None,
) -> MergeProblem:
    """The problem that a strategy would be given: the real one, over a pool of :func:`tiny_pool`.

    It offers everything; set its ``strategy``, and it offers what that one's ``needs`` ask for.
    """
    made = plan(
        pool,
        Best(),
        partitioner=partitioner or Layer(),
        task=task or tiny_task(),
        freeze=freeze,
        device="cpu",
        seed=seed,
        budget=budget,
        optimizer=optimizer or Random(),
    )
    return Session.open(made, journal).problem()


def tiny_numerics() -> Numerics:
    """Gives the numerics of the tiny problem: one thread on the CPU."""
    return Numerics.choose("cpu", TinyNet(), torch.zeros(FEATURES))


def _start() -> dict[str, Tensor]:
    generator = np.random.default_rng(10)
    state = TinyNet().state_dict()
    for name, tensor in state.items():
        if tensor.is_floating_point():
            noise = generator.normal(scale=0.5, size=tuple(tensor.shape))
            state[name] = torch.from_numpy(noise.astype(np.float32))
    return state


def _trained(state: dict[str, Tensor], *, seed: int, steps: int, rate: float) -> dict[str, Tensor]:
    """Plain gradient descent on noisy copies of a small training set."""
    data, generator = blobs(60, seed=100 + seed), np.random.default_rng(seed)
    weights = {name: t.clone().requires_grad_() for name, t in state.items() if t.is_floating_point()}
    for _ in range(steps):
        noise = torch.from_numpy(generator.normal(scale=0.5, size=data.tensor.shape).astype(np.float32))
        hidden = torch.relu(F.linear(data.tensor + noise, weights["fc1.weight"], weights["fc1.bias"]))
        loss = F.cross_entropy(F.linear(hidden, weights["fc2.weight"], weights["fc2.bias"]), data.labels)
        names = [name for name in weights if name != "unused"]
        slopes = torch.autograd.grad(loss, [weights[name] for name in names])
        with torch.no_grad():
            for name, slope in zip(names, slopes, strict=True):
                weights[name] -= rate * slope
            weights["unused"] += torch.from_numpy(generator.normal(size=(2, 2)).astype(np.float32))
    return {name: weights[name].detach() if name in weights else t + steps for name, t in state.items()}


def _save(state: dict[str, Tensor], path: Path) -> None:
    with replacing(path) as aside:
        save_safetensors(aside, {name: tensor.contiguous() for name, tensor in state.items()})


class Bowl:
    """A smooth concave function with its top inside the unit box; records the points at which it is asked."""

    def __init__(self, dimension: int) -> None:
        self.top = np.linspace(0.2, 0.8, dimension)
        self.points: list[Vector] = []

    def __call__(self, x: Vector) -> Outcome:
        """``1 − |x − top|²``."""
        self.points.append(np.array(x))
        return Outcome(score=float(1.0 - ((x - self.top) ** 2).sum()), samples=1)


class StrictSearch(BoxSearch):
    """Counts what is asked after the budget is spent: an optimiser must let ``BudgetSpent`` through."""

    refused = 0

    def outcome(self, x: Vector) -> Outcome:
        """Looks at a point as :meth:`BoxSearch.outcome` does, and counts those after the budget is spent."""
        try:
            return super().outcome(x)
        except BudgetSpent:
            self.refused += 1
            raise


def box(
    function: Callable[[Vector], Outcome],
    dimension: int,
    *,
    budget: int,
    start: float = 0.5,
    low: float = 0.0,
    high: float = 1.0,
    seed: int = 0,
) -> StrictSearch:
    """A search in a cube."""
    generator = np.random.default_rng(seed)
    bounds = np.full(dimension, low), np.full(dimension, high)
    return StrictSearch(function, *bounds, np.full(dimension, start), budget, generator)


def merge_tiny(
    strategy: MixStrategy,
    pool: ModelPool,
    *,
    seed: int = 0,
    should_stop: Callable[[], bool] = lambda: False,
    device: str = "cpu",
) -> Result:
    """Merges a tiny pool, divided by layers, with a small search."""
    return merge(
        pool,
        strategy,
        partitioner=Layer(),
        optimizer=Random(),
        task=tiny_task(),
        seed=seed,
        budget=12,
        device=device,
        baselines=False,
        tests=False,
        should_stop=should_stop,
    )


def content_of(result: Result) -> str:
    """The content hash of the merged model, or of an ensemble's members and weights."""
    return result.report.content_hash if isinstance(result.merge, Ensemble) else content_hash(result.state_dict())
