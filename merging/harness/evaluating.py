"""``merging.lm_eval``: models on tasks of lm-eval, and results that lm-eval has written, compared sample by sample."""

from __future__ import annotations

import glob
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from merging.errors import MergingError, OptionError, RequirementError, near_path, showable
from merging.harness.asked import Asked
from merging.harness.comparing import Compared, compared
from merging.harness.models import CONFIG, is_loadable, loadables
from merging.harness.results import find, is_results, read
from merging.plugins.keywords import by_keyword, expected, given
from merging.plugins.watcher import Watcher
from merging.storage.adapter_base import standing_on
from merging.storage.hub.fetching import folder_of
from merging.storage.hub.spelling import as_id, written
from merging.storage.sources import natural_key, short_names
from merging.values.wording import kind_of


@by_keyword(Asked, Watcher)
def lm_eval(
    models: str | Path | Sequence[str | Path],
    *,
    output: str | Path | None = None,
    base: str | Path | None = None,
    against: str | None = None,
    metrics: Sequence[str] = (),
    asked: Asked = Asked(),
    watcher: Watcher = Watcher(),
    **keywords: Any,
) -> Compared:
    """Runs tasks of lm-evaluation-harness on models, and tests the models against one of them, sample by sample.

    Results that ``lm_eval --log_samples`` has written stand where a model does, and are not run again.

    Args:
        models: folders in transformers' layout, runs' folders, adapters, recipes, patterns, ids of the Hub, and files
            or folders of lm-eval's results.
        output: the folder in which each model that is run gets one, in lm-eval's layout, whole or not at all.
        base: the model that adapters stand on, where theirs is not on this machine.
        against: name of the model that the others are compared with; default: the first.
        metrics: metrics that are looked at; default: all.
        asked: tasks and settings of lm-eval.
        watcher: is told what happens, and may end it between batches.
        keywords: fields of these values by their own names, instead.

    Returns:
        The models' scores as lm-eval has computed them, with intervals and corrected tests.

    Raises:
        MergingError: a model, task or file cannot be used.
        InterruptedRunError: it was ended; models that were done are kept.
    """
    asked, watcher = given("lm_eval", keywords, asked, watcher)
    for name, value in (("`output`", output), ("`base`", base)):
        expected(name, value, (str, os.PathLike, type(None)), "a path, or None")
    expected("`against`", against, (str, type(None)), "the name of a model, or None")
    wanted = _texts("models", models)
    metrics = () if isinstance(metrics, list | tuple) and not metrics else _texts("metrics", metrics)
    results = [name for name in wanted if is_results(Path(name).expanduser())]
    check(wanted, results, asked, output=output, base=base)
    places = dict(_places([name for name in wanted if name not in results]))
    files = find([Path(name).expanduser() for name in results]) if results else {}
    if places:
        if output is None:
            raise RequirementError("say with `output` where the files of lm-eval go")
        from merging.harness.running import run

        with standing_on(None if base is None else str(base)):
            ready = loadables(_called(places))
        made = run(ready, asked, Path(output), watcher)
    else:
        made = {}
    watcher.progress.stage("comparing")
    named = list(_in_order(wanted, places, made, files))
    return compared({name: read(file) for name, file in named}, against=against or "", metrics=metrics)


def _texts(name: str, value: Any) -> tuple[str, ...]:
    """One text or path, or several, each once.

    Raises:
        OptionError: it holds something else, or nothing.
    """
    several = [value] if isinstance(value, str | os.PathLike) else value
    if not isinstance(several, list | tuple) or not all(isinstance(each, str | os.PathLike) for each in several):
        raise OptionError(f"`{name}` is {kind_of(value)}; it is a name or path, or a list of them")
    if not several or not all(map(str, several)):
        raise OptionError(f"`{name}` is empty; give a name or path, or a list of them")
    return tuple(dict.fromkeys(str(each) for each in several))


def check(wanted: Sequence[str], results: Sequence[str], asked: Asked, **more: object) -> None:
    """Says what is missing, or for nothing, before anything is opened.

    Args:
        wanted: what was named.
        results: names of lm-eval's results among them.
        asked: tasks and settings.
        more: other arguments that are for models alone; None: not given.

    Raises:
        RequirementError: tasks without models, or the other way round; or a model of the Hub, and nothing is fetched.
    """
    models = [name for name in wanted if name not in results]
    if not models:
        said = [each.name for each in fields(asked) if getattr(asked, each.name) != each.default]
        for name in (*said, *(name for name, value in more.items() if value is not None)):
            raise RequirementError(f"`{name}` is for models that are run, and all that is named are results of lm-eval")
        return
    for name in models:
        path = Path(name).expanduser()
        if as_id(name) is not None and not asked.online:
            raise RequirementError(f"{name} is a model of the Hub, and nothing is fetched; `online` fetches it")
        if as_id(name) is None and not path.exists() and not glob.has_magic(name):
            raise RequirementError(f"{name}: neither a model nor results of lm-eval{near_path(name)}{written(name)}")
    if not asked.tasks:
        raise RequirementError(
            f"{models[0]} holds no results of lm-eval; a model is run on tasks: `tasks` names them, such as arc_easy"
        )


def _places(models: Sequence[str]) -> Iterator[tuple[str, list[Path]]]:
    """What was named → the models that it stands for.

    Raises:
        MergingError: nothing is there.
    """
    for name in models:
        path = Path(name).expanduser()
        if not path.exists() and (fetched := folder_of(name)) is not None:
            yield name, [fetched]
        elif path.is_file() or is_loadable(path) or (path / CONFIG).is_file():
            yield name, [path]
        else:
            inside = path.iterdir() if path.is_dir() else (Path(found) for found in glob.glob(str(path)))
            found = sorted((each for each in inside if is_loadable(each)), key=lambda each: natural_key(str(each)))
            if not found:
                raise MergingError(f"no models that lm-eval loads in {showable(name)}")
            yield name, found


def _called(places: dict[str, list[Path]]) -> dict[str, Path]:
    """Short name → place of each model, once."""
    paths = list(dict.fromkeys(path for some in places.values() for path in some))
    return dict(zip(short_names(paths), paths, strict=True))


def _in_order(
    wanted: Sequence[str], places: dict[str, list[Path]], made: Mapping[str, Path], files: Mapping[str, Path]
) -> Iterator[tuple[str, Path]]:
    """Name → file of results, in the order in which they were named; a name that two have is the whole path."""
    called = {path: name for name, path in _called(places).items()} if places else {}
    both: dict[Path, str] = {}
    for name in wanted:
        if name in places:
            both |= {made[called[path]]: called[path] for path in places[name]}
        else:
            inside = find([Path(name).expanduser()]).values()
            both |= {file: short for short, file in files.items() if file in inside}
    names = list(both.values())
    yield from ((name if names.count(name) == 1 else str(file.parent), file) for file, name in both.items())
