"""Pools: one base model fine-tuned many times, model by model, each with its record beside it."""

from __future__ import annotations

import json
import multiprocessing
import os
import platform
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from merging.checkpoint import Checkpoint, content_hash
from merging.errors import FolderError, PoolError, RequirementError, Stopped, TaskError
from merging.interfaces import Progress
from merging.machine import cores
from merging.numerics import Numerics
from merging.options import build
from merging.pool import ModelPool
from merging.progress import Silent
from merging.task import Task
from merging.training.hyperparameters import HyperParameters, Sweep
from merging.training.trainer import accuracy, check_names, steps_of, train

BASE = "base.safetensors"
RECORD = "finetune.json"
"""What the whole pool was made with."""


@dataclass(frozen=True)
class Trained:
    """One model of a pool.

    Attributes:
        name: of its file, without the suffix.
        settings: its hyper-parameters.
        held_out: accuracy after the last epoch.
        seconds: that it took; 0 where it was there already.
    """

    name: str
    settings: Mapping[str, Any]
    held_out: float
    seconds: float


def finetune(
    make_task: Callable[[], Task],
    output: Path | str,
    sweep: Sweep,
    *,
    models: int,
    base: Path | str | None = None,
    search: str = "random",
    linear_probe: int | None = None,
    seed: int = 0,
    device: str = "auto",
    jobs: int | None = None,
    progress: Progress | None = None,
    should_stop: Callable[[], bool] = lambda: False,
    command: str = "",
) -> list[Trained]:
    """Fine-tunes one base model ``models`` times; what is there already is kept.

    Args:
        make_task: gives the task; with more than one job it is called in every process, and must be importable there.
        output: a folder: ``base.safetensors``, ``model_00.safetensors`` …, a ``.json`` beside each.
        sweep: the hyper-parameters.
        models: how many.
        base: a checkpoint; default: that of the task's own pool. Tensors that it lacks (a head) start at random.
        search: ``random`` draws each run from the sweep; ``optuna`` lets its TPE sampler propose the next from those
            before, by held-out accuracy.
        linear_probe: epochs in which the head alone is trained first, once for all models (Kumar et al. 2022,
            https://arxiv.org/abs/2202.10054); default: 10 where the base has no head, else none.
        seed: of draws; run ``k`` trains with ``seed + k`` unless the sweep says otherwise.
        device: ``auto``, ``cpu``, ``cuda`` or ``mps``.
        jobs: models that are trained at once; default: one for each core where the model is small and the search is
            random.
        progress: told what happens.
        should_stop: asked between steps.
        command: kept in the records.

    Returns:
        The models, in order.

    Raises:
        MergingError: no training data, a base that does not fit, or a folder that holds another pool.
        Stopped: ``should_stop`` said so; finished models are kept.
    """
    progress, folder = progress or Silent(), Path(output)
    if search not in ("random", "optuna"):
        raise RequirementError(f"search is '{search}'; it is random or optuna")
    if models < 1:
        raise RequirementError(f"{models} models make no pool; ask for at least 1")
    check_names(sweep.values("optimizer"), sweep.values("augmentation"))
    task = make_task()
    module, numerics, digest = _prepare(task, folder, base, linear_probe, seed, device, progress)
    facts = {"task": task.name, "base": digest, "seed": seed, "search": search, "sweep": _plain(sweep)}
    _claim(folder, facts, command)
    if jobs is None:
        jobs = cores() if numerics.device == "cpu" and numerics.threads == 1 and search == "random" else 1
    work = _Work(folder, facts, numerics, command)
    asked = _random(sweep, models, seed) if search == "random" else _optuna(sweep, models, seed)
    if jobs > 1 and search == "random":
        return _side_by_side(work, make_task, list(asked), jobs, progress, should_stop)
    done: list[Trained] = []
    settings = next(asked, None)
    while settings is not None:
        done.append(work.one(len(done), settings, task, module, progress, should_stop))
        settings = _next(asked, done[-1].held_out)
    return done


@dataclass(frozen=True)
class _Work:
    """What every run of a pool shares; plain values, so that it can go to another process."""

    folder: Path
    facts: Mapping[str, Any]
    numerics: Numerics
    command: str

    def one(
        self, index: int, settings: HyperParameters, task: Task, module: nn.Module, progress: Progress,
        should_stop: Callable[[], bool],
    ) -> Trained:  # fmt: skip
        """Trains a model from the base and writes it, or finds it written."""
        name = f"model_{index:02d}"
        found = self.written(name, settings)
        if found is not None:
            progress.say(f"{name}: {100 * found.held_out:.2f} % held-out, there already")
            return found
        began = time.perf_counter()
        progress.stage(f"{name}: {_shown(settings)}", steps_of(task, settings))
        with self.numerics.applied():
            module.load_state_dict(load_file(self.folder / BASE))
            epochs = [
                asdict(epoch)
                for epoch in train(
                    module, task, settings, numerics=self.numerics, advance=progress.advance, should_stop=should_stop
                )
            ]
        seconds = time.perf_counter() - began
        record = {
            "name": name, "held_out": epochs[-1]["held_out"], "settings": settings.options(), "epochs": epochs,
            "seconds": seconds, "base": self.facts["base"], "task": self.facts["task"], "command": self.command,
            "numerics": self.numerics.to_json(), "versions": _versions(),
        }  # fmt: skip
        _write(self.folder / f"{name}.safetensors", module.state_dict())
        _replace(self.folder / f"{name}.json", record)
        progress.say(f"{name}: {100 * epochs[-1]['held_out']:.2f} % held-out, {seconds:.0f} s ({_shown(settings)})")
        return Trained(name, settings.options(), epochs[-1]["held_out"], seconds)

    def written(self, name: str, settings: HyperParameters) -> Trained | None:
        """A model that an earlier call has finished.

        Raises:
            FolderError: it was made with other settings.
        """
        path = self.folder / f"{name}.json"
        if not (path.exists() and (self.folder / f"{name}.safetensors").exists()):
            return None
        try:
            record = json.loads(path.read_bytes())
            same, held_out = record["settings"] == settings.options(), float(record["held_out"])
        except (ValueError, KeyError, TypeError) as error:
            raise FolderError(f"{path} is damaged ({error}); remove it, and the model is trained again") from None
        if not same:
            raise FolderError(f"{path} was made with other hyper-parameters; choose another --output")
        return Trained(name, record["settings"], held_out, 0.0)


def _random(sweep: Sweep, models: int, seed: int) -> Generator[HyperParameters, float, None]:
    for index in range(models):
        yield build(HyperParameters, sweep.settings(index, seed))


def _optuna(sweep: Sweep, models: int, seed: int) -> Generator[HyperParameters, float, None]:
    """Proposals of TPE; each is sent back what the one before has reached. A resumed search proposes the same again."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    for index in range(models):
        trial = study.ask()
        reached = yield build(HyperParameters, sweep.suggest(trial, index, seed))
        study.tell(trial, reached)


def _next(asked: Generator[HyperParameters, float, None], reached: float) -> HyperParameters | None:
    try:
        return asked.send(reached)
    except StopIteration:
        return None


def _side_by_side(
    work: _Work, make_task: Callable[[], Task], asked: Sequence[HyperParameters], jobs: int, progress: Progress,
    should_stop: Callable[[], bool],
) -> list[Trained]:  # fmt: skip
    """Several models at once, a process each; what is written already needs none."""
    found = {k: work.written(f"model_{k:02d}", settings) for k, settings in enumerate(asked)}
    waiting = [k for k, trained in found.items() if trained is None]
    progress.stage(f"fine-tuning, {min(jobs, len(waiting))} at once", len(asked))
    progress.advance(len(asked) - len(waiting))
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(min(jobs, max(len(waiting), 1)), context, _begin, (work, make_task)) as pool:
        running: dict[Future[Trained], int] = {pool.submit(_run, k, asked[k]): k for k in waiting}
        try:
            while running:
                ended, _ = wait(running, timeout=0.5, return_when=FIRST_COMPLETED)
                for future in ended:
                    trained = future.result()
                    found[running.pop(future)] = trained
                    progress.say(
                        f"{trained.name}: {100 * trained.held_out:.2f} % held-out, {trained.seconds:.0f} s "
                        f"({_shown(build(HyperParameters, trained.settings))})"
                    )
                    progress.advance()
                if should_stop():
                    raise Stopped("interrupted")
        except BaseException:
            for process in list((pool._processes or {}).values()):
                process.terminate()
            pool.shutdown(cancel_futures=True)
            raise
    return [trained for _, trained in sorted(found.items()) if trained is not None]


_mine: tuple[_Work, Task, nn.Module] | None = None


def _begin(work: _Work, make_task: Callable[[], Task]) -> None:
    """A process makes the task once."""
    import signal

    global _mine
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent ends it
    task = make_task()
    _mine = work, task, _module(task, ModelPool([Checkpoint(work.folder / BASE)]))


def _run(index: int, settings: HyperParameters) -> Trained:
    if _mine is None:
        raise RuntimeError("the process was not begun")
    work, task, module = _mine
    return work.one(index, settings, task, module, Silent(), lambda: False)


def _prepare(
    task: Task, folder: Path, base: Path | str | None, probe: int | None, seed: int, device: str, progress: Progress
) -> tuple[nn.Module, Numerics, str]:
    """The base, whole, in the folder; a module for it; how it is trained."""
    if task.train is None:
        raise TaskError(f"task '{task.name}' has no training data; give [task] train")
    own = task.pool().base if task.pool is not None and base is None else None
    if base is None and own is None:
        raise RequirementError("there is no base to fine-tune; give one with --base")
    checkpoint = own if base is None or own is not None else Checkpoint(base)
    if checkpoint is None:
        raise RequirementError("there is no base to fine-tune; give one with --base")
    module = _module(task, ModelPool([checkpoint]))
    state = module.state_dict()
    lost = [name for name in state if name not in checkpoint.tensors]
    extra = [name for name in checkpoint.tensors if name not in state]
    if extra or len(lost) > len(state) // 2:
        what = (
            f"has '{extra[0]}', which the model does not know"
            if extra
            else f"misses '{lost[0]}' and {len(lost) - 1} more"
        )
        raise PoolError(f"{checkpoint.path} {what}; is it another architecture?")
    module.load_state_dict({**state, **checkpoint.load()})
    numerics = Numerics.choose(device, module, task.held_out.inputs[0], "fp32")
    kept = folder / BASE
    if kept.exists():
        module.load_state_dict(load_file(kept))
    else:
        epochs = probe if probe is not None else 10 if lost else 0
        if epochs:
            _probe(module, task, numerics, frozenset(lost) or _head(module), epochs, seed, progress)
        folder.mkdir(parents=True, exist_ok=True)
        _write(kept, module.state_dict())
    with numerics.applied():
        score = accuracy(module, task, task.held_out, numerics)
    progress.say(f"base: {100 * score:.2f} % held-out")
    return module, numerics, content_hash(load_file(kept))


def _probe(
    module: nn.Module, task: Task, numerics: Numerics, head: frozenset[str], epochs: int, seed: int, progress: Progress
) -> None:
    """Trains the head alone: its random start would otherwise tear at the pretrained features."""
    settings = HyperParameters(learning_rate=3e-3, weight_decay=0.0, epochs=epochs, seed=seed)
    progress.stage(f"linear probe ({', '.join(sorted(head))})", steps_of(task, settings))
    with numerics.applied():
        for _ in train(module, task, settings, numerics=numerics, only=head, advance=progress.advance):
            pass


def _head(module: nn.Module) -> frozenset[str]:
    """The last linear layer or convolution."""
    layers = [(name, part) for name, part in module.named_modules() if isinstance(part, nn.Linear | nn.Conv2d)]
    return (
        frozenset(f"{layers[-1][0]}.{name}" for name, _ in layers[-1][1].named_parameters()) if layers else frozenset()
    )


def _module(task: Task, pool: ModelPool) -> nn.Module:
    """The architecture; where the base has no head, with one for the classes of the training data."""
    try:
        return task.build(pool)
    except PoolError:
        if task.fresh is None or task.train is None:
            raise
        return task.fresh(int(task.train.labels.max()) + 1)


def _claim(folder: Path, facts: Mapping[str, Any], command: str) -> None:
    """Says what the pool is, or that it is another one."""
    path = folder / RECORD
    if path.exists():
        try:
            old = json.loads(path.read_bytes())
        except ValueError as error:
            raise FolderError(f"{path} is damaged ({error}); choose another --output") from None
        changed = [key for key in facts if old.get(key) != json.loads(json.dumps(facts[key]))]
        if changed:
            raise FolderError(f"{folder} holds a pool with another {' and '.join(changed)}; choose another --output")
    else:
        _replace(path, {**facts, "command": command, "versions": _versions()})


def _shown(settings: HyperParameters) -> str:
    rest = [settings.augmentation] + [f"mixup {settings.mixup:g}"] * bool(settings.mixup)
    return f"lr {settings.learning_rate:.2g}, wd {settings.weight_decay:g}, {settings.epochs} epochs, {', '.join(rest)}"


def _plain(sweep: Sweep) -> dict[str, Any]:
    space = {k: asdict(v) if not isinstance(v, tuple) else list(v) for k, v in sweep.space.items()}
    return {**space, "models": [dict(entry) for entry in sweep.listed]}


def _versions() -> dict[str, str]:
    return {"python": platform.python_version()} | {
        name: version(name) for name in ("merging", "torch", "timm", "numpy")
    }


def _write(path: Path, state: Mapping[str, Tensor]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    save_file({name: t.detach().cpu().contiguous().clone() for name, t in state.items()}, aside, {"format": "pt"})
    os.chmod(aside, 0o644)
    os.replace(aside, path)


def _replace(path: Path, record: Mapping[str, Any]) -> None:
    aside = path.with_name(f".{path.name}.{os.getpid()}")
    aside.write_text(json.dumps(record, indent=1) + "\n")
    os.replace(aside, path)
