"""Weighted sums of objectives, over named parts of documents and questions, or of pictures."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
import torch
from torch import Tensor

import merging
from merging.errors import MergingError, TaskError
from merging.evaluation.answers import Answers
from merging.evaluation.comparing import Comparer
from merging.objectives.accuracy import Accuracy
from merging.objectives.nll import NegativeLogLikelihood
from merging.objectives.weighted import WeightedSum
from merging.plugins.naming import meant
from merging.plugins.objective import check_labels
from merging.plugins.registry import objectives
from merging.plugins.sequences import ABSENT, Sequences
from merging.plugins.task import HELD_OUT, Split, Task


def texts(count: int, outputs: int, rows: int) -> Split:
    """So many samples with as many rows each; documents where there is one output."""
    lengths = np.arange(count * rows) % 5 + 2
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = np.full(starts[-1], ~1, dtype=np.int32)
    tokens[starts[:-1]] = 0
    made = Sequences(
        tokens=tokens,
        starts=starts,
        weights=np.ones(count * rows, dtype=np.float32),
        slots=(np.arange(count * rows) % outputs).astype(np.int16),
        samples=np.arange(count + 1) * rows,
        outputs=outputs,
    )
    scored = torch.from_numpy(made.scored.astype(np.float32))
    return Split.of(made, scored if outputs == 1 else torch.arange(count) % outputs)


def mixed() -> Task:
    parts = {"math": texts(40, 1, 1), "code": texts(30, 1, 2), "qa": texts(50, 3, 3)}
    return Task(name="texts", build=torch.nn.Identity, held_out=Split.joined(parts), tests={"other": texts(25, 1, 1)})


def answers(split: Split, seed: int = 0) -> Tensor:
    """What a model might answer: documents in the first output alone."""
    made = -torch.rand(len(split), split.sequences.outputs, generator=torch.Generator().manual_seed(seed)) * 5 - 1
    if split.labels.ndim == 2:
        made[split.labels[:, 0] < 0, 1:] = ABSENT
    return made


def score(objective: WeightedSum, task: Task, name: str, batch: int, seed: int = 0) -> float:
    split = task.split(name)
    found = Answers(objective, task, name, record=True)
    for outputs, labels in zip(answers(split, seed).split(batch), split.labels.split(batch), strict=True):
        found.add(outputs, labels)
    return found.outcome().score


def part(split: Split, name: str) -> Tensor:
    assert split.groups is not None
    return split.groups == split.group_names.index(name)


SUM = "0.5*math:nll + 0.3*code:nll + 0.2*qa:accuracy"


def test_each_term_scores_its_part_by_its_objective() -> None:
    task = mixed()
    split = task.held_out
    outputs, labels = answers(split), split.labels
    own = []
    for name in ("math", "code"):
        places = part(split, name)
        own.append(float(outputs[places, 0].double().sum() / labels[places, 1].double().sum()))
    places = part(split, "qa")
    own.append(float((outputs[places].argmax(1) == labels[places, 0]).double().mean()))
    wanted = 0.5 * own[0] + 0.3 * own[1] + 0.2 * own[2]
    found = [score(WeightedSum(SUM), task, HELD_OUT, batch) for batch in (7, 1, 120)]
    assert found[0] == pytest.approx(wanted, abs=1e-12)
    assert len(set(found)) == 1, "batches decide no bit"


def test_a_set_without_the_parts_is_scored_by_the_terms_that_fit() -> None:
    task = mixed()
    split = task.split("other")
    alone = float(answers(split)[:, 0].double().sum() / split.labels.double().sum())
    assert score(WeightedSum(SUM), task, "other", 8) == pytest.approx(alone, abs=1e-12)


def test_details_name_a_part_only_where_the_set_has_it() -> None:
    task, found = mixed(), WeightedSum(sum="0.5*math:nll + 0.3*code:nll + 0.2*code:nll")
    told = {}
    for name in (HELD_OUT, "other"):
        split = task.split(name)
        told[name] = found.details(found.terms(answers(split), split.labels), split)
    assert [named for named, _, _ in told[HELD_OUT]] == ["math:nll", "code:nll"]
    ((named, _, value),) = told["other"]
    assert named == "nll"
    assert value == pytest.approx(score(found, task, "other", 25))


def test_of_classes_it_is_the_sum_of_scores_by_groups() -> None:
    labels = torch.arange(60) % 4
    groups = ["sea" if number % 3 else "land" for number in range(60)]
    split = Split.of(torch.zeros(60, 2), labels, groups=groups)
    task = Task(name="pictures", build=torch.nn.Identity, held_out=split)
    logits = torch.randn(60, 4, generator=torch.Generator().manual_seed(1))
    land = part(split, "land")
    nll = NegativeLogLikelihood(temperature=2.0)
    wanted = 2 * nll.score(nll.terms(logits[land], labels[land]), labels[land])
    wanted += Accuracy().score(Accuracy().terms(logits, labels), labels)
    made = Answers(meant(objectives, "2*land:nll:temperature=2 + 1*accuracy"), task, HELD_OUT)
    made.add(logits, labels)
    assert made.outcome().score == pytest.approx(wanted, abs=1e-12)


def test_models_are_compared_in_pairs() -> None:
    task, objective = mixed(), WeightedSum(SUM)
    seen = []
    for step in (0.0, 0.05):
        made = Answers(objective, task, HELD_OUT, record=True)
        outputs = answers(task.held_out)
        documents = task.held_out.labels[:, 0] < 0
        outputs[documents, 0] += step * task.held_out.labels[documents, 1]
        made.add(outputs, task.held_out.labels)
        seen.append({HELD_OUT: [made.outcome()]})
    found = Comparer(objective, task).compare([HELD_OUT], *seen)
    assert not isinstance(found, str)
    assert found.difference == pytest.approx(0.05 * 0.8, abs=1e-6)
    low, high = found.interval
    assert 0.039 < low <= high < 0.041, "the parts' samples are the same in both"


def test_what_is_written_is_its_name() -> None:
    found = meant(objectives, "1e-1*math:nll+ .5*nll:temperature=2  +2*qa:accuracy")
    assert found.name == "0.1*math:nll + 0.5*nll:temperature=2 + 2*qa:accuracy"
    assert found.options() == {"sum": found.name}
    again = pickle.loads(pickle.dumps(found))  # noqa: S301 - as workers get it
    assert again == found
    assert again.name == found.name
    assert meant(objectives, found.name) == found


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("0.5*", "'0.5\\*' is no term of a weighted sum; write WEIGHT"),
        ("x*nll", "weight 'x' of 'nll' is no number"),
        ("0.5*math:nul", "unknown objective 'nul'; did you mean 'nll'"),
        ("-1*nll", "must be a finite number above 0"),
        ("0.5*nll + accuracy", "'nll \\+ accuracy' is no objective of a weighted sum"),
        ("0.5*nll + x*accuracy", "weight 'x' of 'accuracy' is no number"),
        ("1*g:worst-group", "scores groups, and 'g' is one of them"),
        ("1*weighted-sum", "is a sum already"),
        ("1*nll:temp=2", "unknown option of 'nll' 'temp'"),
    ],
)
def test_what_is_no_sum_is_said_in_one_line(text: str, said: str) -> None:
    with pytest.raises(MergingError, match=said) as caught:
        meant(objectives, text)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 300


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("1*maths:nll", "unknown part of held-out: 'maths'; did you mean 'math'"),
        ("1*nll", "names no part of held-out, which has documents and questions; name one"),
        ("1*math:accuracy", "objective 'accuracy' does not score documents, which part 'math' of held-out has"),
        ("1*math:mse", "scores numbers, but the samples of held-out are texts"),
        ("1*qa:accuracy", "no term of '1\\*qa:accuracy' scores the samples of other"),
    ],
)
def test_sets_that_do_not_fit_are_refused(text: str, said: str) -> None:
    with pytest.raises(MergingError, match=said):
        check_labels(meant(objectives, text), mixed(), (HELD_OUT, "other"))


def test_of_several_kinds_no_other_objective_is_one() -> None:
    with pytest.raises(TaskError, match="has documents and questions; take a weighted sum over its parts"):
        check_labels(NegativeLogLikelihood(), mixed(), (HELD_OUT,))


def test_it_is_public() -> None:
    assert merging.WeightedSum is WeightedSum
