"""``merge completion``: the script with which a shell completes commands, flags and their values."""

from __future__ import annotations

import click

from merging.cli.asking.options import shared
from merging.cli.completing.shells import SHELLS
from merging.errors import unknown


@click.command("completion")
@click.argument("shell")
@shared("as_json")
def command(shell: str, as_json: bool) -> None:
    """Print the script with which SHELL (bash, zsh or fish) completes commands, flags and values.

    \b
    bash  in ~/.bashrc:  eval "$(merge completion bash)"
    zsh   in ~/.zshrc, below compinit:  eval "$(merge completion zsh)"
    fish  once:  merge completion fish > ~/.config/fish/completions/merge.fish
    """  # noqa: D301 (click leaves lines alone behind the character)
    from merging.cli.completing.shells import script
    from merging.cli.showing.screen import print_json

    if shell not in SHELLS:
        raise unknown("shell", shell, SHELLS)
    context = click.get_current_context()
    text = script(shell, context.find_root().command)
    if as_json:
        print_json({"shell": shell, "script": text})
    else:
        click.echo(text, nl=False)
