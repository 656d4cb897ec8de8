"""Objectives on documents: outputs are log-likelihoods, labels the numbers of their tokens."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from merging.errors import OptionError, TaskError
from merging.evaluation.comparing import Comparer
from merging.evaluation.usual import usual_objective
from merging.objectives.accuracy import Accuracy
from merging.objectives.mse import MeanSquaredError
from merging.objectives.nll import NegativeLogLikelihood
from merging.plugins.objective import Objective, check_labels, terms_of
from merging.plugins.sequences import Sequences
from merging.plugins.task import HELD_OUT, Split, Task
from merging.values.outcome import Outcome

COUNTS = np.array([1, 2, 3, 4] * 30)


def documents() -> Task:
    starts = np.concatenate([[0], np.cumsum(COUNTS + 1)])
    tokens = np.full(starts[-1], ~1, dtype=np.int32)
    tokens[starts[:-1]] = 0
    made = Sequences(
        tokens=tokens,
        starts=starts,
        weights=np.ones(len(COUNTS), dtype=np.float32),
        slots=np.zeros(len(COUNTS), dtype=np.int16),
        samples=np.arange(len(COUNTS) + 1),
    )
    split = Split.of(made, torch.from_numpy(made.scored.astype(np.float32)))
    return Task(name="texts", build=lambda pool: torch.nn.Linear(1, 1), held_out=split)


def outcome(likelihoods: np.ndarray) -> Outcome:
    labels = documents().held_out.labels
    terms = terms_of(NegativeLogLikelihood(), torch.from_numpy(likelihoods)[:, None].float(), labels)
    score = NegativeLogLikelihood().score(terms, labels)
    return Outcome(score=score, samples=len(labels), correct=None, terms=terms.numpy())


def test_the_score_is_of_all_tokens_alike() -> None:
    found = outcome(-(COUNTS.astype(float) ** 2))
    assert found.score == pytest.approx(-(COUNTS**2).sum() / COUNTS.sum(), abs=1e-12)


def test_documents_are_compared_in_pairs() -> None:
    draw = np.random.default_rng(0)
    noise = draw.normal(size=len(COUNTS))
    better, worse = (outcome((-3.0 + step) * COUNTS + noise) for step in (0.05, 0.0))
    comparer = Comparer(NegativeLogLikelihood(), documents())
    found = comparer.compare([HELD_OUT], {HELD_OUT: [worse]}, {HELD_OUT: [better]})
    assert not isinstance(found, str)
    assert found.difference == pytest.approx(0.05)
    low, high = found.interval
    assert 0.049 < low <= high < 0.051, "the noise is the same in both"


def test_what_nobody_names_follows_from_the_data() -> None:
    assert isinstance(usual_objective(documents()), NegativeLogLikelihood)
    assert isinstance(usual_objective(None), Accuracy)


@pytest.mark.parametrize("objective", [Accuracy(), MeanSquaredError()])
def test_objectives_of_classes_and_numbers_are_refused(objective: Objective) -> None:
    with pytest.raises(TaskError, match="are texts; take one for their tokens, such as `objective=nll`"):
        check_labels(objective, documents(), (HELD_OUT,))


def test_texts_have_no_temperature() -> None:
    with pytest.raises(OptionError, match="is for classes"):
        NegativeLogLikelihood(temperature=2.0).terms(torch.zeros(2, 1), torch.ones(2))
