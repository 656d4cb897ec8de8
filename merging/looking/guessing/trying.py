"""Guesses put to the test: one model scored on a few held-out samples, as each guess would have it."""

from __future__ import annotations

import contextlib
import csv
import io
import os
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from merging.data.folders import tree
from merging.data.tables import SUFFIXES as TABLES
from merging.data.tables import rows
from merging.errors import MergingError, TaskError, raised
from merging.evaluation.chance import Chance, compared, drawn
from merging.forward.device import batch_for, on_device
from merging.forward.numerics import Numerics
from merging.plugins.progress import Progress, Silent
from merging.storage import atomic
from merging.storage.pool import ModelPool
from merging.tasks.described import described_task
from merging.values.labels import read
from merging.values.outcome import answered

SAMPLES = 256
"""Held-out samples that are scored."""
FEWEST, SECONDS = 64, 8.0
"""A slow model is scored on fewer, as many as it takes in this time, but not below so many."""
CLEAR = 0.01
"""A guess takes the place of a likelier one where its gain on the same samples has so small a p-value (McNemar)."""


@dataclass(frozen=True, kw_only=True)
class Tried:
    """The answers of one model under one guess.

    Attributes:
        keys: what the guess is: keys of a [task].
        said: the guess in words.
        chance: right answers compared with guessing, and with another order of the classes.
        hits: a truth value a sample, whether it is right; where another order of the classes is much better, in that
            order.
    """

    keys: Mapping[str, Any]
    said: str
    chance: Chance
    hits: NDArray[np.bool_] = field(compare=False)

    @property
    def share(self) -> float:
        """Share of right answers, in the order of the classes that is better."""
        return float(self.hits.mean())

    def __str__(self) -> str:
        return f"{self.share:.0%}"


def scored(
    first: ModelPool,
    table: Mapping[str, Any],
    said: str,
    *,
    samples: int | None = None,
    progress: Progress | None = None,
) -> Tried:
    """Scores one model on a few held-out samples.

    Args:
        first: a pool of one model.
        table: a [task]: ``model``, ``held_out``, and what else is guessed.
        said: the guess in words.
        samples: how many; None: as many as :data:`SECONDS` allow.
        progress: told how far this is.

    Raises:
        MergingError: the task does not fit the model, or labels are no classes.
    """
    progress = progress or Silent()
    name = first.names[0]
    with _few(table["held_out"]) as held_out:
        task = described_task({**_alone(table), "held_out": held_out}, _Quiet(progress))
        split = task.held_out
        if not split.categorical or int(split.labels.min()) < 0:
            raise TaskError("labels are no classes")
        places = drawn(split.labels.cpu().numpy(), SAMPLES, seed=0)
        mixed = np.random.default_rng(0).permutation(places)  # so that the first of them are as good as any
        chosen = torch.from_numpy(mixed[:samples])
        inputs, labels = split.tensor[chosen], split.labels[chosen].numpy()
    module = task.build(first).eval()
    checkpoint = first.checkpoints[0]
    module.load_state_dict({name: checkpoint.read(name) for name in checkpoint.tensors})
    numerics = Numerics.choose("auto", module, inputs[0], "fp32")
    module = on_device(module, numerics.device).float()
    progress.stage(f"trying {said} with {name}", len(inputs))
    answers, began = list[NDArray[np.int64]](), time.monotonic()
    for start in range(0, len(inputs), numerics.batch):
        if samples is None and start >= FEWEST and time.monotonic() - began > SECONDS:
            break
        batch = inputs[start : start + numerics.batch]
        try:
            with torch.inference_mode():
                logits = module(batch_for(task, batch, numerics.device))
                answers.append(answered(split.project(logits).float().cpu()).numpy())
        except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError) as error:
            raise TaskError(f"the model cannot take the held-out data ({raised(error)})") from None
        progress.advance(len(batch))
    found, classes = np.concatenate(answers), int(logits.shape[1])
    labels = labels[: len(found)]
    if int(labels.max()) >= classes:
        raise TaskError(f"label {labels.max()}, and the model has {classes} outputs")
    chance = compared(name, found, labels, classes)
    hits = found == labels
    if chance.permuted is not None and chance.order is not None:
        order = np.asarray(chance.order)  # for each output the class whose place it has
        hits = np.where(found >= 0, order[found], -1) == labels
    return Tried(keys=dict(table), said=said, chance=chance, hits=hits)


def better(other: Tried, than: Tried) -> bool:
    """Whether a guess is right so much oftener than a likelier one that the likelier one is wrong."""
    from scipy.stats import binomtest

    gained, lost = int((other.hits & ~than.hits).sum()), int((than.hits & ~other.hits).sum())
    if gained <= lost:
        return False
    return bool(binomtest(gained, gained + lost, 0.5, alternative="greater").pvalue < CLEAR)


def best_of(tried: Sequence[Tried]) -> Tried:
    """The first of several guesses, the likeliest first, that no other is clearly better than."""
    return next(
        each for each in tried if not any(len(other.hits) == len(each.hits) and better(other, each) for other in tried)
    )


def order_in_words(tried: Tried, names: Sequence[str]) -> tuple[list[str], str] | None:
    """The order of the classes that the answers speak for, where it is another than that of ``names``.

    Args:
        tried: answers of a model.
        names: the classes in the order that was assumed.

    Returns:
        The classes in the order of the outputs, and how that order may have come about; None: nothing speaks against
        the one that was assumed.
    """
    from merging.storage.sources import natural_key

    chance = tried.chance
    if chance.permuted is None:
        return None
    known = {
        "by number": sorted(names, key=natural_key),
        "reversed": list(names)[::-1],
        "without regard to case": sorted(names, key=str.casefold),
        "by number, counted from the second": [*sorted(names, key=natural_key)[1:], sorted(names, key=natural_key)[0]],
    }
    if chance.order is None:
        return None
    found = [names[place] for place in chance.order]
    for said, order in known.items():
        agree = sum(a == b for a, b in zip(order, found, strict=True))
        if order != list(names) and agree >= 0.8 * len(names):
            return order, said
    return found, "by the model's own answers"


def _alone(table: Mapping[str, Any]) -> dict[str, Any]:
    """A [task] without the sets that are not scored."""
    return {key: value for key, value in table.items() if key not in ("train", "test", "shifts", "unlabelled")}


@contextlib.contextmanager
def _few(spec: str | Mapping[str, Any]) -> Iterator[Any]:
    """A set of a few samples of another one, as many of each class as of the next; the set itself where it is small.

    Folders and tables are cut before anything is decoded, and what is decoded is not kept.
    """
    path = Path(str(spec if isinstance(spec, str) else spec["path"])).expanduser()
    said = {} if isinstance(spec, str) else dict(spec)
    found = _listed(path, said)
    if found is None or len(found) <= SAMPLES:
        yield spec
        return
    names = sorted({str(label) for _, label in found})
    numbers = np.array([names.index(str(label)) for _, label in found])
    with tempfile.TemporaryDirectory() as folder:
        table = Path(folder, "few.csv")
        text = io.StringIO(newline="")
        csv.writer(text).writerows([("path", "label"), *(found[place] for place in drawn(numbers, SAMPLES, seed=0))])
        atomic.write(table, text.getvalue())
        before = os.environ.get("MERGING_CACHE")
        os.environ["MERGING_CACHE"] = folder
        try:
            yield {**{key: said[key] for key in ("upright", "border", "corrupt") if key in said}, "path": str(table)}
        finally:
            if before is None:
                del os.environ["MERGING_CACHE"]
            else:
                os.environ["MERGING_CACHE"] = before


def _listed(path: Path, said: Mapping[str, Any]) -> list[tuple[str, Any]] | None:
    """File and label of each sample of a folder of class folders or of a table; None for other forms."""
    try:
        if path.is_dir():
            found = tree(path)
            return [(str(file.absolute()), found.classes[label]) for file, label in found.images] or None
        if path.suffix.lower() in TABLES and "text" not in said:
            content = rows(path)
            images = [str(row[said.get("image", "path")]) for row in content]
            labels = read(
                [row[said.get("label", "label")] for row in content], lambda row: f"row {row}", lambda _: None
            )
            files = [path.parent / image for image in images]
            return [(str(file.absolute()), label) for file, label in zip(files, labels, strict=True) if file.is_file()]
    except (MergingError, KeyError):  # another kind of folder or table, which its own form reads
        return None
    return None


class _Quiet(Silent):
    """Passes on how far decoding is, and none of the remarks, which ``merge check`` makes."""

    def __init__(self, progress: Progress) -> None:
        self._progress = progress

    def stage(self, text: str, total: int | None = None) -> None:
        self._progress.stage(text if "/few.csv" not in text else "decoding a few held-out samples", total)

    def advance(self, steps: int = 1) -> None:
        self._progress.advance(steps)
