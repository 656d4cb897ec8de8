"""Messages of the core name settings as Python and merge.toml spell them; only the command line adds dashes."""

import ast
import glob
import inspect
import re
from collections.abc import Iterator
from pathlib import Path

import click

import merging
from merging.cli.main import COMMANDS, cli
from merging.plugins.discovery import load_all
from merging.plugins.functions import parameters_of
from merging.plugins.options import options_of
from merging.plugins.registry import PLUGINS
from merging.training.hyperparameters import LoraParameters

ROOT = Path(merging.__file__).parent
FLAG = re.compile(r"(?<![\w-])(?<!var\()(--[a-z]|-o )")
"""A flag, and not the name of a colour: ``var(--ink)``."""
NAMED = re.compile(r"(?<!`)`([^`]+)`(?!`)")
"""A name in backticks, with a value or without; ``…`` stands for what is filled in."""
CARD = ROOT / "running" / "card.py"
"""A document in Markdown, where backticks mean files and commands."""
STATUS = re.compile(r"--max-evaluations (…|\{\}) (was )?reached")
"""What report.json has called a run that reached its limit since there is one; tables and cards say it likewise."""


def sources() -> list[Path]:
    """Every module but those of the command line."""
    found = (Path(name) for name in glob.glob(f"{ROOT}/**/*.py", recursive=True))  # follows links to folders
    return sorted(path for path in found if path.relative_to(ROOT).parts[0] != "cli")


def texts(source: str) -> Iterator[tuple[int, str]]:
    """Line and text of every string that is no docstring; ``…`` stands for what an f-string fills in."""
    tree = ast.parse(source)
    documents = {id(node.value) for node in ast.walk(tree) if isinstance(node, ast.Expr)}
    inner = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            parts = [part.value if isinstance(part, ast.Constant) else "…" for part in node.values]
            yield node.lineno, "".join(map(str, parts))
        elif isinstance(node, ast.Constant) and isinstance(node.value, str) and not {id(node)} & (documents | inner):
            yield node.lineno, node.value


def known() -> set[str]:
    """Keywords of the public functions and classes, fields of a training run, and ``kind.option`` of every plug-in."""
    load_all()
    names = {field.name for field in options_of(LoraParameters)}
    for public in (getattr(merging, name) for name in dir(merging)):
        for called in vars(public).values() if inspect.isclass(public) else (public,):
            called = getattr(called, "__func__", called)  # of a class method
            if inspect.isfunction(called):
                names |= set(inspect.signature(called).parameters)
    for kind, registry in PLUGINS.items():
        for plugin in (registry[name] for name in registry):
            declared = options_of(plugin) if inspect.isclass(plugin) else parameters_of(plugin)
            names |= {f"{kind}.{option.name}" for option in declared}
    return names


def flagged() -> set[str]:
    """Parameters of all commands."""
    commands = [cli.get_command(click.Context(cli), name) for name in COMMANDS]
    return {str(param.name) for command in commands if command is not None for param in command.params}


def faults(source: str, names: set[str]) -> list[str]:
    """What is wrong with the texts of a module: a flag, or a name in backticks that nothing is called."""
    wrong = []
    for line, text in texts(source):
        if flag := FLAG.search(STATUS.sub("", text)):
            wrong.append(f"{line}: {flag[0]} in {text!r}")
        wrong += [
            f"{line}: `{name}` in {text!r}"
            for name in (found.partition("=")[0] for found in NAMED.findall(text))
            if re.fullmatch(r"[a-z_.]+", name) and name not in names
        ]
    return wrong


def test_messages_name_settings_and_no_flags() -> None:
    names = known()
    assert {"max_evaluations", "mixup", "strategy.tau"} <= names
    wrong = {path.relative_to(ROOT): faults(path.read_text("utf-8"), names) for path in sources() if path != CARD}
    assert {str(path): found for path, found in wrong.items() if found} == {}


def test_a_wrong_name_and_a_flag_are_found() -> None:
    source = '"""--fine."""\nraise E(f"{x}: leave --this out")\nraise E("give `that`", "`task`", "-o strategy.x=1")\n'
    assert [fault.split(" in ")[0] for fault in faults(source, {"task"})] == ["2: --t", "3: `that`", "3: -o "]


def test_every_setting_that_messages_name_is_an_option_of_some_command() -> None:
    named = {
        name.partition("=")[0]
        for path in sources()
        if path != CARD
        for _, text in texts(path.read_text("utf-8"))
        for name in NAMED.findall(text)
        if re.fullmatch(r"[a-z_]+(=.*)?", name)
    }
    training = {field.name for field in options_of(LoraParameters)}  # --set NAME=VALUE
    assert {"max_evaluations", "recalibrate", "jobs", "key"} <= named
    assert named - flagged() - training == set()
