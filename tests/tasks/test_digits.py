"""The built-in task: a pool that a soup can come from, and the demo on it."""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import open_clip
import pytest
import torch
from safetensors.torch import load_file

from benchmarks.digits_pool.pretraining import SETTINGS, pretrain, rendered
from merging import Best, load_task
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.partitioners.clip import ClipC8
from merging.plugins.options import build
from merging.plugins.task import Task
from merging.running.plan import Plan, plan
from merging.storage.journal import Journal
from merging.storage.pool import ModelPool
from merging.tasks import digits_data
from merging.training.finetune import finetune
from merging.training.hyperparameters import HyperParameters, Sweep
from merging.training.trainer import accuracy
from merging.values.recipe import Recipe
from tests.conftest import ENVIRONMENT


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("digits")


@pytest.fixture(scope="module")
def pool(task: Task) -> ModelPool:
    assert task.pool is not None
    return task.pool()


@pytest.fixture(scope="module")
def made(task: Task, pool: ModelPool) -> Plan:
    return plan(pool, Best(), partitioner=ClipC8(), task=task, device="cpu")


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> tuple[str, dict[str, Any]]:
    """The literal command of ``make demo``, in an empty folder: what it printed, and its report."""
    folder = tmp_path_factory.mktemp("demo")
    command = ["-m", "merging", "run", "--strategy", "manifoldmix", "--partitioner", "clip-c8"]
    ran = subprocess.run(
        [sys.executable, *command], cwd=folder, env=ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert ran.returncode == 0, ran.stderr
    (report,) = folder.glob("runs/*-manifoldmix/report.json")
    return ran.stdout + ran.stderr, json.loads(report.read_text())


def test_pool_ships_small_and_documented(pool: ModelPool) -> None:
    files = list(digits_data.POOL.iterdir())
    assert sum(file.stat().st_size for file in files) <= 8e6
    assert len(pool) >= 12
    assert pool.base is not None
    assert not pool.duplicates
    for name in pool.names:
        record = json.loads((digits_data.POOL / f"{name}.json").read_text())
        assert record["command"].startswith("merge finetune --task digits")
        assert record["held_out"] > 0.9


def test_model_is_a_real_small_clip_without_text_blocks(task: Task, pool: ModelPool, made: Plan) -> None:
    module = task.build(pool)
    assert isinstance(module.model, open_clip.CLIP)
    assert module.model.vocab_size <= 64
    assert not any(".transformer." in name and "visual" not in name for name in pool.tensors)
    assert len(made.partition) == 8
    assert [made.partition.names[i] for i in made.partition.active] == [
        "visual",
        "classification_head.weight",
        "classification_head.bias",
    ]


def test_parts_do_not_overlap(task: Task) -> None:
    assert task.train is not None
    parts = [task.train, task.held_out, task.tests["test"]]
    seen = [{tuple(image.flatten().tolist()) for image in part.inputs} for part in parts]
    for one, other in itertools.combinations(seen, 2):
        assert len(one & other) <= 2, "a handful of UCI digits are equal to the pixel; more would be a leak"
    assert set(task.shifts) == {"printed", "inverted", "rotated", "shifted", "outlined"}
    for name in ("inverted", "rotated", "shifted", "outlined"):
        assert torch.equal(task.tests[name].labels, task.tests["test"].labels)
    for split in (task.held_out, *task.tests.values()):
        assert len(split) >= 450
        assert set(split.labels.tolist()) == set(range(10))


@pytest.mark.slow
def test_every_pair_shares_a_basin(made: Plan, task: Task, pool: ModelPool) -> None:
    """Midpoint barrier of every pair of fine-tuned models at most 2 points."""
    assert made.live is not None
    assert made.numerics is not None
    evaluator = Evaluator.over(made.live, task, made.objective, made.numerics, Ledger(Journal(None)))
    with made.numerics.applied():
        singles = [evaluator.evaluate(Recipe.single(i, made.partition)).score for i in pool.ingredients]
        for one, other in itertools.combinations(range(len(pool)), 2):
            middle = Recipe.mean([pool.ingredients[one], pool.ingredients[other]], made.partition)
            barrier = (singles[one] + singles[other]) / 2 - evaluator.evaluate(middle).score
            assert barrier <= 0.02, f"{pool.names[one]} and {pool.names[other]}: {100 * barrier:.2f} points"


@pytest.mark.slow
def test_demo_ends_with_a_better_model(demo: tuple[str, dict[str, Any]]) -> None:
    _, report = demo
    rows = {row["strategy"]: row for row in report["rows"]}
    assert list(rows) == ["best", "uniform", "greedy", "manifoldmix"]
    assert len(rows["greedy"]["ingredients"]) >= 2
    assert len(report["ingredients"]) >= 3
    assert report["validation"]["merged"] > report["validation"]["best_single"]
    assert (report["components"], report["active_components"]) == (8, 3)
    assert set(report["tests"]) == {"test", "printed", "inverted", "rotated", "shifted", "outlined"}


@pytest.mark.slow
def test_demo_says_what_a_person_needs(demo: tuple[str, dict[str, Any]]) -> None:
    said, report = demo
    for text in (
        "best single model",
        "uniform soup",
        "greedy soup",
        "manifold mix",
        "held-out",
        "printed",
        "outlined",
        "average of shifts",
        "evaluations",
        "seconds",
        "than the best single model (model_05)",
        "gained",
        "built-in task",
        "merge apply",
        "model.safetensors",
    ):
        assert text in said, text
    assert f"{100 * report['validation']['merged']:.2f} %" in said


def test_printed_digits_are_of_families_never_seen() -> None:
    from benchmarks.digits_pool.render import SEEN_FONTS, UNSEEN_FONTS

    assert all(font.startswith("DejaVu") for font in SEEN_FONTS)
    assert all(font.startswith(("STIX", "cm")) for font in UNSEEN_FONTS)
    assert {font[:2] for font in UNSEEN_FONTS} == {"ST", "cm"}


def test_shipped_pool_is_what_the_command_draws(pool: ModelPool) -> None:
    """Hyper-parameters of each model are those of sweep and seed; the sweep stands beside the models."""
    made = json.loads((digits_data.POOL / "finetune.json").read_text())
    sweep = Sweep.read(digits_data.POOL / "sweep.toml")
    assert made["sweep"] == json.loads(json.dumps(sweep.plain()))
    for index, name in enumerate(pool.names):
        record = json.loads((digits_data.POOL / f"{name}.json").read_text())
        assert record["settings"] == build(HyperParameters, sweep.settings(index, made["seed"])).options()
        assert record["base"] == made["base"]
    makefile = (Path(__file__).parents[2] / "Makefile").read_text()
    assert f"--models {len(pool)} --seed {made['seed']} " in makefile


@pytest.mark.slow
def test_fine_tuning_is_reproducible_and_learns(task: Task, pool: ModelPool, tmp_path: Path) -> None:
    """One model of two epochs by the command's own function, twice, from the shipped base."""
    sweep = Sweep.read(digits_data.POOL / "sweep.toml")
    short = Sweep({**sweep.space, "epochs": (2,)})
    made = [finetune(lambda: task, tmp_path / name, short, models=1, jobs=1) for name in ("one", "other")]
    one, other = (load_file(tmp_path / name / "model_00.safetensors") for name in ("one", "other"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    base = json.loads((digits_data.POOL / "base.json").read_text())
    assert made[0][0].held_out > base["held_out"]
    assert pool.base is not None
    assert torch.equal(one["model.text_projection"], pool.base.read("model.text_projection"))


@pytest.mark.slow
def test_pretraining_learns_from_rendered_digits() -> None:
    """A small part of it, from nothing: far above chance (10 %) on the digits that were rendered."""
    data = rendered(1_000)
    settings = HyperParameters(**{**SETTINGS.options(), "epochs": 6})
    run = pretrain(data, settings)
    assert accuracy(run.module, run.task, data, run.numerics) > 0.35
