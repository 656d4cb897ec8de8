"""The log-likelihood of the labels, each class counting the same."""

from dataclasses import dataclass

import merging
import torch
from merging.plugins.registry import objectives


@objectives.register("balanced-nll")
@dataclass(frozen=True)
class BalancedNLL(merging.Objective):
    """The mean over the classes of their samples' mean log-likelihood."""

    summary = "mean of the classes' log-likelihoods"
    takes = "classes"
    decomposable = False

    def terms(self, logits, labels):
        return -torch.nn.functional.cross_entropy(logits.float(), labels, reduction="none")

    def reduce(self, terms, labels):
        classes = [terms[labels == label].double().mean() for label in labels.unique()]
        return float(torch.stack(classes).mean())
