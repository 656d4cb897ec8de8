"""The loss that gradients are taken of: cross-entropy of classes; of documents that of their tokens."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from merging.forward.device import sent
from merging.plugins.sequences import HEADER


def whole_of(labels: Tensor) -> Tensor | int:
    """The number that a batch's loss is a mean over: its samples, or the scored tokens of its documents.

    Args:
        labels: int64 classes, or of documents the number of tokens, floating-point; ``(N,)``.
    """
    return labels.sum() if labels.is_floating_point() else len(labels)


def share_of_loss(outputs: Tensor, labels: Tensor, whole: Tensor | int, scale: Tensor | None = None) -> Tensor:
    """The part of a batch's mean loss that some of its samples make up.

    Args:
        outputs: logits ``(n, K)``; of documents the sums of their tokens' log-likelihoods, ``(n, 1)``.
        labels: the labels of these samples, as :func:`whole_of` takes them.
        whole: what that gives for the batch.
        scale: the inverse temperature of logits; likelihoods of documents have none.
    """
    if labels.is_floating_point():
        return -outputs[:, 0].float().sum() / whole
    logits = outputs.float() if scale is None else outputs.float() * scale
    return cross_entropy(logits, labels) * (len(labels) / whole)


def parts(inputs: Tensor, labels: Tensor, tokens: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Parts of a batch of sequences that hold so many tokens at the most, padding and all; one sample at the least.

    Samples are taken by their longest row, so that little of a part is padding.

    Args:
        inputs: the batch, as :meth:`merging.plugins.sequences.Sequences.collated` gives it.
        labels: the labels of its samples.
        tokens: how many.
    """
    batch = inputs.cpu()
    samples, width = batch[:, 0].long(), batch.shape[1] - HEADER
    held = (batch[:, HEADER:] < 0) * torch.arange(1, width + 1)
    rows = held.amax(1).clamp(min=2)  # up to the last scored token: what follows says nothing
    counts = samples.bincount(minlength=len(labels))
    longest = torch.zeros(len(labels), dtype=torch.long).scatter_reduce(0, samples, rows, "amax")
    order = torch.argsort(longest, stable=True).tolist()
    begins = torch.cat([torch.zeros(1, dtype=torch.long), counts.cumsum(0)])
    chosen, taken = list[int](), 0
    for place, sample in enumerate(order):
        chosen.append(sample)
        taken += int(counts[sample])
        following = order[place + 1] if place + 1 < len(order) else None
        if following is not None and (taken + int(counts[following])) * int(longest[following]) <= tokens:
            continue
        here = torch.cat([torch.arange(int(begins[each]), int(begins[each + 1])) for each in chosen])
        part = batch[here, : HEADER + int(longest[sample])].clone()
        part[:, 0] = torch.repeat_interleave(torch.arange(len(chosen)), counts[chosen])
        yield sent(part, inputs.device), labels[torch.tensor(chosen, device=labels.device)]
        chosen, taken = [], 0
