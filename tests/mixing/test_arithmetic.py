"""Which bits are the model: a slow reference in Python's own floats, and what must hold for any coefficients."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from safetensors.torch import save_file
from torch import Tensor

from merging.errors import PartitionError, RecipeError
from merging.mixing.arithmetic import materialise, weighted_sum
from merging.storage.content import content_hash
from merging.storage.pool import ModelPool
from merging.values.partition import Partition
from merging.values.recipe import Ingredient, Recipe

FLOATS = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
NARROW = FLOATS[:3]
dtypes = st.sampled_from(FLOATS)
narrow = st.sampled_from(NARROW)
values = hnp.arrays(np.float32, st.integers(1, 12), elements=st.floats(-1e4, 1e4, width=32))
coefficients = st.lists(st.floats(-3, 3, allow_subnormal=False), min_size=1, max_size=5)
fractions = st.floats(0, 1, allow_subnormal=False)


def slow_sum(terms: Sequence[tuple[Tensor, float]], dtype: torch.dtype) -> Tensor:
    """Σ coefficient · tensor, number by number."""
    columns = zip(*(tensor.double().reshape(-1).tolist() for tensor, _ in terms), strict=True)
    sums = []
    for numbers in columns:
        total = numbers[0] * terms[0][1]
        for number, (_, coefficient) in zip(numbers[1:], terms[1:], strict=True):
            total = total + number * coefficient
        sums.append(total)
    return torch.tensor(sums, dtype=torch.float64).to(dtype).reshape(terms[0][0].shape)


def same_bits(first: Tensor, second: Tensor) -> bool:
    return first.dtype == second.dtype and content_hash({"t": first}) == content_hash({"t": second})


def tensors_of(draw: st.DrawFn, count: int, dtype: torch.dtype) -> list[Tensor]:
    first = draw(values)
    shape = hnp.arrays(np.float32, first.shape, elements=st.floats(-1e4, 1e4, width=32))
    return [torch.from_numpy(array).to(dtype) for array in [first, *(draw(shape) for _ in range(count - 1))]]


@st.composite
def sums(draw: st.DrawFn, dtype: st.SearchStrategy[torch.dtype] = dtypes) -> list[tuple[Tensor, float]]:
    weights = draw(coefficients)
    return list(zip(tensors_of(draw, len(weights), draw(dtype)), weights, strict=True))


@given(sums())
def test_equals_the_slow_reference_bit_for_bit(terms: list[tuple[Tensor, float]]) -> None:
    dtype = terms[0][0].dtype
    result = weighted_sum(terms, dtype)
    assert result.dtype == dtype
    assert same_bits(result, slow_sum(terms, dtype))


@given(sums())
def test_leaves_its_terms_alone(terms: list[tuple[Tensor, float]]) -> None:
    before = [tensor.clone() for tensor, _ in terms]
    weighted_sum(terms, terms[0][0].dtype)
    assert all(same_bits(old, tensor) for old, (tensor, _) in zip(before, terms, strict=True))


@given(values, st.integers(1, 40), narrow)
def test_n_equal_tensors_give_the_tensor_back(array: np.ndarray, count: int, dtype: torch.dtype) -> None:
    tensor = torch.from_numpy(array).to(dtype)
    assert same_bits(weighted_sum([(tensor, 1.0 / count)] * count, dtype), tensor)


@given(values, dtypes)
def test_one_term_gives_itself_back_with_signed_zeros(array: np.ndarray, dtype: torch.dtype) -> None:
    tensor = torch.cat([torch.from_numpy(array), torch.tensor([0.0, -0.0])]).to(dtype)
    assert same_bits(weighted_sum([(tensor, 1.0)], dtype), tensor)


@given(st.data(), narrow)
def test_a_convex_sum_stays_between_its_terms(data: st.DataObject, dtype: torch.dtype) -> None:
    raw = data.draw(st.lists(st.floats(0.01, 1), min_size=2, max_size=5))
    tensors = tensors_of(data.draw, len(raw), dtype)
    weights = [value / sum(raw) for value in raw]
    result = weighted_sum(list(zip(tensors, weights, strict=True)), dtype).double()
    stacked = torch.stack(tensors).double()
    slack = 1e-9 * stacked.abs().amax(dim=0)  # weights sum to one up to rounding
    assert (result >= stacked.amin(dim=0) - slack).all()
    assert (result <= stacked.amax(dim=0) + slack).all()


@given(st.data(), narrow)
def test_the_order_of_the_terms_is_worth_one_ulp(data: st.DataObject, dtype: torch.dtype) -> None:
    count = data.draw(st.integers(2, 6))
    tensors = [tensor.abs() for tensor in tensors_of(data.draw, count, dtype)]
    order = data.draw(st.permutations(range(count)))
    straight = weighted_sum([(tensor, 1.0 / count) for tensor in tensors], dtype)
    shuffled = weighted_sum([(tensors[i], 1.0 / count) for i in order], dtype)
    ulp = torch.nextafter(straight.float(), torch.tensor(float("inf"))).sub(straight.float())
    if dtype is not torch.float32:
        ulp = straight.float().abs() * torch.finfo(dtype).eps + torch.finfo(dtype).smallest_normal
    assert ((straight.float() - shuffled.float()).abs() <= ulp).all()


@given(st.data(), narrow)
def test_doubling_every_model_and_halving_the_weights_changes_nothing(data: st.DataObject, dtype: torch.dtype) -> None:
    terms = data.draw(sums(st.just(dtype)))
    halves = [(tensor, weight / 2) for tensor, weight in terms for _ in range(2)]
    plain, doubled = weighted_sum(terms, torch.float64), weighted_sum(halves, torch.float64)
    scale = sum(tensor.double().abs() * abs(weight) for tensor, weight in terms)
    assert ((plain - doubled).abs() <= 1e-14 * scale).all()


def test_no_terms_are_refused() -> None:
    with pytest.raises(ValueError, match="no terms"):
        weighted_sum([], torch.float32)


NAMES = ("w32", "w16", "wb16", "w64", "scalar", "steps", "flag")


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    folder, generator = tmp_path_factory.mktemp("pool"), torch.Generator().manual_seed(0)
    for number in range(3):
        noise = torch.randn(5, 3, generator=generator, dtype=torch.float64)
        state = {
            "w32": noise.float(),
            "w16": noise.half(),
            "wb16": noise.bfloat16(),
            "w64": noise,
            "scalar": noise[0, 0].float().clone(),
            "steps": torch.tensor(number),
            "flag": torch.tensor([number == 0, True]),
        }
        save_file(state, folder / f"m{number}.safetensors")
    return ModelPool.open([folder])


PARTITION = Partition.of_groups({"first": ["w32", "steps"], "second": NAMES[1:5], "third": ["flag"]})


def reference(recipe: Recipe, pool: ModelPool) -> dict[str, Tensor]:
    """The definition, tensor by tensor, on loaded state dicts."""
    states = {c.hash: c.load() for c in pool.checkpoints}
    rows = [states[ingredient.hash] for ingredient in recipe.ingredients]
    merged = {}
    for column, component in enumerate(recipe.partition.components):
        for name in component.tensors:
            kept = rows[0][name]
            if kept.is_floating_point():
                pairs = [(row[name], float(c)) for row, c in zip(rows, recipe.coefficients[:, column], strict=True)]
                used = [pair for pair in pairs if pair[1] != 0]
                kept = slow_sum(used, kept.dtype) if used and kept.numel() else torch.zeros_like(kept)
            merged[name] = kept
    return merged


@given(data=st.data())
def test_materialise_equals_its_reference(pool: ModelPool, data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(3)))[: data.draw(st.integers(1, 3))]
    weight = st.one_of(st.just(0.0), st.just(1.0), st.floats(-2, 2, allow_subnormal=False))
    table = data.draw(hnp.arrays(np.float64, (len(order), 3), elements=weight))
    recipe = Recipe(tuple(pool.ingredients[i] for i in order), PARTITION, table)
    merged, wanted = materialise(recipe, pool), reference(recipe, pool)
    assert list(merged) == list(pool.tensors)
    for name in NAMES:
        assert same_bits(merged[name], wanted[name]), name


@pytest.mark.parametrize("index", range(3))
def test_one_model_is_itself(pool: ModelPool, index: int) -> None:
    recipe = Recipe.single(pool.ingredients[index], PARTITION)
    assert content_hash(materialise(recipe, pool)) == pool.ingredients[index].hash


@given(order=st.permutations(range(3)))
def test_the_mean_of_a_permuted_pool_is_the_same_to_one_ulp(pool: ModelPool, order: list[int]) -> None:
    straight = materialise(Recipe.mean(pool.ingredients, PARTITION), pool)
    shuffled = materialise(Recipe.mean([pool.ingredients[i] for i in order], PARTITION), pool)
    for name in ("w32", "w16", "wb16", "w64", "scalar"):
        # Sums of signed numbers: the float64 error is relative to the terms, not to what is left of them.
        ulp = torch.finfo(straight[name].dtype).eps * straight[name].double().abs() + 1e-15
        assert ((straight[name].double() - shuffled[name].double()).abs() <= ulp).all()


@given(lam=fractions)
def test_lambda_zero_and_one_are_bit_exact(pool: ModelPool, lam: float) -> None:
    soup, other = Recipe.mean(pool.ingredients[:2], PARTITION), Recipe.single(pool.ingredients[2], PARTITION)
    one, zero = soup.lerp(other, 1.0), soup.lerp(other, 0.0)
    assert content_hash(materialise(one, pool)) == content_hash(materialise(soup, pool))
    floats = [name for name in NAMES if name in pool.mixable]
    merged, alone = materialise(zero, pool), materialise(other, pool)
    assert all(same_bits(merged[name], alone[name]) for name in floats)
    assert torch.equal(merged["steps"], materialise(soup, pool)["steps"])  # of the first ingredient
    twice = other.lerp(other, lam)
    assert twice.coefficients.shape == (1, 3)
    assert np.allclose(twice.coefficients, 1.0, rtol=1e-15, atol=0)
    wanted = reference(soup.lerp(other, lam), pool)
    assert all(same_bits(t, wanted[n]) for n, t in materialise(soup.lerp(other, lam), pool).items())


def test_overrides_replace_the_sum(pool: ModelPool) -> None:
    recipe = Recipe(pool.ingredients, PARTITION, np.full((3, 3), 1 / 3), {"scalar": torch.tensor(9.0)})
    assert materialise(recipe, pool)["scalar"] == 9.0


def test_what_cannot_be_materialised_is_refused(pool: ModelPool) -> None:
    with pytest.raises(PartitionError, match="no component covers"):
        materialise(Recipe.single(pool.ingredients[0], Partition.of_groups({"a": ["w32"]})), pool)
    with pytest.raises(RecipeError, match="'gone'"):
        materialise(Recipe.single(Ingredient("gone", "0" * 64), PARTITION), pool)


def test_equal_models_give_the_model_back_in_narrow_dtypes(tmp_path: Path) -> None:
    state = {str(dtype)[6:]: torch.randn(50, generator=torch.Generator().manual_seed(1)).to(dtype) for dtype in NARROW}
    for number in range(7):
        save_file(state, tmp_path / f"m{number}.safetensors")
    pool = ModelPool.open([tmp_path])
    recipe = Recipe.mean(pool.ingredients, Partition.of_groups({"all": pool.tensors}))
    assert content_hash(materialise(recipe, pool)) == pool.ingredients[0].hash
