"""Plug-ins of README, guide and examples as an earlier version had them: they run unchanged, and without a warning."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

import merging
from merging import ManifoldMix, MixStrategy, Objective, Optimizer, Partitioner, Uniform
from merging.plugins.discovery import load_file
from merging.plugins.options import Plugin
from merging.plugins.registry import KINDS
from merging.storage.pool import ModelPool
from merging.testing import tiny_pool, tiny_task

FOLDER = Path(__file__).parent / "earlier"


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    return tiny_pool(tmp_path_factory.mktemp("pool"), models=4)


def registered(file: Path, folder: Path) -> Plugin:
    """What a file registers. It is run afresh, and its names are free again afterwards: two files may share one."""
    before = {kind: dict(registry._classes) for kind, registry in KINDS.items()}
    copy = folder / f"{file.parent.name}_{file.name.removesuffix('.txt')}"
    copy.write_bytes(file.read_bytes())
    try:
        load_file(copy)
        (found,) = [registry[name]() for kind, registry in KINDS.items() for name in set(registry) - set(before[kind])]
    finally:
        for kind, registry in KINDS.items():
            registry._classes.clear()
            registry._classes.update(before[kind])
    return found


FILES = {file.name.removesuffix(".py.txt"): file for file in sorted(FOLDER.glob("*.py.txt"))}
"""Texts, so that nothing here imports, checks or formats them."""


@pytest.mark.parametrize("name", list(FILES))
@pytest.mark.parametrize("scored", [True, False])
def test_it_runs_as_it_did(name: str, pool: ModelPool, scored: bool, tmp_path: Path) -> None:
    plugin, more = registered(FILES[name], tmp_path), dict[str, Any]()
    strategy = plugin if isinstance(plugin, MixStrategy) else ManifoldMix(tau=0.5) if scored else Uniform()
    if not scored and (strategy.requires() or isinstance(plugin, Optimizer | Objective)):
        pytest.skip("it needs scores")
    for kind, base in {"partitioner": Partitioner, "optimizer": Optimizer, "objective": Objective}.items():
        more |= {kind: plugin} if isinstance(plugin, base) else {}
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", "Weights takes its fields by name")  # of the median's last line, and no other
        result = merging.merge(pool, strategy, task=tiny_task() if scored else None, device="cpu", budget=8, **more)
    assert result.report.status == "finished"
    assert set(result.state_dict()) == set(pool.tensors)


@pytest.mark.filterwarnings("ignore:Weights takes its fields by name")
def test_the_median_by_the_problem_s_weights_is_the_median_made_by_hand(pool: ModelPool, tmp_path: Path) -> None:
    """The same bits, with data and without."""
    place = Path(__file__).parents[2] / "examples/merging-median/src/merging_median/__init__.py"
    by_hand, by_weights = (registered(file, tmp_path) for file in (FILES["median"], place))
    assert isinstance(by_hand, MixStrategy)
    assert isinstance(by_weights, MixStrategy)
    wanted = merging.merge(pool, by_hand, device="cpu").state_dict()
    for task in (None, tiny_task()):
        found = merging.merge(pool, by_weights, task=task, device="cpu").state_dict()
        assert all(torch.equal(found[name], wanted[name]) for name in pool.tensors)
