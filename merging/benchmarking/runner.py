"""Every method, partition and seed over one pool, one after the other, sharing each evaluation."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from merging.benchmarking.design import NOT_TAKEN, Design
from merging.benchmarking.folder import Folder
from merging.benchmarking.gathering import Asked, gather
from merging.benchmarking.memory import Memory
from merging.benchmarking.results import REFERENCES, Benchmark, Single
from merging.benchmarking.runs import Entry, MethodRun
from merging.benchmarking.sinks import Sinks
from merging.benchmarking.work import Plans, Work
from merging.errors import OptionError, Stopped, unknown
from merging.evaluation.comparing import Comparer
from merging.machine import at_most
from merging.plugins.keywords import by_keyword, expected, given
from merging.plugins.naming import Several, named
from merging.plugins.optimizer import Optimizer
from merging.plugins.options import Plugin
from merging.plugins.partitioner import Partitioner
from merging.plugins.registry import optimizers, strategies
from merging.plugins.strategy import MixStrategy, own_optimizer
from merging.plugins.watcher import Watcher
from merging.running.cache import as_told
from merging.running.crew import hired
from merging.running.given import Destination, Parts
from merging.running.notes import doubt_of
from merging.running.plan import Plan
from merging.running.settings import Settings
from merging.running.threads import said_of_threads
from merging.storage.pool import ModelPool
from merging.values.states import MethodState, RunState

if TYPE_CHECKING:
    from merging.forward.numerics import Numerics
    from merging.storage.ingredients import Models

P = TypeVar("P", bound=Plugin)


@by_keyword(Design, Settings, Destination, Watcher, without=NOT_TAKEN)
@as_told
def benchmark(
    pool: ModelPool | Models,
    methods: Several[MixStrategy],
    *,
    design: Design = Design(),
    settings: Settings = Settings(),
    destination: Destination = Destination(),
    watcher: Watcher = Watcher(),
    command: str = "",
    **keywords: Any,
) -> Benchmark:
    """Compares methods over one pool.

    What one method has had scored is not scored again for the next; each row still says what its method needs alone. A
    method that cannot run, or fails, has a row that says why. Methods that draw nothing random run once, whatever
    ``seeds`` says; those that give the same under every partition have one row.

    Args:
        pool: the checkpoints, or what :meth:`ModelPool.open` makes them from.
        methods: strategies, as objects, classes or names; a mapping names them, where one strategy is there with
            several options.
        design: task, partitioners, seeds, objective, optimizer, base; what is tested against what.
        settings: settings of :func:`merging.merge`; ``max_evaluations`` limits each method, whose result is then its
            best so far.
        destination: folder of the results; what lies there from an interrupted (or smaller) benchmark is gone on with.
        watcher: is told what happens, and may end the benchmark with the methods that are finished.
        command: the command that was typed, kept with the results.
        keywords: fields of these values by their own names, instead.

    Returns:
        All rows, with intervals and paired tests.

    Raises:
        MergingError: nothing can be run at all, or the folder holds something else.
    """
    design, settings, destination, watcher = given(
        "benchmark", keywords, design, settings, destination, watcher, without=NOT_TAKEN
    )
    expected("command", command, str, "a text")
    _check_taken(settings)
    began, progress = time.time(), watcher.progress
    if design.task is None:
        raise OptionError("a benchmark scores its methods, and there is no task; give `task`")
    pool, compared = ModelPool.open(pool, design.base), named(strategies, methods)
    divided = design.divided(compared)
    partitions = {label: partitioner for own in divided.values() for label, partitioner in own.items()}
    if not design.seeds or min(design.seeds) < 0:
        raise OptionError("a benchmark needs at least one seed, 0 or larger")
    for name in design.against:
        if name not in compared:
            raise unknown("method to compare with:", name, compared)
    folder = Folder(Path(destination.output)) if destination.output is not None else None
    overwrite = destination.overwrite
    if folder is not None:
        folder.check(overwrite=overwrite)
    sinks = Sinks(settings.watched.sinks, folder.path if folder is not None else None)
    sinks.check()
    search, passes = settings.search, settings.passes
    limits = {"budget": search.budget, "max_evaluations": search.max_evaluations}
    kept = folder.numerics() if folder is not None and not overwrite else None
    parts = Parts(objective=design.objective, task=design.task)
    alike = settings.changed({"max_evaluations": None, "baselines": False})
    plans = Plans(pool, partitions, parts, alike, progress, kept)
    first = plans.first()
    for said in said_of_threads(first, kept):
        progress.say(said)
    header = plans.header(first)
    with (
        hired(first, folder.path if folder is not None else None, watcher) as crew,
        _memory(folder, header, overwrite=overwrite) as memory,
        _applied(first.numerics),
        at_most(passes.threads),
    ):
        work = Work(plans, memory, watcher, crew, sinks)
        entries = [
            _entries(method, divided_by, design.optimizer, design.seeds, limits)
            for divided_by in partitions.items()
            for method in compared.items()
            if divided_by[0] in divided[method[0]]
        ]
        runs, alone, state = list[MethodRun](), tuple[Single, ...](), RunState.FINISHED
        warning: str | None = None
        try:
            warning = doubt_of(first, progress, watcher.should_stop)
            alone = work.singles() if design.singles else ()
            work.coming = [entry for same in entries for entry in same]
            for number, same in enumerate(entries, 1):
                for run in _seeds(same, work, folder, f"{number} of {len(entries)}"):
                    runs.append(run)
        except Stopped:
            state = RunState.INTERRUPTED
        except KeyboardInterrupt:
            if watcher.should_stop():  # asked to stop, and pressed again: at once
                raise
            state = RunState.INTERRUPTED
        progress.stage("comparing the methods")
        references = tuple(dict.fromkeys((*REFERENCES, *design.against)))
        asked = Asked(
            {method: tuple(own) for method, own in divided.items()}, tuple(design.seeds), references, plans.refused
        )
        seconds, comparer = time.time() - began, Comparer(first.objective, design.task)
        found = gather(runs, alone, asked, comparer, pool.names)
        found = replace(
            found,
            state=state,
            doubt=warning or "",
            evaluations=memory.evaluations,
            workers=crew.workers if crew is not None else (),
            wall_seconds=seconds,
            notes=(*_notes(first), *_uncontrolled(compared), *work.remarks, *found.notes),
            command=command,
            header=header | _of_hub(pool),
        )
    if folder is not None:
        folder.write(found)
    return found


def _of_hub(pool: ModelPool) -> dict[str, Any]:
    """Id and commit of each model of the Hub, by name; nothing where there is none."""
    there = [*pool.checkpoints, *([pool.base] if pool.base is not None else [])]
    found = {each.name: each.hub for each in there if each.hub}
    return {"hub": found} if found else {}


def _check_taken(settings: Settings) -> None:
    """Refuses what only a single run can be told.

    Raises:
        OptionError: it names the setting.
    """
    default = Settings().plain()
    for name, value in settings.plain().items():
        if name in NOT_TAKEN and value != default[name]:
            way = "; give `seeds`" if name == "seed" else ": leave it out"
            raise OptionError(f"a benchmark takes no `{name}`{way}")


def _entries(
    method: tuple[str, MixStrategy],
    divided_by: tuple[str, Partitioner],
    optimizer: Optimizer | None,
    seeds: Sequence[int],
    limits: Mapping[str, int | None],
) -> list[Entry]:
    """One method under one partition, at each seed."""
    (name, strategy), (partition, partitioner) = method, divided_by
    search = optimizer or optimizers[own_optimizer(strategy)]()
    return [
        Entry(
            method=name,
            strategy=strategy,
            partition=partition,
            partitioner=partitioner,
            optimizer=search,
            seed=seed,
            limits=limits,
        )
        for seed in seeds
    ]


def _seeds(entries: Sequence[Entry], work: Work, folder: Folder | None, place: str) -> Iterator[MethodRun]:
    """A method's runs, one a seed; one only where nothing random was drawn, or where there is no result."""
    for entry in entries:
        run = folder.kept(entry) if folder is not None else None
        if run is None:
            seed = f", seed {entry.seed}" if len(entries) > 1 else ""
            what = f"{place}: {entry.method}, {entry.partition}{seed}"
            work.progress.say(what)
            work.progress.stage(what)  # what was done before is not shown beside it
            run = work.run(entry)
            if folder is not None:
                folder.keep(entry, run)
        yield run
        if run.status is not MethodState.FINISHED or not run.seeded:
            return


@contextlib.contextmanager
def _memory(folder: Folder | None, header: Mapping[str, Any], *, overwrite: bool) -> Iterator[Memory]:
    with Memory(None) if folder is None else folder.claim(header, overwrite=overwrite) as memory:
        yield memory


def _notes(made: Plan) -> list[str]:
    """What is to be said of the models, whatever the method."""
    notes = [*made.partition.notes, *made.notes]
    notes += [f"{', '.join(group)} are the same weights" for group in made.pool.duplicates]
    if any(name.endswith(".running_mean") for name in made.pool.tensors):
        what = (
            "were measured again on training data"
            if made.settings.rules.recalibrate
            else "were averaged, not measured again"
        )
        notes.append(f"BatchNorm statistics of averages {what}")
    if made.task is not None:
        from merging.running.leaks import leaks

        notes += leaks(made.task, made.live.module if made.live is not None else None)
    if made.numerics is not None and made.numerics.remark is not None:
        notes.append(made.numerics.remark)
    return notes


def _uncontrolled(methods: Mapping[str, MixStrategy]) -> list[str]:
    """Names the methods that are compared without the control that their strategies declare."""
    there = [(strategy.name, strategy.options()) for strategy in methods.values()]
    return [
        f"{label} stands without its control: compare {strategy.control} with the same options, or nobody can say what "
        f"{label} owes to more than that"
        for label, strategy in methods.items()
        if strategy.control and (strategy.control, strategy.options()) not in there
    ]


def _applied(numerics: Numerics | None) -> contextlib.AbstractContextManager[None]:
    return numerics.applied() if numerics is not None else contextlib.nullcontext()
