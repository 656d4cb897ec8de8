"""``merge check`` counts the scores of a run as its journal does, and those that it will not have to make."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import merging
from merging.evaluation.remembered import Recall
from merging.looking.estimate import Cost, estimate
from merging.objectives.nll import NegativeLogLikelihood
from merging.partitioners.layer import Layer
from merging.plugins.strategy import MixStrategy
from merging.running.plan import plan
from merging.storage.pool import ModelPool
from merging.strategies.greedy import Greedy
from merging.strategies.uniform import Uniform
from merging.testing import tiny_pool, tiny_task
from tests.conftest import TASK, Merge

FLAGS = ("--task", TASK, "--models", "pool/model_*", "--strategy", "greedy", "--partitioner", "layer")


@pytest.fixture(autouse=True)
def _remembering(own_cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    del own_cache
    monkeypatch.setenv("MERGING_REMEMBER", "1")


@pytest.fixture
def pool(tmp_path: Path) -> ModelPool:
    return tiny_pool(tmp_path / "pool", 4)


def cost_of(ran: Any) -> dict[str, Any]:
    assert ran.code == 0, ran.err
    cost: dict[str, Any] = json.loads(ran.out)["cost"]
    return cost


def test_what_a_run_has_scored_the_check_knows(
    pool: ModelPool, merge: Merge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    before = cost_of(merge("check", *FLAGS, "--json"))
    assert before["known"] == 0
    assert "known" not in merge("check", *FLAGS).out
    assert merge("run", *FLAGS, "--output", "ran").code == 0
    scored = sum(
        json.loads(line)["event"] == "evaluation" for line in Path("ran/events.jsonl").read_text().splitlines()
    )
    after = cost_of(merge("check", *FLAGS, "--json"))
    tests = len(tiny_task().tests)
    assert before["scores"] == after["scores"] == scored
    assert after["known"] == (len(pool) + 1) * (1 + tests)  # every model, and their average, on every set
    assert after["minutes"] * after["samples_per_second"] < before["minutes"] * before["samples_per_second"]
    said = " ".join(merge("check", *FLAGS).out.split())
    assert f"{after['known']} of {scored} scores known from earlier commands, " in said
    assert cost_of(merge("check", *FLAGS, "--no-remember", "--json"))["known"] == 0
    assert f"{after['known']} of {scored} scores known" in repr(
        merging.check(pool, Greedy(), task=tiny_task(), partitioner=Layer())
    )


@pytest.mark.parametrize("strategy", [Uniform(), Greedy()])
@pytest.mark.parametrize(
    "settings",
    [
        {},
        {"baselines": False},
        {"pool_tests": False},
        {"pool_tests": False, "baselines": False},
        {"objective": NegativeLogLikelihood(), "pool_tests": False},
    ],
    ids=repr,
)
def test_a_run_looks_up_what_was_foreseen(
    pool: ModelPool, strategy: MixStrategy, settings: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a run that has scored single models and their average, another one has just these scores."""
    task, looked_up = tiny_task(), list[tuple[str, ...]]()
    same = {key: value for key, value in settings.items() if key == "objective"}
    merging.merge(pool, Uniform(), task=task, partitioner=Layer(), max_evaluations=len(pool) + 1, **same)
    known = Recall.known

    def told(self: Recall) -> Any:
        found = known(self)
        if found is not None and len(self._merged.names) in (1, len(pool)):
            looked_up.append((*self._merged.names, self._split))
        return found

    monkeypatch.setattr(Recall, "known", told)
    cost: Cost = estimate(plan(pool, strategy, task=task, partitioner=Layer(), **settings))
    merging.merge(pool, strategy, task=task, partitioner=Layer(), output=tmp_path / "ran", **settings)
    scored = (tmp_path / "ran" / "events.jsonl").read_text().count('"event":"evaluation"')
    assert (cost.known, cost.scores) == (len(looked_up), scored)
