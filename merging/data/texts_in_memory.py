"""Texts that a notebook has (lists, data frames, data sets of Hugging Face) as samples of a causal language model."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch

from merging.data.kinds import COLUMNS, READINGS, kind_of, taken
from merging.data.opening import load_data
from merging.data.passages import gathered
from merging.data.reading import LanguageSource, Wanted
from merging.data.tokenized import check_ids
from merging.errors import TaskError
from merging.plugins.progress import Progress
from merging.plugins.task import Split
from merging.plugins.user_code import running
from merging.values import wording

WAY = (
    "give a list of texts, or of dicts with 'text', 'prompt' and 'completion', 'messages', or 'question', 'choices' "
    "and 'answer'; a path; or a name for each of several such sets"
)


def texts_held(given: Any, where: str, source: Any, progress: Progress) -> Split:
    """Reads a set of texts; those in memory are tokenized at each call, those in files once.

    Args:
        given: a split; texts; rows as mappings; a path, or a table with one; or name → such a set, of several.
        where: name of the set, for messages.
        source: the model's source.
        progress: told how far this is.

    Raises:
        TaskError: something else, or a row from which nothing can be scored.
    """
    if isinstance(given, Split):
        return given
    if isinstance(given, str) or (isinstance(given, Mapping) and "path" in given):
        return load_data(given, source, progress=progress)
    if isinstance(given, Mapping):
        if not given or not all(isinstance(name, str) for name in given):
            raise TaskError(f"{where} is {wording.kind_of(given)}; {WAY}")
        return Split.joined(
            {name: texts_held(each, f"{where} {name}", source, progress) for name, each in given.items()}
        )
    rows = _rows(given, where)
    names = {column: column for columns in COLUMNS.values() for column in columns}
    kind = kind_of(where, names, list(dict.fromkeys(key for row in rows[:1] for key in row)))
    wanted = Wanted(where=where, first=0, context=source.context, stride=source.context)
    progress.stage(f"tokenizing {where}", len(rows))
    return _tokenized(rows, kind, names, source, wanted, progress)


def _tokenized(
    rows: list[Mapping[str, Any]],
    kind: str,
    names: Mapping[str, str],
    source: LanguageSource,
    wanted: Wanted,
    progress: Progress,
) -> Split:
    reading = READINGS[kind](source, wanted)
    sequences, labels, _ = gathered(reading.passages(taken(kind, rows, names, wanted)), source.padding)
    for note in reading.said():
        progress.say(f"{wanted.where}: {note}")
    split = Split.of(sequences, torch.from_numpy(labels))
    check_ids(split, source)
    return split


def _rows(given: Any, where: str) -> list[Mapping[str, Any]]:
    """Rows, column → value; a text alone is a document.

    Raises:
        TaskError: something else, or none.
    """
    frame = hasattr(given, "columns") and hasattr(given, "to_dict")
    if not frame and (not isinstance(given, Iterable) or isinstance(given, bytes | type | torch.Tensor)):
        raise TaskError(f"{where} is {wording.kind_of(given)}; {WAY}")
    with running(f"reading {where}", type(given), error=TaskError):
        found = given.to_dict("records") if frame else list(given)
    rows = [{"text": each} if isinstance(each, str) else each for each in found]
    for number, row in enumerate(rows):
        if not isinstance(row, Mapping):
            raise TaskError(f"{where}: row {number} is {wording.kind_of(row)}; {WAY}")
    if not rows:
        raise TaskError(f"{where} is empty; it needs at least one sample")
    return rows
