"""Checkpoints, tensors, classes and sets that are called anything: shown, and obeyed by nothing that shows them."""

from __future__ import annotations

import ast
import csv
import html
import io
import itertools
import os
import re
import unicodedata
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file

from merging.benchmarking.rendering.documents import _tex, to_csv, to_latex, to_markdown
from merging.benchmarking.rendering.leaderboard import pool_csv
from merging.benchmarking.rendering.page import to_html
from merging.benchmarking.results import Benchmark
from merging.cli import main as command_line
from merging.cli.showing.screen import Screen, marked
from merging.cli.showing.terminal import TerminalProgress
from merging.errors import MergingError, showable
from merging.running.card import model_card
from merging.values.markdown import fenced, plain
from merging.values.report import Report, Row
from merging.values.states import RunState
from tests.conftest import TASK, Merge

WORDS = [
    "\x1b[2J",
    "\x1b]0;title\x07",
    "\x9b31m",
    "\n",
    "\r",
    "\x00",
    "\x7f",
    "\u2028",
    "\u202e",
    "\udcff",
    "\ud800",
    "[/x]",
    "[bold]",
    "[link=file:///x]",
    ":dog:",
    "\\",
    "<script>alert(1)</script>",
    "<!--",
    "&lt;",
    '"',
    "'",
    "](http://x)",
    "![a](b)",
    "`",
    "```",
    "|",
    "*",
    "_",
    "#",
    "$\\frac$",
    "$",
    "\\input{x}",
    "%",
    "{",
    "}",
    "~",
    "{}",
    "www.x.y",
    "http://x",
    "é",
    "模型",
    "-",
    "1.",
    " ",
    "model",
]
BARE = r"(?<!\\)(?:\\\\)*"
"""Before a mark of Markdown that no backslash takes its meaning from."""
names = st.lists(st.sampled_from(WORDS) | st.text(max_size=4), min_size=1, max_size=5).map("".join)


def whole(name: str) -> str:
    """Without halves of characters, which neither TOML nor safetensors' reader knows."""
    return re.sub("[\ud800-\udfff]", "", name)


file_names = names.map(lambda name: "m" + re.sub(r"[/\x00]|[\ud800-\udc7f\udd00-\udfff]", "", name)[:40])
"""What a Linux folder can hold: bytes that are no UTF-8 are half characters to Python."""


def obeyed(text: str) -> str:
    """The first character that a terminal or browser would act on, but for line ends."""
    active = (
        c for c in text if c not in "\n\u200c\u200d" and unicodedata.category(c) in ("Cc", "Cf", "Cs", "Zl", "Zp")
    )
    return next(active, "")


def printed(write: Callable[[Console], object]) -> str:
    """What a screen 2,000 columns wide shows."""
    screen = Screen()
    screen.file, screen.width = io.StringIO(), 2000
    write(screen)
    text: str = screen.file.getvalue()
    return text


@given(names)
@example("a\\")
@example("[/x]")
@example("\n")
def test_every_name_is_printed_as_it_is_called(name: str) -> None:
    said = showable(name)
    assert not obeyed(said)
    assert "\n" not in said
    assert showable(said) == said
    template = "[bold]{}[/]: {} \\[x], {}"
    assert marked(template, name, name, "[red]").plain == f"{said}: {said} [x], [red]"
    assert str(MergingError(f"no {name}")) == f"no {said}"
    for write in (
        lambda screen: screen.print(name),
        lambda screen: TerminalProgress(screen).say(name),
        lambda screen: TerminalProgress(screen).stage(name),
        lambda screen: TerminalProgress(screen).decision({"candidate": name, "accepted": True, "average": 0.5}),
        lambda screen: TerminalProgress(screen).decision({"candidate": "a", "accepted": False, "why": name}),
    ):
        assert not obeyed(printed(write))
    table = Table(title=name)
    table.add_column(name)
    table.add_row(name)
    first = showable(name.replace("\n", " ")).strip()[:1]  # a cell's line ends are line ends
    assert printed(lambda screen: screen.print(table)).count(first) >= 3 or not first
    assert not obeyed(printed(lambda screen: screen.print(table)))


@given(names)
def test_a_progress_bar_takes_every_name(name: str) -> None:
    console = Console(file=io.StringIO(), force_terminal=True, width=300)
    with TerminalProgress(console) as progress:
        progress.stage(name, 3)
        progress.status(name)
        progress.advance()
        progress._bar.refresh()


@given(names)
@example("# [a](b) <b> `c` $d$ http://e")
def test_markdown_reads_every_name_as_text(name: str) -> None:
    said = plain(name)
    assert not obeyed(said)
    assert "\n" not in said
    assert not re.search(rf"[<>]|{BARE}(\]\(|\]\[|[`*~$|])|https?://", said)
    assert not re.match(r"[#+=\[-]", said)
    undone = html.unescape(re.sub(r"\\([!-/:-@\[-`{-~])", r"\1", said))
    assert undone == showable(name), "and nothing of it is lost"
    fence = fenced(name).split("\n", 1)[0]
    assert fence not in name


def report(name: str) -> Report:
    row = Row(
        strategy=name,
        label=name,
        held_out=0.5,
        tests={name: 0.5},
        shifted=0.5,
        ingredients=(name,),
        evaluations=3,
        cached=0,
        forward_equivalents=3.0,
        seconds=1.0,
    )
    return Report(
        strategy=name,
        options={name: name},
        partitioner=name,
        optimizer=name,
        objective="accuracy",
        task=name,
        state=RunState.FINISHED,
        seed=0,
        components=1,
        active_components=1,
        component_names=(name,),
        pool=(name,),
        ingredients=(name,),
        evaluations=1,
        cached=0,
        forward_equivalents=1.0,
        wall_seconds=1.0,
        peak_memory_bytes=1,
        held_out_samples=3,
        shifts=(name,),
        numerics={},
        versions={},
        content_hash="0",
        rows=(row,),
        notes=(name,),
    )


@given(names)
def test_a_model_card_holds_names_as_text(name: str) -> None:
    card = model_card(report(name), f"merge run {name}", "safetensors")
    assert not obeyed(card)
    body, _, command = card.partition("## Command")
    assert "<script" not in body
    assert not re.search(rf"{BARE}\]\(", body)
    lines = [line for line in body.split("\n") if line.startswith("|")]
    assert len({len(re.findall(rf"{BARE}\|", line)) for line in lines}) == 1, "the table keeps its columns"
    fence = re.search(r"`{3,}", command)
    assert fence is not None
    assert command.count(f"\n{fence[0]}\n") == 2, "a command does not end its block"


def test_latex_reads_every_name_as_text() -> None:
    @given(names)
    def check(name: str) -> None:
        said = _tex(name)
        assert not obeyed(said)
        bare = re.sub(
            r"\\(textbackslash|textasciitilde|textasciicircum)\{\}|\$\\(pm|alpha|approx|blacktriangle(?:down)?)\$|\\[&%$#_{}]",
            "",
            said,
        )
        assert not re.search(r"[\\&%$#_{}~^]", bare)

    check()


@pytest.fixture(scope="module")
def hostile_folder(tmp_path_factory: pytest.TempPathFactory, pool_folder: Path) -> Callable[[list[str]], Path]:
    """Makes pools whose files are called so."""
    numbers = itertools.count()

    def make(called: list[str]) -> Path:
        folder = tmp_path_factory.mktemp("hostile") / str(next(numbers))
        folder.mkdir()
        for number, name in enumerate(called):
            target = folder / f"{name}{number}.safetensors"
            target.write_bytes((pool_folder / f"model_{number}.safetensors").read_bytes())
        return folder

    return make


TASK_FILE = """
from dataclasses import replace
from merging.testing.fixtures import tiny_task
NAME = {name}
def task():
    made = tiny_task()
    tests = {{NAME: made.tests["test"], "other " + NAME: made.tests["shifted"]}}
    return replace(made, name=NAME, tests=tests, shifts=("other " + NAME,), classes=(NAME, "b" + NAME, "c"))
"""
modules = itertools.count()
HOSTILE = "\x1b[31m[/x]<script>alert(1)</script>:dog:\u202e|`\n\\"


@pytest.mark.slow
@settings(max_examples=2, phases=[Phase.explicit, Phase.generate])  # each takes seconds: no shrinking
@given(names.map(whole), st.lists(file_names.map(whole), min_size=3, max_size=3))
@example(HOSTILE, ["m[x]\x1b[2J", "<script>alert(1)<", "m\n\\"])
def test_every_command_shows_them(
    merge: Merge, hostile_folder: Callable[[list[str]], Path], name: str, called: list[str]
) -> None:
    folder, module = hostile_folder(called), f"hostile_task_{next(modules)}"
    Path(f"{module}.py").write_text(TASK_FILE.format(name=ascii(name)), encoding="utf-8")
    task = ["--task", f"python:{module}:task"]
    models, out = ["--models", folder], Path(f"out-{module}")
    first = next(folder.iterdir())
    for arguments in (
        ["run", *models, *task, "--strategy", "greedy", "--output", out / "run"],
        ["run", *models, "--strategy", "uniform", "--output", out / "plain"],
        ["inspect", *models, *task, "--tensors"],
        ["inspect", *models, "--json"],
        ["check", *models, *task, "--strategy", "uniform"],
        ["evaluate", first, *task],
        ["evaluate", first, *task, "--json"],
        ["benchmark", *models, *task, "--strategies", "best,uniform", "--output", out / "benchmark"],
        ["report", out / "run", out / "benchmark", "--output", out / "report"],
        ["apply", out / "run", "--output", "again.safetensors", "--overwrite"],
    ):
        ran = merge(*arguments)
        assert ran.code == 0, ran.err
        assert not obeyed(ran.out + ran.err), arguments
    assert merge("evaluate", first, *task, "--split", f"no{name}").code == 2
    for file in out.rglob("*"):
        if file.suffix in (".md", ".html", ".tex", ".csv", ".svg", ".json"):
            text = file.read_text(encoding="utf-8")
            assert file.suffix == ".json" or not obeyed(text), file
            assert file.suffix in (".json", ".tex", ".csv") or "<script>alert" not in text, file


@given(st.lists(names, min_size=2, max_size=2, unique=True))
@example(["\x1b[31m[/x]", "a\n<script>"])
@settings(max_examples=6, phases=[Phase.explicit, Phase.generate])
def test_tensors_may_be_called_anything(merge: Merge, tmp_path: Path, called: list[str]) -> None:
    folder = tmp_path / f"tensors-{next(modules)}"
    folder.mkdir()
    for number in range(2):
        state = {f"{name}.{k}": torch.full((2,), float(number + k)) for k, name in enumerate(called)}
        torch.save(state, folder / f"model_{number}.pt")
    split = any(re.search("[\ud800-\udfff]", name) for name in called)
    for arguments in (
        ["inspect", "--models", folder, "--tensors", "--partitioner", "layer"],
        ["run", "--models", folder, "--strategy", "uniform", "--partitioner", "layer", "--output", folder / "out"],
        ["run", "--models", folder, "--strategy", "uniform", "--dry-run"],
    ):
        ran = merge(*arguments)
        assert ran.code == (2 if split else 0), ran.err
        assert "is no text" in ran.err or not split
        assert not obeyed(ran.out + ran.err)
    if not split:
        assert set(load_file(folder / "out" / "model.safetensors")) == {f"{n}.{k}" for k, n in enumerate(called)}


@given(names)
def test_what_is_typed_wrongly_is_quoted_safely(merge: Merge, name: str) -> None:
    name = name.replace("\x00", "")
    for arguments in (["describe", f"x{name}"], ["run", "--models", f"x{name}"], ["list", f"--x{name}"], [f"x{name}"]):
        ran = merge(*arguments)
        assert ran.code == 2
        assert not obeyed(ran.out + ran.err)


def test_one_name_in_every_form_of_a_benchmark(merge: Merge, tiny: list[str]) -> None:
    assert merge("benchmark", *tiny[1:], "--strategies", "best,greedy", "--output", "b").code == 0
    found = Benchmark.read(Path("b/benchmark.json"))

    @settings(max_examples=20)
    @given(names)
    def check(name: str) -> None:
        rows = [replace(found.rows[0], label=name, why=name), *found.rows[1:]]
        changed = replace(found, rows=tuple(rows), notes=(name,), task=name, command=name)
        for text in (to_markdown(changed), to_csv(changed), to_latex(changed), to_html(changed, {})):
            assert not obeyed(text)
        assert re.findall(r"<script[^>]*>", to_html(changed, {})) == ["<script>"], "the page's own"
        assert "<script" not in to_markdown(changed)

    check()


def test_a_file_name_that_is_no_utf8_is_merged_and_found_again(merge: Merge, pool_folder: Path, tmp_path: Path) -> None:
    folder = tmp_path / "pool"
    folder.mkdir()
    for number, name in enumerate((b"caf\xe9", b"plain")):
        target = os.fsdecode(os.fsencode(folder) + b"/" + name + b".safetensors")
        Path(target).write_bytes((pool_folder / f"model_{number}.safetensors").read_bytes())
    ran = merge("run", "--models", folder, "--strategy", "uniform", "--output", "out")
    assert ran.code == 0, ran.err
    assert "caf\\udce9" in ran.out
    assert merge("apply", "out", "--output", "again.safetensors").code == 0
    assert Path("again.safetensors").read_bytes() == Path("out/model.safetensors").read_bytes()
    ran = merge("run", "--models", folder, "--task", TASK, "--no-tests", "--output", "other")
    assert ran.code == 0, ran.err
    for command in ("check", "inspect"):
        assert merge(command, "--models", folder, "--task", TASK).code == 0
    pickled = os.fsdecode(os.fsencode(folder) + b"/caf\xe8.pt")
    torch.save(load_file(folder / "plain.safetensors"), tmp_path / "x.pt")
    os.rename(tmp_path / "x.pt", pickled)
    assert merge("run", "--models", folder, "--task", TASK, "--no-tests", "--output", "third").code == 0


def test_safetensors_names_that_look_like_markup(merge: Merge, tmp_path: Path) -> None:
    for number in range(2):
        save_file({"[/x]": torch.ones(2) * number, "a[bold]": torch.ones(1)}, tmp_path / f"m{number}.safetensors")
    ran = merge("run", "--models", tmp_path / "m*.safetensors", "--strategy", "uniform", "--output", "out")
    assert ran.code == 0, ran.err
    assert "[/x]" in merge("inspect", "--models", tmp_path / "m*.safetensors", "--tensors").out


def test_commands_print_to_screens_alone() -> None:
    """A console of rich's reads markup in whatever it is given."""
    folder = Path(command_line.__file__).parent
    for file in folder.rglob("*.py"):
        made = [node for node in ast.walk(ast.parse(file.read_text("utf-8"))) if isinstance(node, ast.Call)]
        called = {ast.unparse(node.func).rpartition(".")[2] for node in made}
        assert "Console" not in called, file
        assert "from_markup" not in called or file.name in ("screen.py", "check.py"), f"{file}: use marked"


@pytest.mark.parametrize(
    "name", ['=HYPERLINK("http://x","y")', "+1", "-2+3|' /C calc'!A0", "@SUM(A1)", " =1", "\uff1d1"]
)
def test_a_spreadsheet_reads_no_formula(name: str) -> None:
    found = Benchmark.read(Path(__file__).parents[1] / "golden/1.0/benchmark")
    rows = [replace(found.rows[0], label=name, why=name, ingredients=(name,)), *found.rows[1:]]
    singles = [replace(found.singles[0], name=name, trained={name: name}), *found.singles[1:]]
    changed = replace(found, rows=tuple(rows), singles=tuple(singles))
    for text, times in ((to_csv(changed), 3), (pool_csv(changed), 3)):
        cells = [cell for line in csv.reader(io.StringIO(text)) for cell in line]
        assert cells.count(f"'{name}") == times
        assert name not in cells
        assert not [cell for cell in cells if cell[:1] in "=+@" and cell[:1]]
