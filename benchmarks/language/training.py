"""A small loop that trains causal models: the same bits from one seed, also where it was killed and goes on."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from merging.storage import atomic

EVERY = 100
"""Steps after which all is kept that going on needs."""


@dataclass(frozen=True, kw_only=True)
class Recipe:
    """Settings of a training run.

    Attributes:
        steps: steps of the optimizer.
        rate: highest learning rate; it rises over a twentieth of the steps and falls as a cosine to a tenth.
        decay: weight decay of AdamW.
        batch: rows of a batch.
        length: tokens of a row.
        seed: of the order of the rows, and of what is drawn for adapters.
    """

    steps: int
    rate: float
    decay: float = 0.01
    batch: int = 8
    length: int = 256
    seed: int = 0


def train(module: nn.Module, tokens: NDArray[np.int64], recipe: Recipe, state: Path) -> dict[str, Any]:
    """Trains the parameters that take gradients; goes on from ``state`` where that is.

    Args:
        module: a causal model of transformers, perhaps with adapters.
        tokens: all documents one after the other.
        recipe: the settings.
        state: file that is kept meanwhile, and removed at the end.

    Returns:
        What is to be known of the run, JSON-ready.
    """
    learned = {name: each for name, each in module.named_parameters() if each.requires_grad}
    groups = [
        {"params": [each for each in learned.values() if each.ndim > 1], "weight_decay": recipe.decay},
        {"params": [each for each in learned.values() if each.ndim < 2], "weight_decay": 0.0},
    ]
    optimizer = torch.optim.AdamW(groups, lr=recipe.rate, betas=(0.9, 0.95))
    first, losses, seconds = 0, list[float](), 0.0
    if state.is_file():
        kept = torch.load(state, weights_only=True)
        first, losses, seconds = kept["step"], kept["losses"], kept["seconds"]
        module.load_state_dict(kept["model"], strict=False)
        optimizer.load_state_dict(kept["optimizer"])
    began = time.perf_counter()
    module.train()
    for step, rows in enumerate(_batches(tokens, recipe)):
        if step < first:
            continue
        for group in optimizer.param_groups:
            group["lr"] = recipe.rate * _share(step, recipe.steps)
        torch.manual_seed(1_000_000 * recipe.seed + step)  # dropout of adapters
        batch = torch.from_numpy(rows)
        loss = module(input_ids=batch, labels=batch).loss
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(list(learned.values()), 1.0)
        optimizer.step()
        losses.append(float(loss.detach()))
        if (step + 1) % EVERY == 0 and step + 1 < recipe.steps:
            spent = seconds + time.perf_counter() - began
            kept = {"step": step + 1, "losses": losses, "seconds": spent, "optimizer": optimizer.state_dict()}
            atomic.save_torch(state, kept | {"model": {n: p.detach() for n, p in learned.items()}})
            print(f"step {step + 1} of {recipe.steps}: loss {np.mean(losses[-EVERY:]):.3f}, {spent:.0f} s", flush=True)
    module.eval()
    state.unlink(missing_ok=True)
    seen = recipe.steps * recipe.batch * recipe.length
    seconds += time.perf_counter() - began
    return asdict(recipe) | {"tokens": seen, "seconds": round(seconds), "loss": float(np.mean(losses[-EVERY:]))}


def _batches(tokens: NDArray[np.int64], recipe: Recipe) -> Iterator[NDArray[np.int64]]:
    """Rows that begin anywhere, drawn anew for each batch."""
    draw = np.random.default_rng([29, recipe.seed])
    for _ in range(recipe.steps):
        starts = draw.integers(0, len(tokens) - recipe.length, recipe.batch)
        yield np.stack([tokens[start : start + recipe.length] for start in starts])


def _share(step: int, steps: int) -> float:
    """Share of the highest learning rate."""
    rising = max(1, steps // 20)
    if step < rising:
        return (step + 1) / rising
    return 0.1 + 0.45 * (1 + math.cos(math.pi * (step - rising) / max(1, steps - rising)))
