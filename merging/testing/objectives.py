"""What every objective promises."""

from __future__ import annotations

import math
from typing import ClassVar

import pytest
import torch
from torch import Tensor

from merging.forward.device import on_device
from merging.plugins.objective import Objective
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.testing.fixtures import TinyNet, blobs, tiny_numerics
from merging.testing.plugins import PluginContract
from merging.testing.second_device import second_device

SAMPLES, CLASSES = 101, 5


class ObjectiveContract(PluginContract):
    """Contract of an objective. Supply ``plugin``; override ``reference`` with a slow, independent definition."""

    kind: ClassVar[str] = "objective"

    def reference(self, logits: Tensor, labels: Tensor) -> float | None:
        """The score by an independent implementation (float64), or None where there is none.

        Labels are of the kind that the objective takes; the groups are 0, 1, 2 by turns.
        """
        del logits, labels
        return None

    @pytest.fixture
    def objective(self, plugin: Objective | WholeModelObjective) -> Objective:
        """The plug-in, where it works on logits; a whole-model objective has no terms to check."""
        if isinstance(plugin, WholeModelObjective):
            pytest.skip("a whole-model objective: it measures models, not logits")
        return plugin

    def test_terms_have_a_row_a_sample(self, objective: Objective) -> None:
        """Terms have shape ``(N,)`` or ``(N, k)``."""
        terms = objective.terms(*_random(objective))
        assert terms.ndim in (1, 2)
        assert len(terms) == SAMPLES
        assert objective.terms(*(part[:1] for part in _random(objective))).shape == (1, *terms.shape[1:])

    def test_reduce_takes_what_it_asks_for(self, objective: Objective) -> None:
        """``reduce`` takes terms alone, or labels and groups by these names as well, and gives a float."""
        assert set(objective.asks) <= {"labels", "groups"}
        assert isinstance(_score(objective, *_random(objective)), float)

    def test_does_not_depend_on_the_batches(self, objective: Objective) -> None:
        """Terms of batches, joined, reduce to the score of the whole."""
        logits, labels = _random(objective)
        whole = _score(objective, logits, labels)
        for size in (1, 7, 64):
            parts = [objective.terms(x, y) for x, y in zip(logits.split(size), labels.split(size), strict=True)]
            assert objective.score(torch.cat(parts), labels, _groups(SAMPLES)) == pytest.approx(
                whole, rel=1e-6, abs=1e-9
            )

    def test_does_not_depend_on_the_order_of_samples(self, objective: Objective) -> None:
        """Terms, labels and groups that are shuffled alike reduce to the same score."""
        logits, labels = _random(objective)
        order = torch.randperm(SAMPLES, generator=torch.Generator().manual_seed(1))
        shuffled = objective.score(
            objective.terms(logits[order], labels[order]), labels[order], _groups(SAMPLES)[order]
        )
        assert shuffled == pytest.approx(_score(objective, logits, labels), rel=1e-6, abs=1e-9)

    def test_takes_a_single_sample(self, objective: Objective) -> None:
        """A single sample has a finite score."""
        logits, labels = (part[:1] for part in _random(objective))
        assert math.isfinite(_score(objective, logits, labels))

    def test_decomposes_if_it_says_so(self, objective: Objective) -> None:
        """A decomposable score is the mean of its terms."""
        logits, labels = _random(objective)
        terms = objective.terms(logits, labels)
        if objective.decomposable:
            assert objective.score(terms, labels, _groups(SAMPLES)) == pytest.approx(
                float(terms.double().mean()), rel=1e-12
            )

    def test_larger_is_better(self, objective: Objective) -> None:
        """Right answers score above wrong ones, all right above half right."""
        _, labels = _random(objective)
        if objective.takes == "numbers":
            right, wrong = labels.clone(), labels.roll(1, dims=0) + 1
        else:
            right = 4.0 * torch.nn.functional.one_hot(labels, CLASSES).float()
            wrong = right.roll(1, dims=1)
        score = _score(objective, right, labels)
        assert score > _score(objective, wrong, labels)
        half = torch.where((torch.arange(SAMPLES) % 2 == 0)[:, None], right, wrong)
        assert score > _score(objective, half, labels)

    @pytest.mark.parametrize("scale", [0.0, 1.0, 1e4])
    def test_terms_keep_their_bounds(self, objective: Objective, scale: float) -> None:
        """Terms are finite and within the declared bounds, also for huge logits."""
        logits, labels = _random(objective)
        terms = objective.terms(scale * logits, labels).double()
        assert torch.isfinite(terms).all()
        if objective.bounds is not None:
            low, high = objective.bounds
            assert low < high
            assert low <= float(terms.min())
            assert float(terms.max()) <= high

    def test_takes_half_precision(self, objective: Objective) -> None:
        """Logits may be bfloat16."""
        logits, labels = _random(objective)
        assert len(objective.terms(logits.bfloat16(), labels)) == SAMPLES

    def test_takes_tensors_of_a_device(self, plugin: Objective | WholeModelObjective) -> None:
        """Logits, labels and models may lie on a device; the score is the same."""
        scores = []
        for device in ("cpu", "cuda"):
            with second_device(), torch.no_grad():
                if isinstance(plugin, WholeModelObjective):
                    data, module = blobs(30, seed=5), on_device(_module(), device)
                    batch = on_device(data.tensor, device), on_device(data.labels, device)
                    scores.append(plugin.measure(module, [batch]))
                else:
                    logits, labels = (on_device(part, device) for part in _random(plugin))
                    terms = plugin.terms(logits, labels).cpu()
                    scores.append(plugin.score(terms, labels.cpu(), _groups(SAMPLES)))
        assert scores[1] == pytest.approx(scores[0], rel=1e-6)

    def test_leaves_its_inputs_alone(self, objective: Objective) -> None:
        """Logits, labels and terms are not changed."""
        logits, labels = _random(objective)
        before = logits.clone(), labels.clone()
        terms = objective.terms(logits, labels)
        kept = terms.clone()
        objective.score(terms, labels, _groups(SAMPLES))
        assert torch.equal(terms, kept)
        assert torch.equal(logits, before[0])
        assert torch.equal(labels, before[1])

    def test_agrees_with_its_reference(self, objective: Objective) -> None:
        """The score is that of an independent implementation, where one is given."""
        for seed in range(3):
            logits, labels = _random(objective, seed)
            wanted = self.reference(logits, labels)
            if wanted is not None:
                assert _score(objective, logits, labels) == pytest.approx(wanted, rel=1e-6)

    def test_measures_whole_models(self, plugin: Objective | WholeModelObjective) -> None:
        """A whole-model objective gives a finite score."""
        if not isinstance(plugin, WholeModelObjective):
            return
        data = blobs(60, seed=5)
        with tiny_numerics().applied(), torch.no_grad():
            score = plugin.measure(TinyNet().eval(), [(data.tensor[:30], data.labels[:30])])
        assert math.isfinite(score)


def _module() -> TinyNet:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return TinyNet().eval()


def _random(objective: Objective, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Outputs and labels of the kind that it takes: classes, or as many numbers as there are outputs."""
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(SAMPLES, CLASSES, generator=generator)
    if objective.takes == "numbers":
        return logits, torch.randn(SAMPLES, CLASSES, generator=generator)
    return logits, torch.randint(CLASSES, (SAMPLES,), generator=generator)


def _groups(samples: int) -> Tensor:
    """Three groups, by turns."""
    return torch.arange(samples) % 3


def _score(objective: Objective, logits: Tensor, labels: Tensor) -> float:
    return objective.score(objective.terms(logits, labels), labels, _groups(len(labels)))
