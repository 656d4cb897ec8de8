"""Every method, partition and seed over one pool, one after the other, sharing each evaluation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from merging.benchmarking.folder import Folder
from merging.benchmarking.gathering import gather
from merging.benchmarking.memory import Memory
from merging.benchmarking.results import REFERENCES, Benchmark, Single
from merging.benchmarking.runs import Entry, MethodRun
from merging.benchmarking.work import Plans, Work
from merging.errors import OptionError, Stopped, unknown
from merging.machine import at_most
from merging.partitioners.whole import Whole
from merging.plugins.objective import Objective, WholeModelObjective
from merging.plugins.optimizer import Optimizer
from merging.plugins.options import Plugin
from merging.plugins.partitioner import Partitioner
from merging.plugins.progress import Progress, Silent
from merging.plugins.registry import optimizers
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Task
from merging.running.plan import Plan
from merging.storage.pool import ModelPool
from merging.values.states import MethodState, RunState

if TYPE_CHECKING:
    from merging.forward.numerics import Numerics

P = TypeVar("P", bound=Plugin)


def benchmark(
    pool: ModelPool,
    methods: Sequence[MixStrategy] | Mapping[str, MixStrategy],
    *,
    task: Task,
    partitioners: Sequence[Partitioner] | Mapping[str, Partitioner] = (Whole(),),
    seeds: Sequence[int] = (0,),
    objective: Objective | WholeModelObjective | None = None,
    optimizer: Optimizer | None = None,
    budget: int | None = None,
    max_evaluations: int | None = None,
    freeze: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    tune: bool = False,
    compile: bool = False,
    threads: int | None = None,
    recalibrate: bool | None = None,
    as_stored: bool = False,
    cache_memory: int | None = None,
    exact_savings: bool = True,
    singles: bool = True,
    against: Sequence[str] = (),
    output: Path | str | None = None,
    overwrite: bool = False,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    command: str = "",
) -> Benchmark:
    """Compares methods over one pool.

    What one method has had scored is not scored again for the next; each row still says what its method needs alone. A
    method that cannot run, or fails, has a row that says why. Methods that draw nothing random run once, whatever
    ``seeds`` says; those that give the same under every partition have one row.

    Args:
        pool: the checkpoints.
        methods: strategies; a mapping names them, where one strategy is there with several options.
        task: the model and its data.
        partitioners: which tensors share a mixing factor; a mapping names them.
        seeds: of strategy and optimizer.
        objective: what a search maximises; default: top-1 accuracy.
        optimizer: of every search; default: each strategy's own.
        budget: evaluations per optimiser call, instead of the strategies' own.
        max_evaluations: held-out evaluations after which a method's best so far is its result.
        freeze: regular expressions of components or tensors that keep the first ingredient's values.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: of forward passes, ``fp32``, ``bf16`` or ``auto``.
        tune: measure the fastest batch and threads first.
        compile: run the model through ``torch.compile``.
        threads: of passes; default: as for :func:`merging.merge`.
        recalibrate: measure BatchNorm statistics of averages again; None: where the task has training data.
        as_stored: average the parts of weight-normed and pruned weights as they are stored.
        cache_memory: MiB for activations of earlier passes (default: 1024; 0: none).
        exact_savings: False makes every evaluation of a method a whole pass.
        singles: score every single model on the test sets too, for the scatter.
        against: names of methods that the others are tested against, besides ``best`` and ``greedy``; of several
            partitions the first.
        output: folder; what lies there from an interrupted (or smaller) benchmark is gone on with.
        overwrite: begin anew instead.
        progress: told what happens.
        should_stop: asked between batches; True ends the benchmark with the methods that are finished.
        command: kept with the results.

    Returns:
        All rows, with intervals and paired tests.

    Raises:
        MergingError: nothing can be run at all, or the folder holds something else.
    """
    began, progress = time.time(), progress or Silent()
    named, divided = _named(methods, "strategy"), _named(partitioners, "partitioner")
    if not seeds or min(seeds) < 0:
        raise OptionError("a benchmark needs at least one seed, 0 or larger")
    if max_evaluations is not None and max_evaluations < 1:
        raise OptionError(f"--max-evaluations {max_evaluations}: at least 1 is needed")
    for name in against:
        if name not in named:
            raise unknown("method to compare with:", name, named)
    folder = Folder(Path(output)) if output is not None else None
    if folder is not None:
        folder.check(overwrite=overwrite)
    settings = {
        "objective": objective,
        "task": task,
        "budget": budget,
        "freeze": freeze,
        "device": device,
        "precision": precision,
        "compile": compile,
        "threads": threads,
        "recalibrate": recalibrate,
        "as_stored": as_stored,
        "progress": progress,
    }
    kept = folder.numerics() if folder is not None and tune and not overwrite else None
    plans = Plans(pool, divided, settings, kept or tune)
    first = plans.first()
    header = plans.header(first)
    with _memory(folder, header, overwrite=overwrite) as memory, _applied(first.numerics), at_most(threads):
        work = Work(plans, memory, progress, should_stop, cache_memory, exact_savings=exact_savings)
        limits = {"budget": budget, "max_evaluations": max_evaluations}
        entries = [
            _entries(method, divided_by, optimizer, seeds, limits)
            for divided_by in divided.items()
            for method in named.items()
        ]
        runs, alone, state = list[MethodRun](), tuple[Single, ...](), RunState.FINISHED
        try:
            alone = work.singles() if singles else ()
            for number, same in enumerate(entries, 1):
                for run in _seeds(same, work, folder, f"{number} of {len(entries)}"):
                    runs.append(run)
        except Stopped:
            state = RunState.INTERRUPTED
        except KeyboardInterrupt:
            if should_stop():  # asked to stop, and pressed again: at once
                raise
            state = RunState.INTERRUPTED
        progress.stage("comparing the methods")
        found = gather(
            runs,
            alone,
            task=task,
            pool=pool,
            methods=tuple(named),
            partitions=tuple(divided),
            seeds=tuple(seeds),
            header=header,
            objective=first.objective,
            state=state,
            evaluations=memory.evaluations,
            wall_seconds=time.time() - began,
            notes=[*_notes(first), *work.remarks],
            command=command,
            references=tuple(dict.fromkeys((*REFERENCES, *against))),
        )
    if folder is not None:
        folder.write(found)
    return found


def _entries(
    method: tuple[str, MixStrategy],
    divided_by: tuple[str, Partitioner],
    optimizer: Optimizer | None,
    seeds: Sequence[int],
    limits: Mapping[str, int | None],
) -> list[Entry]:
    """One method under one partition, at each seed."""
    search = optimizer or optimizers[method[1].default_optimizer()]()
    return [Entry(*method, *divided_by, search, seed, limits) for seed in seeds]


def _seeds(entries: Sequence[Entry], work: Work, folder: Folder | None, place: str) -> Iterator[MethodRun]:
    """A method's runs, one a seed; one only where nothing random was drawn, or where there is no result."""
    for entry in entries:
        run = folder.kept(entry) if folder is not None else None
        if run is None:
            seed = f", seed {entry.seed}" if len(entries) > 1 else ""
            work.progress.say(f"{place}: {entry.method}, {entry.partition}{seed}")
            run = work.run(entry)
            if folder is not None:
                folder.keep(entry, run)
        yield run
        if run.status is not MethodState.FINISHED or not run.seeded:
            return


def _named(plugins: Sequence[P] | Mapping[str, P], kind: str) -> dict[str, P]:
    """Name → plug-in.

    Raises:
        OptionError: none, or two of one name.
    """
    if isinstance(plugins, Mapping):
        named = dict(plugins)
    else:
        named = {plugin.name: plugin for plugin in plugins}
        if len(named) < len(plugins):
            raise OptionError(f"a {kind} is there twice; pass a mapping that names each of them")
    if not named:
        raise OptionError(f"a benchmark needs at least one {kind}")
    return named


@contextlib.contextmanager
def _memory(folder: Folder | None, header: Mapping[str, Any], *, overwrite: bool) -> Iterator[Memory]:
    with Memory(None) if folder is None else folder.claim(header, overwrite=overwrite) as memory:
        yield memory


def _notes(made: Plan) -> list[str]:
    """What is to be said of the models, whatever the method."""
    notes = [*made.partition.notes, *made.notes]
    notes += [f"{', '.join(group)} are the same weights" for group in made.pool.duplicates]
    if any(name.endswith(".running_mean") for name in made.pool.tensors):
        what = "were measured again on training data" if made.recalibrate else "were averaged, not measured again"
        notes.append(f"BatchNorm statistics of averages {what}")
    if made.task is not None:
        from merging.running.leaks import leaks

        notes += leaks(made.task, made.live.module if made.live is not None else None)
    if made.numerics is not None and made.numerics.remark is not None:
        notes.append(made.numerics.remark)
    return notes


def _applied(numerics: Numerics | None) -> contextlib.AbstractContextManager[None]:
    return numerics.applied() if numerics is not None else contextlib.nullcontext()
