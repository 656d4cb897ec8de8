"""Settings as they are typed: ``--max-evaluations`` for what the core calls `` `max_evaluations` ``."""

from __future__ import annotations

import re
import shlex
import sys

import click

from merging.errors import showable

_SETTING = re.compile(r"(?<![^\s(])`([a-z][a-z_.]*)(?:=([^`]*))?`(?=[\s,;:)]|\.?$|\.\s)")
"""A name in backticks, alone or with a value, as a word of its own: never a part of a path or of a quoted name."""


def in_flags(text: object, command: click.Command | None = None) -> str:
    """Turns a message of the core into what a person at the command line reads: one line, with flags.

    A name in backticks becomes the flag of the command that runs, where that has one; any other stays as it is::

        `max_evaluations`     --max-evaluations
        `dtype=float32`       --dtype float32
        `compile=True`        --compile
        `recalibrate=False`   --no-recalibrate
        `strategy.tau=0.9`    -o strategy.tau=0.9
        `epochs=3`            --set epochs=3 (of merge finetune)

    What somebody has typed in backticks, such as a folder's name, stays as it was typed.

    Only what is shown goes through here. JSON, reports and cards hold the names as Python and merge.toml spell them.

    Args:
        text: a message, warning or note, with names from files and folders in it.
        command: the command whose flags they are; default: the one that runs.
    """
    if command is None:
        context = click.get_current_context(silent=True)
        command = None if context is None else context.command
    options = [] if command is None else [param for param in command.params if isinstance(param, click.Option)]
    typed = showable(" ".join(sys.argv[1:]))

    def shown(found: re.Match[str]) -> str:
        return found[0] if found[0] in typed else _flag(options, found[1], found[2]) or found[0]

    return _SETTING.sub(shown, showable(text))


def _flag(options: list[click.Option], name: str, value: str | None) -> str | None:
    """What is typed for a setting, or None where the command has no such option."""
    if "." in name:
        takes = value and any("-o" in option.opts for option in options)
        return f"-o {shlex.quote(f'{name}={value}')}" if takes else None
    long = f"--{name.replace('_', '-')}"
    for option in options:
        if option.name == name or long in option.opts:
            if not option.is_flag:
                return max(option.opts, key=len) + (f" {shlex.quote(value)}" if value else "")
            if value == "False":
                opts = option.opts if option.flag_value is False else option.secondary_opts
            else:  # of --no-baselines there is no other side
                opts = [] if option.flag_value is False else option.opts
            return max(opts, key=len, default=None)
    if value and any("--set" in option.opts for option in options):
        from merging.training.hyperparameters import HyperParameters

        if name in HyperParameters.__dataclass_fields__:
            return f"--set {shlex.quote(f'{name}={value}')}"
    return None
