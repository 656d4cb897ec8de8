"""Screens in the pages are what commands print today.

A block marked ``screen`` begins with its command, ``$ merge …``, which is run here. Marked ``screen: FOLDER`` it is of
a run on data that are not here: what that run has recorded in FOLDER is shown as the command shows it. A line ``…``
stands for lines that are left out. Seconds are not compared where the command is run.
"""

from __future__ import annotations

import re
import shlex
from dataclasses import dataclass
from pathlib import Path

import pytest

from merging.cli.showing.screen import Screen
from merging.cli.showing.table import show_report
from merging.values.report import Report
from tests.conftest import Merge
from tests.project.test_docs import PAGES, ROOT

BLOCK = re.compile(r"<!-- screen(?:: (?P<record>\S+))? -->\n```\n\$ (?P<line>merge .*)\n(?P<text>(?:.*\n)*?)```")
SECONDS = re.compile(r"\b[\d.]+ s\b|(?<=\bseconds) .*")


@dataclass(frozen=True)
class Shown:
    """A screen as a page shows it."""

    page: str
    line: str
    text: str
    record: str | None

    @property
    def runs(self) -> bool:
        """Whether models are scored for it."""
        return self.record is None and self.line.split()[1] in ("run", "benchmark")


def shown_in(page: str, text: str) -> list[Shown]:
    return [Shown(page, found["line"], found["text"], found["record"]) for found in BLOCK.finditer(text)]


SHOWN = [shown for path in PAGES for shown in shown_in(path.name, path.read_text())]


def pieces(text: str) -> list[list[str]]:
    """The lines of a screen, divided where some are left out."""
    found: list[list[str]] = [[]]
    for line in text.splitlines():
        found = [*found, []] if line == "…" else [*found[:-1], [*found[-1], line.rstrip()]]
    return [piece for piece in found if piece]


def missing(text: str, printed: str, *, timed: bool) -> list[str]:
    """The first piece of a screen that was not printed as it stands, after those before it; none where all were."""
    text, printed = (SECONDS.sub("?", each) if timed else each for each in (text, printed))
    left = [line.rstrip() for line in printed.splitlines()]
    for lines in pieces(text):
        starts = (at for at in range(len(left)) if left[at : at + len(lines)] == lines)
        if (start := next(starts, None)) is None:
            return lines
        left = left[start + len(lines) :]
    return []


def test_all_that_are_marked_are_compared() -> None:
    assert {shown.page for shown in SHOWN} >= {"README.md", "getting-started.md"}
    marks = sum(len(re.findall(r"^<!-- screen\b", path.read_text(), re.MULTILINE)) for path in PAGES)
    assert len(SHOWN) == marks, "a block marked screen begins with `$ merge …`"


@pytest.mark.parametrize(
    "shown",
    [pytest.param(shown, marks=[pytest.mark.slow] if shown.runs else []) for shown in SHOWN],
    ids=lambda shown: f"{shown.page}: {shown.line}",
)
def test_a_screen_is_what_is_printed(
    shown: Shown, merge: Merge, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    words = shlex.split(shown.line)
    record = None if shown.record is None else ROOT / shown.record
    if record is not None and (record / "report.json").exists():
        output = Path(words[words.index("--output") + 1])
        show_report(Screen(), Report.from_json(record), output, "safetensors", built_in=False)
        printed = capsys.readouterr().out
    else:
        if not shown.runs:
            monkeypatch.chdir(ROOT)  # nothing is written
        ran = merge(*(words[1:] if record is None else ("report", record)))
        assert ran.code == 0, ran.err
        printed = ran.err + ran.out
    assert missing(shown.text, printed, timed=shown.runs) == [], "python docs/renew_screens.py, then read git diff"


@pytest.mark.parametrize(
    ("text", "lacks"),
    [
        ("a\n…\nc 1 s\nd\n", []),
        ("…\nb\n…\n", []),
        ("a\nc 1 s\n", ["a", "c ?"]),
        ("d\n…\na\n", ["a"]),
        ("a\nB\n", ["a", "B"]),
    ],
)
def test_a_stale_screen_is_seen(text: str, lacks: list[str]) -> None:
    assert missing(text, "a\nb\nc 25.1 s\nd  \n", timed=True) == lacks
