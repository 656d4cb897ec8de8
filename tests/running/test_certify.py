"""``--certify-split``: one part of the held-out data selects, the other accepts."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from safetensors.torch import load_file

from merging.errors import OptionError, TaskError
from merging.partitioners.layer import Layer
from merging.plugins.problem import Problem
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import CERTIFY, Task
from merging.running.run import merge as merge_models
from merging.storage.content import content_hash
from merging.strategies.uniform import Uniform
from merging.testing import TinyNet, blobs, tiny_pool, tiny_task
from merging.values.recipe import Recipe
from tests.conftest import Merge

pytestmark = pytest.mark.gpu


def task_of(samples: int) -> Task:
    return Task(name="blobs", build=lambda pool: TinyNet(), held_out=blobs(samples, seed=5))


@given(samples=st.integers(20, 200), share=st.floats(0.2, 0.8), seed=st.integers(0, 2**32))
def test_parts_are_disjoint_whole_and_balanced(samples: int, share: float, seed: int) -> None:
    task = task_of(samples)
    divided = task.certified(share, seed)
    assert divided.certify is not None
    parts = [divided.held_out, divided.certify]
    rows = [tuple(row.tolist()) for part in parts for row in part.inputs]
    assert Counter(rows) == Counter(tuple(row.tolist()) for row in task.held_out.inputs)
    assert abs(len(parts[1]) - share * samples) <= 1
    for label, count in Counter(task.held_out.labels.tolist()).items():
        assert abs((parts[1].labels == label).sum().item() - share * count) <= 1
    assert divided.held_out.fingerprint == task.certified(share, seed).held_out.fingerprint


def test_another_seed_divides_differently() -> None:
    prints = {task_of(100).certified(0.5, seed).held_out.fingerprint for seed in range(4)}
    assert len(prints) == 4


@pytest.mark.parametrize("share", [0.0, 1.0, -1.0, 2.0, float("nan")])
def test_shares_out_of_range_are_refused(share: float, tmp_path: Path) -> None:
    with pytest.raises(OptionError, match="certify_split"):
        merge_models(tiny_pool(tmp_path), Uniform(), task=tiny_task(), certify_split=share)


def test_an_empty_part_is_refused() -> None:
    with pytest.raises(TaskError, match="empty"):
        task_of(4).certified(0.1, 0)


def test_a_task_is_needed(merge: Merge, pool_folder: Path) -> None:
    ran = merge("run", "--strategy", "uniform", "--models", pool_folder / "model_*.safetensors", "--certify-split", 0.5)
    assert ran.code == 2
    assert "--certify-split divides" in ran.err
    assert "--task" in ran.err


def test_a_merge_is_accepted_on_what_selected_nothing(merge: Merge, tiny: list[str], pool_folder: Path) -> None:
    ran = merge(*tiny, "--budget", "20", "--certify-split", "0.5", "--output", "out")
    assert ran.code == 0, ran.err
    report = json.loads(Path("out/report.json").read_text())
    found = report["certificate"]
    assert (report["held_out_samples"], found["samples"]) == (60, 60)
    assert next(v for v in report["verdicts"] if v["role"] == "certify")["samples"] == 60
    assert found["accepted"] == (found["merged"] > found["best_single"])
    assert ("accepted" if found["accepted"] else "refused") in ran.out
    assert "selected nothing" in Path("out/README.md").read_text()
    events = [json.loads(line) for line in Path("out/events.jsonl").read_text().splitlines()]
    scored = [event for event in events if event["event"] == "evaluation" and event["split"] == CERTIFY]
    assert 1 <= len(scored) <= 2, "only the best single model and the merge are scored where nothing may be selected"


class _Worst(MixStrategy):
    """Takes the model that scores worst: certification must refuse it."""

    name = "worst"
    needs = frozenset({"model", "objective"})

    def mix(self, problem: Problem) -> Recipe:
        return problem.single(problem.rank()[-1][0])


def test_a_refused_merge_leaves_the_best_single_model(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path / "pool", models=5)
    result = merge_models(
        pool,
        _Worst(),
        partitioner=Layer(),
        task=tiny_task(),
        certify_split=0.5,
        baselines=False,
        output=tmp_path / "out",
    )
    found = result.report.certificate
    assert found is not None
    assert not found.accepted
    assert found.merged < found.best_single
    single = result.report.best_single
    assert single is not None, "certification scores the best single model even without baselines"
    assert result.report.ingredients == single.ingredients
    best = next(i for i in pool.ingredients if i.name == single.ingredients[0])
    written = load_file(tmp_path / "out" / "model.safetensors")
    assert content_hash(written) == best.hash == result.report.content_hash
    assert any(line.startswith("refused") for line in result.report.verdict())


def test_resuming_needs_the_same_share(merge: Merge, tiny: list[str]) -> None:
    assert merge(*tiny, "--max-evaluations", "12", "--certify-split", "0.5", "--output", "out").code == 0
    changed = merge("run", "--resume", "out", "--trust-code", "--certify-split", "0.25")
    assert changed.code == 2
    assert "certify" in changed.err
    more = merge("run", "--resume", "out", "--trust-code", "--max-evaluations", "60")
    assert more.code == 0, more.err
    whole = merge(*tiny, "--max-evaluations", "60", "--certify-split", "0.5", "--output", "whole")
    assert whole.code == 0, whole.err
    assert Path("out/model.safetensors").read_bytes() == Path("whole/model.safetensors").read_bytes()


def test_small_held_out_sets_are_warned_about(merge: Merge, tiny: list[str]) -> None:
    told = " ".join(merge(*tiny, "--strategy", "greedy", "--certify-split", "0.5").out.split())
    assert "few samples: differences below about" in told
    assert "points (held-out: 60 samples)" in told


def test_a_run_that_compared_nothing_says_so(merge: Merge, tiny: list[str]) -> None:
    ran = merge(*tiny, "--strategy", "uniform", "--no-baselines", "--no-pool-tests", "--output", "out")
    assert ran.code == 0, ran.err
    assert "not tested on test, shifted: the best single model was not scored there" in " ".join(ran.out.split())
