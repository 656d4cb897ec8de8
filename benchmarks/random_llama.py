"""Random Llamas and random documents for the benchmarks of the evaluator: real architectures, weights of noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file

from benchmarks.common import noisy
from merging.models.catalogue import model_source
from merging.models.source import ModelSource
from merging.plugins.sequences import Sequences
from merging.plugins.task import Split, Task
from merging.storage.pool import ModelPool

SIZES = {
    "5 M": {"hidden_size": 192, "num_hidden_layers": 6, "intermediate_size": 512, "vocab_size": 8192},
    "25 M": {"hidden_size": 384, "num_hidden_layers": 8, "intermediate_size": 1024, "vocab_size": 16384},
    "200 M": {"hidden_size": 1024, "num_hidden_layers": 12, "intermediate_size": 2752, "vocab_size": 32000},
}
"""Llamas by their number of parameters; the head of the smaller ones is their embedding."""


def llama(folder: Path, size: str) -> ModelSource:
    """A configuration of one of the sizes, as a folder of transformers."""
    from transformers import LlamaConfig

    wanted: dict[str, Any] = {**SIZES[size], "architectures": ["LlamaForCausalLM"], "max_position_embeddings": 2048}
    wanted["tie_word_embeddings"] = wanted["hidden_size"] < 1000
    wanted["num_attention_heads"] = wanted["num_key_value_heads"] = wanted["hidden_size"] // 64
    config = LlamaConfig(**wanted)
    folder.mkdir(parents=True, exist_ok=True)
    config.save_pretrained(folder)
    return model_source(f"transformers:{folder}")


def llamas(folder: Path, size: str, dtype: torch.dtype, models: int = 2) -> tuple[ModelPool, ModelSource]:
    """A pool of random models of one size in a dtype, and the source of their module."""
    source = llama(folder / "architecture", size)
    torch.manual_seed(0)
    module = source.module()
    pool = noisy(module, folder / "models", models)
    for checkpoint in pool.checkpoints if dtype != torch.float32 else ():
        state = {name: checkpoint.read(name).to(dtype) for name in checkpoint.tensors}
        save_file(state, checkpoint.path)
    return ModelPool.open([folder / "models"]), source


def documents(count: int, vocabulary: int, shortest: int, longest: int) -> Split:
    """Random documents, all of whose tokens but the first are scored, in the order of their lengths."""
    draw = np.random.default_rng(0)
    lengths = np.sort(draw.integers(shortest, longest + 1, count))
    starts = np.concatenate([[0], np.cumsum(lengths)])
    tokens = ~draw.integers(0, vocabulary, starts[-1]).astype(np.int32)
    tokens[starts[:-1]] = ~tokens[starts[:-1]]
    made = Sequences(
        tokens=tokens,
        starts=starts,
        weights=np.ones(count, dtype=np.float32),
        slots=np.zeros(count, dtype=np.int16),
        samples=np.arange(count + 1),
    )
    return Split.of(made, torch.from_numpy(lengths - 1).float())


def task_of(source: ModelSource, held_out: Split) -> Task:
    """The documents as a task."""
    return Task(name=source.spec, build=source.build, held_out=held_out)
