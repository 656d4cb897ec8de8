"""Options that several commands take."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

_Command = TypeVar("_Command", bound=Callable[..., Any])
OPTIONS: dict[str, Callable[[Any], Any]] = {
    "models": click.option(
        "--models", multiple=True, metavar="PATH", help="Checkpoints: a file, a folder or a pattern; repeatable."
    ),
    "base": click.option("--base", metavar="FILE", help="The model they were fine-tuned from."),
    "task": click.option(
        "--task", metavar="NAME", help="A registered task, a .toml with a [task], or python:module:function."
    ),
    "partitioner": click.option(
        "--partitioner", metavar="NAME", help="Groups of tensors.  [default: whole; clip-c8 for the built-in task]"
    ),
    "optimizer": click.option(
        "--optimizer", metavar="NAME", help="Backend of searches.  [default: the strategy's; nevergrad-cobyla]"
    ),
    "objective": click.option("--objective", metavar="NAME", help="What a search maximises.  [default: accuracy]"),
    "options": click.option(
        "-o", "--option", "options", multiple=True, metavar="KIND.KEY=VALUE", help="A plug-in's option; repeatable."
    ),
    "budget": click.option(
        "--budget", type=int, metavar="N", help="Evaluations per search.  [default: the strategy's; 250]"
    ),
    "max_evaluations": click.option(
        "--max-evaluations", type=int, metavar="N", help="End the whole run after so many evaluations."
    ),
    "freeze": click.option(
        "--freeze", multiple=True, metavar="REGEX", help="Components or tensors not to mix; repeatable."
    ),
    "device": click.option("--device", metavar="NAME", help="auto, cpu, cuda or mps.  [default: auto]"),
    "precision": click.option(
        "--precision",
        metavar="NAME",
        help="Of the search's passes: fp32, bf16 or auto.  [default: auto, bf16 on GPUs that have it]",
    ),
    "threads": click.option(
        "--threads", type=int, metavar="N", help="Of the CPU.  [default: by the model's size, within what is granted]"
    ),
    "tune": click.option(
        "--tune", flag_value=True, type=bool, default=None, help="Measure the fastest batch and threads first."
    ),
    "compile": click.option(
        "--compile", flag_value=True, type=bool, default=None, help="Run the model through torch.compile."
    ),
    "plugin": click.option(
        "--plugin", multiple=True, metavar="FILE.py", help="Python file that registers plug-ins; repeatable."
    ),
    "baselines": click.option(
        "--no-baselines", "baselines", flag_value=False, type=bool, default=None, help="Only the strategy itself."
    ),
    "tests": click.option(
        "--no-tests", "tests", flag_value=False, type=bool, default=None, help="Leave the test sets alone."
    ),
    "certify_split": click.option(
        "--certify-split", type=float, metavar="SHARE", help="Keep this share of held-out data to accept the result on."
    ),
    "recalibrate": click.option(
        "--recalibrate/--no-recalibrate",
        default=None,
        help="Measure BatchNorm statistics of averages on training data.  [default: where there is some]",
    ),
    "key": click.option(
        "--key", metavar="NAME", help="Of the state dict in files with several, such as state_dict_ema."
    ),
    "as_stored": click.option(
        "--as-stored",
        flag_value=True,
        type=bool,
        default=None,
        help="Average the parts of weight norm and pruning as they are stored.",
    ),
    "as_json": click.option("--json", "as_json", is_flag=True, help="Print JSON."),
    "trust_code": click.option("--trust-code", is_flag=True, help="Let merge.toml load python: entries and plug-ins."),
}
"""Name of the parameter → its option."""


def shared(*names: str) -> Callable[[_Command], _Command]:
    """These options, in the order in which the help lists them."""

    def add(command: _Command) -> _Command:
        for name in reversed(names):
            command = OPTIONS[name](command)
        return command

    return add
