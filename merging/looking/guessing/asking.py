"""Whom a guess asks where it cannot know: nobody, who takes the likeliest answer, or a person at a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol


class Asker(Protocol):
    """Answers questions that files leave open."""

    def choose(self, question: str, choices: Sequence[str], marks: Sequence[str] = ()) -> tuple[int, bool]:
        """Chooses one of several answers, the likeliest first.

        Args:
            question: a question in one line.
            choices: the answers.
            marks: what is to be known of each.

        Returns:
            The number of the answer, and whether somebody has chosen it.
        """

    def name(self, question: str) -> str | None:
        """Asks for a name that nothing suggests; None: nobody says one."""


class Nobody:
    """Takes the likeliest answer."""

    def choose(self, question: str, choices: Sequence[str], marks: Sequence[str] = ()) -> tuple[int, bool]:
        """Takes the first answer."""
        del question, choices, marks
        return 0, False

    def name(self, question: str) -> str | None:
        """Gives no name at all."""
        del question
        return None
