"""A pool on disk: what it was made with, a record beside each model, and what is there already."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import save_file
from torch import Tensor, nn

from merging.errors import FolderError
from merging.plugins.options import build
from merging.training.hyperparameters import HyperParameters
from merging.training.trainer import Run

BASE = "base.safetensors"
RECORD = "finetune.json"
"""What the whole pool was made with."""


@dataclass(frozen=True)
class Epoch:
    """What is known after an epoch.

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
    """One model of a pool; ``str`` gives what is said of it.

    Attributes:
        name: of its file, without the suffix.
        settings: its hyper-parameters.
        held_out: accuracy after the last epoch; 0 where it diverged.
        seconds: that it took; 0 where it was there already.
        diverged: why there is a record, but no model.
    """

    name: str
    settings: Mapping[str, Any]
    held_out: float
    seconds: float
    diverged: str = ""

    def __str__(self) -> str:
        settings = build(HyperParameters, self.settings).shown()
        what = f"{self.diverged}; no model is written" if self.diverged else f"{100 * self.held_out:.2f} % held-out"
        return f"{self.name}: {what}, " + (f"{self.seconds:.0f} s ({settings})" if self.seconds else "there already")


@dataclass(frozen=True)
class PoolFolder:
    """Where a pool is written; plain values, so that it can go to another process.

    Attributes:
        path: the folder.
        facts: what all its models share: task, base (``start`` as it was given, ``base`` with its head), seed, sweep,
            regime.
        numerics: how they are computed.
        command: that made it.
    """

    path: Path
    facts: Mapping[str, Any]
    numerics: Mapping[str, Any]
    command: str

    @property
    def base(self) -> Path:
        """What all models start from."""
        return self.path / BASE

    def claim(self) -> None:
        """Says what the pool is.

        Raises:
            FolderError: the folder holds another one.
        """
        path = self.path / RECORD
        if not path.exists():
            replace(path, {**self.facts, "command": self.command, "versions": versions()})
            return
        try:
            unsaid = {key: self.facts[key] for key in ("start", "linear_probe")}  # older records lack them
            old = {"regime": {"name": "independent"}, **unsaid} | json.loads(path.read_bytes())
        except (ValueError, TypeError) as error:
            raise FolderError(f"{path} is damaged ({error}); choose another --output") from None
        changed = [key for key in self.facts if old.get(key) != json.loads(json.dumps(self.facts[key]))]
        changed = list(
            dict.fromkeys({"start": "base", "linear_probe": "linear probe"}.get(key, key) for key in changed)
        )
        if changed:
            raise FolderError(f"{self.path} holds a pool with another {' and '.join(changed)}; choose another --output")

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
        except (ValueError, KeyError, TypeError) as error:
            raise FolderError(f"{path} is damaged ({error}); remove it, and the model is trained again") from None
        if not same:
            raise FolderError(f"{path} was made with other hyper-parameters; choose another --output")
        if not diverged and not (self.path / f"{name}.safetensors").exists():
            return None
        return Trained(name, record["settings"], held_out, 0.0, diverged)

    def write(self, name: str, run: Run, epochs: list[Epoch], seconds: float, diverged: str = "") -> Trained:
        """Writes a finished model, then its record, which says that it is finished; a diverged one has no model."""
        held_out = 0.0 if diverged else epochs[-1].held_out
        record = ({"diverged": diverged} if diverged else {}) | {
            "name": name, "held_out": None if diverged else held_out, "settings": run.settings.options(),
            "epochs": [asdict(epoch) for epoch in epochs], **run.facts, "seconds": seconds,
            "base": self.facts["base"], "task": self.facts["task"], "regime": self.facts["regime"],
            "command": self.command, "numerics": dict(self.numerics), "versions": versions(),
        }  # fmt: skip
        if not diverged:
            save(self.path / f"{name}.safetensors", run.module)
        replace(self.path / f"{name}.json", record)
        return Trained(name, run.settings.options(), held_out, seconds, diverged)


def versions(*more: str) -> dict[str, str]:
    """Of what decides the bits, and of other packages."""
    found = {name: version(name) for name in ("merging", "torch", "timm", "numpy", *more)}
    return {"python": platform.python_version()} | found


def save(path: Path, module: nn.Module) -> None:
    """Writes all tensors of a module, whole or not at all."""
    state: Mapping[str, Tensor] = module.state_dict()
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: t.detach().cpu().contiguous().clone() for name, t in state.items()}, aside, {"format": "pt"})
    os.chmod(aside, 0o644)
    os.replace(aside, path)


def replace(path: Path, record: Mapping[str, Any]) -> None:
    """Writes JSON, whole or not at all."""
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(record, indent=1, allow_nan=False) + "\n")
    os.replace(aside, path)
