"""Squared per-sample gradients of the log-likelihood: the diagonal of the Fisher information.

The square of a batch's mean gradient is another thing: gradients must be squared sample by sample.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap
from torch.nn.attention import SDPBackend, sdpa_kernel

from merging.forward.losses import parts

MEMORY = 256 << 20
"""Bytes for the gradients of samples that are computed side by side."""


def squared_gradients(
    module: nn.Module,
    batches: Iterable[Tensor],
    labels: Callable[[Tensor], Tensor],
    names: Iterable[str],
    project: Callable[[Tensor], Tensor] = lambda logits: logits,
) -> dict[str, Tensor]:
    """``Σ_x (∂ log p(y|x) / ∂θ)²``, entry by entry.

    Args:
        module: the model, in evaluation mode, its parameters as they are.
        batches: model inputs.
        labels: logits ``(N, classes)`` → the label of each sample, int64 ``(N,)``.
        names: names of the parameters.
        project: takes the model's logits to those of the data's classes.

    Returns:
        Name → the sum over all samples, of the parameter's shape, float64, on the CPU. Zero for what no logit sees.
    """
    wanted = set(names)
    parameters = {name: p.detach() for name, p in module.named_parameters() if name in wanted}
    rest = {name: p.detach() for name, p in module.named_parameters() if name not in wanted}
    rest |= {name: buffer.detach() for name, buffer in module.named_buffers()}
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    side = max(1, MEMORY // max(1, 4 * sum(p.numel() for p in parameters.values())))

    def likelihood(own: dict[str, Tensor], sample: Tensor, label: Tensor) -> Tensor:
        logits = project(functional_call(module, (own, rest), (sample[None],)))
        chosen: Tensor = logits.float().log_softmax(1)[0].gather(0, label[None])[0]
        return chosen

    together = True
    many = vmap(grad(likelihood), in_dims=(None, 0, 0))
    for inputs in batches:
        with torch.no_grad():
            drawn = labels(project(module(inputs)).float())
        for start in range(0, len(inputs), side):
            part = slice(start, start + side)
            slopes = None
            if side > 1 and together:
                try:
                    with sdpa_kernel(SDPBackend.MATH):  # fused attention cannot be vectorised
                        slopes = many(parameters, inputs[part], drawn[part])
                except torch.OutOfMemoryError:
                    raise
                except RuntimeError:  # operations that cannot be vectorised
                    together = False
            if slopes is not None:
                for name, slope in slopes.items():
                    totals[name] += slope.square().sum(0)
                continue
            for sample, label in zip(inputs[part], drawn[part], strict=True):
                for name, slope in grad(likelihood)(parameters, sample, label).items():
                    totals[name].addcmul_(slope, slope)
    return {name: total.double().cpu() for name, total in totals.items()}


def squared_gradients_of_rows(
    module: nn.Module,
    inputs: Tensor,
    labels: Callable[[Tensor], Tensor],
    names: Iterable[str],
    project: Callable[[Tensor], Tensor] = lambda logits: logits,
) -> dict[str, Tensor]:
    """The same of a batch of sequences: questions, of which each is in several rows, one after the other.

    Args:
        module: the model, in evaluation mode, open to autograd.
        inputs: the batch, as :meth:`merging.plugins.sequences.Sequences.collated` gives it.
        labels: log-likelihoods of the choices ``(N, K)`` → the label of each question, int64 ``(N,)``.
        names: names of the parameters.
        project: takes the model's outputs to those of the data's choices.

    Returns:
        Name → the sum over the batch, of the parameter's shape, float64, on the CPU.
    """
    wanted = set(names)
    parameters = {name: p for name, p in module.named_parameters() if name in wanted}
    totals = {name: torch.zeros_like(p) for name, p in parameters.items()}
    with torch.no_grad():
        drawn = labels(project(module(inputs)).float())
    for question, label in parts(inputs, drawn, 0):
        with torch.enable_grad():
            chosen = project(module(question)).float().log_softmax(1)[0, label[0]]
            slopes = torch.autograd.grad(chosen, list(parameters.values()), allow_unused=True)
        for total, slope in zip(totals.values(), slopes, strict=True):
            if slope is not None:
                total.addcmul_(slope, slope)
    return {name: total.detach().double().cpu() for name, total in totals.items()}
