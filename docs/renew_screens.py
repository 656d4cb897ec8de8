"""Writes the screens of README and docs again, as commands print them today; read ``git diff`` afterwards.

    python docs/renew_screens.py [--runs]

Blocks marked ``screen`` only; what a page leaves out (a line ``…``) stays left out. With ``--runs`` also those that
score models, which take a minute and change in their seconds.
"""

from __future__ import annotations

import difflib
import os
import re
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
BLOCK = re.compile(
    r"(?P<head><!-- screen(?:: (?P<record>\S+))? -->\n```\n\$ (?P<line>merge .*)\n)(?P<text>(?:.*\n)*?)```"
)
SHOW = """
import sys
from merging.cli.showing.screen import Screen
from merging.cli.showing.table import show_report
from merging.values.report import Report
from pathlib import Path
show_report(Screen(), Report.from_json(sys.argv[1]), Path(sys.argv[2]), "safetensors", built_in=False)
"""


def printed(block: re.Match[str], *, runs: bool) -> str | None:
    """The text that a block's command prints, or of its record; None where models would have to be scored."""
    words = shlex.split(block["line"])
    record = ROOT / block["record"] if block["record"] else None
    if record is not None and (record / "report.json").exists():
        return called("-c", SHOW, str(record), words[words.index("--output") + 1])
    if record is not None:
        return called("-m", "merging", "report", str(record))
    if words[1] not in ("run", "benchmark"):
        return called("-m", "merging", *words[1:])
    with tempfile.TemporaryDirectory() as folder:
        return called("-m", "merging", *words[1:], where=folder) if runs else None


def called(*words: str, where: str | Path = ROOT) -> str:
    """News and output of a Python program that ends well."""
    said = os.environ | {"COLUMNS": "80", "PYTHONPATH": str(ROOT)}
    call = [sys.executable, *words]
    ran = subprocess.run(call, cwd=where, capture_output=True, text=True, env=said, check=True)  # noqa: S603 (our own pages)
    return ran.stderr + ran.stdout


def renewed(text: str, screen: str) -> str:
    """A screen's new lines, from the ones most like the first and last of each piece that a page shows."""
    left, found = [line.rstrip() for line in screen.splitlines()], list[str]()
    for piece in re.split(r"(?m)^…\n", text):
        lines = piece.splitlines()
        if lines:
            first = closest(lines[0], left)
            last = first + closest(lines[-1], left[first:])
            found += left[first : last + 1]
            left = left[last + 1 :]
        found.append("…")
    return "".join(f"{line}\n" for line in found[:-1])


def closest(line: str, lines: list[str]) -> int:
    """Place of the line that is most like another, the first of equals."""
    like = [difflib.SequenceMatcher(None, line, other).ratio() for other in lines]
    return like.index(max(like))


def main(*, runs: bool) -> None:
    """Renews every page."""

    def new(block: re.Match[str]) -> str:
        screen = printed(block, runs=runs)
        return block[0] if screen is None else f"{block['head']}{renewed(block['text'], screen)}```"

    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        before = path.read_text()
        after = BLOCK.sub(new, before)
        if after != before:
            path.write_text(after)
            print(f"renewed {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main(runs="--runs" in sys.argv[1:])
