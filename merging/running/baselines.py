"""The strategies that every run is compared with."""

from __future__ import annotations

from merging.plugins.strategy import MixStrategy
from merging.strategies.best import Best
from merging.strategies.greedy import Greedy
from merging.strategies.uniform import Uniform

BASELINES: tuple[MixStrategy, ...] = (Best(), Uniform(), Greedy())
