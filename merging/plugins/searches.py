"""What a strategy is given to search with."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

from merging.plugins.optimizer import Vector
from merging.values.outcome import Outcome

Path: TypeAlias = Callable[[Vector], Outcome]
"""Mixing factors, one a component of the partition → what that mix scores on the held-out data."""
