"""The shipped measures against the libraries that define them: scikit-learn, and Guo et al.'s bins in float64."""

from __future__ import annotations

import itertools
import math
import warnings
from typing import ClassVar

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from sklearn.metrics import balanced_accuracy_score, brier_score_loss, f1_score, mean_squared_error
from torch import Tensor

from merging.errors import OptionError, TaskError
from merging.objectives.balanced_accuracy import BalancedAccuracy
from merging.objectives.brier import BrierScore
from merging.objectives.ece import CalibrationError
from merging.objectives.macro_f1 import MacroF1
from merging.objectives.mse import MeanSquaredError
from merging.objectives.worst_group import WorstGroup
from merging.plugins.objective import Objective
from merging.testing import ObjectiveContract

Case = tuple[Tensor, Tensor]


def scored(objective: Objective, logits: Tensor, labels: Tensor, groups: Tensor | None = None) -> float:
    return objective.score(objective.terms(logits, labels), labels, groups)


def softmax(logits: Tensor) -> np.ndarray:
    powers = np.exp(logits.double().numpy() - logits.double().numpy().max(axis=1, keepdims=True))
    return np.asarray(powers / powers.sum(axis=1, keepdims=True))


def f1(logits: Tensor, labels: Tensor) -> float:
    return float(f1_score(labels.numpy(), logits.numpy().argmax(axis=1), average="macro", zero_division=0))


def balanced(logits: Tensor, labels: Tensor) -> float:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # classes that are only predicted
        return float(balanced_accuracy_score(labels.numpy(), logits.numpy().argmax(axis=1)))


def brier(logits: Tensor, labels: Tensor) -> float:
    classes = np.arange(logits.shape[1])
    return -float(brier_score_loss(labels.numpy(), softmax(logits), labels=classes, scale_by_half=False))


def calibration(logits: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Sample by sample and bin by bin, as Guo et al.'s program goes: a bin holds its upper edge, not its lower one."""
    confidences = logits.float().softmax(dim=1).amax(dim=1).double().numpy()
    right = logits.numpy().argmax(axis=1) == labels.numpy()
    edges, error = np.linspace(0, 1, bins + 1, dtype=np.float32).astype(np.float64), 0.0
    for low, high in itertools.pairwise(edges):
        held = (confidences > low) & (confidences <= high)
        if held.any():
            error += held.mean() * abs(right[held].mean() - confidences[held].mean())
    return -error


def worst(logits: Tensor, labels: Tensor) -> float:
    right, groups = logits.numpy().argmax(axis=1) == labels.numpy(), np.arange(len(labels)) % 3
    return min(float(right[groups == group].mean()) for group in np.unique(groups))


REFERENCES = {
    MacroF1(): f1,
    BalancedAccuracy(): balanced,
    BrierScore(): brier,
    CalibrationError(): calibration,
    WorstGroup(): worst,
}


class TestMacroF1(ObjectiveContract):
    @pytest.fixture
    def plugin(self) -> MacroF1:
        return MacroF1()

    def reference(self, logits: Tensor, labels: Tensor) -> float:
        return f1(logits, labels)


class TestBalancedAccuracy(ObjectiveContract):
    @pytest.fixture
    def plugin(self) -> BalancedAccuracy:
        return BalancedAccuracy()

    def reference(self, logits: Tensor, labels: Tensor) -> float:
        return balanced(logits, labels)


class TestBrierScore(ObjectiveContract):
    @pytest.fixture
    def plugin(self) -> BrierScore:
        return BrierScore()

    def reference(self, logits: Tensor, labels: Tensor) -> float:
        return brier(logits, labels)


class TestCalibrationError(ObjectiveContract):
    @pytest.fixture(params=[15, 1, 4])
    def plugin(self, request: pytest.FixtureRequest) -> CalibrationError:
        self.bins = request.param
        return CalibrationError(bins=request.param)

    def reference(self, logits: Tensor, labels: Tensor) -> float:
        return calibration(logits, labels, self.bins)


class TestWorstGroup(ObjectiveContract):
    @pytest.fixture
    def plugin(self) -> WorstGroup:
        return WorstGroup()

    def reference(self, logits: Tensor, labels: Tensor) -> float:
        return worst(logits, labels)


class TestWorstGroupByClass(ObjectiveContract):
    @pytest.fixture
    def plugin(self) -> WorstGroup:
        return WorstGroup(by_class=True)

    def reference(self, logits: Tensor, labels: Tensor) -> float:
        right, groups = logits.argmax(1) == labels, torch.arange(len(labels)) % 3
        shares = [
            right[(groups == group) & (labels == label)].double().mean() for group in range(3) for label in range(5)
        ]
        return float(min(share for share in shares if not share.isnan()))


class TestMeanSquaredError(ObjectiveContract):
    @pytest.fixture
    def plugin(self) -> MeanSquaredError:
        return MeanSquaredError()

    def reference(self, logits: Tensor, labels: Tensor) -> float:
        return -float(mean_squared_error(labels.double().numpy(), logits.double().numpy()))


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Logits of a few values, so that there are ties; labels of some of the classes, often of one, often uneven."""
    classes, samples = draw(st.integers(2, 6)), draw(st.integers(1, 40))
    generator = torch.Generator().manual_seed(draw(st.integers(0, 10_000)))
    logits = torch.randint(-3, 4, (samples, classes), generator=generator).float() * draw(
        st.sampled_from([0.0, 1.0, 9.0])
    )
    there = draw(st.lists(st.integers(0, classes - 1), min_size=1, max_size=classes, unique=True))
    weights = torch.tensor([4.0**-k for k in range(len(there))]) if draw(st.booleans()) else torch.ones(len(there))
    labels = torch.tensor(there)[torch.multinomial(weights, samples, replacement=True, generator=generator)]
    return logits, labels


@pytest.mark.parametrize("objective", REFERENCES, ids=lambda o: o.name)
@settings(max_examples=60, deadline=None)
@given(case=cases())
@example(case=(torch.zeros(1, 2), torch.tensor([1])))  # a tie, which the first class wins
@example(case=(torch.eye(4)[:2], torch.tensor([3, 3])))  # one class, never predicted
def test_any_data_score_as_the_library_says(objective: Objective, case: Case) -> None:
    logits, labels = case
    found = scored(objective, logits, labels, torch.arange(len(labels)) % 3)
    assert found == pytest.approx(REFERENCES[objective](logits, labels), rel=1e-5, abs=1e-7)


@settings(max_examples=60, deadline=None)
@given(case=cases(), seed=st.integers(0, 1000))
def test_samples_without_an_answer_are_wrong_or_have_no_score(case: Case, seed: int) -> None:
    """Counts of right answers go on without them; of probabilities there is no mean any more."""
    logits, labels = case
    blank = torch.rand(len(labels), generator=torch.Generator().manual_seed(seed)) < 0.3
    given_up = logits.masked_fill(blank[:, None], math.nan)
    groups = torch.arange(len(labels)) % 3
    right = (logits.argmax(1) == labels) & ~blank
    shares = [right[labels == label].double().mean() for label in labels.unique()]
    assert scored(BalancedAccuracy(), given_up, labels) == pytest.approx(float(np.mean([float(s) for s in shares])))
    lowest = min(float(right[groups == group].double().mean()) for group in groups.unique())
    assert scored(WorstGroup(), given_up, labels, groups) == pytest.approx(lowest)
    predicted = logits.argmax(1).masked_fill(blank, -1)
    known = sorted({*labels.tolist(), *predicted[~blank].tolist()})
    wanted = f1_score(labels.numpy(), predicted.numpy(), labels=known, average="macro", zero_division=0)
    assert scored(MacroF1(), given_up, labels) == pytest.approx(float(wanted))
    for objective in (BrierScore(), CalibrationError()):
        assert math.isnan(scored(objective, given_up, labels)) == bool(blank.any())


@settings(max_examples=60, deadline=None)
@given(
    samples=st.integers(1, 30),
    width=st.integers(1, 4),
    flat=st.booleans(),
    seed=st.integers(0, 1000),
    kind=st.sampled_from(["float32", "float64", "int64", "float16"]),
)
def test_squared_errors_of_numbers_of_any_kind(samples: int, width: int, kind: str, flat: bool, seed: int) -> None:
    width = 1 if flat else width
    generator = torch.Generator().manual_seed(seed)
    found = torch.randn(samples, width, generator=generator)
    wanted = (5 * torch.randn(samples, width, generator=generator)).to(getattr(torch, kind))
    score = scored(MeanSquaredError(), found, wanted[:, 0] if flat else wanted)
    assert score == pytest.approx(-mean_squared_error(wanted.double().numpy(), found.double().numpy()), rel=1e-5)


def test_numbers_and_outputs_must_be_as_many() -> None:
    with pytest.raises(TaskError, match=r"the model gives 7 numbers a sample, the labels have 1; for classes take nll"):
        MeanSquaredError().terms(torch.zeros(3, 7), torch.zeros(3, dtype=torch.int64))


def test_what_reduce_takes_is_read_from_its_parameters() -> None:
    class Plain(Objective):
        def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
            return logits[:, 0]

        def reduce(self, terms: Tensor) -> float:
            return float(terms.sum())

    class Both(Objective):
        def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
            return logits[:, 0]

        def reduce(self, terms: Tensor, groups: Tensor, labels: Tensor) -> float:  # in any order: they go by name
            return float(terms.sum() + 10 * groups.sum() + 100 * labels.sum())

    class Inherits(Both):
        name: ClassVar[str] = "inherits"

    assert (Plain.asks, set(Both.asks), set(Inherits.asks)) == ((), {"labels", "groups"}, {"labels", "groups"})
    ones = torch.ones(2)
    assert Plain().score(ones, ones) == 2
    assert Inherits().score(ones, ones, ones) == 222
    with pytest.raises(TaskError, match="'inherits' scores groups, and the data name none"):
        Inherits().score(ones, ones)
    with pytest.raises(
        OptionError, match="reduce of objective Wrong asks for 'weights'; it takes terms, and after them"
    ):

        class Wrong(Objective):
            def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
                return logits[:, 0]

            def reduce(self, terms: Tensor, weights: Tensor) -> float:
                return float(terms.sum() + weights.sum())


def test_an_objective_says_what_it_takes() -> None:
    with pytest.raises(
        OptionError,
        match="objective Wrong takes 'class'; any, classes, numbers, tokens, classes or tokens are possible",
    ):

        class Wrong(Objective):
            takes: ClassVar[str] = "class"

            def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
                return logits[:, 0]

            def reduce(self, terms: Tensor) -> float:
                return float(terms.sum())
