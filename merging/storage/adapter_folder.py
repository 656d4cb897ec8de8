"""The folder of an adapter, as PEFT writes it: what its configuration says, and what of it can be read here."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from merging.errors import DAMAGED, CheckpointError, raised, showable
from merging.values.wording import kind_of

CONFIG = "adapter_config.json"
WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")
"""Names of the files that hold an adapter's tensors, in the order in which PEFT looks."""
WAY = "put it into its base with PEFT's merge_and_unload, and merge the full models"
_KINDS = {"LORA": "LoRA"}
_CHANGES = {
    "layer_replication": "repeats layers of its base",
    "alora_invocation_tokens": "is switched on by tokens (aLoRA)",
    "arrow_config": "is routed between several (Arrow)",
    "target_parameters": "adapts parameters by their names (target_parameters)",
    "use_qalora": "is a QA-LoRA",
    "use_bdlora": "is a block-diagonal LoRA",
    "kasa_config": "is a KaSA",
    "monteclora_config": "is a MonteCLoRA",
}
"""Keys of a configuration that make an adapter something else than base + s·B·A, where they are set."""
_REBASED = re.compile(r"pissa|olora|corda|loftq|lora_ga")
"""Initialisations that take the first update out of the base's weights, so that the adapter fits what is left alone."""


@dataclass(frozen=True, kw_only=True)
class AdapterConfig:
    """A LoRA adapter, as its ``adapter_config.json`` describes it.

    Attributes:
        folder: the adapter.
        rank: rank of the updates that no pattern names.
        alpha: their numerator of the scale.
        ranks, alphas: regular expressions of modules' names → rank and numerator of these.
        rooted: whether the scale is alpha / √rank (rsLoRA), not alpha / rank.
        directions: whether the length of each output's weights is learned by itself (DoRA).
        transposed: whether weights are stored with the inputs first, as GPT-2's are.
        saved: names of modules that were trained whole.
        base: name or path of the model that it was trained on; empty where none is said.
        said: all that the file says.
    """

    folder: Path
    rank: int
    alpha: float
    ranks: Mapping[str, float] = field(default_factory=dict)
    alphas: Mapping[str, float] = field(default_factory=dict)
    rooted: bool = False
    directions: bool = False
    transposed: bool = False
    saved: tuple[str, ...] = ()
    base: str = ""
    said: Mapping[str, Any] = field(default_factory=dict, repr=False)

    def rank_of(self, module: str) -> int:
        """The rank that the file says a module's update has."""
        return int(_matched(self.ranks, module, self.rank))

    def tokens_of(self, module: str) -> tuple[int, ...]:
        """The rows of an embedding that were trained by themselves (``trainable_token_indices``); none of others.

        Raises:
            CheckpointError: it says something else than numbers.
        """
        said = self.said.get("trainable_token_indices") or ()
        if isinstance(said, Mapping):
            said = next((own for name, own in said.items() if f".{module}".endswith(f".{name}")), ())
        if not isinstance(said, list | tuple) or not all(isinstance(each, int) for each in said):
            raise CheckpointError(f"{self.folder / CONFIG}: trainable_token_indices are no numbers of tokens")
        return tuple(said)

    def scale_of(self, module: str, rank: int) -> float:
        """The number that a module's product is multiplied with."""
        alpha = _matched(self.alphas, module, self.alpha)
        return alpha / math.sqrt(rank) if self.rooted else alpha / rank

    @property
    def kind(self) -> str:
        """The name of its method: LoRA, rsLoRA, DoRA."""
        return "DoRA" if self.directions else "rsLoRA" if self.rooted else "LoRA"


def adapter_folder(path: Path) -> Path | None:
    """The folder of the adapter that a path names, itself or the file of its tensors; None where it is no adapter.

    A folder in which a whole model lies beside an adapter is none: libraries load both.
    """
    folder = path.parent if path.name in WEIGHTS else path
    return folder if (folder / CONFIG).is_file() and any((folder / name).is_file() for name in WEIGHTS) else None


def read_config(folder: Path) -> AdapterConfig:
    """Reads the configuration of an adapter.

    Raises:
        CheckpointError: it is damaged, or of a kind that is not base + s·B·A; the line names it.
    """
    path = folder / CONFIG
    try:
        said = json.loads(path.read_bytes())
        if not isinstance(said, Mapping):
            raise TypeError(f"it is {kind_of(said)}")
        kind = str(said.get("peft_type") or "")
        if kind not in _KINDS:
            called = showable(kind) if kind else "no kind that it says"
            raise CheckpointError(f"{folder}: is an adapter of {called}, and only those of LoRA can be merged; {WAY}")
        _check_plain(folder, said)
        config = AdapterConfig(
            folder=folder,
            rank=int(said.get("r", 8)),
            alpha=float(said.get("lora_alpha", 8)),
            ranks=_numbers(said.get("rank_pattern")),
            alphas=_numbers(said.get("alpha_pattern")),
            rooted=bool(said.get("use_rslora")),
            directions=bool(said.get("use_dora")),
            transposed=bool(said.get("fan_in_fan_out")),
            saved=tuple(map(str, said.get("modules_to_save") or ())),
            base=str(said.get("base_model_name_or_path") or ""),
            said=said,
        )
    except CheckpointError:
        raise
    except (*DAMAGED, re.error) as error:
        raise CheckpointError(f"{path}: not the configuration of an adapter ({raised(error, whole=True)})") from None
    return config


def _check_plain(folder: Path, said: Mapping[str, Any]) -> None:
    """Refuses a LoRA adapter whose update is not s·B·A on the base's own weights.

    Raises:
        CheckpointError: says what it is.
    """
    for key, what in _CHANGES.items():
        if said.get(key):
            raise CheckpointError(f"{folder}: {what}, which is more than base + s·B·A; {WAY}")
    start = said.get("init_lora_weights")
    if isinstance(start, str) and _REBASED.match(start):
        raise CheckpointError(
            f"{folder}: began as {showable(start)}, which changes its base's weights; save it for the base as it was "
            "with PEFT's save_pretrained(…, path_initial_model_for_weight_conversion=…)"
        )


def _numbers(pattern: Any) -> dict[str, float]:
    """A pattern's entries, whose names are regular expressions.

    Raises:
        ValueError, TypeError, re.error: they are not.
    """
    found = {str(key): float(value) for key, value in (pattern or {}).items()}
    for key in found:
        re.compile(key)
    return found


def _matched(pattern: Mapping[str, float], module: str, default: float) -> float:
    """The entry of the first expression that a module's name, or its end, fits, as PEFT looks."""
    return next((value for key, value in pattern.items() if re.match(rf"(.*\.)?({key})$", module)), default)
