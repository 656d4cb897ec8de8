"""A command gives the same bytes with an empty cache, a full one, and none; only clocks differ."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import merging
from merging.errors import OptionError
from merging.partitioners.layer import Layer
from merging.plugins.registry import strategies
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Task
from merging.storage.pool import ModelPool
from merging.storage.user_cache import SCORES, usage
from merging.strategies.best import Best
from merging.strategies.greedy import Greedy
from merging.strategies.manifoldmix import ManifoldMix
from merging.testing import tiny_pool, tiny_task
from tests.conftest import TASK, Merge, spawn

CLOCKS = ("seconds", "wall_seconds", "peak_memory_bytes", "time", "elapsed")


@pytest.fixture(autouse=True)
def _remembering(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del own_cache
    monkeypatch.setenv("MERGING_REMEMBER", "1")


def timeless(value: Any) -> Any:
    """The same without clocks and places."""
    if isinstance(value, dict):
        return {key: timeless(each) for key, each in value.items() if key not in (*CLOCKS, "request")}
    return [timeless(each) for each in value] if isinstance(value, list | tuple) else value


def results_of(folder: Path) -> dict[str, Any]:
    """All that a run's folder says, without clocks; the model's own bytes."""
    events = [timeless(json.loads(line)) for line in (folder / "events.jsonl").read_text().splitlines()]
    found = {"events": events, "report": timeless(json.loads((folder / "report.json").read_text()))}
    found["recipe"] = (folder / "recipe.json").read_bytes() if (folder / "recipe.json").is_file() else b""
    return found | {"models": [path.read_bytes() for path in sorted(folder.rglob("*.safetensors"))]}


class Chain(nn.Sequential):
    """A model in stages: passes go on from inputs that earlier ones have kept."""

    def __init__(self) -> None:
        super().__init__(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 6), nn.Tanh(), nn.Linear(6, 3))


def chain_pool(folder: Path, models: int = 4) -> ModelPool:
    folder.mkdir()
    for number in range(models):
        torch.manual_seed(0)
        state = Chain().state_dict()
        generator = torch.Generator().manual_seed(number)
        moved = {
            n: t + 0.2 * torch.randn(t.shape, generator=generator) for n, t in state.items() if t.is_floating_point()
        }
        moved["1.running_var"] = moved["1.running_var"].abs() + 0.1
        save_file(state | moved, folder / f"m{number}.safetensors")
    return ModelPool.open([folder / "*.safetensors"])


def chain_task() -> Task:
    tiny = tiny_task()
    return Task(
        name="chain", build=lambda pool: Chain(), held_out=tiny.held_out, tests=dict(tiny.tests), train=tiny.train
    )


def three_times(run: Callable[[Path, bool], None], folder: Path) -> list[dict[str, Any]]:
    """What a run gives without a cache, with an empty one, and with the full one that it has left."""
    found = []
    for name, remember in (("none", False), ("empty", True), ("full", True)):
        run(folder / name, remember)
        found.append(results_of(folder / name))
    return found


@pytest.mark.parametrize("name", sorted(strategies))
def test_every_strategy_gives_the_same(name: str, tmp_path: Path) -> None:
    kind = strategies[name]
    strategy = kind(**kind.example_options)

    def run(folder: Path, remember: bool) -> None:
        pool = tiny_pool(folder.with_name("pool"), 3)
        merging.merge(pool, strategy, task=tiny_task(), partitioner=Layer(), budget=3, output=folder, remember=remember)

    none, empty, full = three_times(run, tmp_path)
    assert empty == none
    assert full == none
    assert usage()[SCORES][0] > 0


@pytest.mark.parametrize(
    ("strategy", "settings"),
    [
        (ManifoldMix(), {}),
        (ManifoldMix(), {"max_evaluations": 9}),
        (ManifoldMix(), {"certify_split": 0.3}),
        (Greedy(), {}),
        (ManifoldMix(early=True), {}),
        (Greedy(early=True), {"max_evaluations": 6}),
    ],
    ids=str,
)
def test_kept_activations_limits_and_statistics_are_the_same(
    strategy: MixStrategy, settings: dict[str, Any], tmp_path: Path
) -> None:
    """Passes that nobody made count as they would have, and keep what they would have kept."""
    pool = chain_pool(tmp_path / "pool")

    def run(folder: Path, remember: bool) -> None:
        merging.merge(
            pool,
            strategy,
            task=chain_task(),
            partitioner=Layer(),
            budget=4,
            output=folder,
            remember=remember,
            **settings,
        )

    none, empty, full = three_times(run, tmp_path)
    assert empty == none
    assert full == none


def test_another_run_has_left_other_scores(tmp_path: Path) -> None:
    """Some known, some not: the same again."""
    pool = chain_pool(tmp_path / "pool")
    merging.merge(pool, merging.Greedy(), task=chain_task(), output=tmp_path / "before")
    for name, remember in (("none", False), ("some", True)):
        merging.merge(
            pool,
            ManifoldMix(),
            task=chain_task(),
            partitioner=Layer(),
            budget=4,
            output=tmp_path / name,
            remember=remember,
        )
    assert results_of(tmp_path / "some") == results_of(tmp_path / "none")


def test_an_evaluation_that_is_known_counts(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path / "pool", 3)
    found = [merging.merge(pool, Greedy(), task=tiny_task()).report.to_json() for _ in range(2)]
    assert found[0]["rows"][-1]["seconds"] > 0
    assert timeless(found[0]) == timeless(found[1])


def test_a_resumed_run_needs_no_cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = chain_pool(tmp_path / "pool")
    how: dict[str, Any] = {"task": chain_task(), "partitioner": Layer(), "budget": 6}
    merging.merge(pool, Greedy(), **how)
    merging.merge(pool, ManifoldMix(), output=tmp_path / "run", max_evaluations=7, **how)
    monkeypatch.setenv("MERGING_CACHE", str(tmp_path / "elsewhere"))
    on = merging.merge(pool, ManifoldMix(), output=tmp_path / "run", resume=True, **how)
    whole = merging.merge(pool, ManifoldMix(), remember=False, **how)
    assert on.report.content_hash == whole.report.content_hash


def test_four_commands_score_a_model_once(pool_folder: Path, merge: Merge, tmp_path: Path) -> None:
    how = ("--models", str(pool_folder / "model_*.safetensors"), "--task", TASK, "--partitioner", "layer")
    first = merge("run", *how, "--strategy", "greedy", "--output", tmp_path / "run")
    assert first.code == 0, first.err
    assert "known" not in first.err
    again = merge("run", *how, "--strategy", "uniform", "--output", tmp_path / "again")
    assert "scoring the single models (5 of 5 scores known)" in again.err
    bench = merge("benchmark", *how, "--strategies", "best,greedy", "--output", tmp_path / "bench")
    assert "(" in bench.err
    assert " of 15 scores known)" in bench.err
    looked = merge("inspect", *how)
    assert "scoring the models (5 of 5 scores known)" in looked.err
    scored = merge("evaluate", tmp_path / "run", "--task", TASK, "--json")
    assert "\n3 of 3 scores known" in scored.err
    assert (
        json.loads(scored.out)["models"][0]["sets"]["held-out"]["score"]
        == json.loads((tmp_path / "run" / "report.json").read_text())["rows"][-1]["held_out"]
    )
    line = merge("inspect", *how[:4], "--interpolate", "model_0", "model_1", "--steps", "2")
    assert line.code == 0, line.err
    assert "scores known)" in line.err


@pytest.mark.parametrize("switch", ["flag", "variable", "file"])
def test_the_switch(switch: str, pool_folder: Path, merge: Merge, monkeypatch: pytest.MonkeyPatch) -> None:
    how = ["evaluate", str(pool_folder / "model_0.safetensors"), "--task", TASK]
    assert merge(*how).code == 0
    kept = usage()[SCORES]
    assert kept[0] == 3
    if switch == "flag":
        how.append("--no-remember")
    elif switch == "variable":
        monkeypatch.setenv("MERGING_REMEMBER", "0")
    else:
        Path("merge.toml").write_text("[run]\nremember = false\n")
    how += ["--split", "test", "--device", "cpu", "--threads", "2"]
    ran = merge(*how)
    assert ran.code == 0, ran.err
    assert "known" not in ran.err
    assert usage()[SCORES] == kept


def test_a_limit_that_is_none_is_said_before_any_work(pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    said = "MERGING_CACHE_LIMIT is '0'; write it as 500MB or 2GB; MERGING_REMEMBER=0 keeps nothing"
    monkeypatch.setenv("MERGING_CACHE_LIMIT", "0")
    with pytest.raises(OptionError, match=said):
        merging.merge(pool, Best(), task=tiny_task())


def test_the_cache_is_shown_and_cleared(pool_folder: Path, merge: Merge) -> None:
    empty = json.loads(merge("cache", "--json").out)
    assert empty["scores"] == {"entries": 0, "bytes": 0}
    assert merge("evaluate", pool_folder / "model_0.safetensors", "--task", TASK).code == 0
    assert json.loads(merge("cache", "--json").out)["scores"]["entries"] == 3
    assert "scores" in merge("cache").out
    assert json.loads(merge("cache", "--clear", "--json").out)["scores"]["entries"] == 0
    assert "known" not in merge("evaluate", pool_folder / "model_0.safetensors", "--task", TASK).err


@pytest.mark.slow
def test_two_processes_share_a_cache(tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At the same time, under other hash seeds: both are right; a third one finds every single model."""
    from tests import conftest

    monkeypatch.setitem(conftest.ENVIRONMENT, "MERGING_CACHE", str(tmp_path / "cache"))
    monkeypatch.setitem(conftest.ENVIRONMENT, "MERGING_REMEMBER", "1")
    both = [spawn([*tiny, "--strategy", "greedy", "--output", f"r{n}"], tmp_path, hash_seed=n) for n in range(2)]
    assert [process.communicate(timeout=120) and process.returncode for process in both] == [0, 0]
    third = spawn([*tiny, "--strategy", "greedy", "--output", "r2"], tmp_path, hash_seed=7)
    _, said = third.communicate(timeout=120)
    assert "scoring the single models (5 of 5 scores known)" in said, said
    found = [results_of(tmp_path / f"r{n}") for n in range(3)]
    assert found[0] == found[1] == found[2]
