"""Scripts that teach a shell to ask ``merge`` what may come next, and the answers in the form that each one reads.

Bash, zsh and fish are asked in click's way: an environment variable holds the words, and a function that the script
defines reads a candidate a line. What click's own scripts lack is a word that goes on (after ``strategy.`` no space may
follow), ``--flag=value`` as one word, the words as the shell has divided them (bash does so at ``=`` and ``:``), of
which some are empty, and ``~/``, which zsh would quote.
"""

from __future__ import annotations

import contextlib
import io
import os
import sys
from collections.abc import Callable
from typing import Any, ClassVar

import click
from click.shell_completion import CompletionItem, ShellComplete, split_arg_string

from merging.errors import showable

VARIABLE = "_MERGE_COMPLETE"
"""Environment variable in which a shell says what it is, and that it asks."""
PART, PATH = "part", "path"
"""Kinds of candidates besides click's "plain": a word that goes on, and the name of a file or folder."""
_BREAKS = "=:"
"""Characters at which bash divides words, as it is set by default."""

BASH = r"""
%(complete_func)s() {
    local type value response IFS=$'\n'
    response=$(env COMP_WORDS="${COMP_WORDS[*]:0:COMP_CWORD+1}" \
        %(complete_var)s=bash_complete "${1/#\~\//$HOME/}" 2>/dev/null)
    COMPREPLY=()
    while IFS=$'\t' read -r type value; do
        case "$type" in
            part) compopt -o nospace 2>/dev/null ;;
            path) compopt -o filenames 2>/dev/null ;;
            plain) ;;
            *) continue ;;
        esac
        COMPREPLY+=("$value")
    done <<< "$response"
    return 0
}

complete -o nosort -F %(complete_func)s %(prog_name)s
"""

ZSH = r"""
#compdef %(prog_name)s

%(complete_func)s() {
    local -a plain parts described goes_on response
    local type value help
    (( ! $+commands[%(prog_name)s] )) && return 1
    response=("${(@f)$(env COMP_WORDS="${(F)words[1,CURRENT]}" \
        %(complete_var)s=zsh_complete %(prog_name)s 2>/dev/null)}")
    for type value help in ${response}; do
        if [[ -z "$compstate[quote]" && "$value" == \~/* ]]; then
            [[ "$type" == plain ]] && compadd -Q -U -V unsorted -- "~/${(q)value#\~/}"
            [[ "$type" == path ]] && compadd -Q -U -S '' -V unsorted -- "~/${(q)value#\~/}"
            continue
        fi
        case "$type" in
            plain) if [[ "$help" == _ ]]; then plain+=("$value"); else described+=("${value//:/\\:}:$help"); fi ;;
            part|path) if [[ "$help" == _ ]]; then parts+=("$value"); else goes_on+=("${value//:/\\:}:$help"); fi ;;
        esac
    done
    (( $#described )) && _describe -V unsorted described -U
    (( $#goes_on )) && _describe -V unsorted goes_on -U -S ''
    (( $#plain )) && compadd -U -V unsorted -a plain
    (( $#parts )) && compadd -U -S '' -V unsorted -a parts
    return 0
}

if [[ $zsh_eval_context[-1] == loadautofunc ]]; then
    %(complete_func)s "$@"
else
    compdef %(complete_func)s %(prog_name)s
fi
"""

FISH = r"""
function %(complete_func)s
    env %(complete_var)s=fish_complete COMP_WORDS=(commandline -cp | string collect) \
        COMP_CWORD=(commandline -ct | string collect) %(prog_name)s 2>/dev/null
end

complete --no-files --command %(prog_name)s --arguments "(%(complete_func)s)"
"""


class _Shell(ShellComplete):
    """A shell that is asked in click's way, with our scripts."""

    def source(self) -> str:
        """The script; no other program is started to look at the shell's version."""
        return (self.source_template % self.source_vars()).lstrip("\n")

    def get_completion_args(self) -> tuple[list[str], str]:
        """The words before the one that is completed, and what is there of that one."""
        words = _lines()
        return words[:-1], words[-1]

    def get_completions(self, args: list[str], incomplete: str) -> list[CompletionItem]:
        """The candidates; those for ``--flag=`` with the flag, because shells replace all of the word."""
        flag, equals, _ = incomplete.partition("=")
        found = super().get_completions(args, incomplete)
        if not (equals and flag.startswith("--")):
            return found
        return [CompletionItem(f"{flag}={item.value}", type=item.type, help=item.help) for item in found]


class Bash(_Shell):
    """Bash, 4.4 or newer."""

    name: ClassVar[str] = "bash"
    source_template: ClassVar[str] = BASH
    cut = 0
    """Characters of the word before its last break, which bash leaves alone."""

    def get_completion_args(self) -> tuple[list[str], str]:
        """Puts together what bash has divided at ``=`` and ``:``."""
        joined, self.cut, glue = [""], 0, True
        for word in _lines():
            breaks = bool(word) and not word.strip(_BREAKS)
            self.cut = len(joined[-1]) if glue or breaks else 0
            if glue or breaks:
                joined[-1] += word
            else:
                joined.append(word)
            glue = breaks
        self.cut = len(joined[-1]) if glue else self.cut
        return joined[:-1], joined[-1]

    def complete(self) -> str:
        """A line for each candidate: its kind and the rest of the word that bash replaces."""
        words, incomplete = self.get_completion_args()
        lines = []
        for item in self.get_completions(words, incomplete):
            value = item.value.removesuffix("/") if item.type == PATH else item.value
            if value.startswith(incomplete[: self.cut]):
                lines.append(f"{item.type}\t{value[self.cut :]}")
        return "\n".join(lines)


class Zsh(_Shell):
    """Zsh, with ``compinit`` loaded."""

    name: ClassVar[str] = "zsh"
    source_template: ClassVar[str] = ZSH

    def format_completion(self, item: CompletionItem) -> str:
        """Three lines: kind, word, help."""
        plain = item.type == PATH and not item.value.endswith("/")
        return f"{'plain' if plain else item.type}\n{item.value}\n{item.help or '_'}"


class Fish(_Shell):
    """Fish, which adds no space after ``/``, ``=`` and ``.`` by itself."""

    name: ClassVar[str] = "fish"
    source_template: ClassVar[str] = FISH

    def get_completion_args(self) -> tuple[list[str], str]:
        """Fish gives the line up to the cursor, and the word that it is in."""
        words = split_arg_string(os.environ.get("COMP_WORDS", ""))[1:]
        typed = split_arg_string(os.environ.get("COMP_CWORD", ""))
        incomplete = typed[0] if typed else ""
        return words[:-1] if incomplete and words and words[-1] == incomplete else words, incomplete

    def format_completion(self, item: CompletionItem) -> str:
        """The word, and behind a tab its help."""
        return f"{item.value}\t{item.help}" if item.help else item.value


def _lines() -> list[str]:
    """The words behind the command up to the cursor, a line each, without what quotes them."""
    return [(split_arg_string(word) or [""])[0] for word in os.environ.get("COMP_WORDS", "").split("\n")[1:]] or [""]


SHELLS: dict[str, type[_Shell]] = {shell.name: shell for shell in (Bash, Zsh, Fish)}


def script(shell: str, group: click.Command) -> str:
    """The script that a shell runs when it starts."""
    return SHELLS[shell](group, {}, "merge", VARIABLE).source()


def answer(group: Any) -> int:
    """Answers a shell that asks; it is never told of an error, and never waits for one.

    Args:
        group: the group of commands, whose ``loaded`` is called with each command that is looked at.
    """
    from merging.cli.completing.values import attach

    shell, _, what = os.environ.get(VARIABLE, "").partition("_")
    if shell not in SHELLS:
        return 0
    with contextlib.redirect_stderr(io.StringIO()), contextlib.redirect_stdout(io.StringIO()):  # packages may print
        said = _quietly(lambda: _said(shell, what, group, attach))
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.reconfigure(errors="replace")  # type: ignore[union-attr]
        sys.stdout.write(said)
        sys.stdout.flush()
    return 0


def _said(shell: str, what: str, group: Any, attach: Callable[[str, click.Command], None]) -> str:
    if what == "source":
        return script(shell, group)
    group.loaded = attach
    return SHELLS[shell](group, {}, "merge", VARIABLE).complete() + "\n"


def _quietly(job: Callable[[], str]) -> str:
    try:
        return job()
    except BaseException:  # a plug-in of somebody else may raise anything, and a shell waits for words
        return ""


def shown(value: str) -> bool:
    """Whether a word can stand in a line of an answer."""
    return showable(value) == value
