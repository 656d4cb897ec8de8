"""What shells complete: asked by the shells themselves, and quickly, and without a word of what goes wrong."""

from __future__ import annotations

import json
import os
import shlex
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import click
import pytest

from merging.cli.completing import plugins
from merging.cli.completing.shells import SHELLS, answer, script
from merging.cli.completing.values import FREE, completer_of
from merging.cli.main import COMMANDS, cli
from merging.plugins.registry import PLUGINS
from tests.conftest import ENVIRONMENT, Merge

Ask = Callable[..., list[str]]


@pytest.fixture
def place(tmp_path: Path) -> Path:
    """A folder with the three scripts, and a program called ``merge``."""
    program = tmp_path / "bin" / "merge"
    program.parent.mkdir()
    program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m merging "$@"\n')
    program.chmod(0o755)
    for shell in SHELLS:
        (tmp_path / f"merge.{shell}").write_text(script(shell, cli))
    (tmp_path / "work").mkdir()
    return tmp_path


def _shell(place: Path, program: str, *arguments: str) -> str:
    path = f"{place / 'bin'}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [program, *arguments], cwd=place / "work", env=ENVIRONMENT | {"PATH": path}, capture_output=True, text=True
    )
    assert not done.stderr, done.stderr
    assert done.returncode == 0
    return done.stdout


@pytest.fixture
def bash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Ask]:
    """Asks as a bash does that has divided its words, in this process; what it puts in the word's place comes back."""
    monkeypatch.chdir(tmp_path)

    def ask(*words: str) -> list[str]:
        monkeypatch.setenv("_MERGE_COMPLETE", "bash_complete")
        monkeypatch.setenv("COMP_WORDS", "\n".join(("merge", *map(shlex.quote, words[:-1]), *words[-1:])))
        assert answer(cli) == 0
        said = capsys.readouterr()
        assert not said.err
        return [line.partition("\t")[2] for line in said.out.splitlines() if line]

    yield ask
    cli.loaded = None


@pytest.mark.slow
def test_a_real_bash_puts_them_in_the_place_of_the_word(place: Path) -> None:
    (place / "work" / "m 1.pth").touch()
    asked = {
        ("run", "--strategy", "mani"): ["manifoldmix"],
        ("run", "--strategy", "learned", "-o", "strategy.coefficients", "=", "a"): ["affine"],
        ("run", "--strategy", "=", "mani"): ["manifoldmix"],
        ("run", "", "--precision", "b"): ["bf16"],
        ("run", "m"): ["m 1.pth"],
        ("runn", "--x"): [],
    }
    for words, wanted in asked.items():
        given = " ".join(map(shlex.quote, ("merge", *words)))
        lines = f"source ../merge.bash; COMP_WORDS=({given}); COMP_CWORD={len(words)}; _merge_completion merge; "
        shown = r'(( ${#COMPREPLY[@]} )) && printf "%s\n" "${COMPREPLY[@]}"; true'
        assert _shell(place, "bash", "--norc", "-c", lines + shown).splitlines() == wanted


def test_commands_flags_and_values(bash: Ask) -> None:
    assert bash("ru") == ["run", "runs"]
    assert "--strategy" in bash("run", "--str")
    assert bash("run", "--strategy", "mani") == ["manifoldmix"]
    assert bash("run", "--strategy", "") == sorted(PLUGINS["strategy"])
    assert bash("benchmark", "--strategies", "greedy,man") == ["greedy,manifoldmix"]
    assert "greedy,greedy" not in bash("benchmark", "--strategies", "greedy,g")
    assert bash("describe", "ties") == ["ties"]
    assert bash("list", "ta") == ["tasks"]
    assert bash("completion", "f") == ["fish"]
    assert bash("run", "--precision", "") == ["auto", "fp32", "bf16"]
    assert bash("run", "--format", "p") == ["pt"]
    assert bash("evaluate", "--task", "digits", "--split", "o") == ["outlined"]


def test_a_flag_and_its_value_as_one_word(bash: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    assert bash("run", "--strategy", "=", "mani") == ["manifoldmix"]
    assert bash("run", "--precision", "=") == ["auto", "fp32", "bf16"]
    assert bash("run", "--precision=b") == ["--precision=bf16"], "COMP_WORDBREAKS may be set without ="
    monkeypatch.setenv("COMP_WORDS", "merge\nrun\n--strategy=mani")
    monkeypatch.setenv("COMP_CWORD", "--strategy=mani")
    for shell in ("zsh", "fish"):
        assert "--strategy=manifoldmix" in SHELLS[shell](cli, {}, "merge", "_MERGE_COMPLETE").complete()


def test_only_what_the_shell_has_divided_is_left_out(bash: Ask, tmp_path: Path) -> None:
    (tmp_path / "a:b").mkdir()
    (tmp_path / "a:b" / "one.pt").touch()
    assert bash("run", "a", ":", "b/o") == ["b/one.pt"]
    assert bash("run", '"a:b/o') == ["a:b/one.pt"], "quoted, it is one word to bash"
    assert bash("run", r"a\:b/o") == ["a:b/one.pt"]
    assert bash("run", "", "--precision", "b") == ["bf16"], "an empty word is one"


def test_options_of_the_plug_in_that_is_typed(bash: Ask, tmp_path: Path) -> None:
    assert bash("run", "-o", "stra") == ["strategy."]
    assert "strategy.tau=" in bash("run", "-o", "strategy."), "of the default strategy"
    assert bash("run", "--strategy", "learned", "-o", "strategy.coef") == ["strategy.coefficients="]
    words = ("run", "--strategy", "learned", "-o", "strategy.coefficients")
    assert bash(*words, "=") == ["convex", "affine"], "bash divides words at = and replaces what is behind"
    assert bash(*words, "=", "a") == ["affine"]
    assert bash("benchmark", "--strategies", "greedy,mine=learned", "-o", "mine.coef") == ["mine.coefficients="]
    assert bash("finetune", "--regime", "papa", "-o", "reg") == ["regime."]
    assert bash("run", "--sink", "tens") == ["tensorboard"]
    assert bash("benchmark", "--sink", "tensorboard", ":", "fo") == ["folder="]
    (tmp_path / "merge.toml").write_text('[run]\nstrategy = "greedy"\n')
    assert "strategy.accept_ties=" in bash("run", "-o", "strategy.")


def test_plug_in_files_are_read_and_not_run(bash: Ask, tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "import merging\nfrom merging.plugins.registry import strategies\nopen('ran', 'w')\n\n\n"
        "@strategies.register('manifold-of-mine')\nclass Mine(merging.MixStrategy):\n    summary = 'mine'\n"
        "    named_profiles = {'manifold-twice': merging.Profile()}\n"
        "    profile: str = merging.option('mine', 'which', choices=('mine', 'manifold-twice'))\n"
        "    width: int = merging.option(3, 'how wide')\n"
    )
    words = ("run", "--plugin", "mine.py")
    assert bash(*words, "--strategy", "mani") == ["manifold-of-mine", "manifold-twice", "manifoldmix"]
    assert bash(*words, "--strategy", "manifold-of-mine", "-o", "strategy.") == ["strategy.profile=", "strategy.width="]
    assert bash(*words, "--strategy", "manifold-twice", "-o", "strategy.") == ["strategy.width="]
    assert not (tmp_path / "ran").exists()
    assert bash("run", "--plugin", "mi") == ["mine.py"]


def test_models_tasks_and_results(bash: Ask, tmp_path: Path) -> None:
    work = tmp_path
    for name in ("m 1.safetensors", "m2.pth", "notes.txt", "mine.toml"):
        (work / name).touch()
    (work / "models").mkdir()
    (work / "runs" / "one").mkdir(parents=True)
    (work / "runs" / "one" / "events.jsonl").touch()
    (work / "runs" / "none").mkdir()
    assert bash("run", "m") == ["m 1.safetensors", "m2.pth", "models"]
    assert bash("run", "--models", "m2") == ["m2.pth"]
    (work / "mine.yml").touch()
    assert bash("run", "mi") == bash("check", "mi") == bash("convert", "mi") == ["mine.yml"]
    assert bash("inspect", "mi") == []
    assert bash("run", r"m\ ") == ["m 1.safetensors"]
    assert bash("run", "--task", "mi") == ["mine.toml"]
    assert bash("run", "--resume", "r") == ["runs/one"]
    assert bash("run", "--resume", "runs/o") == ["runs/one"]


@pytest.mark.parametrize(
    "words",
    [
        ("runn", "--x"),
        ("run", "--strategy", "gredy", "-o", "strategy."),
        ("run", "--plugin", "nowhere.py", "--strategy", "zzz"),
        ("run", "-o", "nothing."),
        ("run", "--models", "/nowhere/"),
        ("run", "'open"),
        ("evaluate", "--task", "broken.toml", "--split", ""),
    ],
)
def test_nothing_goes_wrong_aloud(bash: Ask, tmp_path: Path, words: tuple[str, ...]) -> None:
    (tmp_path / "broken.toml").write_text("[[[")
    (tmp_path / "merge.toml").write_text("[run]\nstrategyy = 1\n")
    assert bash(*words) == []


def test_what_a_package_prints_is_no_candidate(bash: Ask, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plugins, "load_kind", lambda kind: print("plain\tfor you"))
    assert "for you" not in bash("run", "--strategy", "")


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("fish") is None, reason="fish is not installed")
def test_fish_is_told_with_help(place: Path) -> None:
    def ask(line: str) -> list[str]:
        return _shell(
            place, "fish", "--no-config", "-c", f"source ../merge.fish; complete -C {shlex.quote(line)}"
        ).splitlines()

    assert [line.split("\t")[0] for line in ask("merge ru")] == ["run", "runs"]
    (said,) = ask("merge run --strategy mani")
    assert said.startswith("manifoldmix\t")
    assert ask("merge run --strategy learned -o strategy.coefficients=a") == ["strategy.coefficients=affine"]


@pytest.mark.slow
@pytest.mark.parametrize("shell", SHELLS)
def test_the_script_is_one_that_the_shell_reads(place: Path, shell: str) -> None:
    if shutil.which(shell) is None:
        pytest.skip(f"{shell} is not installed")
    _shell(place, shell, "-n", f"../merge.{shell}")


def test_the_command_prints_the_script(merge: Merge) -> None:
    for shell in SHELLS:
        ran = merge("completion", shell)
        assert (ran.code, ran.out) == (0, script(shell, cli))
        assert json.loads(merge("completion", shell, "--json").out) == {"shell": shell, "script": ran.out}
    assert merge("completion", "tcsh").code == 2
    assert "\n  fish  once:  merge completion fish > ~/.config" in merge("completion", "--help").out, "a line a shell"


@pytest.mark.slow
def test_torch_is_not_loaded() -> None:
    code = (
        "import os, sys; from merging.cli.main import cli; from merging.cli.completing.shells import answer\n"
        "for words in ('merge run --strategy ', 'merge evaluate --task ', 'merge run -o strategy.', 'merge check m'):\n"
        "    os.environ |= {'COMP_WORDS': words.replace(' ', chr(10))}; answer(cli)\n"
        "    assert 'torch' not in sys.modules, words\n"
    )
    asked = {"_MERGE_COMPLETE": "bash_complete"}
    done = subprocess.run([sys.executable, "-c", code], env=ENVIRONMENT | asked, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "manifoldmix" in done.stdout


def test_every_value_completes_or_is_known_not_to() -> None:
    """A new option says what its values are, or stands in the list of those that nobody can know."""
    context, lost = click.Context(cli), []
    for name in COMMANDS:
        command = cli.get_command(context, name)
        assert command is not None
        for parameter in command.params:
            own = isinstance(parameter.type, click.Choice) or getattr(parameter, "is_flag", False)
            key = str(parameter.name)
            if not own and completer_of(name, key) is None and not FREE & {key, f"{name}.{key}"}:
                lost.append(f"{name}.{key}")
    assert not lost, f"add them to VALUES or FREE in cli/completing/values.py: {lost}"
