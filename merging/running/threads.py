"""What is said, before any work, of the threads that passes have: as a run began, or more than there are cores."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from merging.running.plan import Plan
from merging.values.wording import plural

if TYPE_CHECKING:
    from merging.forward.numerics import Numerics


def said_of_threads(made: Plan, earlier: Numerics | None = None) -> Iterator[str]:
    """Says where the number of threads is not the one that the machine would suggest.

    Args:
        made: the run.
        earlier: how an earlier session of it made its passes, with whose threads it goes on.
    """
    if made.numerics is None or made.live is None:
        return
    from merging.forward.numerics import usual_threads  # loads torch

    passes, threads, device = made.settings.passes, made.numerics.threads, made.numerics.device
    crew = passes.crew
    if earlier is not None and passes.threads is None and not passes.tune:
        usual = usual_threads(made.live.module, device, beside=crew is not None)
        if threads == earlier.threads != usual:
            each = "" if crew is None else " a worker"
            yield f"it goes on with {plural(threads, 'thread')}{each}, as it began: another number has other last bits"
    if crew is not None and (said := crew.remark(threads, device)):
        yield said
