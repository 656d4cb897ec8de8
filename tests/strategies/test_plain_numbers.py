"""Options that are plain numbers give the bits that they gave before they could be anything else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import merging
from merging.partitioners.layer import Layer
from merging.plugins.discovery import load_installed
from merging.plugins.options import build
from merging.plugins.registry import strategies
from merging.storage.content import content_hash
from merging.storage.pool import ModelPool

GOLDEN = Path(__file__).parent / "plain_numbers.json"
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "task-arithmetic": ("task-arithmetic", {}),
    "task-arithmetic, scaled": ("task-arithmetic", {"scale": 0.3, "weights": ["model_1=2"], "normalize": True}),
    "ties": ("ties", {}),
    "ties, tensor": ("ties", {"density": 0.4, "scale": 0.7, "scope": "tensor", "rescale": "l1"}),
    "ties, sum": ("ties", {"normalize": False, "weights": ["model_0@fc1=0.5"]}),
    "dare": ("dare", {"drop": 0.3, "scale": 0.6}),
    "dare, ties": ("dare-ties", {}),
    "breadcrumbs": ("breadcrumbs", {}),
    "breadcrumbs, ties": ("breadcrumbs-ties", {"density": 0.5, "gamma": 0.1, "rescale": "l1"}),
    "della": ("della", {}),
    "della, linear": ("della-linear", {"density": 0.7, "epsilon": 0.2, "scale": 0.5}),
    "sce": ("sce", {"density": 0.3}),
    "slerp": ("slerp", {"t": 0.25}),
    "nuslerp": ("nuslerp", {"t": 0.25, "of": "changes", "vectors": "rows"}),
    "wise-ft": ("wise-ft", {"alpha": 0.3}),
    "wise-ft, ties": ("wise-ft", {"alpha": 0.3, "inner": {"name": "ties"}}),
    "lines": ("lines", {"alpha": 0.3, "beta": 0.5}),
}


def states(models: int) -> tuple[dict[str, dict[str, torch.Tensor]], dict[str, torch.Tensor]]:
    """Models drawn around a base: no training, so that every machine has the same bits."""
    generator = np.random.default_rng(5)
    shapes = {"fc1.weight": (6, 8), "fc1.bias": (6,), "fc2.weight": (3, 6), "fc2.bias": (3,)}
    base = {name: torch.from_numpy(generator.normal(size=shape).astype(np.float32)) for name, shape in shapes.items()}

    def tuned() -> dict[str, torch.Tensor]:
        changes = {name: generator.normal(scale=0.1, size=shape).astype(np.float32) for name, shape in shapes.items()}
        return {name: base[name] + torch.from_numpy(change) for name, change in changes.items()}

    return {f"model_{number}": tuned() for number in range(models)}, base


def made(name: str) -> dict[str, str]:
    load_installed()
    strategy, options = CASES[name]
    models, base = states(2 if "slerp" in strategy else 3)
    plugin = build(strategies[strategy], options, lambda inner, own: build(strategies[inner], own))
    result = merging.merge(ModelPool.open(models, base), plugin, partitioner=Layer(), seed=3)
    return {"content": content_hash(result.state_dict()), "options": json.dumps(plugin.options(), ensure_ascii=False)}


@pytest.mark.parametrize("name", CASES)
def test_plain_numbers_give_the_bits_of_before(name: str) -> None:
    assert made(name) == json.loads(GOLDEN.read_text(encoding="utf-8"))[name]
