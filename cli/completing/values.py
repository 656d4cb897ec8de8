"""The values that each parameter of a command completes; nothing here opens a model, a data set or torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, TypeAlias

import click
from click.shell_completion import CompletionItem

from merging.cli.asking.options import CONFIGURATIONS
from merging.cli.completing import places, plugins
from merging.cli.completing.shells import PART, SHELLS, shown

Found: TypeAlias = Iterable[CompletionItem]
Completer: TypeAlias = Callable[[click.Context, str], Found]


def attach(name: str, command: click.Command) -> None:
    """Gives each parameter of a command what it completes; ``name`` is the command's.

    Args:
        name: the command's name.
        command: the command, of a process that answers a shell and does nothing else.
    """
    for parameter in command.params:
        completer = completer_of(name, str(parameter.name))
        if completer is not None:
            setattr(parameter, "shell_complete", _of(completer))  # noqa: B010 (a method of the class)


def completer_of(command: str, parameter: str) -> Completer | None:
    """Finds what a parameter of a command completes; None where nobody can know its values."""
    if f"{command}.{parameter}" in FREE:
        return None
    return VALUES.get(f"{command}.{parameter}") or VALUES.get(parameter)


def _of(completer: Completer) -> Callable[[click.Context, str], list[CompletionItem]]:
    def complete(ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        return [item for item in completer(ctx, incomplete) if item.value.startswith(incomplete) and shown(item.value)]

    return complete


def _words(*words: str) -> Completer:
    return lambda ctx, incomplete: [CompletionItem(word) for word in words]


def _named(kind: str) -> Completer:
    """The names of a kind of plug-in, with their summaries."""

    def complete(ctx: click.Context, incomplete: str) -> Found:
        return [CompletionItem(name, help=said) for name, said in plugins.summaries(kind, _files(ctx)).items()]

    return complete


def _files(ctx: click.Context) -> tuple[str, ...]:
    """The plug-in files of the command line."""
    return tuple(ctx.params.get("plugin") or ())


def _any_plugin(ctx: click.Context, incomplete: str) -> Found:
    found: dict[str, str] = {}
    for kind in plugins.KINDS:
        found |= plugins.summaries(kind, _files(ctx))
    return [CompletionItem(name, help=said) for name, said in sorted(found.items())]


def _tasks(ctx: click.Context, incomplete: str) -> Found:
    yield from _named("task")(ctx, incomplete)
    yield CompletionItem("python:", type=PART, help="module:function that returns a task")
    yield from places.files(incomplete, (".toml",))


def _models(ctx: click.Context, incomplete: str) -> Found:
    return places.models(incomplete)


def _models_or_configurations(ctx: click.Context, incomplete: str) -> Found:
    yield from places.models(incomplete)
    yield from (item for item in places.files(incomplete, CONFIGURATIONS) if not item.value.endswith("/"))


def _listed(kind: str) -> Completer:
    """Names of a kind, separated by commas, each once; a strategy may be given a name: ``mine=manifoldmix``."""

    def complete(ctx: click.Context, incomplete: str) -> Found:
        before, comma, last = incomplete.rpartition(",")
        label, equals, _ = last.partition("=")
        head = before + comma + (label + equals if equals else "")
        taken = {part.partition("=")[0] for part in before.split(",")} if not equals else set()
        return [
            CompletionItem(head + name, help=said)
            for name, said in plugins.summaries(kind, _files(ctx)).items()
            if name not in taken
        ]

    return complete


def _options(kinds: tuple[str, ...]) -> Completer:
    """``kind.option=value``, word by word."""

    def complete(ctx: click.Context, incomplete: str) -> Found:
        return _option(incomplete, {kind: (kind, plugins.chosen(kind, ctx)) for kind in kinds}, _files(ctx))

    return complete


def _options_of_methods(ctx: click.Context, incomplete: str) -> Found:
    """Options in a benchmark: of its methods and partitioners by their names, and of what all share."""
    from merging.cli.benchmark import METHODS, SHARED

    known: dict[str, tuple[str, str]] = {}
    for text in _split(ctx.params.get("strategies")) or METHODS.split(","):
        name, _, strategy = text.partition("=")
        known[name] = ("strategy", strategy or name)
    for name in _split(ctx.params.get("partitioners")):
        known[name] = ("partitioner", name)
    known |= {kind: (kind, plugins.chosen(kind, ctx)) for kind in SHARED}
    return _option(incomplete, known, _files(ctx))


def _option(incomplete: str, known: Mapping[str, tuple[str, str]], files: tuple[str, ...]) -> Iterator[CompletionItem]:
    """Candidates for ``kind.option=value``.

    Args:
        incomplete: what is typed.
        known: what may stand before the dot → kind and name of the plug-in that it means.
        files: plug-in files of the command line.
    """
    kind, dot, rest = incomplete.partition(".")
    if not dot:
        yield from (CompletionItem(f"{each}.", type=PART, help=name) for each, (_, name) in known.items())
        return
    if kind not in known:
        return
    option, equals, _ = rest.partition("=")
    declared = plugins.options(*known[kind], files)
    if equals:
        said = declared.get(option)
        yield from (CompletionItem(f"{kind}.{option}={value}") for value in (said.values if said else ()))
    else:
        for name, said in declared.items():
            yield CompletionItem(f"{kind}.{name}=", type=PART, help=said.help)


def _split(given: Any) -> list[str]:
    return [part.strip() for text in given or () for part in text.split(",") if part.strip()]


def _splits(ctx: click.Context, incomplete: str) -> Found:
    return [CompletionItem(name) for name in plugins.sets(ctx)]


def _workers(ctx: click.Context, incomplete: str) -> Found:
    yield CompletionItem("gpu", help="one a GPU of this machine")
    yield CompletionItem("gpu:", type=PART, help="so many GPUs of this machine")
    yield CompletionItem("ray", help="actors of a Ray on this machine")
    yield CompletionItem("ray:auto", help="actors of the cluster that this machine belongs to")
    yield CompletionItem("ray:", type=PART, help="HOST:PORT of a cluster's head")
    yield CompletionItem("none", help="this process alone")


def _sinks(ctx: click.Context, incomplete: str) -> Found:
    """Names of sinks, and behind a colon the options of one."""
    name, colon, rest = incomplete.partition(":")
    if not colon:
        yield from _named("sink")(ctx, incomplete)
        yield CompletionItem("none", help="nobody is told")
        return
    before, comma, _ = rest.rpartition(",")
    for option, said in plugins.options("sink", name, _files(ctx)).items():
        yield CompletionItem(f"{name}:{before}{comma}{option}=", type=PART, help=said.help)


def _methods(ctx: click.Context, incomplete: str) -> Found:
    from merging.cli.benchmark import METHODS

    return [CompletionItem(text.partition("=")[0]) for text in _split(ctx.params.get("strategies") or (METHODS,))]


def _kinds(ctx: click.Context, incomplete: str) -> Found:
    from merging.cli.list import several

    return [CompletionItem(several(kind)) for kind in plugins.KINDS]


def _sources(ctx: click.Context, incomplete: str) -> Found:
    return [
        CompletionItem(f"{name}:", type=PART, help=said)
        for name, said in plugins.summaries("model", _files(ctx)).items()
    ]


def _of_files(*suffixes: str) -> Completer:
    return lambda ctx, incomplete: places.files(incomplete, suffixes)


def _of_results(*names: str, files: tuple[str, ...] = ()) -> Completer:
    """Folders that hold one of these files, and the files that have these suffixes."""
    return lambda ctx, incomplete: [
        *places.results(incomplete, names),
        *(item for item in places.files(incomplete, files) if not item.value.endswith("/")),
    ]


_DTYPES = ("float32", "bfloat16", "float16", "float64")
VALUES: dict[str, Completer] = {
    **{kind: _named(kind) for kind in ("strategy", "partitioner", "optimizer", "objective", "regime")},
    "task": _tasks,
    "models": _models,
    "positional": _models,
    "sinks": _sinks,
    "run.positional": _models_or_configurations,
    "check.positional": _models_or_configurations,
    "convert.config": lambda ctx, incomplete: places.files(incomplete, CONFIGURATIONS),
    "convert.output": lambda ctx, incomplete: places.files(incomplete, (".toml",)),
    "base": _models,
    "interpolate": _models,
    "model": _models,
    "wanted": _models,
    "init.model": _sources,
    "options": _options(("strategy", "partitioner", "optimizer", "objective")),
    "inspect.options": _options(("partitioner", "objective")),
    "evaluate.options": _options(("objective",)),
    "finetune.options": _options(("regime",)),
    "benchmark.options": _options_of_methods,
    "strategies": _listed("strategy"),
    "partitioners": _listed("partitioner"),
    "against": _methods,
    "splits": _splits,
    "tokenizer_source": _words("union", "base", "first"),
    "name": _any_plugin,
    "kind": _kinds,
    "new.kind": lambda ctx, incomplete: [CompletionItem(kind) for kind in plugins.KINDS],
    "inspect.model": _sources,
    "shell": _words(*SHELLS),
    "device": _words("auto", "cpu", "cuda", "mps"),
    "workers": _workers,
    "precision": _words("auto", "fp32", "bf16"),
    "fail_unless": _words("better", "not-worse"),
    "format": _words("safetensors", "pt"),
    "dtype": _words(*_DTYPES),
    "accumulate": _words("float64", "float32"),
    "written_as": _words("model", "adapter"),
    "adapter": _words("lora"),
    "search": _words("random", "tpe"),
    "plugin": _of_files(".py"),
    "sweep": _of_files(".toml"),
    "published": _of_files(".jsonl", ".json"),
    "pictures": _of_files(".png"),
    "plot": _of_files(".png", ".svg"),
    "output": _of_files(),
    "data": _of_files(),
    "folder": _of_files(),
    "apply.output": _of_files(".safetensors", ".pt"),
    "include_path": _of_files(),
    "recipe": _of_results("recipe.json", files=(".json",)),
    "resume": _of_results("events.jsonl"),
    "paths": _of_results("report.json", "benchmark.json"),
    "folders": _of_files(),
    "push.folder": _of_results("report.json"),
}
"""Parameter, or command and parameter → what it completes."""
FREE = {
    *("seed", "budget", "max_evaluations", "freeze", "threads", "cache_memory", "max_shard_size", "certify_split"),
    *("samples", "classes", "steps", "jobs", "seeds", "key", "given", "linear_probe", "depth", "rank"),
    *("alpha", "dropout", "target_modules", "pad_to_multiple_of"),
    *("few_shot", "limit", "batch_size", "finetune.models", "new.name", "push.target"),
    *("harness.tasks", "harness.metrics", "harness.against"),
}
"""Parameters whose values nobody can list: numbers, patterns, names to come."""
