"""bf16 passes, compiled passes, streamed data, tuning: what they may change and what they may not."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from merging.errors import TaskError
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.forward.feed import Feed
from merging.forward.numerics import Numerics
from merging.forward.tuning import candidates
from merging.models.catalogue import model_source
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.layer import Layer
from merging.plugins.task import CERTIFY, Split, Task
from merging.running.plan import plan
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.uniform import Uniform
from merging.testing import tiny_task
from merging.testing.fixtures import tiny_numerics
from merging.values.recipe import Recipe

pytestmark = pytest.mark.gpu


def evaluator(pool: ModelPool, task: Task, **settings: object) -> Evaluator:
    made = plan(pool, Uniform(), partitioner=Layer(), task=task, objective=NegativeLogLikelihood(), **settings)  # type: ignore[arg-type]
    assert made.live is not None
    assert made.numerics is not None
    return Evaluator.over(made.live, made.task or task, made.objective, made.numerics, Ledger(Journal(None)))


def test_bf16_mixes_in_fp32_and_rounds_once(pool: ModelPool) -> None:
    plain = evaluator(pool, tiny_task(), precision="fp32").scorer.live
    brief = evaluator(pool, tiny_task(), precision="bf16").scorer.live
    for live in (plain, brief):
        live.set_ends(*(Recipe.single(ingredient, live.partition) for ingredient in pool.ingredients[:2]))
        live.trial(np.full(len(live.partition), 0.3), "lerp")
    assert torch.equal(brief.weights, plain.weights)
    assert brief.parameters["fc1.weight"].dtype == torch.bfloat16
    assert torch.equal(brief.parameters["fc1.weight"], plain.parameters["fc1.weight"].bfloat16())
    assert torch.equal(brief.parameters["fc2.weight"], plain.parameters["fc2.weight"]), "the head stays in fp32"
    with brief.in_fp32():
        assert torch.equal(brief.parameters["fc1.weight"], plain.parameters["fc1.weight"])
    assert brief.parameters["fc1.weight"].dtype == torch.bfloat16


@pytest.mark.slow
@pytest.mark.parametrize("spec", ["open_clip:ViT-S-32-alt", "torchvision:resnet18", "timm:vit_tiny_patch16_224"])
def test_real_architectures_run_in_bf16(tmp_path: Path, spec: str) -> None:
    source = model_source(spec)
    side, _ = source.sides
    for number in range(2):
        state = source.module(5).state_dict()
        save_file(
            {n: t + 0.01 * number if t.is_floating_point() else t for n, t in state.items()},
            tmp_path / f"{number}.safetensors",
        )
    pixels = torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(0))
    task = Task(name=spec, build=source.build, held_out=Split.of(pixels, torch.arange(4)))
    pool = ModelPool.open([tmp_path])
    found = {}
    for precision in ("fp32", "bf16"):
        made = evaluator(pool, task, precision=precision)
        assert made.numerics.dtype == {"fp32": "float32", "bf16": "bfloat16"}[precision]
        found[precision] = made.outputs.logits(Recipe.single(pool.ingredients[0], made.keys.partition))
    assert not torch.equal(found["fp32"], found["bf16"])
    assert float((found["fp32"] - found["bf16"]).abs().max()) < 0.05 * float(found["fp32"].abs().max())


class Narrow(nn.Module):
    """Refuses bf16."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Linear(4, 3), nn.Linear(3, 2)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.body(x) @ torch.linalg.qr(self.body.weight)[0])
        return logits


def test_a_model_that_cannot_take_bf16_says_so(tmp_path: Path) -> None:
    for name in "ab":
        save_file(Narrow().state_dict(), tmp_path / f"{name}.safetensors")
    task = Task(name="narrow", build=lambda pool: Narrow(), held_out=Split.of(torch.randn(6, 4), torch.arange(6) % 2))
    pool = ModelPool.open([tmp_path])
    with pytest.raises(TaskError, match=r"cannot run in bf16 .*`precision=fp32`"):
        plan(pool, Uniform(), task=task, precision="bf16")
    made = plan(pool, Uniform(), task=task)
    assert made.numerics is not None
    assert made.numerics.dtype == "float32"


def test_certifying_is_fp32(pool: ModelPool, tmp_path: Path) -> None:
    """The same samples score to the same bits on the certifying split, whatever precision the search runs in."""
    scores = {}
    for precision in ("fp32", "bf16"):
        made = evaluator(pool, tiny_task().certified(0.5, 0), precision=precision)
        recipe = Recipe.mean(pool.ingredients, made.keys.partition)
        scores[precision] = [made.evaluate(recipe).score, made.evaluate(recipe, CERTIFY).score]
    assert scores["fp32"][1] == scores["bf16"][1]
    assert scores["fp32"][0] != scores["bf16"][0]


@pytest.mark.parametrize("size", [1, 7, 64, 500])
def test_streamed_batches_are_the_resident_ones(size: int) -> None:
    split = Split.of(torch.arange(90 * 4, dtype=torch.int32).view(90, 2, 2), torch.arange(90))
    resident, streamed = Feed(split, "cpu"), Feed(split, "cpu", room=100)
    assert resident.resident
    assert not streamed.resident
    for order in (None, torch.randperm(90, generator=torch.Generator().manual_seed(0))):
        one, two = (list(feed.batches(size, order)) for feed in (resident, streamed))
        assert len(one) == len(two) == -(-90 // size)
        for (x, labels), (y, others) in zip(one, two, strict=True):
            assert torch.equal(x, y)
            assert torch.equal(labels, others)
        assert torch.equal(
            torch.cat([x for x, _ in two])[:, 0, 0] // 4, order if order is not None else torch.arange(90)
        )


def test_streamed_data_scores_the_same(pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    import merging.forward.passes

    task = tiny_task()
    recipes = [Recipe.single(i, evaluator(pool, task).keys.partition) for i in pool.ingredients]
    plain = [evaluator(pool, task).evaluate(recipe).score for recipe in recipes]
    monkeypatch.setattr(merging.forward.passes, "feed_of", lambda split, device: Feed(split, device, room=0))
    made = evaluator(pool, task)
    assert [made.evaluate(recipe).score for recipe in recipes] == plain
    assert not made.scorer.passes.feed("held-out").resident


@pytest.mark.slow
@pytest.mark.skipif(not Path("/usr/bin/g++").exists(), reason="torch.compile on a CPU needs a C++ compiler")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_compiled_passes_agree_with_eager_ones(pool: ModelPool) -> None:
    eager, compiled = evaluator(pool, tiny_task()), evaluator(pool, tiny_task(), compile=True)
    assert compiled.numerics.compiled
    recipe = Recipe.mean(pool.ingredients, eager.keys.partition)
    assert compiled.evaluate(recipe).score == pytest.approx(eager.evaluate(recipe).score, rel=1e-5)
    assert compiled.scorer.passes.compiled is not None
    path = [e.between(recipe, Recipe.single(pool.ingredients[0], recipe.partition), "lerp") for e in (eager, compiled)]
    one, two = (trial(np.full(len(recipe.partition), 0.4)).score for trial in path)
    assert two == pytest.approx(one, rel=1e-5), "weights that are mixed in place reach the compiled model"


def test_a_wrongly_compiled_model_is_refused(pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "compile", lambda module, **settings: lambda x: module(x) + 1)
    made = evaluator(pool, tiny_task(), compile=True)
    with pytest.raises(TaskError, match="away from the eager ones; use `compile=False`"):
        made.evaluate(Recipe.single(pool.ingredients[0], made.keys.partition))


def test_tuning_measures_the_rule_and_others(pool: ModelPool) -> None:
    made = evaluator(pool, tiny_task(), tune=True, device="cpu")
    rule = evaluator(pool, tiny_task(), device="cpu").numerics
    assert dataclasses.replace(made.numerics, batch=rule.batch, threads=rule.threads) == rule
    wanted = list(candidates(rule, 120))
    assert wanted[0] == rule
    assert len(set(wanted)) == len(wanted) > 3
    assert made.numerics in wanted


def test_a_tuned_run_resumes_with_what_it_measured(
    merge,  # noqa: ANN001
    tiny: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    import merging.forward.placement

    measured = iter((77, 33))
    monkeypatch.setattr(
        merging.forward.placement, "tuned", lambda rule, *rest: dataclasses.replace(rule, batch=next(measured))
    )
    folder = tmp_path / "run"
    ran = merge(*tiny, "--tune", "--max-evaluations", "5", "--output", str(folder))
    assert ran.code == 0, ran.err
    ran = merge("run", "--resume", str(folder), "--max-evaluations", "9", "--trust-code")
    assert ran.code == 0, ran.err
    assert json.loads((folder / "report.json").read_text())["numerics"]["batch"] == 77
    assert next(measured) == 33


def test_an_unknown_precision_names_the_nearest(merge, tiny: list[str], tmp_path: Path) -> None:  # noqa: ANN001
    ran = merge(*tiny, "--precision", "fp23", "--output", str(tmp_path / "x"))
    assert ran.code == 2
    assert "'fp23'; did you mean 'fp32'?" in ran.err
    assert not (tmp_path / "x").exists()


def test_a_pool_kept_on_a_device_is_read_once(pool: ModelPool) -> None:
    from merging.forward.live import _OnDevice

    reads: list[str] = []

    class Counting:
        tensors, mixable = pool.tensors, pool.mixable

        def read(self, ingredient: object, name: str) -> Tensor:
            reads.append(name)
            return pool.read(ingredient, name)  # type: ignore[arg-type]

    name = "fc1.weight"
    size = pool.ingredients and pool.read(pool.ingredients[0], name).nbytes
    kept = _OnDevice(Counting(), torch.device("cpu"), room=size)  # type: ignore[arg-type]
    for _ in range(3):
        assert torch.equal(kept.read(pool.ingredients[0], name), pool.read(pool.ingredients[0], name))
        kept.read(pool.ingredients[1], name)  # no room for this one
    assert len(reads) == 1 + 3


def test_numerics_of_the_rule_are_those_of_before() -> None:
    rule = Numerics.choose("cpu", nn.Linear(3, 2), torch.zeros(3))
    assert (rule.batch, rule.threads, rule.dtype, rule.compiled) == (256, 1, "float32", False)
    assert Numerics.choose("cpu", nn.Linear(3, 2), torch.zeros(3), "bf16").dtype == "bfloat16"


def test_fp32_is_no_tf32_where_scores_are_made() -> None:
    numerics, before = tiny_numerics(), torch.backends.cudnn.allow_tf32
    with numerics.applied():
        assert not torch.backends.cudnn.allow_tf32
    assert torch.backends.cudnn.allow_tf32 == before
    with numerics.applied(tf32=True):
        assert torch.backends.cudnn.allow_tf32 == before


@pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device (make test-gpu)")
def test_convolutions_in_fp32_are_as_exact_as_on_a_cpu() -> None:
    draw = torch.Generator().manual_seed(0)
    images, weight = (torch.randn(shape, generator=draw) for shape in ((8, 32, 24, 24), (48, 32, 3, 3)))
    right = torch.nn.functional.conv2d(images.double(), weight.double()).float()
    with tiny_numerics().applied():
        found = torch.nn.functional.conv2d(images.cuda(), weight.cuda()).cpu()
    assert float((found - right).abs().max() / right.std()) < 1e-5
