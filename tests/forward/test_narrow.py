"""Weights of 16 bits that are mixed where they are, with the bits of mixing in fp32 and rounding once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.forward.lerp import AT_ONCE, Mixer
from merging.forward.live import LiveModel
from merging.forward.widening import Widening
from merging.mixing.arithmetic import materialise
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.layer import Layer
from merging.partitioners.whole import Whole
from merging.plugins.task import Split, Task
from merging.running.plan import plan
from merging.storage.content import content_hash
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.uniform import Uniform
from merging.values.recipe import Recipe, Weights

WIDTH = 24


class Tied(nn.Module):
    """Token ids by an embedding, which is the last layer's weight as well where that is tied, a norm and two layers."""

    def __init__(self, *, tied: bool = False) -> None:
        super().__init__()
        self.embed = nn.Embedding(40, WIDTH)
        self.norm = nn.LayerNorm(WIDTH)
        self.body = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, 40, bias=False)
        self.register_buffer("scale", torch.full((WIDTH,), 1.0 + 2**-12), persistent=False)
        if tied:
            self.exact = frozenset[str]()
            self.head.weight = self.embed.weight

    def forward(self, ids: Tensor) -> Tensor:
        x = self.embed(ids).mean(1)
        x = self.norm(x) * self.scale.to(x.dtype)
        x = torch.relu(self.body(x)) @ self.body.weight.T.to(self.body.weight.dtype)
        logits: Tensor = self.head(x)
        return logits


@pytest.fixture(scope="module", params=[torch.bfloat16, torch.float16])
def brief(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    """Three models, in a dtype of 16 bits."""
    folder = tmp_path_factory.mktemp("brief")
    for number in range(3):
        torch.manual_seed(number)
        state = {name: tensor.to(request.param) for name, tensor in Tied().state_dict().items()}
        save_file(state, folder / f"model_{number}.safetensors")
    return ModelPool.open([folder / "model_*.safetensors"])


def task() -> Task:
    draw = torch.Generator().manual_seed(0)
    ids = torch.randint(40, (50, 6), generator=draw)
    return Task(name="ids", build=lambda pool: Tied(), held_out=Split.of(ids, ids[:, 0]))


def in_two_buffers(pool: ModelPool, dtype: torch.dtype) -> LiveModel:
    """The live model that mixes in a buffer of fp32, and rounds into another one where it runs in 16 bits."""
    made = live(pool, "float32" if dtype == torch.float32 else "bfloat16")
    made._ends_in, made._slim = torch.float32, False
    assert made.weights.dtype == torch.float32
    return made


def live(pool: ModelPool, dtype: str, module: Callable[[], nn.Module] = Tied) -> LiveModel:
    return LiveModel(module(), pool, Layer().split(pool.tensors), "cpu", dtype=getattr(torch, dtype))


def ends(pool: ModelPool, made: LiveModel) -> tuple[Recipe, Recipe]:
    return Recipe.mean(pool.ingredients[:2], made.partition), Recipe.single(pool.ingredients[2], made.partition)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mixing", ["lerp", "sum"])
def test_a_mix_has_the_bits_of_fp32_rounded_once(brief: ModelPool, dtype: str, mixing: str) -> None:
    one, other = live(brief, dtype), in_two_buffers(brief, getattr(torch, dtype))
    for factors in np.random.default_rng(0).uniform(-0.3, 1.4, (4, len(one.partition))):
        for made in (one, other):
            made.set_ends(*ends(brief, made))
            made.trial(factors.astype(np.float32).astype(np.float64), mixing)
        for name, parameter in one.parameters.items():
            assert parameter.dtype == other.parameters[name].dtype
            assert torch.equal(parameter, other.parameters[name]), name
    assert one.parameters["head.weight"].dtype == torch.float32
    assert torch.equal(one.weights, other.weights) or dtype != "float32"


def test_what_is_resident_has_16_bits(brief: ModelPool) -> None:
    made = live(brief, "bfloat16")
    made.set_ends(*ends(brief, made))
    made.trial(np.full(len(made.partition), 0.3), "lerp")
    stored = brief.tensors["body.weight"][1]
    assert made._incumbent is not None
    assert str(made._incumbent[1].dtype) == f"torch.{stored}"
    assert (made._wide is None) == (stored == "bfloat16")
    if stored == "bfloat16":
        before = {name: tensor.clone() for name, tensor in made.parameters.items()}
        assert made.weights.dtype == torch.float32  # somebody asks for them
        assert all(torch.equal(tensor, before[name]) for name, tensor in made.parameters.items())
        made.weights.mul_(1.1)
        made.mixed()
        assert not torch.equal(made.parameters["body.weight"], before["body.weight"])
        made.set_ends(*ends(brief, made))
        assert made._wide is None
        made.trial(np.full(len(made.partition), 0.3), "lerp")
        assert all(torch.equal(tensor, before[name]) for name, tensor in made.parameters.items())


@pytest.mark.parametrize("tied", [False, True])
def test_a_pass_of_record_has_the_bits_of_fp32(brief: ModelPool, tied: bool, tmp_path: Path) -> None:
    pool = brief
    if tied:
        for number in range(2):
            torch.manual_seed(number)
            state = {n: t.clone().to(torch.bfloat16) for n, t in Tied(tied=True).state_dict().items()}
            save_file(state, tmp_path / f"model_{number}.safetensors")
        pool = ModelPool.open([tmp_path])
    ids = task().held_out.tensor
    found = []
    for dtype in ("bfloat16", "float32"):
        made = live(pool, dtype, lambda: Tied(tied=tied))
        with made.in_fp32(), torch.inference_mode():
            made.load(Recipe.mean(pool.ingredients, made.partition))
            assert made.dtype == torch.float32
            found.append(made.module(ids))
        assert made.dtype == getattr(torch, dtype)
        assert dtype == "float32" or tied or made.parameters["body.weight"].dtype == torch.bfloat16
    assert found[0].dtype == torch.float32
    assert torch.equal(*found)
    whole = live(pool, "bfloat16", lambda: Tied(tied=tied))
    with whole.in_fp32(whole=True):
        whole.load(Recipe.mean(pool.ingredients, whole.partition))
        whole.open_to_autograd()
        assert torch.equal(whole.module(ids), found[0])
        whole.module(ids).sum().backward()
        assert whole.parameters["norm.weight"].grad.dtype == torch.float32  # type: ignore[union-attr]


def test_a_module_says_what_is_exact(tmp_path: Path) -> None:
    save_file({n: t.clone().bfloat16() for n, t in Tied(tied=True).state_dict().items()}, tmp_path / "a.safetensors")
    made = live(ModelPool.open([tmp_path]), "bfloat16", lambda: Tied(tied=True))
    assert {tensor.dtype for tensor in made.parameters.values()} == {torch.bfloat16}
    assert made.module.scale.dtype == torch.float32
    assert made.parameters["head.weight"].data_ptr() == made.parameters["embed.weight"].data_ptr()


def test_weights_that_hold_more_are_kept_whole_for_passes_of_record(brief: ModelPool) -> None:
    made = live(brief, "bfloat16")
    tensors = {n: t.float() * 1.001 for n, t in materialise(ends(brief, made)[0], brief).items()}
    merged = Weights(
        tensors=tensors, ingredients=brief.ingredients, strategy="own", options={}, hash=content_hash(tensors)
    )
    with made.in_fp32(), torch.inference_mode():
        made.load(merged)
        plain = Tied().eval()
        plain.load_state_dict(tensors)
        assert torch.equal(made.module(task().held_out.tensor), plain(task().held_out.tensor))


def test_parts_give_the_bits_of_the_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    draw = torch.Generator().manual_seed(0)
    ahead, behind = (torch.randn(70_001, generator=draw).bfloat16() for _ in range(2))
    monkeypatch.setitem(AT_ONCE, "cpu", 10_000)
    for mixing in ("lerp", "sum"):
        home, exact = torch.empty(70_001, dtype=torch.bfloat16), torch.zeros(15_000)
        Mixer(mixing, 70_001, home.device).mix(home, ahead, behind, 0.7123, [(8_500, exact)])
        a, c = ahead.float(), behind.float()
        whole = torch.lerp(c, a, 0.7123) if mixing == "lerp" else 0.7123 * a + (1.0 - 0.7123) * c
        assert torch.equal(home, whole.bfloat16())
        assert torch.equal(exact, whole[8_500:23_500])


def test_rows_of_an_embedding_are_widened_and_no_others() -> None:
    made = nn.Embedding(30, 4).bfloat16().requires_grad_(requires_grad=False)
    with Widening([made.weight]):
        assert made.weight.dtype == torch.float32
        found = made(torch.tensor([3, 5]))
    assert torch.equal(found, made.weight[[3, 5]].float())
    assert made.weight.dtype == torch.bfloat16


def test_a_large_tensor_is_read_a_part_at_a_time(brief: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    import merging.mixing.arithmetic as arithmetic

    monkeypatch.setattr(arithmetic, "AT_ONCE", 100)
    made = LiveModel(Tied(), brief, Whole().split(brief.tensors), "cpu")
    recipe = Recipe.mean(brief.ingredients, made.partition)
    made.load(recipe)
    for name, tensor in materialise(recipe, brief).items():
        assert torch.equal(made.parameters[name], tensor.float())


def test_a_search_in_16_bits_scores_as_in_two_buffers(brief: ModelPool) -> None:
    scores = []
    for slim in (True, False):
        made = plan(brief, Uniform(), partitioner=Layer(), task=task(), precision="bf16", device="cpu")
        assert made.live is not None
        assert made.numerics is not None
        assert made.task is not None
        if not slim:
            made.live._ends_in, made.live._slim = torch.float32, False
            assert made.live.weights.dtype == torch.float32
        ledger = Ledger(Journal(None))
        door = Evaluator.over(made.live, made.task, NegativeLogLikelihood(), made.numerics, ledger)
        pair = ends(brief, made.live)
        path = door.between(*pair, "lerp")
        found = [path(np.full(len(made.live.partition), factor)).score for factor in (0.25, 0.5)]
        scores.append([*found, *(door.record(recipe).score for recipe in pair)])
    assert scores[0] == scores[1]
