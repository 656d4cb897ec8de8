"""Exact savings: passes from kept activations give the bits of whole passes, on real architectures."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from merging.data.images import Normalise
from merging.evaluation.evaluator import CACHE_MEMORY, Evaluator
from merging.evaluation.ledger import Ledger
from merging.forward.stages import Activations, shares_of, stages_of
from merging.models.catalogue import model_source
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.block import Block
from merging.partitioners.custom import Custom
from merging.partitioners.layer import Layer
from merging.partitioners.whole import Whole
from merging.plugins.partitioner import Partitioner
from merging.plugins.task import HELD_OUT, Split, Task
from merging.running.plan import plan
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.manifoldmix import ManifoldMix
from merging.values.recipe import Recipe

pytestmark = pytest.mark.gpu

KNOWN = {
    "torchvision:squeezenet1_1": 64,
    "torchvision:resnet18": 32,
    "timm:resnet26": 32,
    "timm:vit_tiny_patch16_224": 224,
    "open_clip:ViT-S-32-alt": 224,
}


class Small(nn.Module):
    """Two convolutions, in-place activations, a pooled head, one tensor that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(3, 6, 3, stride=2),
            nn.ReLU(inplace=True),
            nn.Conv2d(6, 8, 3),
            nn.BatchNorm2d(8),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        )
        self.head = nn.Linear(8, 4)
        self.unused = nn.Parameter(torch.zeros(3))

    def forward(self, images: Tensor) -> Tensor:
        """Logits."""
        logits: Tensor = self.head(F.normalize(self.body(images), dim=-1))
        return logits

    def forward_steps(self) -> list[object]:
        """Its parts."""
        return [self.body, F.normalize, self.head]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> tuple[ModelPool, Task]:
    folder = tmp_path_factory.mktemp("small")
    generator = torch.Generator().manual_seed(0)
    for number in range(3):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            state = Small().state_dict()
        for tensor in state.values():
            if tensor.is_floating_point():
                tensor += 0.05 * torch.randn(tensor.shape, generator=generator)
        state["body.3.running_var"].abs_()
        save_file(state, folder / f"m{number}.safetensors")
    images = torch.randint(0, 256, (70, 12, 12, 3), generator=generator, dtype=torch.uint8)
    held_out = Split.of(images, torch.arange(70) % 4)
    task = Task(name="small", build=lambda pool: Small(), held_out=held_out, prepare=Normalise((0.5,) * 3, (0.25,) * 3))
    return ModelPool.open([folder]), task


def evaluator(
    pool: ModelPool, task: Task, partitioner: Partitioner, cache_memory: int = CACHE_MEMORY, exact_savings: bool = True
) -> Evaluator:
    made = plan(pool, ManifoldMix(), partitioner=partitioner, task=task, objective=NegativeLogLikelihood())
    assert made.live is not None
    assert made.numerics is not None
    numerics = replace(made.numerics, batch=32)
    ledger = Ledger(Journal(None), exact_savings=exact_savings)
    return Evaluator.over(made.live, task, made.objective, numerics, ledger, cache_memory=cache_memory)


@pytest.mark.slow
@pytest.mark.parametrize("spec", KNOWN)
def test_stages_of_known_architectures(spec: str) -> None:
    module = model_source(spec).module(7).eval()
    inputs = torch.randn(4, 3, KNOWN[spec], KNOWN[spec], generator=torch.Generator().manual_seed(1))
    stages = stages_of(module, inputs[:2])
    entries = [k for k, stage in enumerate(stages) if stage.entry]
    assert len(entries) >= 8
    with torch.inference_mode():
        expected, x = module(inputs), inputs
        for stage in stages:
            x = stage.run(x)
    assert x.equal(expected)
    reached = {name for name, p in module.named_parameters() if not name.startswith("model.") or ".visual." in name}
    assert reached <= set().union(*(stage.tensors for stage in stages))
    if "squeezenet" not in spec:  # whose last convolution is followed by pooling
        assert stages[-1].entry
        assert len(stages[-1].tensors) == 2


@pytest.mark.parametrize("spec", ["torchvision:squeezenet1_1", "open_clip:ViT-S-32-alt"])
def test_shares_are_of_operations(spec: str) -> None:
    module = model_source(spec).module(7).eval()
    inputs = torch.randn(2, 3, KNOWN[spec], KNOWN[spec])
    stages = stages_of(module, inputs)
    shares = shares_of(stages, inputs)
    assert sum(shares) == pytest.approx(1)
    assert min(shares) >= 0
    if "open_clip" in spec:
        blocks = [share for share in shares if share > 0.06]
        assert len(blocks) == 12, "all blocks cost the same, the embedding and the head less"
        assert max(blocks) == pytest.approx(min(blocks), rel=0.3)


def test_unknown_architectures_are_one_stage() -> None:
    module = model_source("timm:convnext_atto").module(3).eval()
    (stage,) = stages_of(module, torch.randn(2, 3, 64, 64))
    assert stage.tensors == set(module.state_dict())


def test_a_chain_that_is_not_the_module_is_not_believed() -> None:
    class Liar(Small):
        def forward_steps(self) -> list[object]:
            return [self.body, self.head]

    assert len(stages_of(Liar().eval(), torch.randn(2, 3, 12, 12))) == 1


def test_no_pass_begins_where_a_kept_input_would_be_overwritten() -> None:
    class InPlace(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(2.0))

        def forward(self, x: Tensor) -> Tensor:
            return x.mul_(self.scale)

    stages = stages_of(nn.Sequential(nn.Linear(3, 3), InPlace(), nn.Linear(3, 2)).eval(), torch.randn(2, 3))
    assert [stage.entry for stage in stages] == [False, False, True]


PARTITIONERS = st.sampled_from(
    [Whole(), Layer(), Block(), Block(count=2), Custom(patterns=("late=head|body.2", "rest=.*"))]
)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(partitioner=PARTITIONERS, data=st.data())
def test_fast_is_plain(small: tuple[ModelPool, Task], partitioner: Partitioner, data: st.DataObject) -> None:
    """Random trials and recipes, in any order, with any limit: the outcomes of whole passes, bit for bit."""
    pool, task = small
    limit = data.draw(st.sampled_from([1, 3_000, 40_000, 1 << 30]))
    fast = evaluator(pool, task, partitioner, cache_memory=limit)
    plain = evaluator(pool, task, partitioner, exact_savings=False)
    partition = fast.keys.partition
    singles = [Recipe.single(ingredient, partition) for ingredient in pool.ingredients]
    mixed = singles[0].lerp(singles[1], np.full(len(partition), 0.5))
    paths = [(e, e.between(mixed, singles[2], "lerp")) for e in (fast, plain)]
    factors = np.full(len(partition), 0.5)
    asked = data.draw(st.integers(3, 10))
    for _ in range(asked):
        if data.draw(st.booleans()):
            factors = factors.copy()
            factors[data.draw(st.integers(0, len(partition) - 1))] = np.float32(data.draw(st.floats(0, 1, width=16)))
            one, two = (path(factors) for _, path in paths)
        else:
            weight = data.draw(st.sampled_from([0.0, 0.25, 1.0]))
            recipe = singles[data.draw(st.integers(0, 2))].lerp(mixed, weight)
            one, two = (e.evaluate(recipe) for e, _ in paths)
        assert one.score == two.score
        assert np.array_equal(one.correct, two.correct)  # type: ignore[arg-type]
        assert fast.scorer.passes.activations.bytes <= limit
    assert fast.ledger.total.forward_equivalents <= fast.ledger.total.evaluations + 1e-9
    assert plain.ledger.total.forward_equivalents == asked


def test_a_change_of_the_head_reads_no_image(small: tuple[ModelPool, Task]) -> None:
    pool, task = small
    seen: list[int] = []

    def prepare(batch: Tensor) -> Tensor:
        seen.append(len(batch))
        return task.prepare(batch)

    fast = evaluator(pool, replace(task, prepare=prepare), Layer())
    partition = fast.keys.partition
    path = fast.between(*(Recipe.single(ingredient, partition) for ingredient in pool.ingredients[:2]), "lerp")
    factors = np.full(len(partition), 0.5)
    path(factors)
    before = len(seen)
    for value in (0.25, 0.75):
        factors = factors.copy()
        factors[partition.names.index("head")] = value
        path(factors)
    assert len(seen) == before


@pytest.mark.filterwarnings("ignore:.*Profiler clears events")  # torch 2.11 says so of every second profile
def test_trials_allocate_nothing(small: tuple[ModelPool, Task]) -> None:
    pool, task = small
    live = evaluator(pool, task, Layer()).scorer.live
    ends = [Recipe.single(ingredient, live.partition) for ingredient in pool.ingredients[:2]]
    live.set_ends(*ends)
    for mixing in ("lerp", "sum"):
        live.trial(np.full(len(live.partition), 0.3), mixing)
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
            live.set_ends(*ends)
            live.trial(np.full(len(live.partition), 0.6), mixing)
        assert profile.events()
        largest = max(abs(event.cpu_memory_usage) for event in profile.events())
        assert largest <= 64  # a Python number becomes a tensor of one element


def test_activations_give_way() -> None:
    kept = Activations(limit=100)
    assert not kept.make_room(1, 101, in_use=0)
    for stage in (1, 2):
        assert kept.make_room(stage, 48, in_use=0)
        kept.keep(stage, f"weights before {stage}", [torch.zeros(6), torch.zeros(6)])
    assert kept.deepest(["", "weights before 1", "others"]) == 1
    assert kept.make_room(3, 40, in_use=1)
    kept.keep(3, "c", [torch.zeros(10)])
    assert kept.deepest(["", "weights before 1", "weights before 2", "x"]) == 1
    assert kept.bytes == 88


def test_savings_change_no_run(tmp_path: Path, small: tuple[ModelPool, Task]) -> None:
    """A whole manifold mix: the same evaluations in the same order, the same decisions, the same recipe."""
    import merging

    pool, task = small
    told = {}
    for name, exact in (("fast", True), ("plain", False)):
        result = merging.merge(
            pool,
            ManifoldMix(budget=30, tau=0.5, barrier=None),
            partitioner=Layer(),
            task=task,
            optimizer=merging.Coordinate(),
            objective=NegativeLogLikelihood(),
            output=tmp_path / name,
            exact_savings=exact,
        )
        events = [json.loads(line) for line in (tmp_path / name / "events.jsonl").read_text().splitlines()]
        scored = [(event["key"], event["score"]) for event in events if event["event"] == "evaluation"]
        assert len(scored) > 20
        told[name] = (result.merge.to_json(), result.report.decisions, scored)
    assert told["fast"] == told["plain"]


def test_held_out_is_the_only_split_that_is_kept(small: tuple[ModelPool, Task]) -> None:
    pool, task = small
    fast = evaluator(pool, replace(task, tests={"test": task.held_out}), Layer())
    fast.evaluate(Recipe.single(pool.ingredients[0], fast.keys.partition), "test")
    assert fast.scorer.passes.activations.bytes == 0
    fast.evaluate(Recipe.single(pool.ingredients[1], fast.keys.partition), HELD_OUT)
    assert fast.scorer.passes.activations.bytes > 0
