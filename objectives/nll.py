"""Mean log-likelihood of labels or tokens: smooth where accuracy is a staircase."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from merging.errors import OptionError
from merging.plugins.objective import Objective
from merging.plugins.options import option
from merging.plugins.registry import objectives
from merging.values.units import TOKENS

if TYPE_CHECKING:
    from torch import Tensor

    from merging.plugins.task import Split


@objectives.register("nll")
@dataclass(frozen=True)
class NegativeLogLikelihood(Objective):
    """Minus the mean cross-entropy (natural logarithm), so that larger is better; never above 0.

    Of texts it is that of their tokens, and exp(−score) is the perplexity.
    """

    summary: ClassVar[str] = "minus the mean cross-entropy of the labels, or of the tokens of texts"
    paper: ClassVar[str] = "with the temperature of Guo et al. 2017, https://arxiv.org/abs/1706.04599"
    formula: ClassVar[str] = (
        "score = (1/N) · Σ_s log softmax(z_s / T)[y_s], for logits z, labels y and temperature T; of documents "
        "Σ_d log p(d) / Σ_d tokens(d)"
    )
    limits: ClassVar[str] = (
        "Unbounded below: a few confident mistakes outweigh many right answers, and mislabelled samples count much. "
        "Models of different calibration compare fairly only at a temperature that suits them."
    )
    takes: ClassVar[str] = "classes or tokens"

    temperature: float = option(1.0, "logits are divided by it before the softmax", low=1e-6)

    def check(self, split: Split, name: str) -> None:
        """Refuses a temperature for documents, too."""
        super().check(split, name)
        if split.counts_tokens and self.temperature != 1:
            raise OptionError(f"{self.called('temperature')} is for classes; the samples of {name} are texts")

    def measure_on(self, *, tokens: bool) -> str:
        """Says that of texts the perplexity is read."""
        return TOKENS if tokens else self.name

    def terms(self, logits: Tensor, labels: Tensor) -> Tensor:
        """Minus the cross-entropy of each sample; of documents ``(N, 2)``: log-likelihoods, and numbers of tokens."""
        import torch
        from torch.nn import functional as F

        if labels.is_floating_point():
            if self.temperature != 1:
                raise OptionError("temperature is for classes; the log-likelihood of texts has none")
            return torch.stack([logits[:, 0].double(), labels.double()], dim=1)
        return -F.cross_entropy(logits.float() / self.temperature, labels, reduction="none")

    def reduce(self, terms: Tensor) -> float:
        """The mean, summed in float64 in the split's order; of documents over all of their tokens."""
        if terms.ndim == 2:
            likelihood, tokens = terms.double().sum(0).tolist()
            return float(likelihood / tokens)
        return float(terms.double().mean())
