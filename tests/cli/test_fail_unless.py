"""``--fail-unless``: exit code 3 with the verdict as its reason, after all is written; 2 where it is no question."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tests.conftest import TASK, Merge


@pytest.fixture
def given(pool_folder: Path) -> list[str]:
    return ["--models", str(pool_folder / "model_*.safetensors"), "--task", TASK, "--partitioner", "layer"]


@pytest.mark.slow
def test_a_run_that_is_no_better_ends_with_3_and_is_written(merge: Merge, given: list[str]) -> None:
    ran = merge("run", *given, "--strategy", "greedy", "--output", "run", "--fail-unless", "better")
    assert ran.code == 3
    last = ran.err.splitlines()[-1]
    assert last.startswith("not shown to be better: greedy soup (2 of 5 models): no gain over the best single model (")
    assert Path("run/model.safetensors").is_file()
    assert "The merged model:" in ran.out
    ran = merge("run", *given, "--strategy", "greedy", "--output", "same", "--fail-unless", "not-worse")
    assert ran.code == 0, ran.err
    assert Path("same/model.safetensors").read_bytes() == Path("run/model.safetensors").read_bytes()
    again = merge("run", "--resume", "run", "--trust-code", "--fail-unless", "better")
    assert again.code == 3, "it may be asked of a run that goes on"


def test_what_no_test_can_show_is_refused_before_the_work(merge: Merge, given: list[str]) -> None:
    ran = merge("run", *given[:2], "--strategy", "uniform", "--output", "run", "--fail-unless", "not-worse")
    assert ran.code == 2
    assert ran.err.strip().endswith("nothing can be shown to be not-worse without data to test on: give --task")
    assert not Path("run").exists()
    ran = merge("run", *given, "--strategy", "best", "--output", "run", "--fail-unless", "better")
    assert ran.code == 2
    assert not Path("run").exists()


def test_what_was_not_tested_is_not_shown_to_be_anything(merge: Merge, given: list[str]) -> None:
    asked = ["run", *given, "--strategy", "uniform", "--no-baselines", "--no-pool-tests", "--output", "run"]
    ran = merge(*asked, "--fail-unless", "not-worse")
    assert ran.code == 3
    assert "not shown to be not-worse: – uniform soup (5 of 5 models): not tested on test, " in ran.err.splitlines()[-1]


@pytest.mark.slow
def test_of_a_benchmark_one_method_is_enough(merge: Merge, given: list[str]) -> None:
    asked = [*given, "--strategies", "uniform,greedy", "--output", "bench"]
    ran = merge("benchmark", *asked, "--fail-unless", "better", "--json")
    assert ran.code == 3
    assert ran.err.splitlines()[-1].startswith("not shown to be better: no method beats the best single model (")
    found = json.loads(ran.out)
    assert [row["label"] for row in found["rows"]] == ["best", "uniform", "greedy"], "what all are compared with"
    assert found["answer"]["standing"] == "neither"
    assert merge("benchmark", *asked, "--fail-unless", "not-worse").code == 0


def test_two_models(merge: Merge, given: list[str], pool_folder: Path) -> None:
    one, base = str(pool_folder / "model_1.safetensors"), str(pool_folder / "base.safetensors")
    ran = merge("evaluate", one, base, "--task", TASK, "--fail-unless", "better")
    assert ran.code == 3
    assert f"than {one}" in ran.err or f"over {one}" in ran.err
    assert merge(
        "evaluate", one, one + "/../model_1.safetensors", "--task", TASK, "--fail-unless", "not-worse"
    ).code in (0, 2)
    ran = merge("evaluate", one, "--task", TASK, "--fail-unless", "better")
    assert (ran.code, "name two models" in ran.err) == (2, True)
