"""Progress of a run in the terminal: what it does, the best so far, the time left."""

from __future__ import annotations

import re
from collections.abc import Mapping
from types import TracebackType
from typing import Any

from rich.cells import cell_len
from rich.console import Console
from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, Task, TaskID, TextColumn
from rich.text import Text

from merging.cli.showing.flags import in_flags
from merging.cli.showing.folding import cut, folded
from merging.cli.showing.screen import marked
from merging.errors import showable
from merging.storage.hub.news import told
from merging.values.outcome import Outcome
from merging.values.report import scored
from merging.values.verdict import ACCURACY
from merging.values.wording import plural, some
from merging.values.workers import Seen, WorkersState

BAR = 8
"""Cells of the bar itself."""
STAGE = 18
"""Cells of a line that what is being done keeps, before the best so far is folded."""
_KNOWN = re.compile(r" \([\d,]+ of [\d,]+ scores known\)")
EARLY = 2.0
"""Seconds after which the time left is estimated: the first steps say little of the others."""


class _Left(ProgressColumn):
    """The time left, as soon as there is an estimate."""

    max_refresh = 0.5

    def render(self, task: Task) -> Text:
        """Says minutes and seconds, and hours where there are any; nothing where nobody knows, as at the start."""
        if task.total is None or task.finished or task.time_remaining is None or (task.elapsed or 0) < EARLY:
            return Text()
        minutes, seconds = divmod(int(task.time_remaining), 60)
        hours, minutes = divmod(minutes, 60)
        shown = f"{hours}:{minutes:02d}:{seconds:02d}" if hours else f"{minutes}:{seconds:02d}"
        return Text(f"{shown} left", style="cyan")


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
            BarColumn(bar_width=BAR),
            TextColumn("{task.fields[detail]}", markup=False),
            _Left(),
            TextColumn("{task.fields[best]}", style="green", markup=False),
            console=console,
            transient=True,
        )
        self._task: TaskID | None = None
        self._done = 0.0
        self._stage = self._detail = self._best = self._status = self._unit = self._following = ""
        self._told: set[str] = set()
        self._precision = ""
        self._objective = ACCURACY
        self._crew = Seen()

    def __enter__(self) -> TerminalProgress:
        self._fetching = told(self)
        self._fetching.__enter__()
        if self.console.is_terminal:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.console.is_terminal:
            self._bar.stop()
        self._fetching.__exit__(kind, error, trace)

    def stage(self, text: str, total: int | None = None) -> None:
        """Begins a new piece of work; ``total`` is its number of steps, where known."""
        text = in_flags(text)
        if self._task is not None:
            self._bar.remove_task(self._task)
        self._done = 0.0
        self._stage, self._unit, self._following, self._status = text, self._following, "", ""
        self._detail = self._of(total)
        self._task = self._bar.add_task(total=total or None, **self._words(total))
        known = _KNOWN.sub("", text)  # the same piece again, of which more is known meanwhile
        if not self.console.is_terminal and known not in self._told:
            self.console.print(f"{text} …", highlight=False, markup=False, soft_wrap=True)
        self._told.add(known)

    def advance(self, steps: int = 1) -> None:
        """Moves the bar by some steps of the current piece."""
        self._done += steps
        self._detail = self._of(self._total)
        self._update(completed=self._done)

    def search(self, asked: int, budget: int, best: float) -> None:
        """A search counts as part of the step it belongs to, so that the time left takes it in."""
        del best  # what counts is the best merge, once it is rebuilt and scored again
        self._detail = f"{self._of(self._total)} · trial {asked}/{budget}".removeprefix(" · ")
        self._update(completed=self._done + 0.98 * asked / budget)

    def unit(self, text: str) -> None:
        """Takes what the steps of the next piece of work are; empty: things that the piece itself names."""
        self._following = showable(text)

    def precision(self, text: str) -> None:
        """Takes what stands behind each score from now on, such as ``bf16``; empty: nothing."""
        self._precision = f" {showable(text)}" if text else ""

    def measure(self, objective: str) -> None:
        """Takes the objective that the scores from now on are of."""
        self._objective, self._best = objective, ""  # of another strategy

    def _score(self, score: float | None) -> str:
        return scored(score, self._objective)

    def best(self, outcome: Outcome, models: int) -> None:
        """Shows a better merge: its score, and how many models are in it."""
        self._best = f"best {self._score(outcome.score)}{self._precision}, {plural(models, 'model')}"
        self._update()

    def decision(self, facts: Mapping[str, Any]) -> None:
        """Prints a line for one decision of a strategy."""
        if "candidate" not in facts:
            parts = [f"{name.replace('_', ' ')} {shown(value)}" for name, value in facts.items()]
            return self.say("  " + ", ".join(parts))
        averages = (name for name in ("average", "average_at_most", "average_at_least") if name in facts)
        parts = [f"{name.replace('_', ' ')} {self._score(facts[name])}{self._precision}" for name in averages]
        if facts.get("searches"):
            parts += [f"searched {', '.join(self._score(score) for score in facts['searches'])}{self._precision}"]
        if facts.get("accepted"):
            verdict = marked("[green]kept[/]")
        else:
            why = facts.get("why") or "no better than " + self._score(facts.get("incumbent"))
            verdict = marked("[dim]left out[/] ({})", why)
        said = "".join(f"{part}, " for part in parts)
        return self.say(marked("  {}: {}{}", facts["candidate"], said, verdict))

    def workers(self, state: WorkersState) -> None:
        """Shows how the workers are doing beside the steps, at most a few times a second; a log file is not told."""
        if self._crew.take(state) and self.console.is_terminal:
            self._update()

    def status(self, text: str) -> None:
        """Shows a line in the place of the best merge; a pipe is told when the piece is done."""
        self._status = showable(text)
        self._update()

    def say(self, text: str | Text) -> None:
        """A line that stays; of a message, settings are told as flags."""
        self._told.add(str(text))
        line = text if isinstance(text, Text) else Text(in_flags(text))
        if line.plain.startswith("warning:"):
            line.stylize("bold yellow", 0, len("warning:"))
        self.console.print(line, highlight=False, soft_wrap=not self.console.is_terminal)

    @property
    def _total(self) -> float | None:
        return self._bar.tasks[-1].total if self._bar.tasks else None

    def _of(self, total: float | None) -> str:
        return f"{int(self._done)}/{int(total)}{f' {self._unit}' if self._unit else ''}" if total else ""

    def _words(self, total: float | None) -> dict[str, Any]:
        """What stands in the line beside the bar: steps and time keep their place, the other words fold."""
        room = self.console.width - len("⠋ ") - BAR - len(self._detail) - 4
        room -= len(" 0:00:00 left") if total else 0
        told, crew = self._status or self._best, self._crew.words(room - STAGE - len(" · "))
        detail = " · ".join(filter(None, (self._detail, crew)))
        room -= len(detail) - len(self._detail)
        space = max(min(room, max(STAGE, room - cell_len(told))), 8)
        stage = cut(self._stage, space) or folded([self._stage], space)[0]
        return {"description": stage, "detail": detail, "best": cut(told, room - cell_len(stage))}

    def _update(self, **changes: Any) -> None:
        if self._task is not None:
            self._bar.update(self._task, **self._words(self._total), **changes)


def shown(value: Any) -> str:
    """Writes a value among the facts of a decision."""
    if isinstance(value, Mapping):
        return " and ".join(f"{name} = {shown(each)}" for name, each in value.items())
    if isinstance(value, list):
        return some([str(each) for each in value], 6)
    return f"{value:.4f}" if isinstance(value, float) else str(value)
