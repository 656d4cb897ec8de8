"""``merge harness``: lm-eval's tasks on models, and its results compared sample by sample."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from merging.cli.asking.options import Taking, shared
from merging.errors import RequirementError

SETTINGS = ("include_path", "few_shot", "limit", "batch_size", "chat_template", "online", "trust_code")


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
    from merging.harness.asked import Asked
    from merging.harness.evaluating import check, lm_eval
    from merging.harness.results import is_results
    from merging.plugins.watcher import Watcher

    asked = Asked(
        tasks=tuple(name for each in flags["tasks"] for name in each.split(",") if name),
        device=flags["device"] or "auto",
        **{name: flags[name] for name in SETTINGS},
    )
    results = [name for name in wanted if is_results(Path(name).expanduser())]
    check(wanted, results, asked, output=flags["output"], base=flags["base"])
    news = Screen(stderr=True)
    with stop_on_signal(news, "stopping: what is done is kept") as should_stop, TerminalProgress(news) as progress:
        given = {name: flags[name] for name in ("base", "against", "metrics")}
        watcher = Watcher(progress=progress, should_stop=should_stop)
        if len(results) < len(wanted):
            progress.stage("loading torch, transformers and lm-eval")
            with output_folder(flags["output"], "harness") as output:
                found = lm_eval(wanted, output=output, asked=asked, watcher=watcher, **given)
        else:
            found = lm_eval(wanted, watcher=watcher, **given)
    if flags["fail_unless"] and len(found.models) != 2:
        raise RequirementError("--fail-unless compares one model with another: name two models")
    from merging.cli.showing.harness import show

    print_json(found.to_json()) if flags["as_json"] else show(Screen(), found)
    if flags["fail_unless"]:
        from merging.cli.showing.answer import fail_unless
        from merging.values.answer import Answer, headline_of, standing_of
        from merging.values.states import Wanted

        model = next(each for each in found.models if each.name != found.reference)
        answer = Answer(standing=standing_of(model.verdicts), headline=headline_of(model.name, model.verdicts))
        fail_unless(Wanted(flags["fail_unless"]), answer)
