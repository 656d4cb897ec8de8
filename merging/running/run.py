"""``merging.merge``: checks everything, scores the baselines, runs the strategy, compares, reports, writes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import (
    CheckpointError,
    FolderError,
    InterruptedRunError,
    OptionError,
    Stopped,
    TaskError,
    WorkersError,
)
from merging.machine import at_most
from merging.mixing.writing import Writing, Written
from merging.plugins.keywords import by_keyword, given
from merging.plugins.naming import Meant, meant
from merging.plugins.registry import strategies
from merging.plugins.sink import SinkRun
from merging.plugins.strategy import MixStrategy
from merging.plugins.watcher import Watcher, never
from merging.running.cache import as_told
from merging.running.card import model_card
from merging.running.crew import hired
from merging.running.execution import Execution
from merging.running.following import Followers, check, end_of
from merging.running.found import Found
from merging.running.front_matter import front_matter, library_of, licences_of
from merging.running.given import Destination, Origin, Parts
from merging.running.plan import plan
from merging.running.reporting import report_of
from merging.running.session import Session
from merging.running.settings import Settings
from merging.running.threads import said_of_threads
from merging.running.views import RunViews
from merging.storage import folder as folders
from merging.storage.journal import FILE, Journal, plain, read_header
from merging.storage.pool import ModelPool
from merging.storage.result import write_beside
from merging.storage.shards import INDEX
from merging.values.recipe import Merge, Recipe
from merging.values.report import Report
from merging.values.states import RunState
from merging.values.wording import beginning

if TYPE_CHECKING:
    from torch import Tensor

    from merging.forward.numerics import Numerics
    from merging.storage.ingredients import Models


EVALUATED = b'"event":"evaluation"'
"""Bytes that mark a journal with evaluations, which somebody has paid for and which are not thrown away."""


@dataclass(frozen=True, eq=False, kw_only=True, repr=False)
class Result(RunViews):
    """The merge that :func:`merge` has made, with its report.

    Attributes:
        merge: what was saved: the recipe (or weights) of the merged model, or the ensemble. ``report.saved`` names the
            row that it is of: the strategy's, or, where the run was interrupted or the merge refused, a baseline's.
        report: rows, comparison and cost (``report.json``).
        pool: the checkpoints, from which the ingredients are read.
        folder: the folder that it was written to, or None.
        writing: format of the model file, dtype of the tensors, precision of sums.
    """

    merge: Merge
    report: Report
    pool: ModelPool
    folder: Path | None = None
    writing: Writing = field(default=Writing())

    def state_dict(self) -> dict[str, Tensor]:
        """The merged model's tensors, under the pool's names, in its dtypes or the one that was asked for.

        Raises:
            StrategyError: it is an ensemble, which has several.
            ResultError: a value is not finite, or beyond the dtype's largest number.
            RecipeError: an input has changed since.
        """
        return self.writing.state_dict(self._single(), self.pool)


@by_keyword(Parts, Settings, Destination, Watcher, Origin)
@as_told
def merge(
    pool: ModelPool | Models,
    strategy: Meant[MixStrategy],
    *,
    parts: Parts = Parts(),
    settings: Settings = Settings(),
    destination: Destination = Destination(),
    watcher: Watcher = Watcher(),
    origin: Origin = Origin(),
    **keywords: Any,
) -> Result:
    """Merges a pool into one model.

    Every field of ``parts``, ``settings``, ``destination``, ``watcher`` and ``origin`` may be given by its own name
    instead: ``merge(pool, strategy, task=task, budget=60, output="runs/first")``.

    Args:
        pool: the checkpoints, or what :meth:`ModelPool.open` makes them from: a pattern such as ``"runs/*.pt"``, files,
            state dicts and modules, one, a list, or a mapping from names to them.
        strategy: how they are merged, e.g. ``ManifoldMix(tau=0.99)``, or by name, ``"greedy"``.
        parts: partitioner, objective, optimizer, task, base.
        settings: seed, budget and whatever else the run is told.
        destination: folder that the result is written to; by default nothing is written.
        watcher: is told what happens, and may end the run.
        origin: what is kept of the command that started the run.
        keywords: fields of these values by their own names, as listed under "Keywords".

    Returns:
        The merge and its report. After an interruption ``report.status`` says so, the strategy's row is its own best so
        far, and the merge is that one or a better baseline's (``report.saved``).

    Raises:
        MergingError: a user's mistake; nothing was written.
    """
    parts, settings, destination, watcher, origin = given(
        "merge", keywords, parts, settings, destination, watcher, origin
    )
    pool = ModelPool.open(pool, parts.base, **settings.vocabulary.options())
    strategy = meant(strategies, strategy)
    parts = replace(parts, base=None)  # the pool has it
    started = time.time() if origin.started is None else origin.started
    # Absolute, because a plug-in may go to another folder.
    folder = None if destination.output is None else Path(destination.output).absolute()
    passes, how, progress, resume = settings.passes, settings.writing, watcher.progress, destination.resume
    how.check(pool, strategy.gives)
    if folder is None and how.adapter:
        raise OptionError("`written_as=adapter` is written to a folder: give `output`")
    if folder is not None and not resume:
        folders.check_free(folder, overwrite=destination.overwrite, inputs=_files(pool))
    if folder is not None:
        pool.check_open_files()
    followed = SinkRun(name=strategy.name if folder is None else folder.name, folder=folder, resumed=resume)
    check(settings.watched.sinks, followed)
    progress.stage("opening the models")
    if parts.task is None and folder is not None:
        pool.postpone()  # every byte is read once, while merging, and hashed then
    earlier = _earlier(folder) if resume and folder is not None else None
    made = plan(pool, strategy, parts=parts, settings=settings, progress=progress, measured=earlier, resumed=resume)
    for said in said_of_threads(made, earlier):
        progress.say(said)
    header = made.header(origin.request)
    with (
        at_most(passes.threads),
        hired(made, folder, watcher) as crew,
        _nothing_half_done(folder if not resume else None, scored=parts.task is not None),
        _journal(folder, header, destination, inputs=_files(pool)) as journal,
        Followers(settings.watched.sinks, replace(followed, header=plain(header)), progress) as followers,
    ):
        log = followers.log(journal)
        log.write("run", **(header | {"request": journal.request or header["request"]}))
        with made.numerics.applied() if made.numerics else contextlib.nullcontext():
            session = followers.follow(Session.open(made, log, watcher, followers.observers, crew))
            found = Execution(session).execute()
            merged = found.merge
            # A search that was interrupted is still written.
            stop = watcher.should_stop if parts.task is None else never
            with folders.writing(folder) if folder is not None else contextlib.nullcontext() as aside:
                written = how.write(merged, pool, aside, progress, stop)
                merged = written.merge
                found.remarks += written.notes
                _remember(session, found, written, how)
                workers = () if crew is None else crew.workers
                report = report_of(made, found, written, session.evaluator, progress, started, workers)
                if aside is not None:
                    licences = licences_of(merged.ingredients, pool)
                    library = library_of(aside)
                    above = front_matter(report, merged.ingredients, licences, library, scored=written.whole)
                    card = model_card(
                        report,
                        origin.command,
                        how.kind,
                        sharded=(aside / INDEX).exists(),
                        linear=isinstance(merged, Recipe),
                        again=how.again,
                        rows=merged.ingredients,
                        licences=licences,
                    )
                    write_beside(aside, merged, report.to_json(), above + card)
        if found.state is RunState.FINISHED:
            log.write("finished", time=time.time())
        followers.end = end_of(found, report, folder)
    return Result(merge=merged, report=report, pool=pool, folder=folder, writing=how)


def _remember(session: Session, found: Found, written: Written, how: Writing) -> None:
    """Keeps the scores of the merge for the model that was written, which is known by its content alone from now on."""
    memory = session.evaluator.remembered if session.evaluator is not None else None
    if memory is not None and how.exact(found.merge, session.plan.pool):
        for split in found.seen(found.saved):
            memory.keep_written(found.merge, written.hash, split)


def _journal(
    folder: Path | None, header: Mapping[str, Any], destination: Destination, *, inputs: Sequence[Path]
) -> Journal:
    if folder is None:
        return Journal(None)
    if not destination.resume:
        return folders.claim(folder, overwrite=destination.overwrite, inputs=inputs)
    old = read_header(folder / FILE)
    changed = [key for key, value in header.items() if key != "request" and old.get(key) != value]
    different = [f"{key} was {_brief(old.get(key))}, is {_brief(header[key])}" for key in changed]
    if different:
        way = "start a new run for that"
        if changed == ["numerics"] and (threads := _other_threads(old["numerics"], header["numerics"])):
            way = f"go on with as many threads as then: `threads={threads}`"
        raise FolderError(f"{folder} cannot be resumed: {'; '.join(different)}; {way}")
    return Journal(folder / FILE, resume=True)


def _other_threads(old: Any, new: Any) -> int | None:
    """The number of threads that a run had, where nothing else of its numerics is another now."""
    if not isinstance(old, Mapping) or not isinstance(new, Mapping):
        return None
    then = old.get("threads")
    return then if isinstance(then, int) and {**new, "threads": then} == old else None


@contextlib.contextmanager
def _nothing_half_done(folder: Path | None, *, scored: bool) -> Iterator[None]:
    """Takes back a folder in which there is nothing to go on with.

    That is one in which a merge without a task failed or was stopped, or data that do not fit ended a run before its
    first evaluation.
    """
    try:
        yield
    except Stopped:
        raise InterruptedRunError("interrupted while merging; nothing was written") from None
    except (TaskError, CheckpointError, WorkersError):
        scored = (
            scored and folder is not None and (folder / FILE).is_file() and EVALUATED in (folder / FILE).read_bytes()
        )
        raise
    finally:
        if not scored and folder is not None and folder.is_dir() and [file.name for file in folder.iterdir()] == [FILE]:
            (folder / FILE).unlink()
            folder.rmdir()


def _earlier(output: Path) -> Numerics | None:
    """How an earlier session of the same run made its passes: a newer rule, or measuring again, could say otherwise."""
    from merging.forward.numerics import Numerics

    kept = read_header(output / FILE).get("numerics")
    try:
        return Numerics(**kept) if kept else None
    except TypeError:
        raise FolderError(f"{output}: the journal's numerics are damaged; start a new run") from None


def _brief(value: Any) -> str:
    return beginning(json.dumps(value), 160)


def _files(pool: ModelPool) -> list[Path]:
    return [file for checkpoint in pool.with_base for file in checkpoint.files]


__all__ = ["Result", "merge", "plan"]
