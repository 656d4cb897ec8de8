"""Adapters in training: a model whose weights stay as they are, with small updates beside them, by PEFT."""

from __future__ import annotations

import copy
import importlib
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from merging.errors import OptionError, RequirementError, raised, unknown
from merging.forward.head import head_layer
from merging.forward.recalibration import batch_norms
from merging.models.stored_names import StoredNames
from merging.plugins.task import Task
from merging.storage import atomic
from merging.storage.adapter_folder import CONFIG, WEIGHTS
from merging.training.adapter_targets import targets
from merging.training.hyperparameters import HyperParameters, LoraParameters
from merging.training.randomness import Randomness

KINDS = ("lora",)
"""Kinds of adapters that are trained."""
SWITCHES = ("dora", "rslora")
"""Names under which a kind may be asked for that is ``lora`` with a hyper-parameter."""
OLDEST = (0, 18)
"""Version of PEFT that is needed."""
NAME = "default"
"""PEFT's name of the only adapter of a model; its files do not say it."""


def check_kind(kind: str) -> None:
    """Says that there is no such kind of adapters, or that PEFT is missing or too old.

    Raises:
        OptionError: another kind.
        RequirementError: PEFT has to be installed.
    """
    if kind.lower() in SWITCHES:
        raise OptionError(f"adapters of '{kind}' are `adapter` lora with `{kind.lower()}`")
    if kind not in KINDS:
        raise unknown("kind of adapters", kind, KINDS, "others are trained with PEFT itself", error=OptionError)
    try:
        found = version("peft")
    except PackageNotFoundError:
        raise RequirementError(
            "adapters are trained by PEFT; install it with: pip install 'merging[adapters]'"
        ) from None
    if tuple(map(int, re.findall(r"\d+", found)[:2])) < OLDEST:
        needed = ".".join(map(str, OLDEST))
        raise RequirementError(f"adapters need PEFT {needed} or newer, and {found} is installed; pip install -U peft")
    try:
        importlib.import_module("peft")
    except Exception as error:  # of its own, or of transformers, which it imports
        raise RequirementError(f"PEFT {found} cannot be loaded ({raised(error)}); pip install -U peft") from None


@dataclass(frozen=True)
class Adapters:
    """The adapters of a pool, as far as all of them are the same; plain values, which can go to another process.

    Attributes:
        kind: one of :data:`KINDS`.
        head: names in memory of the modules that are trained whole.
        base: the model that they stand on, as their configurations name it.
    """

    kind: str
    head: tuple[str, ...]
    base: str

    @classmethod
    def of(cls, kind: str, module: nn.Module, lost: frozenset[str], task: Task, base: Path) -> Adapters:
        """Finds what is trained whole: the layer that gives the logits, and what the base lacked.

        Args:
            kind: one of :data:`KINDS`.
            module: the model, on the CPU or where it is trained.
            lost: tensors that the base lacked.
            task: its samples.
            base: the place of the model that the adapters stand on.
        """
        inner, state = in_memory(module), dict(module.named_parameters())
        new = {id(state[name]) for name in lost if name in state}
        owners = [name.rpartition(".")[0] for name, own in inner.named_parameters() if id(own) in new]
        last = head_layer(inner)
        if last is not None and _gives_logits(last[1], module, task):
            owners.append(last[0])
        return cls(kind, tuple(dict.fromkeys(name for name in owners if name)), str(base.absolute()))

    def check(self, module: nn.Module, settings: HyperParameters) -> None:
        """Refuses settings of a run that this model cannot have.

        Raises:
            MergingError: one line that says what to change.
        """
        inner = in_memory(module)
        if isinstance(settings, LoraParameters):
            targets(inner, settings, self.head)
        whole = {name: head for name, _ in inner.named_modules() for head in self.head if name.endswith(head)}
        also = next((name for name in whole if not any(_within(name, head) for head in self.head)), None)
        if also is not None:
            raise RequirementError(
                f"PEFT takes '{also}' for the head '{whole[also]}', with whose name it ends, and would train both "
                "whole; rename one of these layers, or leave `adapter` out"
            )

    def adapted(self, module: nn.Module, settings: LoraParameters, device: str) -> Adapted:
        """The model with a new adapter, drawn from the run's seed; its own weights are shared, and stay as they are."""
        shared: dict[int, Any] = {id(own): own for own in module.parameters()}
        mine = copy.deepcopy(module, shared)
        inner = in_memory(mine)
        peft: Any = importlib.import_module("peft")
        config = peft.LoraConfig(
            r=settings.rank,
            lora_alpha=_plain(settings.numerator),
            lora_dropout=settings.dropout,
            target_modules=_exactly(inner, targets(inner, settings, self.head)),
            modules_to_save=list(self.head) or None,
            use_rslora=settings.rslora,
            use_dora=settings.dora,
        )
        with Randomness(settings.seed, device).used():
            model = peft.get_peft_model(inner, config)
        return Adapted(mine, model, self.base)


class Adapted(nn.Module):
    """A model with an adapter, of which only the adapter is trained.

    Running statistics of BatchNorm belong to the base, and are not moved.

    Args:
        whole: the model as it is called, in which PEFT has replaced layers.
        model: PEFT's model around it, or around what it calls.
        base: the model that the adapter stands on, as its configuration names it.
    """

    def __init__(self, whole: nn.Module, model: nn.Module, base: str) -> None:
        super().__init__()
        self.model = model
        self._whole = (whole,)  # hidden from nn.Module, as it holds the same tensors
        self._base = base

    def forward(self, inputs: Tensor) -> Tensor:
        """Logits of a batch, as the model gives them."""
        logits: Tensor = self._whole[0](inputs)
        return logits

    def _apply(self, fn: Any, recurse: bool = True) -> Adapted:
        """Moves the tensors; DoRA's matrices stay contiguous, because PEFT views filters as matrices."""
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]
        if cast("Any", self.model).peft_config[NAME].use_dora:
            for name, own in self.named_parameters():
                if ".lora_" in name:
                    own.data = own.data.contiguous()
        return self

    def train(self, mode: bool = True) -> Adapted:
        """Turns training on or off; layers whose statistics are the base's are never in training."""
        super().train(mode)
        self._whole[0].train(mode)
        for norm in batch_norms(self).values():
            norm.eval()
        return self

    @property
    def trained(self) -> frozenset[str]:
        """Names of the parameters that are trained: the adapter's and those of the head."""
        return frozenset(name for name, own in self.named_parameters() if own.requires_grad)

    def facts(self) -> dict[str, Any]:
        """Says how many parameters are trained, and of how many there are in the base, for a model's record."""
        own = [p.numel() for p in self.parameters() if p.requires_grad]
        base = sum(p.numel() for p in self.parameters()) - sum(own)
        return {"adapter": {"parameters": sum(own), "of": base}}

    def write(self, folder: Path) -> None:
        """Writes the adapter as PEFT does, whole or not at all: tensors and configuration, in one order of keys."""
        peft: Any = importlib.import_module("peft")
        state: Mapping[str, Tensor] = peft.get_peft_model_state_dict(self.model, save_embedding_layers=False)
        tensors = {name: state[name].detach().cpu().contiguous().clone() for name in sorted(state)}
        aside = atomic.new_folder(folder.absolute().parent, folder.name)
        try:
            atomic.save_safetensors(aside / WEIGHTS[0], tensors, {"format": "pt"})
            atomic.put(aside / CONFIG, json.dumps(self._configuration(), indent=2, sort_keys=True) + "\n")
            atomic.sync_tree(aside)
            atomic.remove(folder)
            atomic.take_place(aside, folder)
        finally:
            atomic.remove(aside)

    def _configuration(self) -> dict[str, Any]:
        """What PEFT's ``save_pretrained`` writes, with sets in order."""
        model: Any = self.model
        inner = model.get_base_model()
        said = model.peft_config[NAME].to_dict()
        said |= {
            "base_model_name_or_path": self._base,
            "inference_mode": True,
            "auto_mapping": {"base_model_class": type(inner).__name__, "parent_library": type(inner).__module__},
        }
        return {key: sorted(value) if isinstance(value, set) else value for key, value in said.items()}


def in_memory(module: nn.Module) -> nn.Module:
    """The model as its library has it in memory, whose names PEFT uses."""
    return module.whole if isinstance(module, StoredNames) else module


def _within(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def _gives_logits(layer: nn.Module, module: nn.Module, task: Task) -> bool:
    """Whether the last layer has as many outputs as the model."""
    from merging.forward.device import batch_for

    parameter = next(module.parameters())
    module.eval()
    with torch.inference_mode():
        outputs = module(batch_for(task, task.held_out.tensor[:2], str(parameter.device)))
    return isinstance(outputs, Tensor) and outputs.ndim == 2 and outputs.shape[1] == layer.weight.shape[0]  # type: ignore[index]


def _exactly(module: nn.Module, names: tuple[str, ...]) -> list[str] | str:
    """What names these modules and no others, where PEFT takes names for ends of names."""
    meant, ends = set(names), tuple(f".{name}" for name in names)
    also = any(name.endswith(ends) and name not in meant for name, _ in module.named_modules())
    return "|".join(map(re.escape, names)) if also else list(names)


def _plain(number: float) -> int | float:
    return int(number) if number == int(number) else number
