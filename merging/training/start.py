"""What a pool starts from: the architecture, and a base with a head that has been trained first."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import load_file
from torch import nn

from merging.errors import PoolError, RequirementError
from merging.forward.device import on_device
from merging.forward.numerics import Numerics
from merging.plugins.progress import Progress
from merging.plugins.task import Task, built, fresh, own_pool
from merging.storage import atomic
from merging.storage.checkpoint import Checkpoint
from merging.storage.companions import companions, copy_companion
from merging.storage.content import content_hash
from merging.storage.pool import ModelPool
from merging.storage.raw import has_only_finite
from merging.storage.sources import place_of
from merging.training.adapters import in_memory
from merging.training.folder import BASE, save
from merging.training.hyperparameters import HyperParameters
from merging.training.parts import head_of
from merging.training.trainer import Run, accuracy, steps_of
from merging.values.report import scored


@dataclass(frozen=True, eq=False, kw_only=True)
class Start:
    """The base in a module, checked against the task.

    Attributes:
        module: the architecture, on its device.
        task: its data.
        numerics: how it is trained.
        lost: tensors that the base lacked, and that are as the architecture draws them.
        extras: files that belong to the base and to each of its children, such as configuration and tokenizer.
        digest: content hash of the base, as it was given.
        left_out: what lies beside the base and does not go along, in a few words.
        origin: id and commit of a base of the Hub; empty of others.
    """

    module: nn.Module
    task: Task
    numerics: Numerics
    lost: frozenset[str]
    extras: tuple[Path, ...]
    digest: str
    left_out: str = ""
    origin: str = ""

    @classmethod
    def of(cls, task: Task, base: Path | str | None, device: str, threads: int | None = None) -> Start:
        """Builds the module and gives it the base.

        Raises:
            MergingError: no training data, no base, or one of another architecture.
        """
        _ = task.training  # nothing else is opened where there is none
        pool = own_pool(task) if base is None else None
        checkpoint = Checkpoint(place_of(base)) if base is not None else pool.base if pool is not None else None
        if checkpoint is None:
            raise RequirementError("there is no base to fine-tune; give one with `base`")
        module = module_for(task, ModelPool([checkpoint]))
        state = module.state_dict()
        lost = [name for name in state if name not in checkpoint.tensors]
        extra = [name for name in checkpoint.tensors if name not in state]
        if extra or len(lost) > len(state) // 2:
            knows = f"has '{extra[0]}', which the model does not know" if extra else ""
            raise PoolError(
                f"{checkpoint.path} {knows or f'misses {lost[0]!r} and {len(lost) - 1} more'}; "
                "is it another architecture?"
            )
        loaded = checkpoint.load()
        for name, tensor in loaded.items():
            if not has_only_finite(tensor):
                raise PoolError(f"{checkpoint.path}: tensor '{name}' holds NaN or infinite values; give another `base`")
        module.load_state_dict({**state, **loaded})
        numerics = Numerics.choose(device, module, task.held_out.tensor[0], "fp32", threads=threads)
        on_device(module, numerics.device, numerics.layout)
        extras = checkpoint.extras if not lost else ()  # a new head is not that of the base's configuration
        left_out = str(companions(checkpoint.path)) if not lost else ""
        return cls(
            module=module,
            task=task,
            numerics=numerics,
            lost=frozenset(lost),
            extras=extras,
            digest=content_hash(loaded),
            left_out=left_out,
            origin=checkpoint.hub,
        )

    def probe(self, epochs: int | None) -> int:
        """Epochs in which the head alone is trained; None: 10 where the base lacks one."""
        return epochs if epochs is not None else 10 if self.lost else 0

    def write(self, folder: Path, probe: int, seed: int, progress: Progress, name: str = BASE) -> str:
        """Writes the base into the pool's folder, its head trained, or loads the one that is there.

        Args:
            folder: folder of the pool; of adapters that of the base.
            probe: epochs in which the head alone is trained first.
            seed: seed of that training.
            progress: told what happens.
            name: name of the base's file.

        Returns:
            Its content hash.
        """
        kept = folder / name
        if kept.exists():
            self.module.load_state_dict(load_file(kept))
        else:
            if probe:
                self._probe(probe, seed, progress)
            atomic.make_folder(folder)
            for file in self.extras:
                with atomic.replacing(folder / file.name) as aside:
                    copy_companion(file, aside)
            if name != BASE and self.lost:
                self._describe(folder)
            if self.left_out:
                progress.say(f"beside the base, left out of the pool: {self.left_out}")
            save(kept, self.module)
        with self.numerics.applied(tf32=True):
            score = accuracy(self.module, self.task, self.task.held_out, self.numerics)
        progress.say(f"base: {scored(score)} held-out")
        return content_hash(load_file(kept))

    def _describe(self, folder: Path) -> None:
        """Writes the configuration of a model of transformers that has a new head: names in its adapters need it."""
        whole: Any = in_memory(self.module)
        if whole is self.module:
            return
        config = copy.deepcopy(whole.config)
        config.architectures = [type(whole).__name__]
        atomic.write(folder / "config.json", config.to_json_string())

    def _probe(self, epochs: int, seed: int, progress: Progress) -> None:
        """Trains the head alone: its random start would otherwise tear at the pretrained features."""
        head = self.lost or head_of(self.module)
        settings = HyperParameters(learning_rate=3e-3, weight_decay=0.0, epochs=epochs, seed=seed)
        progress.stage(f"linear probe ({', '.join(sorted(head))})", steps_of(self.task, settings))
        with self.numerics.applied(tf32=True):
            run = Run(self.module, self.task, settings, numerics=self.numerics, only=head, advance=progress.advance)
            while not run.finished:
                run.step()


def module_for(task: Task, pool: ModelPool) -> nn.Module:
    """The architecture; where the base has no head, with one for the classes of the training data."""
    try:
        return built(task, pool)
    except PoolError:
        found = fresh(task, int(task.train.labels.max()) + 1) if task.train is not None else None
        if found is None:
            raise
        return found
