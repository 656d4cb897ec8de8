"""What a worker opens before it is asked anything: models, data, model, objective, and how passes are made."""

from __future__ import annotations

import pickle
from dataclasses import dataclass, replace
from pathlib import Path

from merging.errors import TaskError
from merging.evaluation.evaluator import Evaluator
from merging.evaluation.ledger import Ledger
from merging.evaluation.scorer import LiveScorer
from merging.evaluation.workers.blobs import Blobs
from merging.evaluation.workers.models import Models
from merging.evaluation.workers.packing import Packed, Packer, Unpacker
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.forward.patches import use_products
from merging.plugins.discovery import files, load_sent
from merging.plugins.objective import Objective
from merging.plugins.task import Task, built
from merging.plugins.whole_model_objective import WholeModelObjective
from merging.storage.pool import ModelPool
from merging.values.partition import Partition


@dataclass(frozen=True, kw_only=True)
class World:
    """All that decides outcomes, as values that another process can open.

    Attributes:
        models: the pool, by path.
        task: the data, and the function that makes the module.
        partition: the components, with what is inert, constant and frozen.
        objective: what is maximised.
        numerics: how passes are made.
        cache_memory: bytes for activations of earlier passes.
        measure_again: whether BatchNorm statistics of averages are measured again.
        machine: the machine on which the models were read and hashed.
    """

    models: Models
    task: Task
    partition: Partition
    objective: Objective | WholeModelObjective
    numerics: Numerics
    cache_memory: int
    measure_again: bool
    machine: str

    def packed(self, blobs: Blobs) -> Packed:
        """The world as bytes; large tensors of its data are written to files.

        Raises:
            TaskError: something in it belongs to this process alone.
        """
        task = replace(self.task, pool=None, fresh=None)
        try:
            packed = Packer(blobs).pack(replace(self, task=task))
            return replace(packed, data=pickle.dumps((files(), packed.data)))
        except TypeError as error:
            raise TaskError(
                f"workers cannot be given the task '{self.task.name}': {error}; make it of functions and data that "
                "other processes can open, or leave `workers` out"
            ) from None

    @staticmethod
    def unpacked(data: bytes, blobs: Blobs) -> World:
        """The world, read in another process; plug-in files that it may need are run there.

        Raises:
            MergingError: one of them fails there.
            LackingError: a file of a tensor is not on this machine.
        """
        sent, body = pickle.loads(data)
        load_sent(sent)
        world: World = Unpacker(blobs).unpack(body)
        return world

    def open(self, ledger: Ledger, machine: str, own: Path) -> tuple[ModelPool, Evaluator, LiveScorer]:
        """Opens everything in this process: the models, the door to the data, and who makes its passes.

        Args:
            ledger: counts evaluations.
            own: folder of this machine with models that were sent to it.
            machine: the machine that this is; on another one than the driver's all files are compared by content.

        Raises:
            LackingError: a model is not here.
            MergingError: a model cannot be read, or is another one.
        """
        pool = self.models.open(own, verify=machine != self.machine)
        numerics = self.numerics
        module = built(self.task, pool)
        live = LiveModel(module, pool, self.partition, numerics.device, numerics.layout, numerics.torch_dtype)
        if numerics.patches:
            use_products(live.module)
        evaluator = Evaluator.over(
            live,
            self.task,
            self.objective,
            numerics,
            ledger,
            cache_memory=self.cache_memory,
            measure_again=self.measure_again,
        )
        evaluator.remembered = None  # the driver asks it, before it asks a worker
        scorer = evaluator.scorer
        if not isinstance(scorer, LiveScorer):
            raise TypeError("a worker makes passes itself")
        return pool, evaluator, scorer


def machine() -> str:
    """A name of this machine that no other has: that of its boot, where it has one."""
    import platform

    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()} {boot.read_text(encoding='utf-8').strip() if boot.is_file() else ''}".strip()
