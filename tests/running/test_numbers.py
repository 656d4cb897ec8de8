"""Labels that are numbers: an objective of numbers is scored on every set, and nothing is called right or wrong."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save_file
from sklearn.metrics import mean_squared_error
from torch import Tensor, nn

from merging.benchmarking.runner import benchmark
from merging.errors import MergingError, RequirementError, TaskError
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.looking.scoring import evaluate
from merging.mixing.arithmetic import materialise
from merging.objectives.mse import MeanSquaredError
from merging.partitioners.layer import Layer
from merging.plugins.task import HELD_OUT, Split, Task
from merging.running.plan import plan
from merging.running.run import merge
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.strategies.best import Best
from merging.strategies.ensemble import OutputEnsemble
from merging.strategies.fisher import Fisher
from merging.strategies.greedy import Greedy
from merging.strategies.greedy_ensemble import GreedyEnsemble
from merging.strategies.learned import Learned
from merging.strategies.manifoldmix import ManifoldMix
from merging.strategies.uniform import Uniform
from merging.values.recipe import Recipe

MODULE = """
import torch
from torch import nn
from merging.plugins.task import Split, Task


class Net(nn.Module):
    def __init__(self, outputs):
        super().__init__()
        self.a, self.b = nn.Linear(6, 16), nn.Linear(16, outputs)

    def forward(self, x):
        return self.b(torch.tanh(self.a(x)))


def data(count, seed, outputs, kind):
    weights = torch.randn(6, outputs, generator=torch.Generator().manual_seed(99))
    x = torch.randn(count, 6, generator=torch.Generator().manual_seed(seed))
    y = x @ weights
    y = (10 * y).round().to(kind) if kind == torch.int64 else y.to(kind)
    return Split.of(x, y[:, 0] if outputs == 1 else y)


def task(outputs=1, kind=torch.float32):
    sets = {"test": data(60, 2, outputs, kind), "shifted": data(50, 3, outputs, kind)}
    held_out = data(80, 1, outputs, kind)
    return Task(
        name="numbers", build=lambda pool: Net(outputs), held_out=held_out, tests=sets, shifts=("shifted",)
    )


def vectors():
    return task(3)


def counts():
    return task(1, torch.int64)
"""
NUMBERS: dict[str, Any] = {}
exec(MODULE, NUMBERS)  # noqa: S102 (the same text is the user's file in the commands below)
SPOKEN = re.compile(r"accurac|\bright\b|McNemar|top-1", re.IGNORECASE)
NONE = '"accuracies": {}'  # the key is there, whatever the labels are
WORDS = re.compile(r"accuracy|\bright\b|McNemar|gained|%", re.IGNORECASE)
KINDS = [(1, torch.float32), (1, torch.float64), (3, torch.float32), (1, torch.int64), (2, torch.int64)]


def models(folder: Path, outputs: int) -> list[Path]:
    """Three nets near each other."""
    folder.mkdir(exist_ok=True, parents=True)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        start = NUMBERS["Net"](outputs).state_dict()
        for number in range(3):
            moved = {name: t + 0.2 * torch.randn(t.shape) for name, t in start.items()}
            save_file(moved, folder / f"m{number}.safetensors")
    return [folder]


def wanted(module: nn.Module, tensors: dict[str, Tensor], split: Split) -> float:
    module.load_state_dict(tensors)
    with torch.no_grad():
        found = module(split.inputs).double().numpy()
    return -float(mean_squared_error(split.labels.double().numpy().reshape(found.shape), found))


@pytest.mark.parametrize(("outputs", "kind"), KINDS, ids=str)
def test_every_set_of_every_row_is_scored_by_the_objective(tmp_path: Path, outputs: int, kind: torch.dtype) -> None:
    pool, task = ModelPool.open(models(tmp_path / "pool", outputs)), NUMBERS["task"](outputs, kind)
    settings: dict[str, Any] = {"task": task, "partitioner": Layer(), "objective": MeanSquaredError()}
    ran = merge(pool, ManifoldMix(budget=10), **settings, output=tmp_path / "run")
    module, report = NUMBERS["Net"](outputs), ran.report
    assert isinstance(ran.merge, Recipe)
    tensors = dict(materialise(ran.merge, pool))
    assert report.merged is not None
    assert report.merged.held_out == pytest.approx(wanted(module, tensors, task.held_out), rel=1e-6)
    for name, split in task.tests.items():
        assert report.merged.tests[name] == pytest.approx(wanted(module, tensors, split), rel=1e-6)
    found = evaluate(tmp_path / "run", task, objective=MeanSquaredError())
    for name, outcome in found.items():
        assert outcome.correct is None
        assert outcome.terms is not None
        assert outcome.score == pytest.approx(float(np.mean(outcome.terms, dtype=np.float64)))
        assert outcome.score == (report.merged.held_out if name == HELD_OUT else report.merged.tests[name])
    made = benchmark(
        pool, [Best(), Greedy(), OutputEnsemble(), GreedyEnsemble()], task=task, objective=MeanSquaredError()
    )
    best = next(row for row in made.rows if row.strategy == "best")
    assert report.best_single is not None
    assert (best.held_out, dict(best.tests)) == (report.best_single.held_out, dict(report.best_single.tests))
    mean = [pool.read(row, "b.bias") for row in pool.ingredients]
    assert len(mean) == 3
    together = next(row for row in made.rows if row.strategy == "ensemble")
    answers = []
    for row in pool.ingredients:
        module.load_state_dict({name: pool.read(row, name) for name in pool.tensors})
        with torch.no_grad():
            answers.append(module(task.held_out.inputs).double().numpy())
    labels = task.held_out.labels.double().numpy().reshape(answers[0].shape)
    assert together.held_out == pytest.approx(-mean_squared_error(labels, np.mean(answers, axis=0)), rel=1e-5)


REFUSED: list[tuple[Any, str]] = [
    (Learned(), "strategy 'learned' works with probabilities of classes"),
    (Fisher(), "strategy 'fisher' works with probabilities of classes"),
    (OutputEnsemble(average="probabilities"), "strategy 'ensemble' works with probabilities of classes"),
    (GreedyEnsemble(average="probabilities"), "strategy 'greedy-ensemble' works with probabilities of classes"),
]


@pytest.mark.parametrize(("strategy", "why"), REFUSED, ids=lambda v: getattr(v, "name", ""))
def test_what_works_with_classes_is_refused_in_a_line(tmp_path: Path, strategy: Any, why: str) -> None:
    pool = ModelPool.open(models(tmp_path / "pool", 1))
    with pytest.raises(RequirementError, match=why) as refused:
        plan(pool, strategy, task=NUMBERS["task"](), objective=MeanSquaredError())
    assert "\n" not in str(refused.value)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    shape=st.sampled_from([(40,), (40, 1), (40, 3), (40, 2, 2)]),
    seed=st.integers(0, 99),
    kind=st.sampled_from([torch.float32, torch.float64, torch.float16, torch.int64, torch.int32, torch.bool]),
    objective=st.sampled_from(["accuracy", "nll", "macro-f1", "balanced-accuracy", "ece", "brier", "worst-group"]),
)
def test_labels_that_are_no_classes_are_refused_by_objectives_of_classes(
    tmp_path_factory: pytest.TempPathFactory, shape: tuple[int, ...], seed: int, kind: torch.dtype, objective: str
) -> None:
    from merging.plugins.discovery import load_all
    from merging.plugins.registry import objectives

    load_all()
    made = objectives[objective]()
    labels = torch.randint(0, 2, shape, generator=torch.Generator().manual_seed(seed)).to(kind)
    split = Split.of(torch.zeros(40, 6), labels)
    classes = len(shape) == 1 and kind in (torch.int64, torch.int32)
    assert split.categorical == classes
    task = Task(name="numbers", build=lambda pool: NUMBERS["Net"](2), held_out=split)
    from merging.plugins.objective import check_labels

    if classes and objective != "worst-group":
        return check_labels(made, task, (HELD_OUT,))
    with pytest.raises(TaskError, match="names none" if classes else "held-out are numbers"):
        check_labels(made, task, (HELD_OUT,))
    return None


def test_accuracy_of_numbers_from_one_output_says_what_to_take(tmp_path: Path) -> None:
    pool, task = ModelPool.open(models(tmp_path / "pool", 1)), NUMBERS["counts"]()
    with pytest.raises(
        TaskError, match=r"the model gives one number: where labels are numbers, take .*`objective=mse`"
    ):
        merge(pool, Greedy(), task=task)


def test_a_strategy_that_asks_for_gradients_is_told(tmp_path: Path) -> None:
    pool, task = ModelPool.open(models(tmp_path / "pool", 1)), NUMBERS["task"]()
    made = plan(pool, Uniform(), task=task, objective=MeanSquaredError())
    assert made.live is not None
    assert made.numerics is not None
    evaluator = Evaluator.over(made.live, task, made.objective, made.numerics, Ledger(Journal(None)))
    recipe = Recipe.single(pool.ingredients[0], made.partition)
    batch = next(iter(evaluator.gradients.batches(HELD_OUT, np.random.default_rng(0))))
    calls: list[Callable[[], Any]] = [
        lambda: evaluator.gradients.gradient(recipe, batch),
        lambda: evaluator.gradients.blend([recipe]),
        lambda: evaluator.gradients.squared_gradients(recipe, HELD_OUT, 4, np.random.default_rng(0), sampled=True),
    ]
    for call in calls:
        with pytest.raises(MergingError, match="the held-out labels are numbers, not classes"):
            call()


@pytest.mark.parametrize("wide", [1, 3])
def test_held_out_numbers_are_divided_to_certify(tmp_path: Path, wide: int) -> None:
    pool, task = ModelPool.open(models(tmp_path / "pool", wide)), NUMBERS["task"](wide)
    ran = merge(pool, Greedy(), task=task, objective=MeanSquaredError(), certify_split=0.25)
    assert ran.report.certificate is not None
    assert ran.report.certificate.samples == 20


@pytest.mark.parametrize("what", ["task", "vectors", "counts"])
def test_commands_say_nothing_of_accuracy(  # type: ignore[no-untyped-def]
    merge,  # noqa: ANN001
    tmp_path: Path,
    what: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    module = f"numbers_{what}"  # a name of its own: modules stay imported
    (tmp_path / f"{module}.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    folder = models(tmp_path / "pool", 3 if what == "vectors" else 1)[0]
    given = ["--models", str(folder), "--task", f"python:{module}:{what}", "--objective", "mse"]
    for command in (["check"], ["inspect"], ["inspect", "--interpolate", "m0", "m1", "--tests"]):
        ran = merge(*command, *given)
        assert ran.code == 0, ran.err
        assert not SPOKEN.search(ran.out)
    ran = merge("run", *given, "--strategy", "uniform", "--output", "run")
    assert ran.code == 0, ran.err
    for text in (ran.out, *((tmp_path / "run" / name).read_text() for name in ("README.md", "report.json"))):
        assert not SPOKEN.search(text.replace(NONE, ""))
        assert "mse" in text
    ran = merge("evaluate", str(folder / "m0.safetensors"), str(folder / "m1.safetensors"), *given[2:], "--json")
    assert ran.code == 0, ran.err
    found = json.loads(ran.out)
    assert {"score", "samples", "seconds", "score_interval"} == set(found["models"][0]["sets"]["test"])
    low, high = found["models"][0]["sets"]["test"]["score_interval"]
    assert low < found["models"][0]["sets"]["test"]["score"] < high
    pair = found["paired"]["test"]
    assert (pair["test"], pair["gained"], pair["lost"]) == ("bootstrap", None, None)
    scores = [each["sets"]["test"]["score"] for each in found["models"]]
    assert pair["difference"] == pytest.approx(scores[1] - scores[0])
    ran = merge("evaluate", str(folder / "m0.safetensors"), str(folder / "m1.safetensors"), *given[2:])
    assert ran.code == 0, ran.err
    assert not WORDS.search(ran.out.replace("95 %", ""))
    assert re.match(r"(▲ m1: better than|▼ m1: worse than|m1: no gain over) ", ran.out), ran.out.splitlines()[0]
    assert re.search(r"^test +[▲▼]? ?[-+]\d\S* \[\S+, \S+\] +p[=<]", ran.out, re.MULTILINE)


@pytest.mark.slow
def test_the_forms_of_a_benchmark_say_nothing_of_accuracy(
    merge: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "numbers_page.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    given = [
        "--models",
        str(models(tmp_path / "pool", 3)[0]),
        "--task",
        "python:numbers_page:vectors",
        "--objective",
        "mse",
    ]
    ran = merge("benchmark", *given, "--strategies", "best,uniform,greedy,ensemble", "--output", "bench")
    assert ran.code == 0, ran.err
    texts = {file.name: file.read_text() for file in (tmp_path / "bench").glob("benchmark.*")}
    assert set(texts) == {f"benchmark.{form}" for form in ("html", "md", "csv", "tex", "json")}
    texts["benchmark.html"] = re.sub(r"<(style|script).*?</\1>|<[^>]*>", " ", texts["benchmark.html"], flags=re.DOTALL)
    for name, text in {**texts, "terminal": ran.out}.items():
        said = text.replace(NONE, "").replace("right of the line", "")  # where a forest's better methods stand
        assert not SPOKEN.search(said), name
