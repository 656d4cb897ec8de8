"""Writes an adapter's folder as PEFT reads it: factors, tensors that are saved whole, and the configuration."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from merging.storage import atomic
from merging.storage.adapter_folder import CONFIG, WEIGHTS
from merging.storage.adapter_layout import CONVOLUTION, EMBEDDING, TURNED, Place
from merging.storage.adapter_parts import PREFIX
from merging.storage.dtypes import torch_dtype

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class Update:
    """The update of one tensor, ``left · right`` in the tensor's own rows and columns; the scale is in them.

    Attributes:
        place: the module that it is stored for.
        shape: shape of the tensor.
        left: float64, ``(rows, rank)``.
        right: float64, ``(rank, columns)``.
    """

    place: Place
    shape: tuple[int, ...]
    left: NDArray[np.float64]
    right: NDArray[np.float64]

    def tensors(self, dtype: str) -> dict[str, Tensor]:
        """The factors under PEFT's names."""
        import torch

        rank, more = self.left.shape[1], self.shape[2:]
        turned = self.place.kind in (EMBEDDING, TURNED)
        first, second = (self.right.T, self.left.T) if turned else (self.left, self.right)
        if self.place.kind == CONVOLUTION:
            first, second = first.reshape(-1, rank, *[1] * len(more)), second.reshape(rank, *self.shape[1:])
        a, b = (
            ("lora_embedding_A", "lora_embedding_B")
            if self.place.kind == EMBEDDING
            else ("lora_A.weight", "lora_B.weight")
        )
        where = f"{PREFIX}{self.place.module}"
        factors = {f"{where}.{a}": second, f"{where}.{b}": first}
        return {key: torch.from_numpy(np.ascontiguousarray(x)).to(torch_dtype(dtype)) for key, x in factors.items()}


@dataclass(frozen=True, kw_only=True)
class NewAdapter:
    """An adapter that is to be written.

    Attributes:
        updates: what is added to the base's tensors.
        whole: name in memory → a tensor of a module that is saved whole.
        biases: name in memory → a bias.
        base: name or path of the base.
        dtype: dtype of the factors.
    """

    updates: list[Update] = field(default_factory=list)
    whole: dict[str, Tensor] = field(default_factory=dict)
    biases: dict[str, Tensor] = field(default_factory=dict)
    base: str
    dtype: str = "float32"

    def write(self, folder: Path, saved: set[str]) -> None:
        """Writes the two files.

        Args:
            folder: the place of the files.
            saved: names in memory of the modules that are saved whole.

        Raises:
            OSError: they cannot be written.
        """
        state = {key: tensor for update in self.updates for key, tensor in update.tensors(self.dtype).items()}
        state |= {f"{PREFIX}{name}": tensor for name, tensor in self.whole.items()}
        updated = {update.place.module for update in self.updates}
        for name, tensor in self.biases.items():
            module = name.removesuffix(".bias")
            state[f"{PREFIX}{module}.base_layer.bias" if module in updated else f"{PREFIX}{name}"] = tensor
        atomic.save_safetensors(folder / WEIGHTS[0], state, {"format": "pt"})
        text = json.dumps(self._configuration(saved), indent=2, sort_keys=True) + "\n"
        atomic.put(folder / CONFIG, text)

    def _configuration(self, saved: set[str]) -> Mapping[str, Any]:
        ranks = {update.place.module: update.left.shape[1] for update in self.updates}
        usual = max(ranks.values(), key=list(ranks.values()).count) if ranks else 1
        others = {f"^{re.escape(module)}": rank for module, rank in ranks.items() if rank != usual}
        return {
            "peft_type": "LORA",
            "base_model_name_or_path": self.base,
            "r": usual,
            "lora_alpha": usual,
            "rank_pattern": others,
            "alpha_pattern": others,
            "target_modules": sorted(ranks),
            "modules_to_save": sorted(saved) or None,
            "bias": "all" if self.biases else "none",
            "fan_in_fan_out": any(update.place.kind == TURNED for update in self.updates),
            "init_lora_weights": True,
            "inference_mode": True,
            "lora_dropout": 0.0,
            "task_type": None,
            "use_dora": False,
            "use_rslora": False,
        }
