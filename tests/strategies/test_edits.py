"""Edits of a merge against the base, against float64 references in NumPy written from their papers."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import merging
from merging.errors import MergingError, RequirementError
from merging.mixing.spectrum import Tempering
from merging.partitioners.block import Block
from merging.partitioners.layer import Layer
from merging.partitioners.whole import Whole
from merging.plugins.partitioner import Partitioner
from merging.plugins.problem import Problem
from merging.plugins.progress import Silent
from merging.plugins.strategy import MixStrategy
from merging.storage.pool import ModelPool
from merging.strategies.ensemble import OutputEnsemble
from merging.strategies.greedy import Greedy
from merging.strategies.learned import Learned
from merging.strategies.lines import Lines
from merging.strategies.monosoup import MonoSoup
from merging.strategies.shrink import Shrink
from merging.strategies.task_arithmetic import TaskArithmetic
from merging.strategies.ties import Ties
from merging.strategies.uniform import Uniform
from merging.strategies.wise_ft import WiseFt
from merging.testing import tiny_pool, tiny_problem, tiny_task
from merging.values.recipe import Recipe, Weights
from tests.conftest import Merge

Array = NDArray[np.float64]
FLOATS = ("fc1.weight", "fc1.bias", "fc2.weight", "fc2.bias", "unused")
TINY_DEPTH = {"unused": 0.0, "fc1.weight": 0.5, "fc1.bias": 0.5, "fc2.weight": 1.0, "fc2.bias": 1.0}
"""Nothing is repeated in the tiny network, so that each layer is a block, in the order of their numbers."""


def monosoup(change: Array, base: Array, rank: str, energy: float, smallest: float = 1e-6) -> Array:
    """The edited change of one tensor, as in §3 of the paper."""
    if change.ndim < 2 or not change.any() or np.linalg.norm(change) < smallest * np.linalg.norm(base):
        return change
    left, s, right = np.linalg.svd(change.reshape(len(change), -1), full_matrices=False)
    share = s**2 / np.sum(s**2)
    if rank == "energy":
        k = next((k for k in range(1, len(s) + 1) if share[:k].sum() >= energy), len(s))
    else:
        p = s[s > 0] / s.sum()
        k = int(np.ceil(np.exp(-np.sum(p * np.log(p)))))
    if k >= len(s):
        return change
    high = left[:, :k] @ np.diag(s[:k]) @ right[:k]
    low = left[:, k:] @ np.diag(s[k:]) @ right[k:]
    rho, c = (s[k] / s[0]) ** 2, np.sqrt(share[k:].sum())
    weight = rho + (1 - rho) * c
    edited: Array = ((1 - weight) * high + weight * low).reshape(change.shape)
    return edited


def shrink(change: Array, base: Array, rank: str, energy: float) -> Array:
    size = np.linalg.norm(change)
    return change if size == 0 else change * (np.linalg.norm(monosoup(change, base, rank, energy)) / size)


def numbers(state: dict[str, Tensor]) -> dict[str, Array]:
    return {name: tensor.double().numpy() for name, tensor in state.items() if tensor.is_floating_point()}


def parts_of(pool: ModelPool) -> tuple[list[dict[str, Array]], dict[str, Array]]:
    assert pool.base is not None
    return [numbers(c.load()) for c in pool.checkpoints], numbers(pool.base.load())


def both_ways(pool: ModelPool, strategy: MixStrategy, folder: Path, partitioner: Partitioner) -> dict[str, Tensor]:
    """Streamed to a file without a task; the same bits as with one, in memory."""
    fresh = ModelPool(pool.checkpoints, pool.base)
    merging.merge(fresh, strategy, partitioner=partitioner, output=folder / "out")
    written = load_file(folder / "out" / "model.safetensors")
    scored = merging.merge(pool, strategy, partitioner=partitioner, task=tiny_task(), baselines=False, tests=False)
    for name, tensor in scored.state_dict().items():
        assert torch.equal(tensor, written[name]), name
    return written


def near(found: dict[str, Tensor], wanted: dict[str, Array]) -> None:
    for name, value in wanted.items():
        assert np.allclose(found[name].double().numpy(), value, rtol=1e-6, atol=1e-7), name


# The references, on the tiny network


@pytest.mark.parametrize("partitioner", [Layer(), Whole(), Block(count=2)], ids=lambda p: p.name)
@pytest.mark.parametrize(("alpha", "beta"), [(None, None), (0.3, None), (0.2, 1.4), (1.0, None)])
def test_lines(
    pool: ModelPool, tmp_path: Path, alpha: float | None, beta: float | None, partitioner: Partitioner
) -> None:
    models, base = parts_of(pool)
    mean = {name: np.mean([m[name] for m in models], axis=0) for name in FLOATS}

    def norm(model: dict[str, Array]) -> float:
        return float(np.linalg.norm(np.concatenate([(model[n] - base[n]).ravel() for n in FLOATS])))

    low = norm(mean) / np.mean([norm(m) for m in models]) if alpha is None else alpha
    more = 1 - low if beta is None else beta
    found = both_ways(pool, Lines(alpha=alpha, beta=beta), tmp_path, partitioner)
    near(found, {n: base[n] + (low + more * d) * (mean[n] - base[n]) for n, d in TINY_DEPTH.items()})
    if alpha is None:
        assert 0.1 < low < 0.99, "the rule has something to find"
        problem = tiny_problem(pool)
        Lines().mix(problem)
        assert problem.decisions[-1] == {"alpha": pytest.approx(low), "beta": pytest.approx(1 - low), "blocks": 3}


@pytest.mark.parametrize(("rank", "energy"), [("energy", 0.5), ("energy", 0.8), ("effective", 0.8)])
def test_monosoup_and_its_control(pool: ModelPool, tmp_path: Path, rank: str, energy: float) -> None:
    models, base = parts_of(pool)
    changes = {name: np.mean([m[name] for m in models], axis=0) - base[name] for name in FLOATS}
    mono = both_ways(pool, MonoSoup(rank=rank, energy=energy), tmp_path / "mono", Layer())
    near(mono, {n: base[n] + monosoup(c, base[n], rank, energy) for n, c in changes.items()})
    control = both_ways(pool, Shrink(rank=rank, energy=energy), tmp_path / "shrink", Layer())
    near(control, {n: base[n] + shrink(c, base[n], rank, energy) for n, c in changes.items()})
    sizes = [np.linalg.norm(state["fc1.weight"].double().numpy() - base["fc1.weight"]) for state in (mono, control)]
    assert sizes[0] == pytest.approx(sizes[1], rel=1e-6)
    if rank == "energy":  # the effective rank of so small a matrix is its rank
        assert sizes[0] < 0.95 * np.linalg.norm(changes["fc1.weight"]), "something is edited"
        assert not torch.allclose(mono["fc1.weight"], control["fc1.weight"], atol=1e-4)
    plain = merging.merge(pool, Uniform()).state_dict()
    for name in ("fc1.bias", "fc2.bias", "steps"):
        assert torch.equal(mono[name], plain[name]), "vectors keep their change"
        assert torch.equal(control[name], plain[name])


def test_the_two_have_the_same_options() -> None:
    assert MonoSoup().options() == Shrink().options()


# The edit of a matrix, on random tensors

SHAPES = [(5, 7), (7, 5), (8, 3, 3, 3), (6, 1, 3, 3), (1, 9), (9, 1), (2, 2), (6,), (), (0, 4)]


@settings(max_examples=60)
@given(
    shape=st.sampled_from(SHAPES),
    seed=st.integers(0, 2**16),
    decay=st.floats(0.0, 3.0),
    rank=st.sampled_from(["energy", "effective"]),
    energy=st.floats(0.01, 1.0),
)
def test_a_matrix_is_edited_as_in_the_reference(
    shape: tuple[int, ...], seed: int, decay: float, rank: str, energy: float
) -> None:
    generator = np.random.default_rng(seed)
    base, change = generator.normal(size=shape), generator.normal(size=shape)
    if change.ndim > 1 and change.size:
        left, s, right = np.linalg.svd(change.reshape(len(change), -1), full_matrices=False)
        change = (left @ np.diag(s * np.exp(-decay * np.arange(len(s)))) @ right).reshape(shape)
    tempering = Tempering(rank, energy, 1e-6)
    edited = tempering.edited(torch.from_numpy(change), torch.from_numpy(base)).numpy()
    wanted = monosoup(change, base, rank, energy)
    assert np.allclose(edited, wanted, rtol=1e-9, atol=1e-12)
    ratio = tempering.ratio(torch.from_numpy(change), torch.from_numpy(base))
    assert ratio * np.linalg.norm(change) == pytest.approx(np.linalg.norm(wanted), rel=1e-9)


def test_what_keeps_its_change() -> None:
    base = torch.ones(4, 4, dtype=torch.float64)
    for change, tempering in (
        (torch.zeros(4, 4), Tempering("energy", 0.8, 0.0)),
        (torch.eye(4), Tempering("effective", 0.8, 0.0)),  # all directions are equally strong
        (torch.diag(torch.tensor([1.0, 0.1, 0.1, 0.1])) * 1e-7, Tempering("energy", 0.8, 1e-6)),
        (torch.full((4, 4), torch.nan), Tempering("energy", 0.8, 0.0)),
        (torch.ones(16), Tempering("energy", 0.8, 0.0)),
    ):
        wide = change.double()
        assert tempering.edited(wide, base.reshape(wide.shape)) is wide
        assert tempering.ratio(wide, base.reshape(wide.shape)) == 1.0


def test_a_change_of_one_direction_is_nearly_kept() -> None:
    """Of rank 1: nothing is weak, so that λ_high is 1 up to rounding."""
    change = torch.outer(torch.arange(1.0, 6.0), torch.arange(1.0, 5.0)).double()
    edited = Tempering("energy", 0.8, 0.0).edited(change, torch.ones_like(change))
    assert torch.allclose(edited, change, rtol=1e-12, atol=1e-12)


def test_the_number_of_threads_changes_no_bit() -> None:
    change, base = torch.randn(2, 160, 300, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    tempering, threads = Tempering("energy", 0.8, 0.0), torch.get_num_threads()
    try:
        torch.set_num_threads(1)
        one, ratio = tempering.edited(change, base), tempering.ratio(change, base)
        torch.set_num_threads(2)
        assert torch.equal(tempering.edited(change, base), one)
        assert tempering.ratio(change, base) == ratio
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)


# Depth


def deep(seed: int, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """A transformer's tensors: stem, three blocks, head, BatchNorm statistics far from everything else, a tie."""
    generator = torch.Generator().manual_seed(seed)

    def random(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator).to(dtype)

    state = {"embed.weight": random(9, 4), "conv1.weight": random(4, 3, 2, 2)}
    for block in range(3):
        state |= {f"blocks.{block}.fc1.weight": random(8, 4), f"blocks.{block}.fc2.weight": random(4, 8)}
        state |= {
            f"blocks.{block}.norm.running_mean": 1000 * random(4),
            f"blocks.{block}.norm.running_var": random(4).abs(),
        }
        state |= {f"blocks.{block}.norm.num_batches_tracked": torch.tensor(seed)}
    return state | {"head.weight": random(3, 4), "head.bias": random(3), "head.tied": state["embed.weight"]}


def place(name: str) -> float:
    return 0.0 if "head" not in name and "blocks" not in name else 1.0 if "head" in name else (int(name[7]) + 1) / 4


@pytest.fixture
def deep_pool() -> ModelPool:
    return ModelPool({f"m{seed}": deep(seed) for seed in (1, 2, 3)}, deep(0))


@pytest.mark.parametrize("partitioner", [Layer(), Whole(), Block(), Block(count=2)], ids=str)
def test_depth_divides_any_components(deep_pool: ModelPool, partitioner: Partitioner) -> None:
    result = merging.merge(deep_pool, Lines(alpha=0.2), partitioner=partitioner)
    models, base = parts_of(deep_pool)
    wanted = {
        n: b + (0.2 + 0.8 * (0.0 if n == "head.tied" else place(n))) * (np.mean([m[n] for m in models], axis=0) - b)
        for n, b in base.items()
    }
    near(result.state_dict(), wanted)
    recipe = result.merge
    assert isinstance(recipe, Recipe)
    assert np.allclose(recipe.coefficients.sum(0), 1)
    assert len(recipe.partition) <= 16, "no finer than it must be"
    if partitioner == Whole():
        assert recipe.partition.names == ("stem", "blocks.0", "blocks.1", "blocks.2", "head")


class Backwards(nn.Module):
    """Two layers whose names stand in the opposite order."""

    def __init__(self) -> None:
        super().__init__()
        self.z = nn.Linear(4, 8)
        self.a = nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        logits: Tensor = self.a(torch.relu(self.z(inputs)))
        return logits


def test_the_model_says_what_comes_first() -> None:
    states = [Backwards().state_dict() for _ in range(3)]
    pool = ModelPool({"one": states[0], "two": states[1]}, states[2])
    task = replace(tiny_task(), build=lambda pool: Backwards())
    known = merging.merge(pool, Lines(alpha=0.0), task=task, baselines=False, tests=False).state_dict()
    assert torch.equal(known["z.weight"], states[2]["z.weight"]), "the first layer is the base's"
    assert torch.allclose(known["a.weight"], (states[0]["a.weight"] + states[1]["a.weight"]) / 2)
    by_name = merging.merge(pool, Lines(alpha=0.0)).state_dict()
    assert torch.equal(by_name["a.weight"], states[2]["a.weight"])


def test_neither_statistics_nor_copies_have_a_say_in_the_rule(deep_pool: ModelPool) -> None:
    models, base = parts_of(deep_pool)
    names = [
        n for n in base if "running" not in n and n not in ("head.bias", "head.tied")
    ]  # the tied one is one tensor

    def norm(model: dict[str, Array]) -> float:
        return float(np.linalg.norm(np.concatenate([(model[n] - base[n]).ravel() for n in names])))

    wanted = norm({n: np.mean([m[n] for m in models], axis=0) for n in names}) / np.mean([norm(m) for m in models])
    result = merging.merge(deep_pool, Lines(), freeze=[r"head\.bias"])
    assert result.report.decisions[-1]["alpha"] == pytest.approx(wanted)
    assert torch.equal(result.state_dict()["head.bias"], deep(1)["head.bias"]), "frozen: the first model's"
    assert result.state_dict()["blocks.0.norm.num_batches_tracked"] == 1


@pytest.mark.parametrize("strategy", [Lines(alpha=0.5), Shrink(), MonoSoup()], ids=lambda s: s.name)
def test_ties_stay_ties(deep_pool: ModelPool, strategy: MixStrategy) -> None:
    assert deep_pool.ties
    state = merging.merge(deep_pool, strategy).state_dict()
    assert torch.equal(state["head.tied"], state["embed.weight"])


@pytest.mark.parametrize("strategy", [Lines(alpha=0.5), Lines(), Shrink(), MonoSoup()], ids=str)
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_rounded_once(strategy: MixStrategy, dtype: torch.dtype) -> None:
    def wide(state: dict[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.double() if tensor.is_floating_point() else tensor for name, tensor in state.items()}

    states, base = {f"m{seed}": deep(seed, dtype) for seed in (1, 2)}, deep(0, dtype)
    for state in (*states.values(), base):
        del state["head.tied"]  # a tie would be lost in the wide copies
    narrow = merging.merge(ModelPool(states, base), strategy).state_dict()
    exact = merging.merge(ModelPool({n: wide(s) for n, s in states.items()}, wide(base)), strategy).state_dict()
    for name, tensor in narrow.items():
        assert tensor.dtype == states["m1"][name].dtype
        assert torch.equal(tensor, exact[name].to(tensor.dtype)), name


# Merges of all kinds


@dataclass(frozen=True)
class Odd(MixStrategy):
    """Every component with coefficients of its own, also negative ones, not summing to one."""

    def mix(self, problem: Problem) -> Recipe:
        table = np.random.default_rng(5).normal(size=(len(problem.pool), len(problem.partition)))
        return Recipe.weighted(problem.pool.ingredients, problem.partition, table)


EDITS: list[MixStrategy] = [Lines(alpha=0.4), Lines(), MonoSoup(), Shrink()]


def inside(strategy: MixStrategy, inner: MixStrategy) -> MixStrategy:
    return type(strategy)(**(strategy.options() | {"inner": inner}))


def by_reference(strategy: MixStrategy, whole: dict[str, Array], base: dict[str, Array]) -> dict[str, Array]:
    if isinstance(strategy, Lines):
        assert strategy.alpha is not None
        low = strategy.alpha
        return {n: base[n] + (low + (1 - low) * d) * (whole[n] - base[n]) for n, d in TINY_DEPTH.items()}
    edit = monosoup if isinstance(strategy, MonoSoup) else shrink
    return {n: base[n] + edit(whole[n] - base[n], base[n], "energy", 0.8) for n in FLOATS}


@pytest.mark.parametrize("strategy", [Lines(alpha=0.4), MonoSoup(), Shrink()], ids=lambda s: s.name)
@pytest.mark.parametrize("inner", [Odd(), Ties(), TaskArithmetic(scale=0.7)], ids=lambda s: type(s).__name__)
@pytest.mark.parametrize("partitioner", [Layer(), Whole()], ids=lambda p: p.name)
def test_any_merge_can_be_edited(
    pool: ModelPool, tmp_path: Path, strategy: MixStrategy, inner: MixStrategy, partitioner: Partitioner
) -> None:
    whole = numbers(merging.merge(pool, inner, partitioner=partitioner).state_dict())
    found = both_ways(pool, inside(strategy, inner), tmp_path, partitioner)
    near(found, by_reference(strategy, whole, parts_of(pool)[1]))
    merged = merging.merge(pool, inside(strategy, inner), partitioner=partitioner).merge
    linear = not isinstance(inner, Ties) and not isinstance(strategy, MonoSoup)
    assert isinstance(merged, Recipe if linear else Weights)


@pytest.mark.parametrize("strategy", EDITS, ids=str)
def test_ensembles_are_refused(pool: ModelPool, strategy: MixStrategy) -> None:
    edit = inside(strategy, OutputEnsemble())
    with pytest.raises(RequirementError, match=f"{strategy.name} edits a single model"):
        edit.mix(tiny_problem(pool))
    with pytest.raises(RequirementError, match="its part 'ensemble' gives an ensemble"):  # before any work
        merging.merge(pool, edit, task=tiny_task())


@pytest.mark.parametrize(
    "strategy",
    [
        Lines(inner=Learned(coefficients="affine")),
        MonoSoup(inner=Learned(coefficients="affine")),
        Lines(inner=Shrink(inner=Greedy())),
        Shrink(inner=WiseFt(inner=Greedy())),
        Lines(inner=MonoSoup(inner=Greedy())),
    ],
    ids=["lines of affine", "monosoup of affine", "lines of shrink of greedy", "shrink of a line", "lines of monosoup"],
)
def test_searched_merges_are_edited_scored_and_applied(pool: ModelPool, tmp_path: Path, strategy: MixStrategy) -> None:
    out = tmp_path / "out"
    result = merging.merge(pool, strategy, task=tiny_task(), output=out, baselines=False, tests=False)
    inner = strategy
    while inner.parts():
        (inner,) = inner.parts()
    searched = merging.merge(pool, inner, task=tiny_task(), baselines=False, tests=False)
    assert not torch.equal(result.state_dict()["fc1.weight"], searched.state_dict()["fc1.weight"])
    assert result.report.evaluations == searched.report.evaluations + 1, "the edited merge is scored once"
    assert result.report.merged is not None
    assert result.report.merged.held_out == tiny_problem(pool).evaluate(result.merge).score
    if isinstance(result.merge, Recipe):
        again = merging.apply(out).state_dict()
        assert all(torch.equal(again[name], tensor) for name, tensor in load_file(out / "model.safetensors").items())


def test_lines_of_shrink_of_a_recipe_is_one_recipe(pool: ModelPool) -> None:
    deep = merging.merge(pool, Lines(alpha=0.4, inner=Shrink()))
    assert isinstance(deep.merge, Recipe)
    models, base = parts_of(pool)
    whole = {n: np.mean([m[n] for m in models], axis=0) for n in FLOATS}
    near(deep.state_dict(), by_reference(Lines(alpha=0.4), by_reference(Shrink(), whole, base), base))


# At the command line


@pytest.mark.parametrize("name", ["lines", "monosoup", "shrink"])
def test_the_command_nests(merge: Merge, tiny: list[str], pool_folder: Path, name: str) -> None:
    base = ("--base", str(pool_folder / "base.safetensors"))
    options = ("-o", "strategy.inner=greedy", "-o", "strategy.inner.order=random")
    ran = merge(*tiny, *base, "--strategy", name, *options, "--output", "out")
    assert ran.code == 0, ran.err
    report = json.loads(Path("out/report.json").read_text())
    assert report["options"]["inner"]["name"] == "greedy"
    assert report["options"]["inner"]["order"] == "random"
    if name != "monosoup":
        whole = Path("out/model.safetensors").read_bytes()
        assert merge("apply", "out", "--output", "again.safetensors").code == 0
        first, second = load_file("out/model.safetensors"), load_file("again.safetensors")
        assert all(torch.equal(first[key], second[key]) for key in first)
    # What a killed run leaves: the journal, without results.
    whole = Path("out/model.safetensors").read_bytes()
    for file in ("model.safetensors", "report.json", "recipe.json"):
        Path("out", file).unlink(missing_ok=True)
    journal = Path("out/events.jsonl")
    lines = journal.read_bytes().splitlines(keepends=True)
    journal.write_bytes(b"".join(lines[: len(lines) // 2]))
    ran = merge("run", "--resume", "out", "--trust-code")
    assert ran.code == 0, ran.err
    assert Path("out/model.safetensors").read_bytes() == whole


@pytest.mark.parametrize("name", ["lines", "monosoup", "shrink"])
def test_they_need_a_base_and_nothing_else(merge: Merge, pool_folder: Path, name: str) -> None:
    models = str(pool_folder / "model_*.safetensors")
    ran = merge("run", "--models", models, "--strategy", name, "--output", "no")
    assert ran.code == 2
    assert "--base" in ran.err
    base = str(pool_folder / "base.safetensors")
    ran = merge("run", "--models", models, "--base", base, "--strategy", name, "--output", "out")
    assert ran.code == 0, ran.err
    assert json.loads(Path("out/report.json").read_text())["evaluations"] == 0


def test_a_damaged_input_is_named(tmp_path: Path) -> None:
    """A NaN has no singular values: the file it is in is named, as for every merge."""
    tiny_pool(tmp_path, models=2)
    state = load_file(tmp_path / "model_1.safetensors")
    state["fc1.weight"][0, 0] = torch.nan
    save_file(state, tmp_path / "model_1.safetensors")
    for strategy in EDITS:
        pool = ModelPool.open([tmp_path / "model_*.safetensors"], tmp_path / "base.safetensors")
        with pytest.raises(merging.MergingError, match=r"model_1.*NaN") as error:
            merging.merge(pool, strategy, output=tmp_path / "out")
        assert "\n" not in str(error.value)


class Impatient(Silent):
    """Counts what is told, and asks the run to stop once a tensor has been computed."""

    def __init__(self) -> None:
        self.stages: list[tuple[str, int | None]] = []
        self.stop = False

    def stage(self, text: str, total: int | None = None) -> None:
        self.stages.append((text, total))

    def advance(self, amount: int = 1) -> None:
        self.stop = self.stages[-1][0] == "computing the merge"


def test_computing_a_scored_merge_is_told_and_can_be_interrupted(pool: ModelPool) -> None:
    told = Impatient()
    merging.merge(pool, MonoSoup(), task=tiny_task(), baselines=False, tests=False, progress=told)
    assert ("computing the merge", len(pool.tensors)) in told.stages
    told = Impatient()
    with pytest.raises(MergingError, match="interrupted"):
        merging.merge(
            pool,
            MonoSoup(),
            task=tiny_task(),
            baselines=False,
            tests=False,
            progress=told,
            should_stop=lambda: told.stop,
        )
