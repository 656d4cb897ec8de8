"""Pools: one base model fine-tuned many times, model by model or together, each with its record beside it."""

from __future__ import annotations

import contextlib
import functools
import os
from collections.abc import Callable, Generator
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import NoneType
from typing import TYPE_CHECKING, Any

from merging.errors import OptionError, RequirementError, TaskError
from merging.forward.settings import OF_SEARCHES, Passes
from merging.machine import cores
from merging.plugins.keywords import by_keyword, check_kinds, expected, given
from merging.plugins.naming import Meant, meant
from merging.plugins.options import build
from merging.plugins.registry import regimes
from merging.plugins.task import Task
from merging.plugins.user_code import called, named, running
from merging.plugins.watcher import Watcher
from merging.tasks.meant import task_of
from merging.training.adapters import Adapters, check_kind
from merging.training.folder import ADAPTERS_BASE, BASE, PoolFolder, Trained
from merging.training.hyperparameters import OF_ADAPTERS, HyperParameters, LoraParameters, Sweep
from merging.training.libraries import check_names
from merging.training.processes import side_by_side
from merging.training.regime import Regime
from merging.training.regimes.independent import Independent
from merging.training.start import Start
from merging.training.trainer import steps_of
from merging.training.turn import Turn

if TYPE_CHECKING:
    from typing import TypedDict, Unpack

    from merging.tasks.meant import TaskLike

    class _Plain(TypedDict, total=False):
        search: str
        linear_probe: int | None
        adapter: str | None
        seed: int
        jobs: int | None
        command: str


@dataclass(frozen=True, kw_only=True)
class Training:
    """The settings of a pool's training: task, base, search of hyper-parameters, regime, device, jobs."""

    task: Task | None = field(
        default=None, metadata={"help": "What ``make_task`` gives, where it has been made already."}
    )
    base: Path | str | None = field(
        default=None,
        metadata={
            "help": "A checkpoint; default: the task's own pool's. Tensors that it lacks (a head) start at random.",
            "takes": ((str, os.PathLike, NoneType), "the path of a checkpoint, or None"),
        },
    )
    search: str = field(
        default="random",
        metadata={
            "help": "``random`` draws each run from the sweep; ``optuna`` lets its TPE sampler propose the next from "
            "those before, by held-out accuracy (listed runs come first, and tell it nothing).",
            "takes": (str, "random or optuna"),
        },
    )
    linear_probe: int | None = field(
        default=None,
        metadata={
            "help": "Epochs in which the head alone is trained first, once for all models (Kumar et al. 2022, "
            "https://arxiv.org/abs/2202.10054); default: 10 where the base has no head, else none.",
            "takes": ((int, NoneType), "a number of epochs, or None"),
        },
    )
    adapter: str | None = field(
        default=None,
        metadata={
            "help": "``lora``: each model is an adapter of PEFT over the base, and all else stays as it is; default: "
            "whole models.",
            "takes": ((str, NoneType), "lora, or None"),
        },
    )
    regime: Regime = field(
        default=Independent(), metadata={"help": "How models are trained; default: each on its own."}
    )
    seed: int = field(
        default=0,
        metadata={
            "help": "Seed of draws; run k trains with seed + k unless the sweep says otherwise.",
            "takes": (int, "a whole number"),
        },
    )
    jobs: int | None = field(
        default=None,
        metadata={
            "help": "Models that are trained at once; default: one for each core where the model is small and the "
            "search is random; on a GPU one, since processes share it by turns. A regime that trains all of them "
            "together has one process.",
            "takes": ((int, NoneType), "a number of models, or None"),
        },
    )
    command: str = field(default="", metadata={"help": "Kept in the records.", "takes": (str, "a text")})

    if TYPE_CHECKING:

        def __init__(
            self,
            *,
            task: TaskLike | None = None,
            base: Path | str | None = None,
            regime: Meant[Regime] = ...,
            **plain: Unpack[_Plain],
        ) -> None: ...

    def __post_init__(self) -> None:
        check_kinds(self)
        object.__setattr__(self, "regime", meant(regimes, self.regime))
        if self.task is not None:
            object.__setattr__(self, "task", task_of(self.task))

    @property
    def parameters(self) -> type[HyperParameters]:
        """The class of a run's settings."""
        return HyperParameters if self.adapter is None else LoraParameters


@by_keyword(Training, Passes, Watcher, without=OF_SEARCHES)
def finetune(
    make_task: Callable[[], Task] | TaskLike,
    output: Path | str,
    sweep: Sweep,
    *,
    models: int,
    training: Training = Training(),
    passes: Passes = Passes(),
    watcher: Watcher = Watcher(),
    **keywords: Any,
) -> list[Trained]:
    """Fine-tunes one base model ``models`` times; what is there already is kept.

    Args:
        make_task: gives the task; with more than one job it is called in every process, and must be importable there.
            Or the name of a task, the path of a merge.toml, or a task, which no other process has.
        output: folder of the pool: ``base.safetensors``, ``model_00.safetensors`` …, a ``.json`` beside each; of
            adapters ``base`` and ``model_00`` …, folders.
        sweep: hyper-parameters that all models have, and those that are drawn for each.
        models: number of models in the pool, those that are there already included.
        training: task, base, search, linear probe, adapter, regime, seed, jobs.
        passes: device, and threads of each job; training is in fp32, whatever a search's passes are made in.
        watcher: is told what happens, and asked between steps whether to stop.
        command: the command that was typed, kept in the records.
        keywords: fields of these values by their own names, instead.

    Returns:
        The models, in order.

    Raises:
        MergingError: no training data, a base that does not fit, or a folder that holds another pool.
        Stopped: ``should_stop`` said so; finished models are kept.
    """
    training, passes, watcher = given("finetune", keywords, training, passes, watcher, without=OF_SEARCHES)
    expected("output", output, (str, os.PathLike), "the path of a folder")
    expected("sweep", sweep, Sweep, "a merging.Sweep")
    expected("models", models, int, "a number of models")
    progress, should_stop, path = watcher.progress, watcher.should_stop, Path(output)
    made = make_task if isinstance(make_task, Task) else None
    training = training if made is None else replace(training, task=made)
    make: Callable[[], Task] = make_task if callable(make_task) else functools.partial(task_of, make_task)
    search, regime, jobs, seed = training.search, training.regime, training.jobs, training.seed
    if search not in ("random", "optuna"):
        raise RequirementError(f"search is '{search}'; it is random or optuna")
    if models < 1:
        raise RequirementError(f"{models} models make no pool; ask for at least 1")
    if jobs is not None and jobs < 1:
        raise RequirementError(f"{jobs} jobs train nothing; ask for at least 1, or leave `jobs` out")
    if regime.together and (search != "random" or jobs not in (None, 1)):
        raise RequirementError(
            f"{regime.name} trains all models together, in one process; leave `search` and `jobs` out"
        )
    if search == "optuna" and jobs not in (None, 1):
        raise RequirementError("each proposal of optuna follows from the models before; leave `jobs` out")
    if made is not None and jobs not in (None, 1):
        raise RequirementError(
            "other processes have no task that was made in this one; give its name, or leave out `jobs`"
        )
    if jobs is None and (made is not None or _from_a_file(regime)):
        jobs = 1
    elif jobs not in (None, 1) and _from_a_file(regime):
        raise RequirementError(f"{regime.name} comes from a file, which other processes do not load; leave `jobs` out")
    if training.linear_probe is not None and training.linear_probe < 0:
        raise RequirementError(f"`linear_probe` is {training.linear_probe}; it is a number of epochs, 0 for none")
    _check_adapter(training, sweep)
    check_names(sweep.values("optimizer"), sweep.values("augmentation"))
    task = training.task or called("make_task", make, Task, "a merging.Task", error=TaskError)
    for name, split in (("train", task.train), ("held-out", task.held_out)):
        if split is not None and not split.categorical:
            raise RequirementError(
                f"models are fine-tuned by the cross-entropy of classes, and the labels of {name} are numbers; train "
                "them with a program of your own, and merge them by an objective for numbers, such as mse"
            )
    start = Start.of(task, training.base, passes.device, passes.threads)
    drawn = [build(training.parameters, sweep.settings(index, seed)) for index in range(models)]
    adapters = None
    if training.adapter is not None:
        adapters = Adapters.of(training.adapter, start.module, start.lost, task, path / ADAPTERS_BASE)
        for one in drawn if search == "random" else ():
            adapters.check(start.module, one)
    steps = [steps_of(task, one) for one in drawn]
    if search == "random":
        with running(named("regime", regime), regime):
            regime.check(drawn, start.module, steps)
    probe = start.probe(training.linear_probe)
    facts: dict[str, Any] = {
        "task": task.name,
        "start": start.digest,
        "linear_probe": probe,
        "base": None,
        "seed": seed,
        "search": search,
        "sweep": sweep.plain(),
        "regime": {"name": regime.name, **regime.options()},
        **({} if adapters is None else {"adapter": adapters.kind}),
    }
    folder = PoolFolder(path, facts, start.numerics.to_json(), training.command, start.origin)
    with folder.lock():
        folder.claim()
        base = (path, BASE) if adapters is None else (path / ADAPTERS_BASE, "model.safetensors")
        folder = replace(folder, facts=facts | {"base": start.write(base[0], probe, seed, progress, base[1])})
        folder.claim()
        turn = Turn(
            folder=folder,
            task=task,
            regime=regime,
            numerics=start.numerics,
            progress=progress,
            should_stop=should_stop,
            adapters=adapters,
        )
        if jobs is None:
            jobs = cores() if start.numerics.device == "cpu" and start.numerics.threads == 1 else 1
        with contextlib.closing(turn):
            if regime.together:
                return turn.together(drawn, start.module)
            if search == "optuna":
                return _one_by_one(turn, _optuna(sweep, models, seed, training.parameters), start)
            if jobs > 1:
                return side_by_side(turn, make, drawn, steps, jobs)
            return [turn.one(index, settings, start.module) for index, settings in enumerate(drawn)]


def _check_adapter(training: Training, sweep: Sweep) -> None:
    """Refuses adapters that are not trained here, and hyper-parameters of adapters where there are none.

    Raises:
        OptionError: names what does not fit.
        RequirementError: PEFT has to be installed.
    """
    if training.adapter is not None:
        check_kind(training.adapter)
        if not training.regime.adapters:
            raise OptionError(
                f"{training.regime.name} averages whole models while they are trained, and the mean of two adapters' "
                "matrices is not that of their updates; leave `adapter` out, or choose another `regime`"
            )
        return
    own = next((name for name in sweep.names if name in OF_ADAPTERS), None)
    if own is not None:
        raise OptionError(f"{own} is a hyper-parameter of adapters; give `adapter` lora, or leave it out")


def _from_a_file(regime: Regime) -> bool:
    """Whether it was defined in a plug-in file or the user's own script: no other process could load its class."""
    return type(regime).__module__.startswith(("merging_plugin_", "__main__"))


def _one_by_one(turn: Turn, asked: Generator[HyperParameters, float, None], start: Start) -> list[Trained]:
    """Each proposal follows from what the one before has reached."""
    done: list[Trained] = []
    settings = next(asked, None)
    while settings is not None:
        with running(named("regime", turn.regime), turn.regime):
            turn.regime.check([settings], start.module, [steps_of(turn.task, settings)])
        if turn.adapters is not None:
            turn.adapters.check(start.module, settings)
        done.append(turn.one(len(done), settings, start.module))
        try:
            settings = asked.send(done[-1].held_out)
        except StopIteration:
            settings = None
    return done


def _optuna(
    sweep: Sweep, models: int, seed: int, kind: type[HyperParameters]
) -> Generator[HyperParameters, float, None]:
    """Proposals of TPE; each is sent back what the one before has reached. A resumed search proposes the same again."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    for index in range(min(len(sweep.listed), models)):
        yield build(kind, sweep.settings(index, seed))
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for index in range(len(sweep.listed), models):
        trial = study.ask()
        reached = yield build(kind, sweep.suggest(trial, index, seed))
        study.tell(trial, reached)
