"""``merge``: the group of commands, loaded one by one so that ``--help`` needs no torch."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from collections.abc import Callable, Sequence

import click
from click.shell_completion import CompletionItem

from merging.cli.showing import streams
from merging.cli.showing.flags import in_flags
from merging.errors import MergingError, raised, reason_of, refused, showable, unknown
from merging.machine import allow_open_files
from merging.storage.hub.news import told

COMMANDS = {
    "init": "Look into a folder of models and data, and write merge.toml for it.",
    "run": "Merge a pool of models into one better model.",
    "check": "Open models and data, say all that is wrong, and what a run will cost.",
    "finetune": "Fine-tune one base model many times, for a pool to merge.",
    "benchmark": "Compare many methods over one pool: the paper's Table 1 for your data.",
    "inspect": "Components of a model; distances, barriers and duplicates of a pool.",
    "evaluate": "Score a checkpoint, a recipe or a run; compare two, rank many.",
    "harness": "Run lm-eval's tasks on models, compare results of lm-eval sample by sample.",
    "runs": "List runs and benchmarks below a folder, with their scores.",
    "report": "Compare finished runs and benchmarks; Table 1 from published results.",
    "list": "List every plug-in: strategies, partitioners, optimizers, objectives, tasks, …",
    "describe": "Options, defaults, ranges and paper of one plug-in.",
    "new": "Write a plug-in that works, with its test.",
    "completion": "Print the script with which bash, zsh or fish complete words.",
    "cache": "Show or clear the scores and content hashes that commands remember.",
    "apply": "Rebuild a merged model from its recipe, bit for bit.",
    "convert": "Write the merge.toml that does what a configuration of mergekit does.",
    "push": "Push the result of a run to the Hugging Face Hub.",
}


class _Lazy(click.Group):
    """Imports a command's module when it is called; the list of commands is known without.

    Attributes:
        running: the command that was called last, whose flags an error is told in.
        loaded: called with name and command, where a shell asks what the command completes.
    """

    running: click.Command | None = None
    loaded: Callable[[str, click.Command], None] | None = None

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses; ``merge help run`` is ``merge run --help``, and ``merge`` alone is ``merge --help``."""
        if not args or args[:1] == ["help"]:
            args = [*args[1:2], "--help"]
        return super().parse_args(ctx, args)

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command = importlib.import_module(f"merging.cli.{cmd_name}").command
        assert isinstance(command, click.Command)  # noqa: S101 (for the type checker)
        if self.loaded is not None:
            self.loaded(cmd_name, command)
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        self.running = None
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            raise unknown("command", args[0], COMMANDS, "see: merge --help")
        name, self.running, rest = super().resolve_command(ctx, args)
        return name, self.running, rest

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[CompletionItem]:
        """Names and lines of help of the commands, none of which is imported for that; and the group's own flags."""
        flags = super().shell_complete(ctx, incomplete) if incomplete.startswith("-") else []
        names = [CompletionItem(name, help=said) for name, said in COMMANDS.items() if name.startswith(incomplete)]
        return [*names, *flags]

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl(list(COMMANDS.items()))


def _say_version(context: click.Context, _: click.Parameter, asked: bool) -> None:
    """Says the versions that a report of a fault needs; none of the packages is loaded for that."""
    if not asked or context.resilient_parsing:
        return
    from merging.cli.showing.versions import versions

    click.echo(versions())
    context.exit()


@click.group(
    cls=_Lazy,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100},
    epilog="Without models and merge.toml, 'merge run' works on a built-in task: digits, a small real CLIP. "
    "'merge help COMMAND' tells more.",
)
@click.option(
    "--version", is_flag=True, is_eager=True, expose_value=False, callback=_say_version, help="Show versions and exit."
)
def cli() -> None:
    """Merge fine-tuned models into one better model, with pluggable strategies."""


class _Lines:
    """Tells what is fetched from the Hub where no live line does (see :class:`merging.storage.hub.news.News`)."""

    def stage(self, text: str, total: int | None = None) -> None:
        """Says nothing: a line has said it."""

    def advance(self, steps: int = 1) -> None:
        """Says nothing."""

    def say(self, text: str) -> None:
        click.echo(showable(text), err=True)


def main() -> None:
    """Entry point: a user's mistake is one line and exit code 2; an interruption is exit code 130."""
    if "_MERGE_COMPLETE" in os.environ:  # a shell asks what may come next
        from merging.cli.completing.shells import answer

        sys.exit(answer(cli))
    # Idle OpenMP threads would spin on cores that others could use; torch reads this when it is loaded.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    streams.prepare()
    allow_open_files()
    try:
        with told(_Lines()):
            code = cli.main(standalone_mode=False)
        if not code and (reason := streams.lost()) is not None and not _writes_files(sys.argv[1:]):
            code = _fail(f"standard output: {refused(reason)}; some of it was not written", 1)
    except MergingError as error:
        code = _fail(in_flags(error, cli.running) + _how_to_see_more(error), error.exit_code)
    except click.exceptions.Abort:
        code = _fail("interrupted", 130)
    except KeyboardInterrupt:
        code = _fail("interrupted", 130)
    except click.ClickException as error:
        error.message = showable(error.message, keep="\n") + _quoting(error)  # type: ignore[misc]  # it quotes input
        error.show()
        code = error.exit_code
    except SystemExit as error:  # no command of ours calls sys.exit: somebody's plug-in, task or module does
        from merging.plugins.user_code import exited

        code = _fail(exited(error), 1)
    except (OSError, MemoryError) as error:  # names too long, permissions, a disk that went away
        lost = isinstance(error, FileNotFoundError) and error.filename is None  # of all calls, getcwd names no file
        code = _fail("the working folder is gone; change to one that is there" if lost else reason_of(error), 2)
    except Exception as error:  # the last line of defence: a defect of ours, or of somebody's plug-in
        if os.environ.get("MERGING_TRACEBACK"):
            raise
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{place.filename}:{place.lineno}"
        code = _fail(f"{raised(error, whole=True)} (at {where}; MERGING_TRACEBACK=1 shows all of it)", 1)
    sys.exit(code if isinstance(code, int) else 0)


def _quoting(error: click.ClickException) -> str:
    """What is added to an error about words that a shell may have made of a pattern: surplus ones, files like flags."""
    if isinstance(error, click.NoSuchOption):
        named = [
            word for word in sys.argv[1:] if word[:1] == "-" and word[1:2] not in ("", "-") and os.path.lexists(word)
        ]
        return f" A file whose name begins with - is written ./{showable(named[0])}" if named else ""
    surplus = isinstance(error, click.UsageError) and error.message.startswith("Got unexpected extra argument")
    return "; if your shell has made them of a pattern, quote the pattern" if surplus else ""


def _how_to_see_more(error: MergingError) -> str:
    """What is added to a plug-in's error, whose author may want the traceback; raises it where that is asked for."""
    from merging.plugins.user_code import PluginError

    if not isinstance(error, PluginError):
        return ""
    if os.environ.get("MERGING_TRACEBACK"):
        raise error
    return "; MERGING_TRACEBACK=1 shows all of it"


def _writes_files(arguments: Sequence[str]) -> bool:
    """Whether a command's result is what it writes, so that what it says may be lost."""
    return bool({*arguments[:1]} & {"run", "apply", "finetune", "benchmark"}) and "--json" not in arguments


def _fail(message: str, code: int) -> int:
    click.echo(f"{click.style('error:', fg='red', bold=True)} {showable(message)}", err=True)
    return code
