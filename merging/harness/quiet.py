"""lm-eval and the libraries under it say much, on standard output and elsewhere: here it is kept, and counted."""

from __future__ import annotations

import contextlib
import importlib
import io
import logging
import os
import warnings
from collections.abc import Iterator
from typing import Any

LOGGERS = ("lm_eval", "transformers", "datasets", "huggingface_hub", "accelerate", "peft", "evaluate")
LONG, LABELS = "exceeds model's maximum length", "Label index was not in within range"
"""Warnings of lm-eval, sample by sample, of what changes a score."""


class Heard(logging.Handler):
    """A handler that keeps what matters of lm-eval's log.

    Attributes:
        long: requests whose beginning was cut off, because the model takes no more.
        labels: samples whose label is none of their choices.
        last: the last thing that it said of an error that it went on after.
    """

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.long = self.labels = 0
        self.last = ""

    def emit(self, record: logging.LogRecord) -> None:
        """Counts what changes a score."""
        said = record.getMessage()
        self.long += LONG in said
        self.labels += LABELS in said
        self.last = said if "Error(" in said else self.last

    def notes(self, tokens: int | None) -> list[str]:
        """Sentences about what has changed scores.

        Args:
            tokens: how many tokens the model takes at most.
        """
        said = []
        if self.long:
            most = f" ({tokens:,} tokens)" if tokens else ""
            said.append(f"{self.long:,} prompts are longer than the model takes{most}: their beginning was left out")
        if self.labels:
            said.append(f"{self.labels:,} samples have a label that is none of their choices: they count as wrong")
        return said


@contextlib.contextmanager
def quiet() -> Iterator[Heard]:
    """Keeps what libraries print, log, warn of and draw as bars from the screen, for a while."""
    from tqdm import std

    heard, drawn = Heard(), std.tqdm.__init__

    def hidden(self: Any, *arguments: Any, **keywords: Any) -> None:
        drawn(self, *arguments, **keywords | {"disable": True})

    with contextlib.ExitStack() as undone:
        undone.enter_context(warnings.catch_warnings())
        warnings.simplefilter("ignore")
        undone.enter_context(contextlib.redirect_stdout(io.StringIO()))
        for name in ("huggingface_hub", "datasets", "transformers"):  # which make their loggers now
            importlib.import_module(name)
        for name in LOGGERS:
            logger = logging.getLogger(name)
            for kept in ("handlers", "propagate", "level"):
                undone.callback(setattr, logger, kept, getattr(logger, kept))
            logger.handlers, logger.propagate = [heard], False
            logger.setLevel(logging.INFO if name == "lm_eval" else logging.ERROR)
        undone.callback(setattr, std.tqdm, "__init__", drawn)
        std.tqdm.__init__ = hidden
        alone = os.environ.get("DISABLE_MULTIPROC")  # no processes for standard errors
        os.environ["DISABLE_MULTIPROC"] = "1"
        undone.callback(os.environ.pop, "DISABLE_MULTIPROC") if alone is None else undone.callback(
            os.environ.__setitem__, "DISABLE_MULTIPROC", alone
        )
        yield heard
