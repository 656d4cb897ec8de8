"""``merge benchmark``: shared scores, honest rows, failures that stop nothing, resuming, statistics."""

from __future__ import annotations

import json
import math
import signal
import subprocess
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from scipy.stats import binom, norm
from torch import nn

import merging
from merging import Best, Greedy, Layer, ManifoldMix, Silent, Whole, compare
from merging.benchmarking.rendering.forms import render
from merging.benchmarking.results import SHIFTED, Benchmark
from merging.benchmarking.runner import benchmark
from merging.benchmarking.runs import MethodRun
from merging.errors import FolderError, MergingError, OptionError
from merging.evaluation.scorer import LiveScorer
from merging.optimizers.random import Random
from merging.plugins.problem import Problem
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import HELD_OUT
from merging.plugins.whole_model_objective import SplitView, WholeModelObjective
from merging.running.run import merge as merge_one
from merging.storage.pool import ModelPool
from merging.strategies.ensemble import OutputEnsemble
from merging.strategies.learned import Learned
from merging.strategies.monosoup import MonoSoup
from merging.strategies.shrink import Shrink
from merging.strategies.uniform import Uniform
from merging.strategies.wise_ft import WiseFt
from merging.testing import tiny_task
from merging.testing.fixtures import open_tiny_pool
from merging.values.outcome import Outcome
from merging.values.recipe import Recipe
from merging.values.statistics import holm, mean_interval, paired, wilson
from tests.conftest import TASK, Merge, spawn

TIMES = ("seconds", "wall_seconds")
METHODS = "best,uniform,greedy,manifoldmix,learned,wise-ft,ensemble"


@pytest.fixture
def pool(pool_folder: Path) -> ModelPool:
    return open_tiny_pool(pool_folder)


@pytest.fixture
def flags(pool_folder: Path) -> list[str]:
    """Of a benchmark on the tiny pool and task."""
    models = ["--models", str(pool_folder / "model_*.safetensors"), "--base", str(pool_folder / "base.safetensors")]
    return ["benchmark", *models, "--task", TASK, "--budget", "12"]


def timeless(data: Any) -> Any:
    """Results without what differs from one session to the next."""
    if isinstance(data, dict):
        return {key: timeless(value) for key, value in data.items() if key not in (*TIMES, "command")}
    return [timeless(value) for value in data] if isinstance(data, list) else data


def _told(row: dict[str, Any], reference: str) -> dict[str, dict[str, Any]]:
    """A row's verdicts against a reference, by set."""
    return {found["set"]: found for found in row["verdicts"] if found["reference"] == reference and not found["extra"]}


def test_rows_are_what_each_method_gives_alone(pool: ModelPool) -> None:
    """Shared scores change nothing: not the result, and not what a method is said to need."""
    methods = [Best(), Uniform(), Greedy(), ManifoldMix(budget=12), Learned(epochs=2), WiseFt(), OutputEnsemble()]
    found = benchmark(pool, methods, task=tiny_task(), partitioners=[Layer()], optimizer=Random())
    assert [row.strategy for row in found.rows] == [method.name for method in methods]
    for method, row in zip(methods, found.rows, strict=True):
        alone = merge_one(
            pool, method, partitioner=Layer(), task=tiny_task(), optimizer=Random(), baselines=False
        ).report.merged
        assert alone is not None
        assert (row.held_out, row.tests, row.shifted) == (alone.held_out, alone.tests, alone.shifted), row.label
        assert row.ingredients == alone.ingredients
        assert (row.evaluations, row.inference_cost) == (alone.evaluations, alone.inference_cost), row.label
        assert row.forward_equivalents == pytest.approx(alone.forward_equivalents, abs=0.51), row.label
    assert found.evaluations < sum(row.evaluations for row in found.rows), "scores are shared"


def test_no_score_is_measured_twice(pool: ModelPool, monkeypatch: pytest.MonkeyPatch) -> None:
    passes: list[str] = []
    measure = LiveScorer.measure

    def counting(self: LiveScorer, model: Any, split: str, **how: Any) -> Outcome:
        passes.append(split)
        return measure(self, model, split, **how)

    monkeypatch.setattr(LiveScorer, "measure", counting)
    methods = [Best(), Uniform(), Greedy(), ManifoldMix(budget=12)]
    found = benchmark(pool, methods, task=tiny_task(), partitioners=[Layer(), Whole()], seeds=(0, 1))
    assert passes.count(HELD_OUT) == found.evaluations
    merges = {row.ingredients for row in found.rows if len(row.ingredients) > 1}
    assert passes.count("test") <= len(pool) + len(merges) + 4


def test_partitions_and_seeds_that_make_no_difference_are_one_row(pool: ModelPool) -> None:
    methods = {"best": Best(), "orders": Greedy(order="random"), "mix": ManifoldMix(budget=12)}
    found = benchmark(
        pool, methods, task=tiny_task(), partitioners=[Layer(), Whole()], optimizer=Random(), seeds=(0, 1, 2)
    )
    rows = {row.label: row for row in found.rows}
    assert rows["best"].partitioner is None
    assert rows["best"].seeds == (0,), "nothing random: once"
    assert rows["orders"].seeds == (0, 1, 2)
    assert {"mix (layer)", "mix (whole)"} <= set(rows)
    assert rows["mix (layer)"].partitioner == "layer"
    mixed = rows["mix (layer)"]
    each = [
        merge_one(
            pool,
            ManifoldMix(budget=12),
            partitioner=Layer(),
            task=tiny_task(),
            optimizer=Random(),
            seed=seed,
            baselines=False,
        ).report.merged
        for seed in range(3)
    ]
    scores = [row.tests["test"] for row in each if row is not None]
    assert mixed.tests["test"] == pytest.approx(np.mean(scores))
    assert mixed.spread["test"] == pytest.approx(np.std(scores, ddof=1))


@dataclass(frozen=True)
class Broken(MixStrategy):
    """Fails in the middle."""

    name: ClassVar[str] = "broken"
    needs: ClassVar[frozenset[str]] = frozenset({"model", "objective"})

    def mix(self, problem: Problem) -> Recipe:
        problem.rank()
        raise RuntimeError("cannot go on\nwith this")


@dataclass(frozen=True)
class NoMerge(MixStrategy):
    """Returns something else."""

    name: ClassVar[str] = "no-merge"

    def mix(self, problem: Problem) -> Recipe:
        return "soup"  # type: ignore[return-value]


def test_what_cannot_run_or_fails_says_why_and_the_rest_goes_on(pool_folder: Path) -> None:
    pool = open_tiny_pool(pool_folder, base=False)
    methods = [WiseFt(), Broken(), NoMerge(), Best(), Uniform()]
    found = benchmark(pool, methods, task=tiny_task(), partitioners=[Layer()])
    rows = {row.strategy: row for row in found.rows}
    assert (rows["wise-ft"].status, rows["wise-ft"].held_out) == ("cannot run", None)
    assert "needs base" in rows["wise-ft"].why
    assert "give `base`" in rows["wise-ft"].why
    assert rows["broken"].status == "failed"
    assert rows["broken"].why.startswith(f"strategy 'broken' failed: RuntimeError: cannot go on (at {__file__}:")
    assert (rows["no-merge"].status, "not a Recipe" in rows["no-merge"].why) == ("failed", True)
    assert rows["best"].finished
    told = rows["uniform"].verdict("best", "test")
    assert told is not None
    assert told.samples == 90
    assert found.status == "finished"


def test_a_partitioner_that_does_not_fit_costs_its_own_rows_only(merge: Merge, flags: list[str]) -> None:
    ran = merge(*flags, "--strategies", "best,uniform,manifoldmix", "--partitioner", "clip-c8,layer", "--output", "out")
    assert ran.code == 0, ran.err
    data = json.loads(Path("out/benchmark.json").read_text())
    assert [row["label"] for row in data["rows"]] == ["best", "uniform", "manifoldmix"]
    assert all(row["held_out"] > 0.5 for row in data["rows"])
    (note,) = [note for note in data["notes"] if "clip-c8" in note]
    assert "no method was run under clip-c8: partitioner 'clip-c8' needs" in note
    assert note.replace("`partitioner=layer`", "--partitioner layer") in " ".join(ran.out.split())
    ran = merge(*flags, "--partitioner", "clip-c8,clip-c26", "--output", "none")
    assert ran.code == 2, "nothing can run at all"
    assert len(ran.err.splitlines()) <= 3
    assert not Path("none").exists()


@dataclass(frozen=True)
class Twice(WholeModelObjective):
    """A score that is no accuracy, and knows no samples."""

    name: ClassVar[str] = "twice"

    def measure(self, model: nn.Module, split: SplitView) -> float:
        right = [(model(inputs).argmax(1) == labels).float() for inputs, labels in split]
        return 200 * float(torch.cat(right).mean())


def test_an_objective_without_samples_has_scores_and_no_tests(pool: ModelPool, tmp_path: Path) -> None:
    found = benchmark(pool, [Best(), Greedy()], task=tiny_task(), partitioners=[Layer()], objective=Twice())
    assert found.rows[1].held_out is not None
    assert found.rows[1].held_out > 100
    assert found.rows[1].tests["test"] > 100
    assert found.rows[1].intervals == {}
    assert {verdict.why for verdict in found.rows[1].verdicts} == {"the objective tells no samples apart"}
    assert not any(verdict.tested for verdict in found.rows[1].verdicts)
    assert not any(found.percent(column) for column in found.columns)
    render(found, tmp_path)
    assert (tmp_path / "pictures/scatter.png").exists()
    assert f"{found.rows[1].tests['test']:.4g}" in (tmp_path / "benchmark.md").read_text()


def test_the_limit_ends_a_method_with_its_best_so_far(pool: ModelPool) -> None:
    methods = [Best(), Greedy(), ManifoldMix(budget=40)]
    found = benchmark(pool, methods, task=tiny_task(), partitioners=[Layer()], max_evaluations=8)
    rows = {row.strategy: row for row in found.rows}
    assert rows["best"].why == ""
    assert rows["manifoldmix"].evaluations == 8
    assert "--max-evaluations 8 reached: the best so far" in rows["manifoldmix"].why
    assert rows["manifoldmix"].finished
    with pytest.raises(MergingError, match="max_evaluations` is 0, but must be at least 1"):
        benchmark(pool, methods, task=tiny_task(), partitioners=[Layer()], max_evaluations=0)


@pytest.mark.slow
def test_the_command_writes_everything_and_goes_on_where_it_was(merge: Merge, flags: list[str]) -> None:
    command = [*flags, "--strategies", METHODS, "--partitioner", "layer", "--seeds", "2", "--output", "out"]
    ran = merge(*command)
    assert ran.code == 0, ran.err
    files = sorted(path.name for path in Path("out").iterdir())
    assert files == [
        "benchmark.csv",
        "benchmark.html",
        "benchmark.json",
        "benchmark.md",
        "benchmark.tex",
        "evaluations.jsonl",
        "methods",
        "pictures",
        "pool.csv",
    ]
    first = json.loads(Path("out/benchmark.json").read_text())
    assert [row["strategy"] for row in first["rows"]] == METHODS.split(",")
    for row in first["rows"]:
        low, high = row["intervals"]["test"]
        assert low < row["tests"]["test"] < high
        assert row["strategy"] == "best" or {"test", SHIFTED, "held-out"} <= set(_told(row, "best"))
    for text in ("best single model", "▲ better", "average", "fwd-eq", "single models"):
        assert text in ran.out
    memory = Path("out/evaluations.jsonl").read_bytes()
    again = merge(*command)
    assert again.code == 0
    assert Path("out/evaluations.jsonl").read_bytes() == memory, "nothing was scored again"
    assert timeless(json.loads(Path("out/benchmark.json").read_text())) == timeless(first)
    mixed = merge(*command, "--against", "manifoldmix")
    rows = json.loads(Path("out/benchmark.json").read_text())["rows"]
    assert [list(dict.fromkeys(v["reference"] for v in row["verdicts"])) for row in rows] == [
        [name for name in ("best", "greedy", "manifoldmix") if name != row["strategy"]] for row in rows
    ]
    there, back = (
        next(_told(row, other)["test"] for row in rows if row["strategy"] == one)
        for one, other in (("manifoldmix", "greedy"), ("greedy", "manifoldmix"))
    )
    assert (there["p"], there["difference"]) == (back["p"], -back["difference"])
    assert "Against manifoldmix" in mixed.out
    assert Path("out/evaluations.jsonl").read_bytes() == memory, "nothing was scored again"
    wrong = merge(*command, "--against", "manifold-mix")
    assert (wrong.code, "did you mean 'manifoldmix'" in wrong.err) == (2, True)
    more = merge(*command, "--partitioner", "whole")
    assert more.code == 0
    labels = [row["label"] for row in json.loads(Path("out/benchmark.json").read_text())["rows"]]
    assert "manifoldmix (whole)" in labels
    assert Path("out/evaluations.jsonl").read_bytes().startswith(memory)
    changed = merge(*command, "--objective", "nll")
    assert changed.code == 2
    assert "other objective (name, options)" in changed.err
    assert "--overwrite" in changed.err
    assert Path("out/evaluations.jsonl").read_bytes().startswith(memory)
    assert merge(*command, "--objective", "nll", "--overwrite").code == 0
    data = json.loads(Path("out/benchmark.json").read_text())
    assert data["objective"] == "nll"
    assert all({"held-out", "test", "test (accuracy)"} <= set(row["intervals"]) for row in data["rows"])
    assert all(_told(row, "best")["test"]["measure"] == "nll" for row in data["rows"][1:])
    assert all(row["tests"]["test"] < 0 for row in data["rows"]), "the objective's score, as on the held-out data"


def test_interrupted_it_goes_on_with_the_same_bits(pool: ModelPool, tmp_path: Path) -> None:
    methods = [Best(), Greedy(), ManifoldMix(budget=15), Learned(epochs=2)]

    def run(folder: Path | None, stop_after: float = math.inf) -> Benchmark:
        asked = iter(range(10**9))
        return benchmark(
            pool,
            methods,
            task=tiny_task(),
            partitioners=[Layer()],
            seeds=(0, 1),
            optimizer=Random(),
            output=folder,
            should_stop=lambda: next(asked) >= stop_after,
        )

    whole = run(None)
    stopped = run(tmp_path / "out", stop_after=40)
    assert stopped.status == "interrupted"
    assert {row.status for row in stopped.rows} == {"finished", "not run"}
    run(tmp_path / "out", stop_after=60)
    torn = tmp_path / "out/evaluations.jsonl"
    torn.write_bytes(torn.read_bytes()[:-7])  # as a power cut leaves it
    assert timeless(run(tmp_path / "out").to_json()["rows"]) == timeless(whole.to_json()["rows"])


@pytest.mark.slow
def test_ctrl_c_keeps_what_is_finished(flags: list[str], tmp_path: Path) -> None:
    command = [
        *flags[:-2],
        "--strategies",
        "best,greedy,manifoldmix",
        "--partitioner",
        "layer",
        "--output",
        "out",
        "-o",
        "manifoldmix.budget=200000",
        "--optimizer",
        "random",
    ]
    process = spawn(command, tmp_path)
    waited = _wait(process, lambda: (tmp_path / "out/methods/greedy.layer.seed0.json").exists())
    assert waited, process.communicate()[1]
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    assert "go on with: merge benchmark" in err
    assert "not run" in out
    rows = json.loads((tmp_path / "out/benchmark.json").read_text())["rows"]
    assert [row["status"] for row in rows] == ["finished", "finished", "not run"]


def _wait(process: subprocess.Popen[str], there: Callable[[], bool]) -> bool:
    end = time.monotonic() + 60
    while time.monotonic() < end and process.poll() is None:
        if there():
            return True
        time.sleep(0.05)
    return False


def test_what_only_a_run_can_be_told_changes_no_benchmark(merge: Merge, flags: list[str]) -> None:
    told = ["--strategies", "uniform,greedy", "--no-singles"]
    assert merge(*flags, *told, "--output", "without").code == 0
    Path("merge.toml").write_text(
        "[run]\nseed = 4\ncertify_split = 0.3\nbaselines = false\ntests = false\ndtype = 'bfloat16'\nformat = 'pt'\n"
    )
    ran = merge(*flags, *told, "--output", "with")
    assert ran.code == 0, ran.err
    first, second = (
        [(row["label"], row["held_out"], row["digest"]) for row in json.loads(text)["rows"]]
        for text in (Path("without/benchmark.json").read_text(), Path("with/benchmark.json").read_text())
    )
    assert first == second
    assert merge(*flags, *told, "--output", "without").code == 0  # it goes on, whatever such a file says


def test_options_of_methods_and_the_file(merge: Merge, flags: list[str], pool_folder: Path) -> None:
    ran = merge(
        *flags,
        "--strategies",
        "best,soft=wise-ft,hard=wise-ft,orders=greedy",
        "--partitioner",
        "custom",
        "--output",
        "out",
        "-o",
        "soft.alpha=0.1",
        "-o",
        "hard.alpha=0.9",
        "-o",
        "hard.inner=greedy",
        "-o",
        "orders.order=random",
        "-o",
        "custom.patterns=a=^fc1",
        "-o",
        "custom.patterns=b=.*",
        "-o",
        "objective.none=1",
    )
    assert (ran.code, "option of 'accuracy'" in ran.err) == (2, True), ran.err
    Path("merge.toml").write_text(
        f'[task]\nname = "{TASK}"\n[pool]\nmodels = ["{pool_folder}/model_*.safetensors"]\n'
        f'base = "{pool_folder}/base.safetensors"\n[run]\nstrategy = "manifoldmix"\npartitioner = "layer"\nbudget = 5\n'
        "seed = 3\n[run.options]\nstrategy.tau = 0.5\nstrategy.budget = 7\n"
    )
    ran = merge(
        "benchmark",
        "--strategies",
        "best,soft=wise-ft,hard=wise-ft,manifoldmix",
        "--output",
        "out",
        "--trust-code",
        "-o",
        "soft.alpha=0.1",
        "-o",
        "hard.alpha=0.9",
        "-o",
        "hard.inner=greedy",
        "-o",
        "manifoldmix.tau=0.9",
    )
    assert ran.code == 0, ran.err
    rows = {row["label"]: row for row in json.loads(Path("out/benchmark.json").read_text())["rows"]}
    assert rows["soft"]["options"] == {"alpha": 0.1, "steps": 10, "inner": None}
    assert rows["hard"]["options"]["inner"]["name"] == "greedy"
    assert (rows["manifoldmix"]["options"]["tau"], rows["manifoldmix"]["options"]["budget"]) == (0.9, 7)
    assert rows["manifoldmix"]["seeds"] == [3]
    assert {row["strategy"] for row in rows.values()} == {"best", "wise-ft", "manifoldmix"}


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--strategies", "best,gredy"], "did you mean 'greedy'"),
        (["--partitioner", "layr"], "did you mean 'layer'"),
        (["--strategies", "greedy,greedy"], "give one of them a name"),
        (["--strategies", "a=b=c"], "unknown strategy 'b=c'"),
        (["--strategies", "=greedy"], "NAME=STRATEGY"),
        (["--seeds", "0"], "at least 1"),
        (["--seed", "-1"], "0 or larger"),
        (["-o", "greedy.ordr=random"], "did you mean 'order'"),
        (["-o", "gredy.order=random"], "did you mean 'greedy'"),
        (["-o", "greedy.order"], "name.option=value"),
        (["-o", "optimizer.x=1"], "--optimizer"),
        (["-o", "manifoldmix.tau=2"], "between 0 and 1"),
        (["--objective", "acuracy"], "did you mean 'accuracy'"),
        (["--output", "file"], "is a file"),
        (["--output", "full"], "other files and no benchmark"),
        (["--output", "full", "--overwrite"], "replaces an earlier benchmark only"),
    ],
)
def test_mistakes_are_one_line_before_any_work(merge: Merge, flags: list[str], arguments: list[str], said: str) -> None:
    Path("file").touch()
    Path("full").mkdir()
    Path("full/mine.txt").touch()
    ran = merge(*flags, *([] if "--output" in arguments else ["--output", "out"]), *arguments)
    assert (ran.code, ran.out) == (2, "")
    assert said in ran.err.splitlines()[-1]
    assert not Path("out").exists()
    assert [path.name for path in Path("full").iterdir()] == ["mine.txt"]


def test_it_needs_data(merge: Merge, pool_folder: Path) -> None:
    ran = merge("benchmark", "--models", str(pool_folder / "model_*.safetensors"))
    assert ran.code == 2
    assert "--task" in ran.err


def test_two_at_once_are_refused(pool: ModelPool, tmp_path: Path) -> None:
    class Second(Silent):
        refused = 0

        def say(self, text: str) -> None:
            if text.startswith("1 of"):
                with pytest.raises(FolderError, match="another run is writing"):
                    benchmark(pool, [Best()], task=tiny_task(), output=tmp_path / "out")
                Second.refused += 1

    benchmark(pool, [Best()], task=tiny_task(), output=tmp_path / "out", progress=Second())
    assert Second.refused == 1


def test_a_damaged_run_is_one_line(pool: ModelPool, tmp_path: Path) -> None:
    benchmark(pool, [Best()], task=tiny_task(), output=tmp_path / "out")
    (file,) = (tmp_path / "out/methods").iterdir()
    kept = MethodRun.from_json(json.loads(file.read_text()))
    assert kept.outcomes["test"].samples == 90
    file.write_text(file.read_text()[:100])
    with pytest.raises(MergingError, match="is damaged; remove it"):
        benchmark(pool, [Best()], task=tiny_task(), output=tmp_path / "out")
    file.unlink()
    assert benchmark(pool, [Best()], task=tiny_task(), output=tmp_path / "out").rows[0].finished


def test_a_method_without_its_control_is_named(pool: ModelPool) -> None:
    def notes(*methods: merging.MixStrategy) -> list[str]:
        found = benchmark(pool, methods, task=tiny_task(), partitioners=[Layer()], singles=False)
        return [note for note in found.notes if "control" in note]

    (note,) = notes(MonoSoup(energy=0.5), Shrink(energy=0.6))
    assert note.startswith("monosoup stands without its control: compare shrink with the same options")
    assert not notes(MonoSoup(energy=0.5), Shrink(energy=0.5))
    assert not notes(Best())


def test_methods_are_named(pool: ModelPool) -> None:
    with pytest.raises(OptionError, match="mapping"):
        benchmark(pool, [Greedy(), Greedy(order="random")], task=tiny_task())
    named = benchmark(pool, ["uniform", Greedy], task=tiny_task(), partitioners=("whole", merging.Layer), singles=False)
    assert {row.strategy for row in named.rows} >= {"uniform", "greedy"}
    assert benchmark(pool, "uniform", task=tiny_task(), singles=False).rows


def test_intervals_against_their_definition() -> None:
    """Wilson's bounds solve |p̂ − p| = z·√(p(1 − p)/n)."""
    for accuracy, samples in ((0.9, 90), (0.5, 10), (0.123, 26000), (1.0, 40), (0.0, 40)):
        for bound in wilson(accuracy, samples):
            distance = 1.959963984540054 * math.sqrt(max(bound * (1 - bound), 0.0) / samples)
            assert abs(accuracy - bound) == pytest.approx(distance, abs=1e-9)
    low, high = mean_interval([0.5, 0.5], [100, 400])
    assert high - low == pytest.approx(2 * 1.959963984540054 * math.sqrt(0.0025 + 0.000625) / 2)


def test_paired_is_mcnemar_with_one_seed_and_set() -> None:
    draw = np.random.default_rng(0)
    old, new = draw.random(200) < 0.7, draw.random(200) < 0.8
    outcomes = [Outcome(score=bits.mean(), samples=200, correct=np.packbits(bits)) for bits in (old, new)]
    reference = compare(outcomes[0], outcomes[1])
    found = paired([old.astype(float)], [new.astype(float)])
    assert (found.gained, found.lost, found.samples) == (reference.gained, reference.lost, 200)
    assert found.p_value == pytest.approx(reference.p_value, rel=1e-12)
    assert found.difference == pytest.approx(reference.difference)
    assert found.interval == pytest.approx(reference.interval, abs=1e-5)


def test_paired_over_sets_and_seeds_against_a_slow_reference() -> None:
    draw = np.random.default_rng(1)
    sizes = (60, 90)
    before = [(draw.random(n) < 0.5).astype(float) for n in sizes]
    after = [draw.integers(0, 4, n) / 3.0 for n in sizes]  # three seeds
    found = paired(before, after)
    total = variance = 0.0
    for old, new in zip(before, after, strict=True):
        for a, b in zip(old, new, strict=True):
            total += (b - a) / len(old) / len(sizes)
            variance += ((b - a) / len(old) / len(sizes)) ** 2
    assert found.difference == pytest.approx(total)
    assert found.p_value == pytest.approx(2 * norm.sf(abs(total) / math.sqrt(variance)))
    flips = [
        sum(
            float((draw.choice([-1, 1], len(old)) * (new - old)).mean()) for old, new in zip(before, after, strict=True)
        )
        / 2
        for _ in range(4000)
    ]
    assert np.mean(np.abs(flips) >= abs(total) - 1e-12) == pytest.approx(found.p_value, abs=0.03)
    same = [bits.copy() for bits in before]
    assert paired(before, same).p_value == 1.0


def test_paired_over_sets_of_one_size_is_exact() -> None:
    before = [np.array([1.0, 1, 1, 0, 0, 0]), np.array([0.0, 0, 0, 0, 1, 1])]
    after = [np.array([1.0, 1, 1, 1, 1, 1]), np.array([1.0, 1, 0, 0, 1, 0])]
    assert paired(before, after).p_value == pytest.approx(2 * float(binom.cdf(1, 6, 0.5)))


def test_holm_against_its_definition() -> None:
    p = [0.02, 0.001, 0.3, 0.04, 0.02]
    ordered = sorted(p)
    steps = [min(1.0, (5 - i) * value) for i, value in enumerate(ordered)]
    reference = {value: max(steps[: i + 1]) for i, value in enumerate(ordered)}
    assert holm(p) == pytest.approx([reference[value] for value in p])
    assert holm([]) == []


def test_a_benchmark_without_a_result_does_not_end_well(merge: Merge, flags: list[str]) -> None:
    Path("lost.py").write_text(
        "import merging\nfrom dataclasses import dataclass\nfrom merging.plugins.registry import strategies\n\n\n"
        '@strategies.register("lost")\n@dataclass(frozen=True)\nclass Lost(merging.MixStrategy):\n'
        '    """Fails."""\n\n    def mix(self, problem):\n        raise ValueError("lost")\n'
    )
    ran = merge(*flags, "--strategies", "lost", "--plugin", "lost.py", "--no-singles", "--output", "out")
    assert ran.code == 1
    assert "no method has a result; the rows say why" in ran.err
    assert [row["status"] for row in json.loads(Path("out/benchmark.json").read_text())["rows"]] == ["failed"]
