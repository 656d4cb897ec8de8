"""Labels of a user's function that are numbers: they stay what they are."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from merging.data.opening import load_data

MODULE = """
import numpy as np
import torch

x = torch.arange(12.0).view(6, 2)
fractions = torch.tensor([0.5, -1.25, 3.0, 2.5, 0.0, 7.75])


def floats():
    return x, fractions


def doubles():
    return x.numpy(), fractions.double().numpy()


def vectors():
    return x, torch.stack([fractions, -fractions], dim=1)


def pairs_of_counts():
    return x, torch.arange(12).view(6, 2)


def classes():
    return x, np.array([0, 1, 2, 0, 1, 2], dtype=np.int32)
"""


@pytest.mark.parametrize("name", ["floats", "doubles", "vectors", "pairs_of_counts", "classes"])
def test_labels_of_a_function_are_not_rounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    (tmp_path / "labels_of_mine.py").write_text(MODULE)
    monkeypatch.syspath_prepend(tmp_path)
    import importlib

    module = importlib.import_module("labels_of_mine")
    split = load_data(f"python:labels_of_mine:{name}")
    wanted = torch.as_tensor(getattr(module, name)()[1])
    assert split.categorical == (name == "classes")
    assert torch.equal(split.labels.double(), wanted.double())
    assert split.labels.dtype == (torch.int64 if name == "classes" else wanted.dtype)
