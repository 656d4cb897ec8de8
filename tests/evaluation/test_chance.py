"""A model that is no better than a guess is said, with the order of classes that would mend it; a good one is not."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from torch import nn

import merging
from merging.evaluation.chance import FEWEST, SAMPLES, Chance, against_chance, compared, drawn
from merging.objectives.nll import NegativeLogLikelihood
from merging.plugins.progress import Silent
from merging.plugins.task import Split, Task
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.running.plan import plan
from merging.running.run import merge as run
from merging.storage.pool import ModelPool
from merging.strategies.greedy import Greedy
from merging.testing import tiny_pool, tiny_problem
from merging.testing.fixtures import tiny_task
from tests.conftest import Merge
from tests.data.test_data import write
from tests.data.test_decoding import encoded
from tests.heard import Heard


def answered(labels: np.ndarray, classes: int, right: float, seed: int) -> np.ndarray:
    """Answers of a model that is right so often, and else guesses."""
    draw = np.random.default_rng(seed)
    return np.where(draw.random(len(labels)) < right, labels, draw.integers(classes, size=len(labels)))


def labels_of(classes: int, count: int = SAMPLES) -> np.ndarray:
    return np.arange(count) % classes


@given(st.integers(3, 25).flatmap(lambda k: st.permutations(range(k))), st.floats(0.75, 1), st.integers(0, 99))
def test_any_order_of_the_classes_is_found(order: list[int], right: float, seed: int) -> None:
    """Class j is answered by output ``order[j]``; what is proposed names the outputs."""
    labels, classes = labels_of(len(order)), len(order)
    answers = np.array(order)[answered(labels, classes, right, seed)]
    found = compared("m", answers, labels, classes)
    moved = sum(order[k] != k for k in range(classes)) / classes
    if moved > 0.6:
        assert found.permuted is not None
        assert found.permuted > found.right / SAMPLES + 0.3
        assert found.order is not None
        assert [found.order[order[k]] for k in range(classes)] == list(range(classes))
    elif moved == 0:
        assert not found.suspicious


@given(st.integers(2, 1200), st.integers(20, 400), st.integers(0, 99))
def test_a_guesser_is_never_promised_an_order(classes: int, count: int, seed: int) -> None:
    """However many classes for how few samples: some order always fits what was seen."""
    labels = labels_of(classes, count)
    answers = np.random.default_rng([seed, classes, count]).integers(classes, size=count)
    assert compared("m", answers, labels, classes).permuted is None


@pytest.mark.parametrize("classes", [2, 3, 10, 100, 1000])
def test_a_model_that_is_right_is_not_spoken_of(classes: int) -> None:
    for seed in range(5):
        labels = labels_of(classes)
        assert not compared("m", answered(labels, classes, 0.5, seed), labels, classes).suspicious


def test_two_classes_that_are_swapped() -> None:
    labels = labels_of(2, 40)
    found = compared("m", 1 - labels, labels, 2)
    assert (found.right, found.order, found.permuted) == (0, (1, 0), 1.0)
    assert found.warning(["cat", "dog"]) == (
        "m is right on 0 of 40 held-out samples (0%), no better than a guess (50%, p = 1); with the classes in the "
        "order dog, cat it would be right on 100%: see [task] classes (where labels are numbers, list "
        "the present order as classes in the sets' tables)"
    )


@pytest.mark.parametrize("counts", [(490, 10), (900, 40), (1000, 5, 5), (1000, 3, 3, 3, 3, 3, 3)])
def test_a_model_that_finds_rare_classes_is_not_spoken_of(counts: tuple[int, ...]) -> None:
    """It is right less often than one that always answers the commonest class, which is spoken of."""
    labels = np.repeat(np.arange(len(counts)), counts)
    spoken = 0
    for seed in range(20):
        chosen = drawn(labels, SAMPLES, seed)
        answers = answered(labels, len(counts), 0.85, seed)
        spoken += compared("m", answers[chosen], labels[chosen], len(counts)).suspicious
        assert compared("m", np.zeros(len(chosen), np.int64), labels[chosen], len(counts)).suspicious
    assert spoken <= 1


def test_of_one_class_alone_a_right_model_is_not_spoken_of() -> None:
    assert not compared("m", np.array([3] * 39 + [1]), np.full(40, 3), 10).suspicious
    assert compared("m", np.arange(40) % 10, np.full(40, 3), 10).suspicious


def test_few_right_answers_of_many_classes_have_a_digit() -> None:
    labels = labels_of(1000)
    said = compared("m", np.where(labels < 1, labels, 999 - labels), labels, 1000).warning()
    assert "right on 1 of 256 held-out samples (0.4%), no better than a guess (0" in said


def test_a_class_that_was_not_seen_is_not_placed() -> None:
    labels = labels_of(4)
    found = compared("m", (labels + 1) % 4, labels, 5)
    assert found.permuted == 1.0
    assert found.order is None
    assert "with the classes in another order it would be right on 100%" in found.warning()


def test_answers_that_are_nan_are_wrong() -> None:
    labels = labels_of(3, 30)
    assert compared("m", np.full(30, -1), labels, 3) == Chance(model="m", samples=30, right=0, guess=1 / 3, p=1.0)


@given(st.lists(st.integers(0, 6), min_size=1, max_size=300), st.integers(1, 300), st.integers(0, 9))
def test_the_draw_takes_of_each_class_alike(given_: list[int], count: int, seed: int) -> None:
    labels = np.array(given_)
    places = drawn(labels, count, seed)
    assert len(places) == len(set(places.tolist())) == min(count, len(labels))
    taken, there = np.bincount(labels[places], minlength=7), np.bincount(labels, minlength=7)
    most = taken.max()
    assert all(took == has or took >= most - 1 for took, has in zip(taken, there, strict=True))
    assert np.array_equal(places, drawn(labels, count, seed))


def looked_at(task: Task, pool: ModelPool, objective: object = None, seed: int = 0) -> str | None:
    problem = tiny_problem(pool)
    evaluator = problem.evaluator
    before = torch.get_rng_state(), np.random.get_state()[1].tolist()  # type: ignore[index]
    found = against_chance(evaluator.scorer.live, task, objective or evaluator.objective, evaluator.numerics, seed)
    assert evaluator.ledger.total.evaluations == 0
    assert torch.equal(before[0], torch.get_rng_state())
    assert before[1] == np.random.get_state()[1].tolist()  # type: ignore[index]
    return found


def turned(split: Split, order: tuple[int, ...] = (1, 2, 0)) -> Split:
    return Split.of(split.inputs, torch.tensor(order)[split.labels])


class Whole(WholeModelObjective):
    name = "whole"

    def measure(self, model: nn.Module, split: object) -> float:
        return 0.0


def test_what_is_looked_at(tmp_path: Path) -> None:
    pool, task = tiny_pool(tmp_path, 2), tiny_task()
    wrong = replace(task, held_out=turned(task.held_out))
    assert looked_at(task, pool) is None
    found = looked_at(wrong, pool)
    assert found is not None
    assert found.startswith("model_0 is right on ")
    assert "with the classes in the order 1, 2, 0 it would be right on" in found
    named = looked_at(replace(wrong, classes=("a", "b", "c")), pool)
    assert named is not None
    assert "with the classes in the order b, c, a it would" in named
    assert looked_at(wrong, pool) == found, "the same at every run"
    draw = torch.Generator().manual_seed(0)
    noise = Split.of(task.held_out.inputs, torch.randint(3, (120,), generator=draw))
    guess = looked_at(replace(task, held_out=noise), pool)
    assert guess is not None
    for word in ("no better than a guess", "order of the model's outputs", "normalisation", "QuickGELU"):
        assert word in guess
    assert "\n" not in guess
    short = looked_at(replace(task, held_out=noise, classes=("a", "b")), pool)
    assert short is not None
    assert short.startswith("2 classes are named, and the model has 3 outputs: ")
    # own classes of a set: two of the three outputs, and here the wrong way round
    of_two = task.held_out.labels < 2
    two = Split.of(task.held_out.inputs[of_two], 1 - task.held_out.labels[of_two], ((0,), (1,)))
    swapped = looked_at(replace(task, held_out=two, classes=("a", "b", "c")), pool)
    assert swapped is not None
    assert "with the classes in the order b, a it would" in swapped
    unnamed = looked_at(replace(task, held_out=two), pool)
    assert unnamed is not None
    assert "with the classes in another order it would" in unnamed
    # nothing is known of these
    assert looked_at(wrong, pool, Whole()) is None
    assert looked_at(wrong, pool, NegativeLogLikelihood()) is None
    targets = Split.of(task.held_out.inputs, task.held_out.labels.double())
    assert looked_at(replace(task, held_out=targets), pool) is None
    few = Split.of(wrong.held_out.inputs[: FEWEST - 1], wrong.held_out.labels[: FEWEST - 1])
    assert looked_at(replace(task, held_out=few), pool) is None
    vectors = Split.of(task.held_out.inputs, nn.functional.one_hot(task.held_out.labels, 3))
    assert looked_at(replace(task, held_out=vectors), pool) is None


def test_a_run_says_it_first_and_computes_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pool = tiny_pool(tmp_path / "pool", 3)
    task = replace(tiny_task(), held_out=turned(tiny_task().held_out))
    news = Heard()
    result = run(pool, Greedy(), task=task, device="cpu", output=tmp_path / "a", progress=news)
    (said,) = (note for note in result.report.notes if "no better than a guess" in note or "in the order" in note)
    assert news.said[0] == f"warning: {said}"
    assert said.partition(" held-out")[0] in (tmp_path / "a/README.md").read_text()
    monkeypatch.setattr("merging.running.execution.doubt", lambda *given: None)
    run(pool, Greedy(), task=task, device="cpu", output=tmp_path / "b")

    def journal(name: str) -> list[dict[str, object]]:
        lines = map(json.loads, (tmp_path / name / "events.jsonl").read_text().splitlines())
        return [
            {key: value for key, value in line.items() if "seconds" not in key and key != "time"}
            | ({"outcome": {**line["outcome"], "seconds": 0}} if "outcome" in line else {})
            for line in lines
        ]

    assert journal("a") == journal("b")
    for file in ("recipe.json", "model.safetensors"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_resumed_run_says_it_again(tmp_path: Path) -> None:
    pool = tiny_pool(tmp_path / "pool", 3)
    task = replace(tiny_task(), held_out=turned(tiny_task().held_out))
    whole = run(pool, Greedy(), task=task, device="cpu", output=tmp_path / "whole")
    asked: list[int] = []

    def stop() -> bool:
        asked.append(1)
        return len(asked) > 8

    ended = run(pool, Greedy(), task=task, device="cpu", output=tmp_path / "a", should_stop=stop)
    assert ended.report.status == "interrupted"
    news = Heard()
    resumed = run(pool, Greedy(), task=task, device="cpu", output=tmp_path / "a", resume=True, progress=news)
    assert resumed.report.content_hash == whole.report.content_hash
    assert news.said[0] == f"warning: {whole.report.notes[0]}"
    assert resumed.report.notes[0] == whole.report.notes[0]
    assert resumed.report.evaluations == whole.report.evaluations


BRIGHT = """
import torch
from torch import nn
class Bright(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 7)
    def forward(self, x):
        return self.fc(x.mean((1, 2, 3))[:, None])
"""
SHADES = ("black", "coal", "dark", "grey", "light", "pale", "white")


@pytest.fixture
def bright(own_cache: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pictures of seven shades, and two models that tell them apart without a mistake."""
    monkeypatch.syspath_prepend(str(tmp_path))
    (tmp_path / "bright_shades.py").write_text(BRIGHT)
    for number, name in enumerate(SHADES):
        for part in range(6):
            value = int((number + 0.5) / 7 * 255) + part - 3
            write(tmp_path / f"photos/{name}/{part}.png", encoded(Image.new("RGB", (4, 4), (value,) * 3)))
    centres = (torch.arange(7) + 0.5) / 7
    state = {"fc.weight": 200 * centres[:, None], "fc.bias": -100 * centres**2}
    for number in range(2):
        torch.save({name: tensor * (1 + number / 1000) for name, tensor in state.items()}, tmp_path / f"m{number}.pt")
    return tmp_path


def written(folder: Path, classes: tuple[str, ...] = SHADES, mean: float = 0, std: float = 1) -> Path:
    (folder / "merge.toml").write_text(
        f'[task]\nmodel = "python:bright_shades:Bright"\nheld_out = "photos"\nclasses = {list(classes)}\n'
        f"mean = {[float(mean)] * 3}\nstd = {[float(std)] * 3}\n"
        '[pool]\nmodels = ["m*.pt"]\n[run]\nstrategy = "greedy"\n'
    )
    return folder


def says(merge: Merge) -> list[str]:
    """What check and run say of chance."""
    found = []
    for command in (["check"], ["run", "--overwrite", "--output", "out"]):
        ran = merge(*command, "--trust-code")
        assert ran.code == 0, ran.err
        found.append(" ".join((ran.out + ran.err).split()))
    notes = json.loads(Path("out/report.json").read_text())["notes"]
    assert ("is right on" in found[1]) == any("is right on" in note for note in notes)
    return found


def test_classes_in_reverse_order_are_said_by_check_and_run(bright: Path, merge: Merge) -> None:
    written(bright, SHADES[::-1])
    order = ", ".join(SHADES)
    for text in says(merge):
        assert (
            "warning: m0 is right on 6 of 42 held-out samples (14%), no better than a guess (14%, p = 0.57); with the "
            f"classes in the order {order} it would be right on 100%: see [task] classes (where labels are "
            "numbers, list the present order as classes in the sets' tables)"
        ) in text


def test_a_class_without_a_folder_is_said_by_check_run_and_evaluate(bright: Path, merge: Merge) -> None:
    """Names come from the folders: without "light", "pale" and "white" are one output off, and most are still right."""
    shutil.rmtree(bright / "photos/light")
    written(bright, ())
    ran = merge("evaluate", "m0.pt", "--trust-code")
    assert "66.67 %" in ran.out
    for text in (*says(merge), " ".join(ran.err.split())):
        assert (
            "warning: 6 classes are named, and the model has 7 outputs: where one has no samples, the labels of those "
            "after it are wrong; list all of them, in the order of the outputs, as [task] classes"
        ) in text


def test_another_normalisation_is_said_by_check_and_run(bright: Path, merge: Merge) -> None:
    for mean, std in ((0.5 * 255, 0.25 * 255), (0, 1 / 255)):
        written(bright, mean=mean, std=std)
        for text in says(merge):
            assert "no better than a guess (14%" in text
            assert "is the normalisation (mean, std) the model's" in text
        shutil.rmtree("out")


def test_nothing_is_said_where_all_is_right(bright: Path, merge: Merge) -> None:
    written(bright)
    for text in says(merge):
        assert "is right on" not in text
        assert "a guess" not in text.replace("looking whether m0 is better than a guess", "")


def test_the_digits_are_not_spoken_of() -> None:
    task = merging.load_task("digits")
    assert task.pool is not None
    made = plan(task.pool(), Greedy(), task=task, device="cpu")
    assert made.live is not None
    assert made.numerics is not None
    with made.numerics.applied():
        assert against_chance(made.live, task, made.objective, made.numerics, 0, Silent()) is None
