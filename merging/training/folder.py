"""A pool on disk: what it was made with, a record beside each model, and what is there already."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from merging import machine
from merging.errors import DAMAGED, FolderError
from merging.plugins.options import build
from merging.storage import atomic
from merging.storage.adapter_folder import CONFIG
from merging.storage.checkpoint import Checkpoint
from merging.storage.lock import Lock
from merging.training.adapters import Adapted
from merging.training.hyperparameters import HyperParameters, parameters_of
from merging.training.trainer import Run
from merging.values.report import scored

BASE = "base.safetensors"
ADAPTERS_BASE = "base"
"""Folder of the base in a pool of adapters, as libraries load it: their files name it."""
RECORD = "finetune.json"
"""File that says what the whole pool was made with."""


@dataclass(frozen=True)
class Epoch:
    """The losses and scores at the end of an epoch.

    Attributes:
        number: counted from 1.
        loss: mean training loss.
        held_out: top-1 accuracy.
    """

    number: int
    loss: float
    held_out: float

    @classmethod
    def of(cls, run: Run) -> Epoch:
        """Looks at a run at the end of an epoch."""
        return cls(run.done // run.steps, run.loss, run.held_out())


@dataclass(frozen=True)
class Trained:
    """One model of a pool, as it was trained; ``str`` gives a line of it.

    Attributes:
        name: name of its file, without the suffix.
        settings: its hyper-parameters.
        held_out: accuracy after the last epoch; 0 where it diverged.
        seconds: time that it took; 0 where it was there already.
        diverged: why there is a record, but no model.
    """

    name: str
    settings: Mapping[str, Any]
    held_out: float
    seconds: float
    diverged: str = ""

    def __str__(self) -> str:
        settings = build(parameters_of(self.settings), self.settings).shown()
        what = f"{self.diverged}; no model is written" if self.diverged else f"{scored(self.held_out)} held-out"
        return f"{self.name}: {what}, " + (f"{self.seconds:.0f} s ({settings})" if self.seconds else "there already")


@dataclass(frozen=True)
class PoolFolder:
    """Writes a pool into its folder; made of plain values, so that it can go to another process.

    Attributes:
        path: the folder.
        facts: what all its models share: task, base (``start`` as it was given, ``base`` with its head, None before
            that is there), seed, sweep, regime; ``adapter``, the kind of these, where they are adapters.
        numerics: how they are computed.
        command: command line that made it.
        origin: id and commit of a base of the Hub; empty of others.
    """

    path: Path
    facts: Mapping[str, Any]
    numerics: Mapping[str, Any]
    command: str
    origin: str = ""

    @property
    def base(self) -> Path:
        """File of the base that all models start from."""
        return self.path / (BASE if self.facts.get("adapter") is None else f"{ADAPTERS_BASE}/model.safetensors")

    def model(self, name: str) -> Path:
        """The file of a model, or the folder of an adapter."""
        return self.path / (f"{name}.safetensors" if self.facts.get("adapter") is None else name)

    def lock(self) -> Lock:
        """The right to write there, until it is let go; the folder is made.

        Raises:
            FolderError: another process has it, or nobody can write there.
        """
        with atomic.refusals(f"cannot write to {self.path}"):
            atomic.make_folder(self.path)
        return Lock(self.path)

    def claim(self) -> None:
        """Says what the pool is: before its base is written, so that the base is never of another one, and after.

        Raises:
            FolderError: the folder holds another one, or a base that no pool is known to have been made from.
        """
        path = self.path / RECORD
        if not path.exists():
            if self.base.exists() and not self._is_start():
                raise FolderError(
                    f"{self.base} is there without a record of its pool, and is not the `base` that was given; move it "
                    "away, or choose another `output`"
                )
            self._record()
            return
        try:
            unsaid = {key: self.facts[key] for key in ("start", "linear_probe")}  # older records lack them
            usual = {"regime": {"name": "independent"}, "adapter": None}
            old = {**usual, **unsaid} | json.loads(path.read_bytes())
        except DAMAGED as error:
            raise FolderError(f"{path} is damaged ({error}); choose another `output`") from None
        unfinished = None in (old.get("base"), self.facts["base"])  # on one of the sides the base is not there yet
        facts = {"adapter": None, **self.facts}
        asked = {key: value for key, value in facts.items() if not (unfinished and key == "base")}
        changed = [key for key, value in asked.items() if old.get(key) != json.loads(json.dumps(value))]
        changed = list(
            dict.fromkeys({"start": "base", "linear_probe": "linear probe"}.get(key, key) for key in changed)
        )
        if changed:
            raise FolderError(f"{self.path} holds a pool with another {' and '.join(changed)}; choose another `output`")
        if unfinished and self.facts["base"] is not None:
            self._record()

    def _record(self) -> None:
        of_hub = {"base_of_hub": self.origin} if self.origin else {}
        replace(self.path / RECORD, {**self.facts, **of_hub, "command": self.command, "versions": self._versions()})

    def _versions(self) -> dict[str, str]:
        return versions(*(() if self.facts.get("adapter") is None else ("peft",)))

    def _is_start(self) -> bool:
        """Whether a base that is there is the one that was given, as it was given."""
        return not self.facts["linear_probe"] and Checkpoint(self.base).hash == self.facts["start"]

    def written(self, name: str, settings: HyperParameters) -> Trained | None:
        """A model that an earlier call has finished.

        Raises:
            FolderError: it was made with other settings.
        """
        path = self.path / f"{name}.json"
        if not path.exists():
            return None
        try:
            record = json.loads(path.read_bytes())
            diverged = str(record.get("diverged", ""))
            same, held_out = record["settings"] == settings.options(), 0.0 if diverged else float(record["held_out"])
        except DAMAGED as error:
            raise FolderError(f"{path} is damaged ({error}); remove it, and the model is trained again") from None
        if not same:
            raise FolderError(f"{path} was made with other hyper-parameters; choose another `output`")
        made = self.model(name)
        if not diverged and not (made if made.suffix else made / CONFIG).exists():
            return None
        return Trained(name, record["settings"], held_out, 0.0, diverged)

    def write(self, name: str, run: Run, epochs: list[Epoch], seconds: float, diverged: str = "") -> Trained:
        """Writes a finished model, then its record, which says that it is finished; a diverged one has no model."""
        held_out = 0.0 if diverged else epochs[-1].held_out
        record = ({"diverged": diverged} if diverged else {}) | {
            "name": name,
            "held_out": None if diverged else held_out,
            "settings": run.settings.options(),
            "epochs": [asdict(epoch) for epoch in epochs],
            **run.facts,
            "seconds": seconds,
            "base": self.facts["base"],
            "task": self.facts["task"],
            "regime": self.facts["regime"],
            "command": self.command,
            "numerics": dict(self.numerics),
            "versions": self._versions(),
        }
        atomic.remove(self.path / f"{name}.json")  # of a model that somebody has taken away
        if not diverged:
            save(self.model(name), run.module)
        replace(self.path / f"{name}.json", record)
        return Trained(name, run.settings.options(), held_out, seconds, diverged)


def model_name(index: int) -> str:
    """Name of a pool's model, counted from 0, which is that of its file without the suffix."""
    return f"model_{index:02d}"


def versions(*more: str) -> dict[str, str]:
    """Gives the versions of what decides the bits of training, and of other packages."""
    return machine.versions("merging", "torch", "timm", "numpy", *more)


def save(path: Path, module: nn.Module) -> None:
    """Writes all tensors of a module into a file, or its adapter into a folder, whole or not at all."""
    if isinstance(module, Adapted):
        module.write(path)
        return
    state: Mapping[str, Tensor] = module.state_dict()
    tensors = {name: t.detach().cpu().contiguous().clone() for name, t in state.items()}
    with atomic.replacing(path) as aside:
        atomic.save_safetensors(aside, tensors, {"format": "pt"})


def replace(path: Path, record: Mapping[str, Any]) -> None:
    """Writes JSON, whole or not at all."""
    atomic.write(path, json.dumps(record, indent=1, allow_nan=False) + "\n")
