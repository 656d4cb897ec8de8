"""lm-eval's own evaluator on models of this disk: its tasks, its prompts, its numbers, written in its layout."""

from __future__ import annotations

import contextlib
import random
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from merging.errors import FolderError, InterruptedRunError, MergingError, Stopped, TaskError, raised
from merging.forward.numerics import device_of
from merging.harness.asked import Asked
from merging.harness.models import Loadable
from merging.harness.network import no_network
from merging.harness.quiet import Heard, quiet
from merging.harness.results import RESULTS, SAMPLES
from merging.harness.tasks import chosen
from merging.models.offline import check_kernels, reason
from merging.plugins.watcher import Watcher
from merging.storage import atomic
from merging.storage.folder import check_place
from merging.storage.lock import Lock
from merging.values.wording import some

SEEDS = {"random_seed": 0, "numpy_seed": 1234, "torch_seed": 1234, "fewshot_seed": 1234}
"""lm-eval's own, so that its numbers and these are the same."""
DRAWS = 1000
"""Draws of the standard errors that lm-eval writes; the tests here draw their own."""
WHAT = {"loglikelihood": "answers", "loglikelihood_rolling": "documents", "generate_until": "texts"}
"""Kind of request → what is counted."""


def run(models: Mapping[str, Loadable], asked: Asked, output: Path, watcher: Watcher) -> dict[str, Path]:
    """Scores models on tasks of lm-eval; each one's folder is there whole, or not at all.

    Args:
        models: name → what is loaded.
        asked: tasks and settings.
        output: the folder in which each model gets one.
        watcher: is told what happens, and may end it between batches.

    Returns:
        Name → the file of results.

    Raises:
        MergingError: a task or a model cannot be used; nothing was run, if that can be known before.
        InterruptedRunError: it was ended.
    """
    places = {name: output / name.replace("/", "__") for name in models}
    _check_free(output, places)
    progress, done = watcher.progress, dict[str, Path]()
    with contextlib.nullcontext() if asked.online else no_network(), quiet() as heard:
        progress.stage("looking for tasks of lm-eval")
        found = chosen(asked.tasks, asked.folders, trusted=asked.trust_code)
        progress.stage("loading tasks and their data")
        with _sandboxed(trusted=asked.trust_code):
            loaded = found.load(online=asked.online)
            for note in _shots(loaded["tasks"], asked.few_shot):
                progress.say(note)
            atomic.make_folder(output)
            for name, model in models.items():
                try:
                    with Lock(places[name].absolute(), beside=True):
                        done[name] = _one(name, model, loaded, asked, places[name], watcher, heard)
                except InterruptedRunError as error:
                    kept = f"; {some(list(done), 3)} done, in {output}" if done else ""
                    raise InterruptedRunError(f"{error}{kept}") from None
    return done


def _check_free(output: Path, places: Mapping[str, Path]) -> None:
    """Refuses folders that are taken.

    Raises:
        FolderError: one is.
    """
    check_place(output)
    for place in places.values():
        if place.exists():
            raise FolderError(
                f"{place} is there already; compare it (merge harness {place}), or choose another `output`"
            )


@contextlib.contextmanager
def _sandboxed(*, trusted: bool) -> Iterator[None]:
    """Has templates of task files reach no more than their documents."""
    from lm_eval import utils

    before = utils.env
    if not trusted:
        from jinja2.sandbox import ImmutableSandboxedEnvironment

        made = ImmutableSandboxedEnvironment(undefined=before.undefined, keep_trailing_newline=True)
        made.filters.update(before.filters)
        utils.env = made
    try:
        yield
    finally:
        utils.env = before


def _shots(tasks: Mapping[str, Any], shots: int | None) -> list[str]:
    """Sets the number of worked examples, as lm-eval does: a task that says 0 keeps it.

    Returns:
        What is to be said of it.
    """
    kept = []
    for name, task in tasks.items():
        own = task.get_config("num_fewshot")
        if shots is not None and own == 0 and shots:
            kept.append(name)
        elif shots is not None or own is None:
            task.set_config(key="num_fewshot", value=shots or 0)
    said = f"{', '.join(kept[:3])}{' …' if len(kept) > 3 else ''}"
    return [f"warning: {said}: the task itself asks for no examples before a sample, and gets none"] if kept else []


def _one(
    name: str, model: Loadable, loaded: Mapping[str, Any], asked: Asked, place: Path, watcher: Watcher, heard: Heard
) -> Path:
    """One model on all tasks; its file of results."""
    from lm_eval.loggers import EvaluationTracker

    began, tracker = time.time(), EvaluationTracker(output_path="-")
    watcher.progress.stage(f"loading {name}")
    heard.long = heard.labels = 0
    with model.ready(place.parent, watcher) as (folder, adapter):
        arguments = {"pretrained": str(folder)} | ({"peft": str(adapter)} if adapter is not None else {})
        lm = _language_model(name, arguments, asked, watcher)
        results = _evaluated(name, lm, loaded, asked)
    limit = getattr(lm, "max_length", None)
    for note in heard.notes(limit):
        watcher.progress.say(f"warning: {name}: {note}")
    if model.recipe is not None:
        arguments = {"pretrained": str(model.recipe)}  # the folder that was made of it is gone
    told = {"model": "hf", "model_args": arguments, **lm.get_model_info(), "batch_size": asked.batch_size}
    told |= {"batch_sizes": [], "device": str(lm.device), "use_cache": None, "limit": asked.limit}
    told |= {"bootstrap_iters": DRAWS, "gen_kwargs": {}, **SEEDS}
    results |= {"config": told, "git_hash": None, "date": began, "lm_eval_version": version("lm_eval")}
    results |= {"transformers_version": version("transformers"), "upper_git_hash": None}
    from lm_eval.loggers.utils import add_tokenizer_info

    add_tokenizer_info(results, lm)
    tracker.general_config_tracker.log_experiment_args(
        model_source="hf",
        model_args={"pretrained": name},
        system_instruction=None,
        chat_template=lm.chat_template(True) if asked.chat_template else None,
        fewshot_as_multiturn=asked.chat_template,
    )
    return _written(tracker, results, place, heard)


def _language_model(name: str, arguments: Mapping[str, str], asked: Asked, watcher: Watcher) -> Any:
    """The model behind lm-eval's interface, which tells how far it is and may be stopped between batches.

    Raises:
        TaskError: transformers does not load it.
    """
    from lm_eval.models.huggingface import HFLM

    class Watched(HFLM):  # type: ignore[misc]
        """Tells of each request that is done, and asks before each batch whether to go on."""

        def add_partial(self, *of: Any) -> None:
            del of
            watcher.progress.advance()

        def _model_call(self, *of: Any, **more: Any) -> Any:
            _go_on(watcher)
            return super()._model_call(*of, **more)

        def _model_generate(self, *of: Any, **more: Any) -> Any:
            _go_on(watcher)
            return super()._model_generate(*of, **more)

    def told(kind: str) -> Any:
        def answer(self: Any, requests: Any, *of: Any, **more: Any) -> Any:
            watcher.progress.stage(f"{name}: {WHAT[kind]}", len(requests))
            return getattr(super(Watched, self), kind)(requests, *of, **more)

        return answer

    for kind in WHAT:
        setattr(Watched, kind, told(kind))
    try:
        from transformers import AutoConfig

        folder = arguments["pretrained"]
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        check_kernels(config, f"{folder}/config.json")
        made = Watched(
            device=device_of(asked.device), batch_size=asked.batch_size, trust_remote_code=False, **arguments
        )
    except MergingError:
        raise
    except Exception as error:  # transformers raises whatever a folder provokes
        raise TaskError(f"{name}: lm-eval cannot load it: {reason(error)[:200]}") from None
    if asked.chat_template and not made.tokenizer.chat_template:
        raise TaskError(
            f"{name}: its tokenizer has no chat template; save one there (chat_template.jinja), or leave "
            "`chat_template` out"
        )
    made.cache_hook = made
    return made


def _go_on(watcher: Watcher) -> None:
    if watcher.should_stop():
        raise Stopped


def _evaluated(name: str, lm: Any, loaded: Mapping[str, Any], asked: Asked) -> dict[str, Any]:
    """What lm-eval's evaluator gives, samples included.

    Raises:
        TaskError: a task fails on a document.
        InterruptedRunError: it was ended.
    """
    import numpy as np
    import torch
    from lm_eval.evaluator import evaluate

    random.seed(SEEDS["random_seed"])
    np.random.seed(SEEDS["numpy_seed"])
    torch.manual_seed(SEEDS["torch_seed"])
    for task in loaded["tasks"].values():
        task.set_fewshot_seed(seed=SEEDS["fewshot_seed"])
    try:
        found: dict[str, Any] = evaluate(
            lm=lm,
            task_dict=loaded,
            limit=asked.limit,
            bootstrap_iters=DRAWS,
            apply_chat_template=asked.chat_template,
            fewshot_as_multiturn=asked.chat_template,
            confirm_run_unsafe_code=asked.trust_code,
        )
    except Stopped:
        raise InterruptedRunError(f"interrupted; nothing was written of {name}") from None
    except MergingError:
        raise
    except Exception as error:  # templates and functions of tasks, and models, raise whatever a document provokes
        raise TaskError(f"{name}: lm-eval stopped: {raised(error, whole=True)[:220]}") from None
    return found


def _written(tracker: Any, results: dict[str, Any], place: Path, heard: Heard) -> Path:
    """The file of results in its folder, which is written aside and renamed into place.

    Raises:
        FolderError: it cannot be written; nothing is left there.
    """
    samples = results.pop("samples")
    aside = atomic.new_folder(place.absolute().parent)
    try:
        tracker.output_path, heard.last = str(aside), ""
        tracker.save_results_aggregated(results=results, samples=samples)
        for task, own in samples.items():
            tracker.save_results_samples(task_name=task, samples=own)
        made = [entry for entry in aside.iterdir() if entry.is_dir()]
        names = [entry.name for folder in made for entry in folder.iterdir()]
        lacking = len(samples) - sum(bool(SAMPLES.fullmatch(name)) for name in names)
        if heard.last or lacking or len(made) != 1 or not any(RESULTS.fullmatch(name) for name in names):
            raise FolderError(
                f"cannot write {place}: {heard.last[:160] or 'lm-eval wrote other files'}; nothing was left"
            )
        with atomic.refusals(f"cannot write {place}"):
            atomic.sync_tree(made[0])
            atomic.take_place(made[0], place)
    finally:
        atomic.remove(aside)
    return next(place / name for name in names if RESULTS.fullmatch(name))
