"""Progress of a run in the terminal: what it does, the best so far, the time left."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, SpinnerColumn, TaskID, TextColumn, TimeRemainingColumn
from rich.text import Text

from merging.cli.showing.flags import in_flags
from merging.cli.showing.screen import marked
from merging.errors import showable
from merging.values.outcome import Outcome
from merging.values.report import scored
from merging.values.verdict import ACCURACY
from merging.values.wording import plural


class TerminalProgress:
    """Shows a live line in a terminal; in a pipe or a log file, a line for each stage and decision.

    Args:
        console: the screen that it goes to (standard error, so that standard output holds the result alone).
    """

    def __init__(self, console: Console) -> None:
        self.console = console
        self._bar = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", style="bold", markup=False),
            BarColumn(bar_width=8),
            TextColumn("{task.fields[detail]}", markup=False),
            TextColumn("{task.fields[best]}", style="green", markup=False),
            TimeRemainingColumn(compact=True),
            TextColumn("left"),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._done = 0.0
        self._best = ""
        self._told: set[str] = set()
        self._precision = ""
        self._objective = ACCURACY

    def __enter__(self) -> TerminalProgress:
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()

    def stage(self, text: str, total: int | None = None) -> None:
        """Begins a new piece of work; ``total`` is its number of steps, where known."""
        text = in_flags(text)
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._done = 0.0
        self._task = self._bar.add_task(text, total=total, detail="", best=self._best)
        if not self.console.is_terminal and text not in self._told:
            self.console.print(f"{text} …", highlight=False, markup=False)
        self._told.add(text)

    def advance(self, steps: int = 1) -> None:
        """Moves the bar by some steps of the current piece."""
        self._done += steps
        self._update(completed=self._done, detail=self._of())

    def search(self, asked: int, budget: int, best: float) -> None:
        """A search counts as part of the step it belongs to, so that the time left takes it in."""
        del best  # what counts is the best merge, once it is rebuilt and scored again
        detail = f"{self._of()} · {asked}/{budget}"
        self._update(completed=self._done + 0.98 * asked / budget, detail=detail)

    def precision(self, text: str) -> None:
        """Takes what stands behind each score from now on, such as ``bf16``; empty: nothing."""
        self._precision = f" {showable(text)}" if text else ""

    def measure(self, objective: str) -> None:
        """Takes the objective that the scores from now on are of."""
        self._objective = objective

    def _score(self, score: float | None) -> str:
        return scored(score, self._objective)

    def best(self, outcome: Outcome, models: int) -> None:
        """Shows a better merge: its score, and how many models are in it."""
        self._best = f"best {self._score(outcome.score)}{self._precision}, {plural(models, 'model')}"
        self._update(best=self._best)

    def decision(self, facts: Mapping[str, Any]) -> None:
        """Prints a line for one decision of a strategy."""
        if "candidate" not in facts:
            parts = [f"{name.replace('_', ' ')} {shown(value)}" for name, value in facts.items()]
            return self.say("  " + ", ".join(parts))
        parts = [f"average {self._score(facts['average'])}{self._precision}"] if "average" in facts else []
        if facts.get("searches"):
            parts += [f"searched {', '.join(self._score(score) for score in facts['searches'])}{self._precision}"]
        if facts.get("accepted"):
            verdict = marked("[green]kept[/]")
        else:
            why = facts.get("why") or "no better than " + self._score(facts.get("incumbent"))
            verdict = marked("[dim]left out[/] ({})", why)
        said = "".join(f"{part}, " for part in parts)
        return self.say(marked("  {}: {}{}", facts["candidate"], said, verdict))

    def status(self, text: str) -> None:
        """Shows a line in the place of the best merge; a pipe is told when the piece is done."""
        self._best = showable(text)
        self._update(best=self._best)

    def say(self, text: str | Text) -> None:
        """A line that stays; of a message, settings are told as flags."""
        self._told.add(str(text))
        line = text if isinstance(text, Text) else Text(in_flags(text))
        if line.plain.startswith("warning:"):
            line.stylize("bold yellow", 0, len("warning:"))
        self.console.print(line, highlight=False, soft_wrap=True)

    def _of(self) -> str:
        total = self._bar.tasks[-1].total if self._bar.tasks else None
        return f"{int(self._done)}/{int(total)}" if total else ""

    def _update(self, **changes: Any) -> None:
        if self._task is not None:
            self._bar.update(self._task, **changes)


def shown(value: Any) -> str:
    """Writes a value among the facts of a decision."""
    return f"{value:.4f}" if isinstance(value, float) else str(value)
