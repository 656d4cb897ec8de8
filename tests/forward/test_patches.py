"""Patch embeddings as matrix products: the module's own numbers, live weights, gradients, stages, uint8 images."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from merging.data.images import Normalise
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.forward.compiling import repeated_blocks
from merging.forward.numerics import Numerics
from merging.forward.patches import PatchProduct, is_patched, pixels_of, takes_pixels, use_products
from merging.models.catalogue import model_source
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.layer import Layer
from merging.plugins.task import Split, Task
from merging.running.plan import plan
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.uniform import Uniform
from merging.values.recipe import Recipe

TIGHT = {torch.float64: 1e-12, torch.float32: 2e-5}
MEANS = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
IMAGENET = Normalise(*MEANS)


class Picture(nn.Module):
    """A small network over patches of 4 × 6 pixels, with two blocks."""

    def __init__(self, *, bias: bool = True) -> None:
        super().__init__()
        self.embed = nn.Conv2d(3, 8, (4, 6), (4, 6), bias=bias)
        self.blocks = nn.Sequential(*(nn.Sequential(nn.Linear(8, 8), nn.GELU()) for _ in range(2)))
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.blocks(self.embed(x).flatten(2).transpose(1, 2)).mean(1))
        return logits

    def forward_steps(self) -> list[object]:
        """The same as a chain."""
        return [lambda x: self.embed(x).flatten(2).transpose(1, 2), *self.blocks, lambda x: self.head(x.mean(1))]


class Skipping(Picture):
    """Reads its input a second time."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) + x.float().mean()


class Casting(Picture):
    """Brings its input to the weights' dtype first, as transformers does."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.to(self.embed.weight.dtype))


def pictures(count: int = 24, side: tuple[int, int] = (13, 18), seed: int = 0) -> Tensor:
    return torch.randint(0, 256, (count, *side, 3), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


def pool_of(folder: Path, models: int = 3) -> ModelPool:
    for number in range(models):
        torch.manual_seed(number)
        save_file(Picture().state_dict(), folder / f"{number}.safetensors")
    return ModelPool.open([folder])


def picture_task(build: type[Picture] = Picture) -> Task:
    split = Split.of(pictures(), torch.arange(24) % 3)
    return Task(name="pictures", build=lambda pool: build(), held_out=split, prepare=Normalise(*MEANS))


def evaluator(pool: ModelPool, task: Task, *, patches: bool | None = None, **settings: object) -> Evaluator:
    made = plan(pool, Uniform(), partitioner=Layer(), task=task, objective=NegativeLogLikelihood(), **settings)  # type: ignore[arg-type]
    assert made.live is not None
    assert made.numerics is not None
    numerics = made.numerics if patches is None else Numerics(**made.numerics.to_json() | {"patches": patches})
    return Evaluator.over(made.live, task, made.objective, numerics, Ledger(Journal(None)))


@pytest.mark.parametrize("dtype", TIGHT)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("bias", [True, False])
def test_the_product_is_the_convolution(dtype: torch.dtype, layout: torch.memory_format, bias: bool) -> None:
    torch.manual_seed(0)
    plain, patched = (nn.Conv2d(3, 8, (4, 6), (4, 6), bias=bias, dtype=dtype) for _ in range(2))
    patched.load_state_dict(plain.state_dict())
    use_products(patched)
    for side in ((12, 18), (13, 23)):  # pixels that fill no patch are left out
        x = torch.randn(5, 3, *side, dtype=dtype).contiguous(memory_format=layout)
        torch.testing.assert_close(patched(x), plain(x), atol=TIGHT[dtype], rtol=0)
        assert torch.equal(patched(x[0]), plain(x[0])), "a single image is left to the convolution"
    slopes = [torch.autograd.grad(part(x).square().sum(), list(part.parameters())) for part in (plain, patched)]
    for one, two in zip(*slopes, strict=True):
        torch.testing.assert_close(two, one, atol=1e3 * TIGHT[dtype], rtol=1e-4)


@pytest.mark.parametrize("dtype", TIGHT)
def test_pixels_are_standardised_in_the_weights(dtype: torch.dtype) -> None:
    torch.manual_seed(1)
    module = Picture().to(dtype).eval()
    use_products(module)
    stored = pictures()
    right = module(IMAGENET(stored).to(dtype))
    assert takes_pixels(module, stored[:2], IMAGENET)
    raw = pixels_of(stored)
    assert raw is not None
    torch.testing.assert_close(module(raw), right, atol=2e-6, rtol=0)
    torch.testing.assert_close(module(IMAGENET(stored).to(dtype)), right, atol=0, rtol=0)


@pytest.mark.parametrize(
    ("module", "prepare", "images"),
    [
        (Skipping(), IMAGENET, pictures()),
        (Casting(), IMAGENET, pictures()),
        (Picture(), Normalise((0.5,) * 3, (0.5,) * 3, flipped=True), pictures()),
        (Picture(), lambda x: x.float().permute(0, 3, 1, 2), pictures()),
        (Picture(), IMAGENET, pictures().float()),
        (nn.Sequential(nn.Flatten(), nn.LazyLinear(3)), IMAGENET, pictures()),
    ],
    ids=["read twice", "cast first", "BGR", "another preparation", "no uint8", "no patches"],
)
def test_images_are_prepared_where_the_embedding_is_not_all_that_reads_them(
    module: nn.Module, prepare: object, images: Tensor
) -> None:
    use_products(module)
    assert not takes_pixels(module, images[:2], prepare)
    assert all(part.pixels is None for part in module.modules() if isinstance(part, PatchProduct))


def test_what_is_a_patch_embedding() -> None:
    assert is_patched(nn.Conv2d(3, 8, 4, 4))
    assert is_patched(nn.Conv2d(3, 8, 4, 4, padding="valid"))
    for other in (
        nn.Conv2d(3, 8, 4, 2),
        nn.Conv2d(3, 8, 1),
        nn.Conv2d(3, 8, 4, 4, padding=1),
        nn.Conv2d(3, 8, 4, 4, dilation=2),
        nn.Conv2d(4, 8, 4, 4, groups=2),
        nn.Linear(4, 4),
    ):
        assert not is_patched(other)


def test_the_rule_is_cudas_and_older_journals_are_read(device: str) -> None:
    sample = pictures()[0]
    there = Numerics.choose(device, Picture(), sample)
    assert there.patches
    assert "patches as products" in there.words
    assert Numerics(**there.to_json()) == there
    assert not Numerics.choose(device, nn.Conv2d(3, 4, 3), sample).patches
    here = Numerics.choose("cpu", Picture(), sample)
    assert not here.patches
    assert "patches" not in here.to_json()
    assert Numerics(**here.to_json()) == here


def test_evaluations_by_products_are_those_by_convolutions(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    plain, patched = (evaluator(pool, picture_task(), patches=patches, device="cpu") for patches in (False, True))
    assert type(plain.scorer.live.module.embed) is nn.Conv2d
    live = patched.scorer.live
    assert type(live.module.embed) is PatchProduct
    assert list(live.module.state_dict()) == list(plain.scorer.live.module.state_dict())
    recipe = Recipe.mean(pool.ingredients, plain.keys.partition)
    assert patched.evaluate(recipe).score == pytest.approx(plain.evaluate(recipe).score, rel=1e-5)
    assert live.module.embed.pixels is not None, "images go in as they are stored"
    assert plain.keys.evaluation(recipe) != patched.keys.evaluation(recipe)
    ends = [Recipe.single(ingredient, recipe.partition) for ingredient in pool.ingredients[:2]]
    paths = [each.between(*ends, "lerp") for each in (plain, patched)]
    draw = np.random.default_rng(0)
    for _ in range(4):
        factors = draw.random(len(recipe.partition))
        one, two = (path(factors).score for path in paths)
        assert two == pytest.approx(one, rel=1e-5), "weights that are mixed in place are read live"
    with torch.no_grad():
        live.module.embed.weight.add_(1)
    assert float(live.weights[live.slice_of(live.columns["embed.weight"])].mean()) > 0.5, "views of the flat buffer"


def test_passes_by_products_begin_late_with_the_same_bits(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    saving = evaluator(pool, picture_task(), patches=True, device="cpu")
    whole = evaluator(pool, picture_task(), patches=True, device="cpu")
    whole.scorer.passes.activations.limit = 0
    ends = [Recipe.single(ingredient, saving.keys.partition) for ingredient in pool.ingredients[:2]]
    paths = [each.between(*ends, "lerp") for each in (saving, whole)]
    factors, costs = np.full(len(saving.keys.partition), 0.5), []
    for step in range(6):
        factors = factors.copy()
        factors[-1 if step % 2 else -2] += 0.05
        one, two = (path(factors) for path in paths)
        assert one.score == two.score
        costs.append(saving.scorer.passes.share)
    assert min(costs) < 0.5
    staging = saving.scorer.passes._staging
    assert staging is not None
    assert {"embed.weight", "embed.bias"} <= staging.stages[0].tensors, "what the product reads is watched"


def test_gradients_go_through_products(tmp_path: Path) -> None:
    pool = pool_of(tmp_path)
    found = []
    for patches in (False, True):
        made = evaluator(pool, picture_task(), patches=patches, device="cpu")
        made.evaluate(Recipe.mean(pool.ingredients, made.keys.partition))
        rows = [Recipe.single(ingredient, made.keys.partition) for ingredient in pool.ingredients]
        batch = next(iter(made.gradients.batches("held-out", np.random.default_rng(0))))
        assert batch[0].is_floating_point(), "strategies are given what the model takes, prepared"
        coefficients = np.full((3, len(made.keys.partition)), 1 / 3)
        found.append(made.gradients.blend(rows).gradient(coefficients, batch))
    (loss, slopes, _), (other, others, _) = found
    assert other == pytest.approx(loss, rel=1e-5)
    np.testing.assert_allclose(others, slopes, atol=1e-5)


@pytest.mark.gpu
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_device_scores_by_products_what_a_cpu_scores(tmp_path: Path, device: str, precision: str) -> None:
    pool = pool_of(tmp_path)
    here = evaluator(pool, picture_task(), device="cpu", precision="fp32")
    there = evaluator(pool, picture_task(), device=device, precision=precision)
    assert there.numerics.patches
    recipe = Recipe.mean(pool.ingredients, here.keys.partition)
    close = 1e-4 if precision == "fp32" else 2e-2
    assert there.evaluate(recipe).score == pytest.approx(here.evaluate(recipe).score, rel=close)
    assert there.scorer.live.module.embed.pixels is not None
    assert there.record(recipe).score == pytest.approx(here.record(recipe).score, rel=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spec", "raw"),
    [("open_clip:ViT-S-32-alt", True), ("timm:vit_tiny_patch16_224", True), ("transformers:vit", False)],
)
def test_real_embeddings(spec: str, raw: bool) -> None:
    if spec == "transformers:vit":
        transformers = pytest.importorskip("transformers")
        small = transformers.ViTConfig(hidden_size=24, num_hidden_layers=1, num_attention_heads=2, intermediate_size=32)
        module, side = transformers.ViTForImageClassification(small), 224

        class Logits(nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.model = module

            def forward(self, x: Tensor) -> Tensor:
                logits: Tensor = self.model(x).logits
                return logits

        module = Logits()
    else:
        source = model_source(spec)
        module, (side, _) = source.module(5), source.sides
    module.eval()
    images, names = pictures(2, (side, side)), list(module.state_dict())
    with torch.inference_mode():
        right = module(IMAGENET(images))
        use_products(module)
        assert sum(isinstance(part, PatchProduct) for part in module.modules()) == 1
        assert list(module.state_dict()) == names
        assert len(repeated_blocks(module)) == (12 if raw else 0), "one layer does not repeat"
        torch.testing.assert_close(module(IMAGENET(images)), right, atol=1e-4, rtol=0)
        assert takes_pixels(module, images, IMAGENET) == raw
        if raw:
            torch.testing.assert_close(module(pixels_of(images)), right, atol=1e-4, rtol=0)
