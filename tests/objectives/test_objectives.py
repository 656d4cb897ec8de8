"""The built-in objectives against slow float64 references."""

from __future__ import annotations

import numpy as np
import pytest
from torch import Tensor

from merging.objectives.accuracy import Accuracy
from merging.objectives.nll import NegativeLogLikelihood
from merging.testing import ObjectiveContract


class TestAccuracy(ObjectiveContract):
    @pytest.fixture
    def plugin(self) -> Accuracy:
        return Accuracy()

    def reference(self, logits: Tensor, labels: Tensor) -> float:
        rows = logits.tolist()
        right = [
            max(range(len(row)), key=row.__getitem__) == label for row, label in zip(rows, labels.tolist(), strict=True)
        ]
        return sum(right) / len(right)


class TestNegativeLogLikelihood(ObjectiveContract):
    @pytest.fixture(params=[1.0, 0.25, 3.0])
    def plugin(self, request: pytest.FixtureRequest) -> NegativeLogLikelihood:
        self.temperature = request.param
        return NegativeLogLikelihood(temperature=request.param)

    def reference(self, logits: Tensor, labels: Tensor) -> float:
        scaled = logits.double().numpy() / self.temperature
        likelihood = np.exp(scaled) / np.exp(scaled).sum(axis=1, keepdims=True)
        return float(np.mean([np.log(row[label]) for row, label in zip(likelihood, labels.tolist(), strict=True)]))
