"""Squared gradients of questions, each of several rows, against one backward pass a question."""

from __future__ import annotations

from pathlib import Path

import torch

from benchmarks.causal_models import questions, read, saved
from merging.forward.fisher import squared_gradients_of_rows


def test_each_question_is_squared_apart(tmp_path: Path) -> None:
    saved("Llama, tied", tmp_path)
    module, texts = read(tmp_path), questions()
    labels = torch.tensor([1, 4, 0, 2])
    names = [name for name, _ in module.named_parameters()]
    found = squared_gradients_of_rows(module, texts.collated(), lambda outputs: labels, names)
    expected = {name: torch.zeros_like(parameter) for name, parameter in module.named_parameters()}
    for number, label in enumerate(labels):
        module.zero_grad(set_to_none=True)
        module(texts[number].collated()).log_softmax(1)[0, label].backward()
        for name, parameter in module.named_parameters():
            assert parameter.grad is not None
            expected[name] += parameter.grad.square()
    assert found.keys() == expected.keys()
    for name, wanted in expected.items():
        assert wanted.any()
        torch.testing.assert_close(found[name], wanted.double(), rtol=1e-3, atol=1e-7)
