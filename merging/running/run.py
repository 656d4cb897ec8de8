"""``merging.merge``: checks everything, scores the baselines, runs the strategy, compares, reports, writes."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from merging.errors import FolderError, InterruptedRunError, RequirementError, Stopped, StrategyError, TaskError
from merging.machine import at_most
from merging.mixing.writing import Writing
from merging.plugins.objective import Objective, WholeModelObjective
from merging.plugins.optimizer import Optimizer
from merging.plugins.partitioner import Partitioner
from merging.plugins.progress import Progress, Silent
from merging.plugins.strategy import MixStrategy
from merging.plugins.task import Task
from merging.running.card import model_card
from merging.running.execution import Execution
from merging.running.plan import plan
from merging.running.reporting import report_of
from merging.running.session import Session
from merging.storage import folder as folders
from merging.storage.journal import FILE, Journal, read_header
from merging.storage.pool import ModelPool
from merging.storage.shards import INDEX
from merging.values.recipe import Ensemble, Merge, Recipe
from merging.values.report import Report
from merging.values.states import RunState
from merging.values.wording import beginning

if TYPE_CHECKING:
    from torch import Tensor

    from merging.forward.numerics import Numerics


EVALUATED = b'"event":"evaluation"'
"""What stands in a journal that somebody has paid for."""


@dataclass(frozen=True, eq=False)
class Result:
    """What :func:`merge` returns.

    Attributes:
        merge: what was saved: the recipe (or weights) of the merged model, or the ensemble. ``report.saved`` names the
            row that it is of: the strategy's, or, where the run was interrupted or the merge refused, a baseline's.
        report: rows, comparison, cost.
        pool: where the ingredients are read from.
        folder: where it was written, or None.
        dtype: of the tensors, where another than the pool's was asked for.
        accumulate: in which sums are made.
    """

    merge: Merge
    report: Report
    pool: ModelPool
    folder: Path | None = None
    dtype: str | None = None
    accumulate: str = "float64"

    def state_dict(self) -> dict[str, Tensor]:
        """The merged model's tensors, under the pool's names, in its dtypes or the one that was asked for.

        Raises:
            StrategyError: it is an ensemble, which has several.
            ResultError: a value is not finite, or beyond the dtype's largest number.
            RecipeError: an input has changed since.
        """
        if isinstance(self.merge, Ensemble):
            raise StrategyError(f"an ensemble of {len(self.merge.members)} members is no single model")
        return Writing(dtype=self.dtype, accumulate=self.accumulate).state_dict(self.merge, self.pool)


def merge(
    pool: ModelPool,
    strategy: MixStrategy,
    *,
    partitioner: Partitioner | None = None,
    objective: Objective | WholeModelObjective | None = None,
    optimizer: Optimizer | None = None,
    task: Task | None = None,
    seed: int = 0,
    budget: int | None = None,
    max_evaluations: int | None = None,
    freeze: Sequence[str] = (),
    device: str = "auto",
    precision: str = "auto",
    tune: bool = False,
    compile: bool = False,
    threads: int | None = None,
    baselines: bool = True,
    tests: bool = True,
    certify_split: float | None = None,
    recalibrate: bool | None = None,
    as_stored: bool = False,
    cache_memory: int | None = None,
    exact_savings: bool = True,
    output: Path | str | None = None,
    overwrite: bool = False,
    resume: bool = False,
    format: str = "safetensors",
    dtype: str | None = None,
    accumulate: str = "float64",
    max_shard_size: str | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    request: Mapping[str, Any] | None = None,
    command: str = "",
    started: float | None = None,
) -> Result:
    """Merges a pool into one model.

    Args:
        pool: the checkpoints (:meth:`ModelPool.open` takes files, folders and globs).
        strategy: how they are merged, e.g. ``ManifoldMix(tau=0.99)``.
        partitioner: which tensors share a mixing factor; default: the whole model.
        objective: what a search maximises; default: top-1 accuracy.
        optimizer: the search's backend; default: the strategy's own, which is Nevergrad's Cobyla for most.
        task: the model and its data; strategies that only average weights need none.
        seed: of everything random; same seed, same bits on the CPU.
        budget: evaluations per optimiser call, instead of the strategy's own.
        max_evaluations: distinct held-out evaluations after which the run ends with the best so far.
        freeze: regular expressions of components or tensors that keep the first ingredient's values.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        precision: of forward passes, ``fp32``, ``bf16`` or ``auto`` (bf16 on GPUs that multiply it natively, for models
            of a million parameters or more). Weights are mixed in fp32, and every score of the report is
            re-scored in fp32, either way.
        tune: measure which batch size and number of threads are fastest instead of following the fixed rule.
        compile: run the model through ``torch.compile`` (with CUDA graphs on such a device); every pass is whole.
        threads: of passes and of reading and writing; default: a rule by the model's size, within what the process is
            granted (``OMP_NUM_THREADS``, the cgroup's CPU limit).
        baselines: also run best, uniform and greedy, sharing every evaluation.
        tests: score the results on the task's test sets.
        certify_split: share of the held-out data that selects nothing and, at the end, accepts the merge if it
            beats the best single model there; the best single model is the result otherwise.
        recalibrate: measure BatchNorm statistics of averages again on training (or unlabelled) data, for every score
            and for the result; None: where the model has such layers and the task has such data.
        as_stored: average the parts of weight-normed and pruned weights as they are stored, which is not the average of
            the weights; such models are refused otherwise.
        cache_memory: MiB for activations of earlier passes (default: 1024; 0: none); changes no result.
        exact_savings: False makes a whole pass of every evaluation, for measuring what is saved; changes no result.
        output: folder for the result; None writes nothing.
        overwrite: replace an earlier run in that folder.
        resume: go on with the run in that folder; everything but the dtype must be the same.
        format: ``safetensors`` or ``pt``.
        dtype: of the merged model's floating-point tensors, such as ``bfloat16``; default: the inputs'.
        accumulate: in which sums are made while writing, ``float64`` or ``float32``.
        max_shard_size: write several files with an index, each of at most so many bytes (``5GB``, ``500MiB``).
        progress: told what happens.
        should_stop: asked between batches; True ends the run with the best so far.
        request: kept in the journal for ``merge run --resume``.
        command: kept in the model card.
        started: ``time.time()`` of the start, where that was before this call.

    Returns:
        The merge and its report. After an interruption ``report.status`` says so, the strategy's row is its own best so
        far, and the merge is that one or a better baseline's (``report.saved``).

    Raises:
        MergingError: a user's mistake; nothing was written.
    """
    started = time.time() if started is None else started
    output = None if output is None else Path(output).absolute()  # a plug-in may go to another folder
    how = Writing.of(format, dtype, accumulate, max_shard_size)
    if cache_memory is not None and cache_memory < 0:
        raise RequirementError(f"cache_memory is {cache_memory}; it is a number of MiB, 0 for none")
    progress = progress or Silent()
    if output is not None and not resume:
        folders.check_free(Path(output), overwrite=overwrite, inputs=_files(pool))
    if output is not None:
        pool.check_open_files()
    progress.stage("opening the models")
    if task is None and output is not None:
        pool.postpone()  # every byte is read once, while merging, and hashed then
    made = plan(
        pool,
        strategy,
        partitioner=partitioner,
        objective=objective,
        optimizer=optimizer,
        task=task,
        seed=seed,
        budget=budget,
        max_evaluations=max_evaluations,
        freeze=freeze,
        device=device,
        precision=precision,
        tune=_measured(output) if tune and resume and output is not None else tune,
        compile=compile,
        threads=threads,
        baselines=baselines,
        tests=tests,
        certify_split=certify_split,
        recalibrate=recalibrate,
        as_stored=as_stored,
        progress=progress,
    )
    header = made.header(request)
    folder = Path(output) if output is not None else None
    with (
        at_most(threads),
        _nothing_half_done(folder if not resume else None, scored=task is not None),
        _journal(folder, header, overwrite=overwrite, resume=resume, inputs=_files(pool)) as journal,
    ):
        journal.write("run", **(header | {"request": journal.request or header["request"]}))
        with made.numerics.applied() if made.numerics else contextlib.nullcontext():
            session = Session.open(
                made,
                journal,
                progress,
                should_stop=should_stop,
                cache_memory=cache_memory,
                exact_savings=exact_savings,
            )
            found = Execution(session).execute()
            merged = found.merge
            stop = should_stop if task is None else _never  # a search that was interrupted is still written
            with folders.writing(folder) if folder is not None else contextlib.nullcontext() as aside:
                write = how.ensemble if isinstance(merged, Ensemble) else how.model
                written = write(merged, pool, aside, progress, stop)  # type: ignore[arg-type]
                merged = written.merge
                report = report_of(made, found, written, session.evaluator, progress, started)
                if aside is not None:
                    card = model_card(
                        report, command, format, sharded=(aside / INDEX).exists(), linear=isinstance(merged, Recipe)
                    )
                    folders.write_beside(aside, merged, report.to_json(), card)
        if found.state is RunState.FINISHED:
            journal.write("finished", time=time.time())
    return Result(merged, report, pool, folder, dtype, accumulate)


def _journal(
    folder: Path | None, header: Mapping[str, Any], *, overwrite: bool, resume: bool, inputs: Sequence[Path]
) -> Journal:
    if folder is None:
        return Journal(None)
    if not resume:
        return folders.claim(folder, overwrite=overwrite, inputs=inputs)
    old = read_header(folder / FILE)
    changed = [key for key, value in header.items() if key != "request" and old.get(key) != value]
    different = [f"{key} was {_brief(old.get(key))}, is {_brief(header[key])}" for key in changed]
    if different:
        way = "start a new run for that"
        if changed == ["numerics"] and (threads := _other_threads(old["numerics"], header["numerics"])):
            way = f"go on with as many threads as then: --threads {threads}"
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
    except TaskError:
        scored = (
            scored and folder is not None and (folder / FILE).is_file() and EVALUATED in (folder / FILE).read_bytes()
        )
        raise
    finally:
        if not scored and folder is not None and folder.is_dir() and [file.name for file in folder.iterdir()] == [FILE]:
            (folder / FILE).unlink()
            folder.rmdir()


def _never() -> bool:
    return False


def _measured(output: Path | str) -> Numerics | bool:
    """What an earlier session of the same run has measured: measuring again could find something else."""
    from merging.forward.numerics import Numerics

    kept = read_header(Path(output) / FILE).get("numerics")
    try:
        return Numerics(**kept) if kept else True
    except TypeError:
        raise FolderError(f"{output}: the journal's numerics are damaged; start a new run") from None


def _brief(value: Any) -> str:
    return beginning(json.dumps(value), 160)


def _files(pool: ModelPool) -> list[Path]:
    return [file for c in (*pool.checkpoints, *([pool.base] if pool.base else [])) for file in c.files]


__all__ = ["Result", "merge", "plan"]
