"""``merge harness``: lm-eval's tasks on models, and its results compared sample by sample."""

from __future__ import annotations

import glob
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from merging.cli.asking.options import Taking, shared
from merging.errors import MergingError, RequirementError, near_path

if TYPE_CHECKING:
    from merging.plugins.watcher import Watcher

TWO = "--fail-unless compares one model with another: name two models"


@click.command("harness", cls=Taking)
@click.argument("wanted", metavar="MODEL|RESULTS…", nargs=-1, required=True)
@click.option(
    "--tasks", multiple=True, metavar="NAME[,NAME]", help="Tasks, groups, tags, patterns or task files; repeatable."
)
@click.option("--include-path", multiple=True, metavar="DIR", help="A folder of task files; repeatable.")
@click.option(
    "--few-shot", type=click.IntRange(min=0), metavar="N", help="Examples before each sample.  [default: the task's]"
)
@click.option("--limit", type=click.IntRange(min=1), metavar="N", help="Only the first N samples of each task.")
@click.option(
    "--batch-size", type=click.IntRange(min=1), default=8, show_default=True, metavar="N", help="Samples at once."
)
@click.option("--chat-template", is_flag=True, help="Put prompts into the model's chat template.")
@shared("device")
@click.option("--base", metavar="FILE", help="The model that adapters among them stand on.")
@click.option("--output", metavar="DIR", help="Folder for lm-eval's files.  [default: runs/<time>-harness]")
@click.option("--online", is_flag=True, help="Fetch what is not on this disk: data, and models of the Hub.")
@click.option("--trust-code", is_flag=True, help="Let task files run code.")
@click.option("--against", metavar="NAME", help="The model that the others are compared with.  [default: the first]")
@click.option("--metric", "metrics", multiple=True, metavar="NAME", help="Only this metric, such as acc; repeatable.")
@shared("fail_unless", "as_json")
def command(wanted: tuple[str, ...], **flags: Any) -> None:
    """Run lm-eval's tasks on models, and test them against the first, sample by sample.

    Each is a model that lm-eval loads (a folder with config.json and tokenizer, a run's folder, an adapter, a
    recipe.json), or results that lm_eval --log_samples has written. Models are run first, with lm-eval's own code, and
    their files are kept in its layout.
    """
    from merging.cli.asking.outputs import output_folder
    from merging.cli.asking.signals import stop_on_signal
    from merging.cli.showing.screen import Screen, print_json
    from merging.cli.showing.terminal import TerminalProgress
    from merging.harness.results import is_results
    from merging.plugins.watcher import Watcher

    results = {name: is_results(Path(name).expanduser()) for name in wanted}
    models = [name for name in wanted if not results[name]]
    _check(models, flags)
    news = Screen(stderr=True)
    with stop_on_signal(news, "stopping: what is done is kept") as should_stop, TerminalProgress(news) as progress:
        made: dict[str, dict[str, Path]] = {}
        if models:
            with output_folder(flags["output"], "harness") as output:
                watcher = Watcher(progress=progress, should_stop=should_stop)
                made = _run(models, output, flags, watcher)
        progress.stage("comparing")
        from merging.harness.comparing import compared
        from merging.harness.results import read

        files = dict(_named(wanted, made))
        if flags["fail_unless"] and len(files) != 2:
            raise RequirementError(TWO)
        found = compared(
            {name: read(file) for name, file in files.items()}, against=flags["against"] or "", metrics=flags["metrics"]
        )
    from merging.cli.showing.harness import show

    print_json(found.to_json()) if flags["as_json"] else show(Screen(), found)
    if flags["fail_unless"]:
        from merging.cli.showing.answer import fail_unless
        from merging.values.answer import Answer, headline_of, standing_of
        from merging.values.states import Wanted

        model = next(each for each in found.models if each.name != found.reference)
        answer = Answer(standing=standing_of(model.verdicts), headline=headline_of(model.name, model.verdicts))
        fail_unless(Wanted(flags["fail_unless"]), answer)


def _check(models: Sequence[str], flags: dict[str, Any]) -> None:
    """Says what is missing, or for nothing, before anything is opened.

    Raises:
        RequirementError: tasks without models, or the other way round; or a model of the Hub, and nothing is fetched.
    """
    if not models and flags["tasks"]:
        raise RequirementError("--tasks is what models are run on, and all that is named are results of lm-eval")
    if not models:
        return
    from merging.storage.hub.spelling import as_id, written

    ids = [name for name in models if as_id(name) is not None]
    for name in models:
        if name not in ids and not glob.has_magic(name) and not Path(name).expanduser().exists():
            raise RequirementError(f"{name}: neither a model nor results of lm-eval{near_path(name)}{written(name)}")
    if not flags["tasks"]:
        raise RequirementError(
            f"{models[0]} holds no results of lm-eval; a model is run on tasks: --tasks NAME, such as --tasks arc_easy"
        )
    if ids and not flags["online"]:
        raise RequirementError(f"{ids[0]} is a model of the Hub, and nothing is fetched; --online fetches it")


def _run(models: Sequence[str], output: Path, flags: dict[str, Any], watcher: Watcher) -> dict[str, dict[str, Path]]:
    """Runs models; what was typed → name → file of results."""
    from merging.harness.models import loadables
    from merging.harness.running import Asked, run
    from merging.looking.wanted import find
    from merging.storage.adapter_base import standing_on

    watcher.progress.stage("loading torch, transformers and lm-eval")
    found, wrong = find(models, None)
    if wrong:
        raise MergingError("; ".join(dict.fromkeys(wrong)))
    asked = Asked(
        tasks=tuple(name for each in flags["tasks"] for name in each.split(",") if name),
        include=tuple(Path(each).expanduser() for each in flags["include_path"]),
        shots=flags["few_shot"],
        limit=flags["limit"],
        batch=flags["batch_size"],
        device=flags["device"] or "auto",
        chat=flags["chat_template"],
        online=flags["online"],
        trusted=flags["trust_code"],
    )
    with standing_on(flags["base"]):
        places = loadables({name: each.path for name, each in found.items()})
        files = run(places, asked, output, watcher)
    made: dict[str, dict[str, Path]] = {}
    for name, each in found.items():
        typed = next((word for word in models if _belongs(each.typed, word)), models[0])
        made.setdefault(typed, {})[name] = files[name]
    return made


def _belongs(found: str, typed: str) -> bool:
    """Whether a model was found by what was typed: itself, or in that folder."""
    return found == typed or Path(found).is_relative_to(Path(typed).expanduser())


def _named(wanted: Sequence[str], made: dict[str, dict[str, Path]]) -> Iterator[tuple[str, Path]]:
    """Name → file of results, in the order in which they were typed; a name that two have is the whole path."""
    from merging.harness.results import find

    both: list[tuple[str, Path]] = []
    others = [name for name in wanted if name not in made]
    known = find([Path(name).expanduser() for name in others]) if others else {}
    for name in wanted:
        if name in made:
            both += made[name].items()
            continue
        inside = find([Path(name).expanduser()]).values()
        both += [(called, file) for called, file in known.items() if file in inside]
    both = list(dict.fromkeys(both))
    names = [name for name, _ in both]
    yield from ((name if names.count(name) == 1 else str(file.parent), file) for name, file in both)
