"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import TYPE_CHECKING, Any, TypeVar, get_args, get_origin

import click

from merging.values.states import Wanted

if TYPE_CHECKING:
    from merging.plugins.options import Option

_Command = TypeVar("_Command", bound=Callable[..., Any])


class FromFile(click.Option):
    """An option that [run] of merge.toml may say, under the same name."""


NAMED = {
    "strategy": ("NAME", "How to merge.  [default: manifoldmix]"),
    "partitioner": ("NAME", "Groups of tensors.  [default: whole; clip-c8 for the built-in task]"),
    "optimizer": ("NAME", "Backend of searches.  [default: the strategy's; nevergrad-cobyla]"),
    "objective": ("NAME", "What a search maximises.  [default: accuracy]"),
    "output": ("DIR", "Folder for the result.  [default: runs/<time>-<strategy>]"),
}
"""Name of a key that [run] of merge.toml may hold besides settings → word for its value, line of help."""
OPTIONS: dict[str, Callable[[Any], Any]] = {
    "models": click.option(
        "--models", multiple=True, metavar="PATH", help="Checkpoints: a file, a folder or a pattern; repeatable."
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
    "as_json": click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    "trust_code": click.option("--trust-code", is_flag=True, help="Let merge.toml load python: entries and plug-ins."),
}
"""Name of the parameter → its option."""


class Asking(click.Command):
    """A command that reads merge.toml: click takes from its [run] what nobody typed.

    The file is kept as the context's ``obj``; a run that goes on reads none, because its journal says everything.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Finds the file by what was typed, then parses with it behind the command line.

        Raises:
            MergingError: no TOML, an unknown key or a value of the wrong type.
        """
        from merging.cli.asking.tables import find

        typed, _, _ = self.make_parser(ctx).parse_args(list(args))
        helps = any(option.is_eager and option.name in typed for option in self.get_params(ctx))
        if not helps and not ctx.resilient_parsing and typed.get("resume") is None:
            ctx.obj = find(typed.get("task"))
        if ctx.obj is not None:
            own = {option.name for option in self.params if isinstance(option, FromFile)}
            ctx.default_map = {name: value for name, value in ctx.obj.file.said().items() if name in own}
        return super().parse_args(ctx, args)


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
    dashed = "--" + name.replace("_", "-")
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
    kind = next((kind for kind in (int, float) if kind in kinds), str)
    return click.option(dashed, name, type=kind, metavar=metavar, **facts)


def _help(declared: Option) -> str:
    """The line of ``--help``, with the default where there is one to speak of."""
    setting, default = declared.setting, declared.default
    said = setting.default or ("" if default is None or isinstance(default, bool | tuple) else str(default))
    return (setting.said or declared.spec.help) + (f"  [default: {said}]" if said else "")
