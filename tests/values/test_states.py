"""How runs and methods end: values in the code, the same words as ever in files."""

from __future__ import annotations

import ast
import glob
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import merging
from merging.benchmarking.results import Benchmark, BenchmarkRow
from merging.values.states import MethodState, RunState, state_of, status_of, unworded, worded

ROOT = Path(merging.__file__).parent

ended = st.one_of(
    st.tuples(st.sampled_from([RunState.FINISHED, RunState.INTERRUPTED]), st.none()),
    st.tuples(st.just(RunState.LIMIT), st.integers(1, 10**9)),
)


@given(ended)
def test_the_words_are_read_back(end: tuple[RunState, int | None]) -> None:
    assert state_of(status_of(*end)) == end
    data = {"task": "t", "state": end[0], "seed": 1, "limit": end[1]}
    assert list(worded(data)) == ["task", "status", "seed"], "where it stood before"
    assert unworded(worded(data)) == data


@pytest.mark.parametrize(
    ("status", "end"),
    [
        ("finished", (RunState.FINISHED, None)),
        ("interrupted", (RunState.INTERRUPTED, None)),
        ("--max-evaluations 20 reached", (RunState.LIMIT, 20)),
        ("limit", (RunState.INTERRUPTED, None)),
        ("--max-evaluations 20 reached: a plug-in's own words", (RunState.INTERRUPTED, None)),
        ("", (RunState.INTERRUPTED, None)),
    ],
)
def test_words_of_reports(status: str, end: tuple[RunState, int | None]) -> None:
    assert state_of(status) == end


@pytest.mark.parametrize("status", [None, 3, ["finished"]])
def test_what_is_no_text_is_damage(status: object) -> None:
    with pytest.raises(ValueError, match="status is text"):
        state_of(status)  # type: ignore[arg-type]


@given(ended, st.sampled_from(MethodState))
def test_a_benchmark_keeps_its_states(end: tuple[RunState, int | None], method: MethodState) -> None:
    row = BenchmarkRow(strategy="best", label="best", status=method)
    found = Benchmark(
        task="t",
        objective="accuracy",
        rows=(row,),
        singles=(),
        samples={"held-out": 3},
        shifts=(),
        pool=("m",),
        seeds=(0,),
        state=end[0],
        limit=end[1],
    )
    kept = json.loads(found.dumps())
    assert (kept["status"], kept["rows"][0]["status"]) == (status_of(*end), method.value)
    assert not {"state", "limit"} & kept.keys()
    again = Benchmark.from_json(kept)
    assert again == found
    assert again.rows[0].status is method


WORDS = {*MethodState, status_of(RunState.FINISHED, None), status_of(RunState.INTERRUPTED, None)}


def test_nobody_decides_by_the_words_of_a_state() -> None:
    """Neither ``status == "finished"`` nor a message's beginning is asked for anywhere."""
    found = []
    files = [Path(name) for name in glob.glob(f"{ROOT}/**/*.py", recursive=True)]  # of linked wings too
    assert {ROOT / "cli", ROOT / "strategies", ROOT / "values"} <= {path.parent for path in files}
    for path in files:
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            sides = [node.left, *node.comparators] if isinstance(node, ast.Compare) else []
            called = node.func.attr if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) else ""
            if isinstance(node, ast.Call) and called in ("startswith", "endswith"):
                sides = [each for each in node.args if isinstance(each, ast.Constant)]
            sides += [inner for each in sides if isinstance(each, ast.Tuple | ast.Set) for inner in each.elts]
            words = [each.value for each in sides if isinstance(each, ast.Constant) and isinstance(each.value, str)]
            found += [f"{path}: {word}" for word in words if word in WORDS or word.startswith("--max-ev")]
    assert not found
