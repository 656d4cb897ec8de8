"""``merge finetune``: one base model fine-tuned many times, for a pool to merge."""

from __future__ import annotations

import functools
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from merging.cli.asking.options import Asking, shared
from merging.cli.asking.plugin_options import pair
from merging.cli.asking.request import command_line, requested, settings_of
from merging.cli.asking.signals import stop_on_signal
from merging.errors import InterruptedRunError, MergingError, Stopped, showable
from merging.plugins.user_code import contained
from merging.plugins.watcher import Watcher
from merging.values.wording import plural

if TYPE_CHECKING:
    from merging.training.folder import Trained

WRITTEN = r"base(\.safetensors|/.*)?|finetune\.json|model_\d+(\.(safetensors|json)|/.*)?"
"""Files of a pool's folder."""


def _of_adapters(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds a flag for each hyper-parameter that adapters alone have, as it is declared."""
    from merging.plugins.options import options_of
    from merging.training.hyperparameters import OF_ADAPTERS, LoraParameters

    declared = {each.name: each for each in options_of(LoraParameters)}
    for name in reversed(OF_ADAPTERS):
        own = declared[name]
        flag, said = f"--{name.replace('_', '-')}", f"Of adapters: {own.spec.help}."
        if own.type is bool:
            add = click.option(flag, is_flag=True, help=said)
        elif own.type is str:
            add = click.option(
                flag, multiple=True, metavar="PATTERN", help=f"{said}  [default: {own.default}; repeatable]"
            )
        else:
            usual = "twice the rank" if own.default is None else own.default
            add = click.option(flag, metavar="N[,N…]", help=f"{said}  [default: {usual}]")
        command = add(command)
    return command


@click.command("finetune", cls=Asking)
@shared("task")
@click.option("--base", metavar="FILE", help="What is fine-tuned; a head that it lacks is trained first.")
@click.option("--models", type=int, default=8, show_default=True, metavar="N", help="How many.")
@click.option(
    "--output", required=True, metavar="DIR", help="Folder for the pool; what is there is kept and completed."
)
@click.option("--sweep", metavar="FILE.toml", help="Hyper-parameters: values, lists, ranges, or listed runs.")
@click.option(
    "--set", "given", multiple=True, metavar="KEY=VALUE", help="A hyper-parameter that is the same for all; repeatable."
)
@click.option("--adapter", metavar="KIND", help="lora: adapters over the base (LoRA), in the place of whole models.")
@_of_adapters
@click.option("--regime", metavar="NAME", default="independent", show_default=True, help="How models are trained.")
@click.option("-o", "--option", "options", multiple=True, metavar="KEY=VALUE", help="Such as regime.alpha=0.99.")
@click.option("--search", metavar="NAME", default="random", show_default=True, help="random draws, or optuna's TPE.")
@click.option(
    "--linear-probe", type=int, metavar="EPOCHS", help="Train the head alone first.  [default: 10 for a new head]"
)
@shared("seed", "device", "threads", seed="Of draws; run k trains with seed + k.  [default: 0]")
@click.option("--jobs", type=int, metavar="N", help="Models at once.  [default: one a core where models are small]")
@shared("plugin", "as_json")
@click.option("--trust-code", is_flag=True, help="Let merge.toml load python: entries.")
def command(**flags: Any) -> None:
    """Fine-tune one base model many times, each run with hyper-parameters of its own.

    Hyper-parameters, accuracy after each epoch and the command are written beside each checkpoint. Interrupted, the
    same command goes on with the model that was cut off. Merge the pool with
    merge run --models 'DIR/model_*.safetensors' --base DIR/base.safetensors; adapters, which are folders, with
    merge run --models 'DIR/model_*' --base DIR/base.
    """
    from merging.cli.asking.resolve import task_of
    from merging.cli.showing.screen import Screen, print_json, say_built_in
    from merging.cli.showing.terminal import TerminalProgress
    from merging.values.report import scored

    news = Screen(stderr=True)
    kept = {k: v for k, v in flags.items() if k not in ("models", "options")}
    request = requested({**dict.fromkeys(("models", "options")), **kept})
    say_built_in(request, news, "--task")
    with (
        contained(),
        stop_on_signal(news, "stopping: finished models are kept") as should_stop,
        TerminalProgress(news) as progress,
    ):
        progress.stage("loading model and data")
        regime = _regime(flags["regime"], flags["options"], request["plugin"])
        from merging.cli.asking.outputs import check_folder
        from merging.training.finetune import Training, finetune
        from merging.training.folder import ADAPTERS_BASE, BASE, RECORD
        from merging.training.hyperparameters import Sweep, default_sweep

        sweep = Sweep.read(Path(flags["sweep"])) if flags["sweep"] else None
        form = "name=value, such as --set epochs=5"
        fixed = Sweep.of(dict(pair(text, "--set", form) for text in flags["given"]), "--set")
        fixed = fixed.overruled_by(Sweep.of(_typed(flags), "flags"))
        task = task_of(request, progress)
        output, base = Path(flags["output"]).absolute(), request["base"]  # a plug-in may go to another folder
        own = BASE if flags["adapter"] is None else ADAPTERS_BASE
        known = (output / RECORD).is_file() and base is not None and Path(base).name == own  # a pool that goes on
        if base is not None and not known:
            check_folder(output, [Path(base)], WRITTEN)
        if sweep is None:
            there = None if task is None else task.train
            sweep = Sweep({}) if there is None else default_sweep(there.inputs, flags["adapter"])
            sweep = sweep.with_one(regime.in_common)
        try:
            done = finetune(
                functools.partial(task_of, request),
                output,
                sweep.overruled_by(fixed),
                models=flags["models"],
                training=Training(
                    task=task,
                    base=request["base"],
                    search=flags["search"],
                    linear_probe=flags["linear_probe"],
                    adapter=flags["adapter"],
                    regime=regime,
                    seed=request["seed"],
                    jobs=flags["jobs"],
                    command=command_line(sys.argv[1:]),
                ),
                passes=settings_of(request, ("device", "threads")).passes,
                watcher=Watcher(progress=progress, should_stop=should_stop),
            )
        except Stopped:
            raise InterruptedRunError(
                f"interrupted; finished models are in {flags['output']}, and the same command goes on"
            ) from None
    if flags["as_json"]:
        print_json(_made(output, done, flags["adapter"]))
        if all(trained.diverged for trained in done):
            raise MergingError(_diverged(done))
        return
    folder, there = showable(flags["output"]), [trained for trained in done if not trained.diverged]
    if not there:
        raise MergingError(_diverged(done))
    best = max(there, key=lambda trained: trained.held_out)
    lost = f" ({len(done) - len(there)} more diverged)" if len(there) < len(done) else ""
    place, adapters = Path(flags["output"]), flags["adapter"] is not None
    models, base = ("model_*", ADAPTERS_BASE) if adapters else ("model_*.safetensors", BASE)
    again = ["--models", str(place / models), "--base", str(place / base)]
    again += ["--task", flags["task"]] if flags["task"] else []
    console = Screen()
    count = plural(len(there), "adapter" if adapters else "model")
    made = f"{count} in {folder}{lost}; best {best.name} with {scored(best.held_out)} held-out"
    console.print(made, highlight=False)
    console.print(f"merge them:  {command_line(['run', *again])}", highlight=False)


def _diverged(done: Sequence[Trained]) -> str:
    return f"all {len(done)} runs diverged ({done[0].diverged}); lower learning_rate, or set clip"


def _typed(flags: Mapping[str, Any]) -> dict[str, Any]:
    """The hyper-parameters of adapters that flags give: a value, or several between commas, as a list in a sweep."""
    from merging.training.hyperparameters import OF_ADAPTERS

    found: dict[str, Any] = {}
    for name in OF_ADAPTERS:
        value = flags[name]
        if isinstance(value, tuple):
            found |= {name: ",".join(value)} if value else {}
        elif isinstance(value, str):
            found[name] = [part.strip() for part in value.split(",")] if "," in value else value
        elif value:
            found[name] = value
    return found


def _made(folder: Path, done: Sequence[Trained], adapter: str | None) -> dict[str, Any]:
    """The pool as JSON: each model as its own record says it, with its file, or its folder."""
    from merging.training.folder import ADAPTERS_BASE, BASE

    end = ".safetensors" if adapter is None else ""
    models = [
        {
            "name": trained.name,
            "path": None if trained.diverged else str(folder / f"{trained.name}{end}"),
            "held_out": None if trained.diverged else trained.held_out,
            "settings": dict(trained.settings),
            "diverged": trained.diverged or None,
        }
        for trained in done
    ]
    return {"folder": str(folder), "base": str(folder / (BASE if adapter is None else ADAPTERS_BASE)), "models": models}


def _regime(name: str, given: tuple[str, ...], plugin: list[str]) -> Any:
    from merging.cli.asking.plugin_options import parse_options
    from merging.cli.showing.screen import warn
    from merging.plugins.discovery import load_all
    from merging.plugins.options import build
    from merging.training.regime import regimes

    warn(load_all(plugin))
    return build(regimes[name], parse_options(given, ("regime",)).get("regime", {}))
