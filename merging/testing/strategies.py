"""What every strategy promises."""

from __future__ import annotations

from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from merging.errors import InterruptedRunError, RequirementError
from merging.plugins.options import options_of
from merging.plugins.strategy import NEEDS, MixStrategy, mixed
from merging.running.plan import plan
from merging.running.problem import MergeProblem
from merging.storage.content import content_hash
from merging.storage.dtypes import info_of
from merging.storage.pool import ModelPool
from merging.testing.another_process import start
from merging.testing.fixtures import content_of, merge_tiny, tiny_pool, tiny_problem, tiny_task
from merging.testing.plugins import PluginContract
from merging.testing.second_device import second_device
from merging.values.recipe import Ensemble, Recipe, Weights
from merging.values.states import RunState

GIVES: dict[str, type[Any]] = {"recipe": Recipe, "weights": Weights, "ensemble": Ensemble}
OFFERED = NEEDS - {"unlabelled"}
"""Needs that the tiny problem meets. A strategy that needs more is only checked for refusing to run."""


class StrategyContract(PluginContract):
    """Contract of a strategy. Supply ``plugin``, of a class defined at the top of its module.

    The tiny problem has a base, a model, labelled data and training data; it runs in milliseconds.
    """

    kind: ClassVar[str] = "strategy"

    @pytest.fixture
    def strategy(self, plugin: MixStrategy) -> MixStrategy:
        """The plug-in, where the tiny problem has what it needs."""
        if not plugin.needs <= OFFERED:
            pytest.skip(f"the tiny problem has no {', '.join(sorted(plugin.needs - OFFERED))}")
        return plugin

    @pytest.fixture
    def merging_strategy(self, strategy: MixStrategy) -> MixStrategy:
        """The plug-in, where it gives a single model."""
        if strategy.gives == "ensemble":
            pytest.skip("it gives an ensemble, which has no state dict")
        return strategy

    @pytest.fixture
    def pool(self, plugin: MixStrategy, tmp_path: Path) -> ModelPool:
        """Makes as many tiny models as the strategy needs."""
        return tiny_pool(tmp_path / "pool", models=max(4, plugin.min_models))

    def test_declares_what_it_needs_and_gives(self, plugin: MixStrategy) -> None:
        """The declarations are words that the core knows."""
        assert plugin.needs <= NEEDS, f"unknown needs: {sorted(plugin.needs - NEEDS)}"
        assert plugin.min_models >= 1
        assert plugin.gives in GIVES

    def test_too_few_models_are_refused(self, plugin: MixStrategy, tmp_path: Path) -> None:
        """Fewer than ``min_models`` are refused before any work."""
        if plugin.min_models == 1:
            return
        pool = tiny_pool(tmp_path, models=plugin.min_models - 1)
        with pytest.raises(RequirementError, match=str(plugin.min_models)):
            plan(pool, plugin, task=tiny_task(), device="cpu")

    def test_the_fewest_models_are_enough(self, strategy: MixStrategy, tmp_path: Path) -> None:
        """``min_models`` models can be merged."""
        result = merge_tiny(strategy, tiny_pool(tmp_path, models=strategy.min_models))
        assert result.report.state is RunState.FINISHED
        assert result.report.ingredients

    def test_missing_needs_are_named(self, plugin: MixStrategy, pool: ModelPool) -> None:
        """A strategy is refused without what it needs, and the need is named."""
        if not plugin.needs:
            return
        without_base = ModelPool(pool.checkpoints)
        with pytest.raises(RequirementError, match="|".join(sorted(plugin.needs))):
            plan(without_base, plugin, task=None if plugin.needs != {"base"} else tiny_task(), device="cpu")

    def test_gives_what_it_says(self, strategy: MixStrategy, pool: ModelPool) -> None:
        """The merge is of the declared type, its rows are models of the pool."""
        problem = _problem(strategy, pool)
        merged = strategy.mix(problem)
        assert isinstance(merged, GIVES[strategy.gives])
        allowed = {*pool.ingredients, pool.base_ingredient}
        rows = merged.members if isinstance(merged, Ensemble) else (merged,)
        for row in rows:
            assert row.ingredients
            assert set(row.ingredients) <= allowed
            if isinstance(row, Recipe):
                row.partition.check_covers(pool.tensors)
                assert len(set(row.ingredients)) == len(row.ingredients)
                assert row.names, "a recipe in which no ingredient carries weight"
            else:
                assert set(row.tensors) == set(pool.tensors)
                assert row.hash == content_hash(row.tensors)

    def test_keeps_shapes_and_dtypes(self, merging_strategy: MixStrategy, pool: ModelPool) -> None:
        """The merged model has the pool's tensors, finite."""
        state = merge_tiny(merging_strategy, pool).state_dict()
        found = {name: info_of(t) for name, t in state.items()}
        assert found == pool.tensors
        assert all(torch.isfinite(tensor.double()).all() for tensor in state.values())

    def test_what_it_keeps_is_scored(self, strategy: MixStrategy, pool: ModelPool) -> None:
        """An interrupted run saves what was kept: its outcome must be that of its recipe."""
        problem = _problem(strategy, pool)
        strategy.mix(problem)
        if problem.best is not None:
            recipe, outcome = problem.best
            assert tiny_problem(pool).evaluate(recipe).score == pytest.approx(outcome.score, abs=1e-2)

    def test_same_seed_same_bits(self, strategy: MixStrategy, pool: ModelPool) -> None:
        """Twice the same, in bits and in evaluations."""
        first, second = (merge_tiny(strategy, pool, seed=3) for _ in range(2))
        assert content_of(first) == content_of(second)
        assert first.report.evaluations == second.report.evaluations

    def test_same_bits_in_another_process(self, strategy: MixStrategy, pool: ModelPool, tmp_path: Path) -> None:
        """Another process with another hash seed merges the same bits."""
        folder = str(tmp_path / "pool")
        other = start("merge", self.kind, strategy, folder=folder, seed=3)
        here = content_of(merge_tiny(strategy, pool, seed=3))
        try:
            its_hash, there = other.answer()
        finally:
            other.ended()
        assert its_hash != hash("merging"), "the other process has the same hash seed; nothing was shown"
        assert there == here, "another process with another hash seed merges other bits"

    def test_numbers_that_vary(self, merging_strategy: MixStrategy, pool: ModelPool) -> None:
        """A number that is said for every component, or for each of them, gives the bits of the number alone."""
        varying = [each for each in options_of(type(merging_strategy)) if each.spec.varies in ("components", "models")]
        if not varying:
            return
        problem, own = _problem(merging_strategy, pool), merging_strategy._named()
        began = problem.generator.bit_generator.state

        def made(name: str, value: Any) -> Any:
            problem.generator.bit_generator.state = began
            merge = mixed(replace(merging_strategy, **{name: value}), problem)
            return merge.hash if isinstance(merge, Weights) else problem.evaluator.keys.content(merge)

        for declared in varying:
            if own is not None and declared.name in own.fixed:
                continue
            usual = declared.usual(getattr(merging_strategy, "profile", None))
            number = merging_strategy.default_number(declared.name, problem) if usual is None else usual
            forms = [[f"*={number!r}"]]
            if getattr(merging_strategy, "scope", "") != "model":  # of which components have shares of their own
                forms.append([f"{name}={number!r}" for name in problem.partition.names])
            plain = made(declared.name, number)
            assert all(made(declared.name, form) == plain for form in forms), f"read '{declared.name}' by numbers_of"

    def test_a_device_is_no_other_problem(self, strategy: MixStrategy, pool: ModelPool) -> None:
        """Tensors may lie on a device: it merges the bits that it merges on the CPU, and mixes nothing up."""
        with second_device():
            there = merge_tiny(strategy, pool, device="cuda")
        assert content_of(there) == content_of(merge_tiny(strategy, pool))

    def test_equal_models_give_the_model_back(self, merging_strategy: MixStrategy, tmp_path: Path) -> None:
        """Merging copies of one model gives its very bits."""
        pool = tiny_pool(tmp_path, models=max(3, merging_strategy.min_models), equal=True)
        assert content_of(merge_tiny(merging_strategy, pool)) == pool.ingredients[0].hash

    def test_leaves_the_files_alone(self, strategy: MixStrategy, pool: ModelPool, tmp_path: Path) -> None:
        """No checkpoint is written to."""
        before = _contents(tmp_path)
        merge_tiny(strategy, pool)
        assert _contents(tmp_path) == before

    @pytest.mark.parametrize("after", [0, 2, 7])
    def test_can_be_interrupted(self, strategy: MixStrategy, pool: ModelPool, after: int) -> None:
        """Told to stop, it ends with the best so far, or says that there is none."""
        asked = 0

        def should_stop() -> bool:
            nonlocal asked
            asked += 1
            return asked > after

        try:
            result = merge_tiny(strategy, pool, should_stop=should_stop)
        except InterruptedRunError:
            assert asked > after
            return  # nothing was scored yet
        assert result.report.state is (RunState.INTERRUPTED if asked > after else RunState.FINISHED)
        assert asked <= after + 1, "it went on evaluating after it was told to stop"
        if not isinstance(result.merge, Ensemble):
            assert set(result.state_dict()) == set(pool.tensors)


def _problem(strategy: MixStrategy, pool: ModelPool) -> MergeProblem:
    """The tiny problem as a run gives it: with what the strategy's needs ask for, and nothing else."""
    problem = tiny_problem(pool, budget=12)
    problem.strategy = strategy
    return problem


def _contents(folder: Path) -> dict[str, str]:
    return {str(path): sha256(path.read_bytes()).hexdigest() for path in sorted(folder.rglob("*.safetensors"))}
