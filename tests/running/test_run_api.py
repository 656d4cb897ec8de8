"""The public Python API, where the command line does not reach."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
from safetensors.torch import load_file

import merging
from merging import Greedy, ManifoldMix, MixStrategy, ModelPool, Problem, Random, Recipe, Weights
from merging.errors import FolderError, InterruptedRunError, MergingError, TaskError
from merging.mixing.arithmetic import materialise
from merging.partitioners.layer import Layer
from merging.plugins.discovery import load_installed
from merging.plugins.progress import Silent
from merging.plugins.registry import objectives, strategies
from merging.plugins.task import Split
from merging.plugins.whole_model_objective import SplitView, WholeModelObjective
from merging.running.plan import plan
from merging.storage.content import content_hash
from merging.testing import tiny_pool, tiny_task


@pytest.fixture(scope="module")
def pool(tmp_path_factory: pytest.TempPathFactory) -> ModelPool:
    return tiny_pool(tmp_path_factory.mktemp("pool"), models=4)


@pytest.fixture
def registered() -> Iterator[None]:
    """Whatever a test registers is forgotten afterwards."""
    load_installed()  # once a process: what it enters must not be taken away
    before = dict(strategies._classes), dict(objectives._classes)
    yield
    strategies._classes, objectives._classes = before


def test_merge_returns_recipe_and_report(pool: ModelPool) -> None:
    result = merging.merge(
        pool, ManifoldMix(budget=20), partitioner=Layer(), task=tiny_task(), optimizer=Random(), seed=3
    )
    assert isinstance(result.merge, Recipe)
    assert result.folder is None
    assert result.report.seed == 3
    assert content_hash(result.state_dict()) == result.report.content_hash
    assert result.report.merged is not None
    assert result.report.best_single is not None
    assert result.report.merged.held_out >= result.report.best_single.held_out


def test_names_and_classes_stand_for_objects(pool: ModelPool) -> None:
    """A name, a class and an object with its defaults are one strategy, and so for its parts."""
    asked: list[dict[str, Any]] = [
        {"strategy": "greedy", "partitioner": "layer", "objective": "nll", "optimizer": "random"},
        {
            "strategy": merging.Greedy,
            "partitioner": merging.Layer,
            "objective": merging.NegativeLogLikelihood,
            "optimizer": merging.Random,
        },
        {
            "strategy": merging.Greedy(),
            "partitioner": merging.Layer(),
            "objective": merging.NegativeLogLikelihood(),
            "optimizer": merging.Random(),
        },
    ]
    plans = [plan(pool, task=tiny_task(), **each) for each in asked]
    assert plans[0].header(None) == plans[1].header(None) == plans[2].header(None)


@pytest.mark.parametrize(
    ("argument", "value", "said"),
    [
        ("strategy", "gredy", "unknown strategy 'gredy'; did you mean 'greedy'?"),
        ("strategy", "manifoldmix(tau=0.9)", "options are given to the class: merging.ManifoldMix(tau=0.99)"),
        ("strategy", merging.MixStrategy, "MixStrategy is an interface; give a class that derives from it"),
        ("strategy", merging.ClipC8(), "`strategy` is a ClipC8; give a MixStrategy"),
        ("partitioner", "clip-c9", "unknown partitioner 'clip-c9'; did you mean 'clip-c8'?"),
        ("optimizer", "coblya", "unknown optimizer 'coblya'"),
        ("objective", "macro-f2", "did you mean 'macro-f1'?"),
        ("task", "digit", "unknown task 'digit'; did you mean 'digits'?"),
        ("task", tiny_task, "`task` is a function; call it, and give what it returns"),
        ("task", "nowhere.toml", "nowhere.toml"),
    ],
)
def test_what_stands_for_nothing_is_told(pool: ModelPool, argument: str, value: object, said: str) -> None:
    with pytest.raises(MergingError) as error:
        merging.merge(**{"pool": pool, "strategy": "greedy", "task": tiny_task(), argument: value})  # type: ignore[arg-type]
    assert said in str(error.value)


def test_an_option_that_is_a_strategy_may_be_a_name() -> None:
    assert merging.WiseFt(inner="greedy") == merging.WiseFt(inner=merging.Greedy())  # type: ignore[arg-type]
    assert merging.WiseFt(inner=merging.Greedy) == merging.WiseFt(inner=merging.Greedy())  # type: ignore[arg-type]
    with pytest.raises(MergingError, match="did you mean 'greedy'"):
        merging.WiseFt(inner="gredy")  # type: ignore[arg-type]


def test_a_strategy_may_give_weights(pool: ModelPool, tmp_path: Path, registered: None) -> None:
    @strategies.register("median")
    @dataclass(frozen=True)
    class Median(MixStrategy):
        """Elementwise median: no recipe can express it."""

        summary: ClassVar[str] = "elementwise median"
        gives: ClassVar[str] = "weights"

        def mix(self, problem: Problem) -> Weights:
            states = [materialise(problem.single(i), problem.pool) for i in range(len(problem.pool))]
            tensors = {name: torch.stack([state[name] for state in states]).median(dim=0).values for name in states[0]}
            return Weights(
                tensors=tensors,
                ingredients=problem.pool.ingredients,
                strategy=self.name,
                options=self.options(),
                hash=content_hash(tensors),
            )

    result = merging.merge(pool, Median(), task=tiny_task(), output=tmp_path / "out")
    assert isinstance(result.merge, Weights)
    saved = load_file(tmp_path / "out/model.safetensors")
    assert all(torch.equal(saved[name], tensor) for name, tensor in result.merge.tensors.items())
    assert not (tmp_path / "out/recipe.json").exists()
    report = json.loads((tmp_path / "out/report.json").read_text())
    assert report["ingredients"] == list(pool.names)
    assert {row["strategy"] for row in report["rows"]} == {"best", "uniform", "greedy", "median"}


def test_whole_model_objective(pool: ModelPool, registered: None) -> None:
    @objectives.register("least-bias")
    @dataclass(frozen=True)
    class LeastBias(WholeModelObjective):
        """Prefers models that favour no class."""

        summary: ClassVar[str] = "minus the spread of predicted classes"

        def measure(self, model: torch.nn.Module, split: SplitView) -> float:
            with torch.inference_mode():
                counts = sum(torch.bincount(model(inputs).argmax(1), minlength=3) for inputs, _ in split)
            return -float(torch.as_tensor(counts).double().std())

    result = merging.merge(pool, Greedy(), task=tiny_task(), objective=LeastBias())
    assert result.report.merged is not None
    assert result.report.merged.held_out <= 0
    assert {v.why for v in result.report.verdicts} == {"the objective tells no samples apart"}


def test_keyboard_interrupt_returns_the_best_so_far(pool: ModelPool, registered: None) -> None:
    @strategies.register("interrupted")
    @dataclass(frozen=True)
    class Interrupted(MixStrategy):
        """Keeps its second model, then is interrupted."""

        def mix(self, problem: Problem) -> Recipe:
            problem.keep(problem.single(1), problem.evaluate(problem.single(1)))
            raise KeyboardInterrupt

    result = merging.merge(pool, Interrupted(), task=tiny_task(), baselines=False)
    assert result.report.status == "interrupted"
    assert result.report.ingredients == (pool.names[1],)


def test_interrupted_before_anything_was_scored(pool: ModelPool) -> None:
    with pytest.raises(InterruptedRunError):
        merging.merge(pool, Greedy(), task=tiny_task(), should_stop=lambda: True)


def test_a_run_ended_by_its_limit_goes_on_with_a_larger_one(pool: ModelPool, tmp_path: Path) -> None:
    def run(folder: str, limit: int | None, *, resume: bool = False) -> merging.Result:
        return merging.merge(
            pool,
            ManifoldMix(budget=40, tau=0.9),
            partitioner=Layer(),
            task=tiny_task(),
            optimizer=Random(),
            max_evaluations=limit,
            output=tmp_path / folder,
            resume=resume,
        )

    whole = run("whole", None)
    cut = run("cut", 20)
    assert cut.report.status == "--max-evaluations 20 reached"
    assert cut.report.evaluations == 20
    longer = run("cut", 30, resume=True)
    assert longer.report.evaluations == 30
    finished = run("cut", None, resume=True)
    assert finished.report.status == "finished"
    assert finished.report.evaluations == whole.report.evaluations
    for name in ("model.safetensors", "recipe.json"):
        assert (tmp_path / "cut" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_seed_matters_and_is_enough(pool: ModelPool) -> None:
    def recipe(seed: int) -> object:
        options = {"partitioner": Layer(), "task": tiny_task(), "optimizer": Random(), "seed": seed}
        made = merging.merge(
            pool,
            ManifoldMix(budget=15),
            objective=merging.NegativeLogLikelihood(),
            baselines=False,
            tests=False,
            **options,  # type: ignore[arg-type]
        ).merge
        assert isinstance(made, Recipe)
        return made.to_json()

    assert recipe(1) == recipe(1)
    assert recipe(1) != recipe(2)


def test_output_that_cannot_be_written_is_said_before_any_work(pool: ModelPool, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(FolderError, match="is a file"):
        merging.merge(pool, Greedy(), task=tiny_task(), output=tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


def test_labels_of_a_test_set_end_a_run_before_its_search(tmp_path: Path) -> None:
    task, said = tiny_task(), list[str]()

    class Heard(Silent):
        def say(self, text: str) -> None:
            said.append(text)

    wrong = Split.of(task.held_out.inputs, task.held_out.labels + 2)
    task = replace(task, tests={"test": wrong}, shifts=())
    with pytest.raises(TaskError, match="split 'test' has labels from 2 to 4"):
        merging.merge(tiny_pool(tmp_path, 2), Greedy(), task=task, output=tmp_path / "run", progress=Heard())
    assert not said, "no strategy has begun"
    assert not (tmp_path / "run").exists()
