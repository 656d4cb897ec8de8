"""Repeated blocks are compiled once; passes that begin late run the same compiled blocks."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch._dynamo.utils import counters

from merging.errors import TaskError
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.forward.compiling import Compiled, compiled, repeated_blocks
from merging.forward.numerics import WORTH_COMPILING, Numerics
from merging.models.catalogue import model_source
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.layer import Layer
from merging.plugins.task import Split, Task
from merging.running.needs import planned_evaluations
from merging.running.plan import plan
from merging.running.run import merge as merge_models
from merging.running.settings import Search
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.manifoldmix import ManifoldMix
from merging.strategies.uniform import Uniform
from merging.testing import TinyNet
from merging.testing.second_device import second_device
from merging.values.recipe import Recipe

compiles = pytest.mark.skipif(not Path("/usr/bin/g++").exists(), reason="torch.compile on a CPU needs a C++ compiler")


class Block(nn.Module):
    """A residual block."""

    def __init__(self, width: int = 16) -> None:
        super().__init__()
        self.norm, self.layer = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.nn.functional.gelu(self.layer(self.norm(x)))


class Stack(nn.Module):
    """A stem, blocks and a head."""

    def __init__(self, blocks: int = 3) -> None:
        super().__init__()
        self.stem = nn.Linear(4, 16)
        self.blocks = nn.ModuleList(Block() for _ in range(blocks))
        self.head = nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        for block in self.blocks:
            x = block(x)
        logits: Tensor = self.head(x)
        return logits

    def forward_steps(self) -> list[nn.Module]:
        """The same as a chain."""
        return [self.stem, *self.blocks, self.head]


class Patched(nn.Module):
    """A patch embedding and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.embed, self.head = nn.Conv2d(3, 4, 4, 4), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.embed(x).mean((2, 3)))
        return logits


@pytest.fixture
def made(tmp_path: Path) -> tuple[ModelPool, Task]:
    for number in range(2):
        torch.manual_seed(number)
        save_file(Stack().state_dict(), tmp_path / f"{number}.safetensors")
    inputs = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    task = Task(name="stack", build=lambda pool: Stack(), held_out=Split.of(inputs, torch.arange(40) % 3))
    return ModelPool.open([tmp_path]), task


def evaluator(pool: ModelPool, task: Task, memory: int = 1 << 20, **settings: object) -> Evaluator:
    found = plan(pool, Uniform(), partitioner=Layer(), task=task, objective=NegativeLogLikelihood(), **settings)  # type: ignore[arg-type]
    assert found.live is not None
    assert found.numerics is not None
    ledger = Ledger(Journal(None))
    return Evaluator.over(found.live, task, found.objective, found.numerics, ledger, cache_memory=memory)


@pytest.mark.parametrize(
    ("spec", "blocks"),
    [
        ("timm:vit_tiny_patch16_224", 12),
        ("torchvision:swin_t", 12),
        ("torchvision:resnet18", 0),
        ("torchvision:squeezenet1_1", 0),
    ],
)
def test_blocks_that_repeat_are_found(spec: str, blocks: int) -> None:
    assert len(repeated_blocks(model_source(spec).module(5))) == blocks


def test_what_holds_little_or_is_cut_further_is_no_block() -> None:
    assert len(repeated_blocks(Stack())) == 3
    assert not repeated_blocks(Stack(blocks=1))
    assert not repeated_blocks(TinyNet())
    assert not repeated_blocks(nn.Sequential(*(nn.Linear(4, 4) for _ in range(3))))
    assert not repeated_blocks(nn.Sequential(*(nn.Sequential(nn.Linear(4, 4), nn.ReLU()) for _ in range(3))))
    assert not repeated_blocks(nn.Sequential(Block(), Block(), nn.Linear(16, 400)))
    chains = repeated_blocks(nn.ModuleList(Stack() for _ in range(3)))
    assert {type(block) for block in chains} == {Block}, "a chain of its own is cut, and its blocks are compiled"
    widths = nn.ModuleList(nn.Sequential(Block(width), Block(width)) for width in (2, 3, 4, 5, 6))
    assert not repeated_blocks(widths), "five kinds are compiled whole"


@pytest.mark.slow
@compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_blocks_are_compiled_once_and_the_module_stays_eager() -> None:
    module, x = Stack(6).eval(), torch.randn(8, 4)
    torch._dynamo.reset()  # of what other tests have compiled
    counters.clear()
    with torch.inference_mode():
        right = module(x)
        fast = compiled(module, x, "float32")
        assert counters["stats"]["unique_graphs"] == 1
        torch.testing.assert_close(fast(x), right, atol=1e-5, rtol=0)
        module.blocks[3].layer.weight.mul_(2)
        torch.testing.assert_close(fast(x), module(x), atol=1e-5, rtol=0)
        assert counters["stats"]["unique_graphs"] == 1, "weights are read live"
    assert all("forward" not in vars(block) for block in module.blocks)
    assert list(module.state_dict()) == list(Stack(6).state_dict())


def test_wrongly_compiled_blocks_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda call, **settings: lambda x: call(x) + 1)
    module = Stack().eval()
    with torch.inference_mode(), pytest.raises(TaskError, match="away from the eager ones; use `compile=False`"):
        compiled(module, torch.randn(2, 4), "float32")
    assert all("forward" not in vars(block) for block in module.blocks)


def test_a_model_without_blocks_is_compiled_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[object] = []
    monkeypatch.setattr(torch, "compile", lambda module, **settings: given.append(module) or module)
    module = TinyNet().eval()
    Compiled(module)
    assert given == [module]
    Compiled(Stack())
    assert len(given) == 1 + 3


@pytest.mark.slow
@compiles
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_passes_begin_late_with_the_same_bits(made: tuple[ModelPool, Task]) -> None:
    saving, whole = evaluator(*made, compile=True), evaluator(*made, memory=0, compile=True)
    eager = evaluator(*made)
    ends = [Recipe.single(ingredient, saving.keys.partition) for ingredient in made[0].ingredients]
    paths = [each.between(ends[0], ends[1], "lerp") for each in (saving, whole, eager)]
    factors, shares = np.full(len(saving.keys.partition), 0.5), []
    for place in (-1, -1, -2, -2, 0, -1):
        factors = factors.copy()
        factors[place] += 0.05
        one, two, three = (path(factors).score for path in paths)
        assert one == two
        assert one == pytest.approx(three, rel=1e-5)
        shares.append(saving.scorer.passes.share)
    assert min(shares) < 0.5
    assert saving.scorer.passes.compiled is not None
    mean = Recipe.mean(made[0].ingredients, saving.keys.partition)
    assert saving.record(mean).score == eager.evaluate(mean).score, "scores of record are eager ones"


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device (make test-gpu)")
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_compiled_blocks_on_a_device(made: tuple[ModelPool, Task], precision: str) -> None:
    fast = evaluator(*made, compile=True, device="cuda", precision=precision)
    whole = evaluator(*made, memory=0, compile=True, device="cuda", precision=precision)
    eager = evaluator(*made, device="cpu")
    ends = [Recipe.single(ingredient, fast.keys.partition) for ingredient in made[0].ingredients]
    paths = [each.between(ends[0], ends[1], "lerp") for each in (fast, whole, eager)]
    factors = np.full(len(fast.keys.partition), 0.5)
    for place in (-1, -1, 0):
        factors[place] += 0.05
        one, two, three = (path(factors.copy()).score for path in paths)
        assert one == two
        assert one == pytest.approx(three, rel=1e-4 if precision == "fp32" else 2e-2)


# --- the rule -------------------------------------------------------------------------------------------------------


class Large(Stack):
    """Of more parameters than small models have."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(Block(600) for _ in range(3))


def chosen(device: str, work: int, compile: bool | None = None, **given: object) -> Numerics:
    return Numerics.choose(device, Large(), torch.zeros(4), compile=compile, work=work, **given)  # type: ignore[arg-type]


def test_long_searches_are_compiled_by_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("merging.forward.numerics.compiler_there", lambda: True)
    with second_device():
        assert chosen("cuda", WORTH_COMPILING).compiled
        assert not chosen("cuda", WORTH_COMPILING - 1).compiled
        assert not chosen("cuda", WORTH_COMPILING, compile=False).compiled
        assert chosen("cuda", 0, compile=True).compiled
        assert not chosen("cuda", WORTH_COMPILING, precision="fp32").compiled
        assert not Numerics.choose("cuda", TinyNet(), torch.zeros(4), "bf16", compile=None, work=1 << 40).compiled
        monkeypatch.setattr("merging.forward.numerics.compiler_there", lambda: False)
        assert not chosen("cuda", WORTH_COMPILING).compiled
    monkeypatch.setattr("merging.forward.numerics.compiler_there", lambda: True)
    assert not chosen("cpu", 1 << 40, precision="bf16").compiled, "never on a CPU"


@pytest.mark.parametrize(("gigabytes", "batch"), [(80, 512), (24, 256), (16, 128), (1, 32)])
def test_batches_follow_the_devices_memory(gigabytes: int, batch: int) -> None:
    picture = torch.zeros(224, 224, 3, dtype=torch.uint8)
    with second_device(free=gigabytes << 30):
        assert Numerics.choose("cuda", Large(), picture).batch == batch
        assert Numerics.choose("cuda", Large(), torch.zeros(4)).batch == 512


def test_planned_evaluations_follow_from_the_settings() -> None:
    published = ManifoldMix(profile="reference")
    assert planned_evaluations(published, Search(), 72, 8) == 72 * 24
    assert planned_evaluations(published, Search(max_evaluations=100), 72, 8) == 100
    assert planned_evaluations(published, Search(budget=50), 72, 8) == 72 * 5
    assert planned_evaluations(ManifoldMix(), Search(), 10, 8) == 250
    assert planned_evaluations(Uniform(), Search(budget=1000), 10, 8) == 10


def test_an_earlier_session_decides_on_a_gpu_and_not_on_a_cpu() -> None:
    rule = Numerics(device="cuda", batch=512, threads=1, dtype="bfloat16", patches=True, compiled=True)
    old = Numerics(**{"device": "cuda", "batch": 128, "threads": 1, "dtype": "bfloat16", "compiled": False})
    assert rule.as_before(old, compile=None, threads=None) == old
    again = rule.as_before(old, compile=True, threads=None)
    assert again == replace(old, compiled=True), "which is refused, for it was not so"
    here = replace(rule, device="cpu")
    assert here.as_before(old, compile=None, threads=None) == here


@pytest.mark.parametrize("device", ["cpu", "cuda"])
def test_a_run_goes_on_with_as_many_threads_as_it_began(device: str) -> None:
    """Whatever the cores and the workers are now; what is typed is compared with the journal, and refused."""
    now = Numerics(device=device, batch=32, threads=8)
    assert now.as_before(replace(now, threads=1), compile=None, threads=None).threads == 1
    assert now.as_before(replace(now, threads=1), compile=None, threads=8).threads == 8


@pytest.mark.slow
def test_a_run_on_a_device_of_an_older_journal_goes_on(tmp_path: Path) -> None:
    """A journal of before the rule: with the batch of then, and convolutions."""
    (tmp_path / "pool").mkdir()
    for number in range(3):
        torch.manual_seed(number)
        save_file(Patched().state_dict(), tmp_path / "pool" / f"{number}.safetensors")
    images = torch.randn(24, 3, 8, 8, generator=torch.Generator().manual_seed(0))
    task = Task(name="patched", build=lambda pool: Patched(), held_out=Split.of(images, torch.arange(24) % 3))

    def run(evaluations: int, *, resume: bool) -> dict[str, object]:
        found = merge_models(
            tmp_path / "pool",
            "greedy",
            task=task,
            output=tmp_path / "run",
            resume=resume,
            max_evaluations=evaluations,
            device="cuda",
        )
        return dict(found.report.numerics)

    with second_device():
        assert run(3, resume=False)["patches"] is True
        journal = tmp_path / "run" / "events.jsonl"
        first, *_ = journal.read_text().splitlines(keepends=True)
        begun = json.loads(first)
        del begun["numerics"]["patches"]
        begun["numerics"]["batch"] = 16
        journal.write_text(json.dumps(begun) + "\n")
        went_on = run(5, resume=True)
    assert "patches" not in went_on
    assert went_on["batch"] == 16
