"""What a test is told while something runs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from merging.plugins.progress import Silent


class Heard(Silent):
    """Keeps what is said, and the facts of every decision."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.facts: list[dict[str, Any]] = []

    def say(self, text: str) -> None:
        self.said.append(text)

    def decision(self, facts: Mapping[str, Any]) -> None:
        self.facts.append(dict(facts))
