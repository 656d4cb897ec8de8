"""Options that several commands take."""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from pathlib import Path, PurePath
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import click
from click.core import ParameterSource

from merging.errors import RequirementError
from merging.values.states import Wanted

if TYPE_CHECKING:
    from merging.plugins.options import Option

_Command = TypeVar("_Command", bound=Callable[..., Any])


class FromFile(click.Option):
    """An option that [run] of merge.toml may say, under the same name."""


NAMED = {
    "strategy": ("NAME", "How to merge.  [default: manifoldmix]"),
    "partitioner": (
        "NAME",
        "Groups of tensors.  [default: the strategy's; whole, clip-c8 for the built-in task]",
    ),
    "optimizer": ("NAME", "Backend of searches.  [default: the strategy's; nevergrad-cobyla]"),
    "objective": ("NAME", "What a search maximises.  [default: accuracy; of texts nll]"),
    "output": ("DIR", "Folder for the result.  [default: runs/<time>-<strategy>]"),
}
"""Name of a key that [run] of merge.toml may hold besides settings → word for its value, line of help."""
OPTIONS: dict[str, Callable[[Any], Any]] = {
    "models": lambda command: click.argument("positional", nargs=-1, metavar="[MODEL]...")(
        click.option(
            "--models",
            multiple=True,
            metavar="PATH",
            help="Checkpoints: file, folder, pattern or id of the Hub; repeatable. The same as MODEL.",
        )(command)
    ),
    "base": click.option("--base", metavar="FILE", help="The model they were fine-tuned from."),
    "task": click.option(
        "--task", metavar="NAME", help="A registered task, a .toml with a [task], or python:module:function."
    ),
    "options": click.option(
        "-o", "--option", "options", multiple=True, metavar="KIND.KEY=VALUE", help="A plug-in's option; repeatable."
    ),
    "plugin": click.option(
        "--plugin", multiple=True, metavar="FILE.py", help="Python file that registers plug-ins; repeatable."
    ),
    "key": click.option(
        "--key", metavar="NAME", help="Of the state dict in files with several, such as state_dict_ema."
    ),
    "fail_unless": click.option(
        "--fail-unless",
        type=click.Choice([str(wanted) for wanted in Wanted]),
        help="End with exit code 3 where tests do not show that.",
    ),
    "open_page": click.option(
        "--open", "open_page", is_flag=True, help="Open the page in your browser, or the one that BROWSER names."
    ),
    "as_json": click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    "trust_code": click.option("--trust-code", is_flag=True, help="Let merge.toml load python: entries and plug-ins."),
}
"""Name of the parameter → its option."""


class Taking(click.Command):
    """A command that takes models alone, such as ``merge run checkpoints/*.pth``, as ``--models`` takes them.

    Both together are added: a shell that expands the pattern of ``--models`` gives it one name, and leaves the rest.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses, and adds the models that stand alone to those of ``--models``.

        Raises:
            RequirementError: a shell has made several names of a pattern that stands for one, or a name is empty, or no
                file's but a plug-in's.
        """
        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        named = [typed.get(name) for name in ("positional", "models", "wanted", "base")]
        if not ctx.resilient_parsing and any(
            each == "" or (isinstance(each, list | tuple) and "" in each) for each in named
        ):
            raise RequirementError("an empty name is no model; has the shell put an empty variable in its place?")
        if not ctx.resilient_parsing and isinstance(alone := typed.get("positional"), tuple):
            check_expanded(self.models(alone), args)  # before a file is read that the shell has chosen
            check_names(self.models(alone), [str(option.name) for option in self.params])
        self.prepare(ctx, typed)
        left = super().parse_args(ctx, args)
        if more := self.models(ctx.params.pop("positional", ())):
            ctx.params["models"] = (*ctx.params["models"], *more)
            ctx.set_parameter_source("models", ParameterSource.COMMANDLINE)
        return left

    def prepare(self, ctx: click.Context, typed: Mapping[str, Any]) -> None:
        """Does what is to be done between looking at a command line and parsing it: nothing here.

        Args:
            ctx: the command's context.
            typed: what was typed, by the names of parameters.
        """

    def models(self, alone: Sequence[str]) -> Sequence[str]:
        """The models among what stands alone on the command line: all of it here."""
        return alone


class Asking(Taking):
    """A command that reads merge.toml: click takes from its [run] what nobody typed.

    The file is kept as the context's ``obj``; a run that goes on reads none, because its journal says everything.
    """

    def prepare(self, ctx: click.Context, typed: Mapping[str, Any]) -> None:
        """Finds the file by what was typed, and puts it behind the command line.

        Raises:
            MergingError: no TOML, an unknown key or a value of the wrong type.
        """
        from merging.cli.asking.tables import find

        helps = any(option.is_eager and option.name in typed for option in self.get_params(ctx))
        if not helps and not ctx.resilient_parsing and typed.get("resume") is None:
            ctx.obj = find(typed.get("task"))
        self.put_behind(ctx)

    def put_behind(self, ctx: click.Context) -> None:
        """Has click take from the file that was found what nobody typed."""
        if ctx.obj is not None:
            own = {option.name for option in self.params if isinstance(option, FromFile)}
            ctx.default_map = {name: value for name, value in ctx.obj.file.said().items() if name in own}


TAKING_ONE = {"--base": 1, "--interpolate": 2}
"""Flag of a model → how many values it takes: more of them, from a pattern, would count as models to merge."""
ELSEWHERE = {".toml": "--task", ".py": "--plugin"}
"""Suffix of a file that is no model → the flag that it belongs to."""
CONFIGURATIONS = (".yml", ".yaml")
"""Suffixes of mergekit's configurations, which `merge run`, `merge check` and `merge convert` take."""


def check_expanded(alone: Collection[str], words: Sequence[str]) -> None:
    """Refuses what only an unquoted pattern can have meant; of ``--models`` nothing is wrong with it.

    Args:
        alone: what stands alone on the command line.
        words: the command line.

    Raises:
        RequirementError: it belongs to a flag that takes less.
    """
    for name in alone:
        if PurePath(name).suffix.lower() in CONFIGURATIONS and not Path(name).is_dir():
            raise RequirementError(f"{name} is no model; a configuration of mergekit is merged by: merge run {name}")
        flag = ELSEWHERE.get(PurePath(name).suffix)
        if flag is not None:
            several = f"{flag} takes one file: quote the pattern" + (
                f", or repeat {flag}" if flag == "--plugin" else ""
            )
            typed = any(word == flag or word.startswith(f"{flag}=") for word in words)
            raise RequirementError(f"{name} is no model" + (f"; {several}" if typed else f": {flag} {name}"))
    before = words[: words.index("--")] if "--" in words else words
    for place, flag in enumerate(before):
        count = TAKING_ONE.get(flag, 0)
        values, behind = before[place + 1 : place + 1 + count], before[place + 1 + count : place + 2 + count]
        if not count or not behind or behind[0].startswith("-"):
            continue
        last, extra = PurePath(values[-1]), PurePath(behind[0])
        if last.parent == extra.parent or last.name == extra.name:
            what = "one model" if count == 1 else "two models"
            raise RequirementError(
                f"{flag} takes {what}, and {extra} stands behind: quote the pattern, or write the models to merge "
                f"before {flag}"
            )


NAMING = {"strategies": "strategy", "partitioners": "partitioner"}
NAMING |= {kind: kind for kind in ("strategy", "partitioner", "optimizer", "objective", "task")}
"""Parameter that names plug-ins → their kind."""


def check_names(alone: Iterable[str], parameters: Collection[str]) -> None:
    """Refuses the name of a plug-in that stands where models do, as in ``merge run greedy``.

    Args:
        alone: what stands alone on the command line.
        parameters: the parameters of the command.

    Raises:
        RequirementError: no file has that name, or nearly that name, and a plug-in has.
    """
    for name in alone:
        if Path(name).expanduser().exists() or not re.fullmatch(r"[\w-]+", name):
            continue
        from merging.plugins.discovery import load_kind
        from merging.plugins.registry import PLUGINS

        for parameter in (each for each in NAMING if each in parameters):
            load_kind(kind := NAMING[parameter])
            flag = f"--{parameter}"
            if name in PLUGINS[kind]:
                raise RequirementError(f"{name} is no file but a {kind}: {flag} {name}")
            if near := difflib.get_close_matches(name, PLUGINS[kind], n=1, cutoff=0.7):
                raise RequirementError(f"no such checkpoint: {name}; or did you mean the {kind}: {flag} {near[0]}?")


def shared(*names: str, without: Collection[str] = (), **words: str) -> Callable[[_Command], _Command]:
    """Decorator that gives a command these options, in the order in which the help lists them.

    Args:
        names: names of options, of settings, or of groups of settings (fields of ``Settings``), which stand for all of
            theirs.
        without: settings of these groups that the command does not have.
        words: name of an option → its line of help, where this command has another one than the rest.
    """

    def add(command: _Command) -> _Command:
        for name in reversed(names):
            if name in NAMED:
                metavar, text = NAMED[name]
                command = click.option(f"--{name}", cls=FromFile, metavar=metavar, help=words.get(name, text))(command)
            elif name in OPTIONS:
                command = OPTIONS[name](command)
            else:
                from merging.running.settings import GROUPS  # loads numpy, which listing commands do without

                group = list(GROUPS[name].__dataclass_fields__) if name in GROUPS else [name]
                for setting in reversed([each for each in group if each not in without]):
                    command = _flag(setting, words.get(setting))(command)
        return command

    return add


def _flag(name: str, words: str | None) -> Callable[[Any], Any]:
    """The flag of a setting, as its declaration says."""
    from merging.running.settings import DECLARED

    declared, setting = DECLARED[name], DECLARED[name].setting
    dashed = "--" + (setting.flag or name.replace("_", "-"))
    kinds = (declared.type, *get_args(declared.type))
    facts: dict[str, Any] = {"cls": FromFile, "default": None, "help": words or _help(declared)}
    if bool in kinds:
        off = f"--no-{dashed[2:]}"
        if setting.switch == "both":
            return click.option(f"{dashed}/{off}", name, **facts)
        on = setting.switch == "on"
        return click.option(dashed if on else off, name, flag_value=on, type=bool, **facts)
    if get_origin(declared.type) is tuple:
        facts |= {"multiple": True}
    metavar = setting.metavar or ("[" + "|".join(declared.spec.choices) + "]" if declared.spec.choices else None)
    kind = next((kind for kind in (int, float) if kind in kinds and str not in kinds), str)
    return click.option(dashed, name, type=kind, metavar=metavar, **facts)


def _help(declared: Option) -> str:
    """The line of ``--help``, with the default where there is one to speak of."""
    setting, default = declared.setting, declared.default
    said = setting.default or ("" if default is None or isinstance(default, bool | tuple) else str(default))
    return (setting.said or declared.spec.help) + (f"  [default: {said}]" if said else "")
