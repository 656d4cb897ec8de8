"""A model made ready for its data: what is inert, which device, precision, batch and threads."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import torch
from torch import nn

from merging.errors import TaskError, raised
from merging.forward.device import batch_for
from merging.forward.fitting import check_fits, probe
from merging.forward.live import LiveModel
from merging.forward.numerics import Numerics
from merging.forward.patches import use_products
from merging.forward.settings import Passes
from merging.forward.tuning import tuned
from merging.plugins.progress import Progress
from merging.plugins.task import Task
from merging.storage.pool import ModelPool
from merging.values.partition import Partition
from merging.values.recipe import Recipe


def place(
    module: nn.Module,
    task: Task,
    pool: ModelPool,
    partition: Partition,
    *,
    passes: Passes,
    progress: Progress,
    earlier: Numerics | None = None,
    evaluations: int = 0,
) -> tuple[LiveModel, Numerics]:
    """The module on its device, its partition marked, and how passes are made.

    Args:
        module: the task's model.
        task: its data.
        pool: the checkpoints.
        partition: their components.
        passes: what was said of device, workers, precision, threads, tuning and compiling.
        progress: told of measurements.
        earlier: how passes were made by an earlier session, or for another partition; what was measured then
            (``tune``) is not measured again.
        evaluations: how many are planned.

    Raises:
        TaskError: model and data do not fit.
        PoolError: model and checkpoints do not.
        OptionError: there is no such device, or fewer GPUs than workers are to have.
    """
    check_fits(module, pool)
    crew = passes.crew
    if crew is not None and crew.kind == "gpu":
        crew.check_gpus(torch.cuda.device_count() if torch.cuda.is_available() else 0)
    sample, threads = task.held_out.inputs[0], passes.threads
    work, compile = evaluations * len(task.held_out), passes.compile
    device = passes.device if crew is None else crew.on(passes.device)
    numerics = Numerics.choose(
        device,
        module,
        sample,
        passes.precision,
        compile=compile,
        threads=threads,
        work=work,
        beside=crew is not None,
    )
    if earlier is not None:
        numerics = numerics.as_before(earlier, compile=compile, threads=threads)
    with numerics.applied():
        idle = probe(module, task, numerics)
    partition = partition.with_marks(untouched=idle, equal=pool.constant if len(pool) > 1 else ())
    live = LiveModel(module, pool, partition, numerics.device, numerics.layout, numerics.torch_dtype)
    numerics = _in_its_precision(live, task, numerics, must=passes.precision == "bf16")
    if numerics.patches:
        use_products(live.module)
    if passes.tune and earlier is not None:
        return live, earlier
    if passes.tune:
        live.load(Recipe.single(pool.ingredients[0], partition))
        numerics = tuned(
            numerics,
            live.module,
            partial(batch_for, task, device=numerics.device, dtype=live.dtype),
            task.held_out.inputs,
            progress,
            threads if crew is None else numerics.threads,
        )
    return live, numerics


def _in_its_precision(live: LiveModel, task: Task, numerics: Numerics, *, must: bool) -> Numerics:
    """Runs two samples in bf16; a model that cannot take it runs in fp32, unless bf16 was asked for.

    Raises:
        TaskError: it was.
    """
    if numerics.dtype == "float32":
        return numerics
    try:
        with numerics.applied(), torch.inference_mode():
            live.module(batch_for(task, task.held_out.inputs[:2], numerics.device, live.dtype))
    except Exception as error:  # models raise whatever two dtypes in one sum provoke
        if must:
            reason = raised(error)
            raise TaskError(f"the model cannot run in bf16 ({reason}); use `precision=fp32`") from None
        live.widen()
        return replace(numerics, dtype="float32")
    return numerics
