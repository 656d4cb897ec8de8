"""Pools whose recipes and reports hold more than those of a plain one, for golden files: measured tensors, several
dtypes, several vocabularies, adapters over a base, workers and a certificate."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import merging
from merging.storage.pool import ModelPool
from merging.testing import tiny_pool, tiny_task
from tests.storage.test_vocabularies import WORDS
from tests.storage.test_vocabularies import write as write_vocabulary

ADAPTERS = Path(__file__).parents[1] / "storage" / "adapters"
Made = tuple[ModelPool, dict[str, Any]]
"""A pool, and the settings of its run."""


class Normed(nn.Module):
    """A layer, its BatchNorm, and a head; inputs ``(N, 4)``."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.norm, self.head = nn.Linear(4, 8), nn.BatchNorm1d(8), nn.Linear(8, 3)

    def forward(self, inputs: Tensor) -> Tensor:
        """Computes class logits, shape ``(N, 3)``."""
        logits: Tensor = self.head(torch.relu(self.norm(self.first(inputs))))
        return logits


def measured(folder: Path) -> Made:
    """Models with BatchNorm, whose statistics are measured again: ``overrides``."""
    folder.mkdir(parents=True)
    for number in range(2):
        torch.manual_seed(number)
        module = Normed().train()
        with torch.no_grad():
            module(tiny_task().held_out.inputs + number)
        save_file(module.state_dict(), folder / f"model_{number}.safetensors")
    task = replace(tiny_task(), name="normed", build=lambda pool: Normed())
    return ModelPool.open([folder]), {"task": task}


def dtypes(folder: Path) -> Made:
    """Models that hold the same tensors in several floating-point dtypes."""
    tiny_pool(folder, 2)
    first = folder / "model_0.safetensors"
    narrow = {n: t.bfloat16() if t.is_floating_point() else t for n, t in load_file(first).items()}
    save_file(narrow, first)
    return ModelPool.open([folder / "model_*.safetensors"], folder / "base.safetensors"), {}


def vocabularies(folder: Path) -> Made:
    """Models of several vocabularies, aligned token by token."""
    for number, words in enumerate((WORDS, [*WORDS[:4], "new", *WORDS[4:]])):
        write_vocabulary(folder / f"model_{number}", words, seed=number)
    files = [folder / "model_0", folder / "model_1"]
    return ModelPool.open(files, tokenizer_source="union", pad_to_multiple_of=4), {}


def adapters(folder: Path) -> Made:
    """LoRA adapters over one base, of unequal ranks."""
    shutil.copytree(ADAPTERS / "bases" / "vit", folder / "base")
    for name in ("plain", "patterns"):
        shutil.copytree(ADAPTERS / "adapters" / name, folder / name, ignore=shutil.ignore_patterns("*.golden"))
        said = json.loads((folder / name / "adapter_config.json").read_text(encoding="utf-8"))
        text = json.dumps(said | {"base_model_name_or_path": "base"})
        (folder / name / "adapter_config.json").write_text(text, encoding="utf-8")
    return ModelPool([folder / "plain", folder / "patterns"], folder / "base"), {}


def certified(folder: Path) -> Made:
    """A merge that samples which selected nothing have accepted or refused, found by two workers."""
    return tiny_pool(folder, 3), {"task": tiny_task(), "certify_split": 0.5, "workers": 2}


KINDS: dict[str, Callable[[Path], Made]] = {
    "measured": measured,
    "dtypes": dtypes,
    "vocabularies": vocabularies,
    "adapters": adapters,
    "certified": certified,
}


def make_kinds(folder: Path) -> dict[str, Any]:
    """Makes a uniform merge of every kind below a folder; the values that a reader must find."""
    told = {}
    for name, kind in KINDS.items():
        pool, settings = kind(folder / name / "pool")
        how = {"device": "cpu", "threads": 1} | ({"remember": False} if "task" in settings else {})
        run = merging.merge(pool, "uniform", output=folder / name / "merged", **how | settings)
        told[name] = of_kind(run)
    return told


def of_kind(run: merging.Result | merging.SavedRun) -> dict[str, Any]:
    """What is promised of a kind's run."""
    recipe, report = run.merge, run.report
    assert isinstance(recipe, merging.Recipe)
    held = recipe.to_json()
    return {
        "hash": report.content_hash,
        "names": list(recipe.names),
        **{name: held[name] for name in ("overrides", "vocabulary", "dtypes") if held.get(name)},
        "bases": [Path(row.base).name for row in recipe.ingredients if row.base],
        "certificate": report.to_json()["certificate"],
        "workers": [worker.number for worker in report.workers],
    }
