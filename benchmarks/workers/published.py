"""Two published runs as programs: greedy soup and ManifoldMixMS-C8 over 72 models (tests/published)."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from benchmarks.workers.program import AtOnce, Candidate, Chain, InOrder, Phase

FOLDER = Path(__file__).parents[2] / "tests/published"
MODELS, IMAGES = 72, 26_000
TESTS = (50_000, 10_000, 50_889, 30_000, 18_574, 7_500)
"""Images of ImageNet, ImageNetV2, ImageNet-Sketch, ImageNet-R, ObjectNet and ImageNet-A."""
MERGES = 4
"""Columns of a run: the best model, the uniform and the greedy soup, and the manifold mix."""
NEW = round(240 * 174 / 2177)
"""Points of a search that it has not tried before, at the share that was traced on another pool
(:mod:`benchmarks.device`): what was tried before costs this project nothing."""
NEAR_MISSES = 2
"""Averages that the published program scores after each refused search: with the incumbent, and without."""


def manifoldmix(seconds: float, points: int | None = None, trace: Path | None = None) -> list[Phase]:
    """The search with 8 components: 8,034 evaluations, of which the first is the incumbent it begins with.

    Args:
        seconds: of one evaluation.
        points: of each search; default: the 240 of the trace.
        trace: its decisions; default: the published ones.
    """
    log = json.loads((trace or FOLDER / "manifoldmix_c8_trace.json").read_text("utf-8"))
    points = points or int(log["evaluations_per_pass"])
    one, search = Chain(1, seconds), Chain(points, seconds * points)
    return [AtOnce((one,)), InOrder(tuple(_candidate(entry, one, search) for entry in log["candidates"]))]


def _candidate(entry: dict[str, Any], one: Chain, search: Chain) -> Candidate:
    after = (one,) * NEAR_MISSES if entry["decision"] == "rejected" else ()
    return Candidate(one, (search,) * len(entry["passes"]), after, entry["decision"] == "accepted")


def greedy(seconds: float) -> list[Phase]:
    """The greedy soup, ranking included: 143 evaluations."""
    log = json.loads((FOLDER / "greedy_trace.json").read_text("utf-8"))
    one = Chain(1, seconds)
    return [ranking(seconds), InOrder(tuple(Candidate(one, accepted=entry["accepted"]) for entry in log["candidates"]))]


def ranking(seconds: float, models: int = MODELS) -> AtOnce:
    """Each model alone."""
    return AtOnce((Chain(1, seconds),) * models)


def tests(seconds: float, merges: int) -> AtOnce:
    """Some merges on each of the test sets, at the held-out set's seconds an image."""
    return AtOnce(tuple(Chain(1, seconds * images / IMAGES) for _ in range(merges) for images in TESTS))
