"""Sets of texts as token ids on disk: made once from a file's content and a tokenizer, then mapped into memory.

They lie beside the decoded images (:mod:`merging.data.cache`), under the same rules.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from merging.data.cache import content_of, folder_for, key_of, save_array
from merging.data.reading import LanguageSource
from merging.errors import DAMAGED, TaskError, showable
from merging.plugins.sequences import Sequences
from merging.plugins.task import Split
from merging.storage import atomic
from merging.storage.user_cache import cache_folder

VERSION = 2
"""Counts the ways of reading and storing; another number leaves older files alone."""
ARRAYS = ("tokens", "starts", "weights", "slots", "samples")
_FILES = (
    "config.json",  # its model_type, where nothing else says which tokenizer it is
    "*token*",
    "*tekken*",
    "*vocab*",
    "merges.txt",
    "*.model",
    "*.spm",
    "chat_template*",
    "added_tokens.json",
    "additional_chat_templates/*",
)


@dataclass(frozen=True, eq=False)
class Tokenized:
    """A set of texts as token ids.

    Attributes:
        split: the samples, the shortest first.
        places: number of each sample's row in what the user wrote, from 0, int64 ``(N,)``.
        notes: what the user should know.
    """

    split: Split
    places: NDArray[np.int64]
    notes: tuple[str, ...]


Made = tuple[Sequences, NDArray[np.generic], NDArray[np.int64], list[str]]
"""Samples, labels, places and notes."""


def tokenized(decided: list[Any], source: LanguageSource, make: Callable[[], Made]) -> Tokenized:
    """The set that ``make`` tokenizes; from disk where that was done before.

    Args:
        decided: all that decides it besides the tokenizer, JSON-ready.
        source: the model's source.
        make: tokenizes.

    Raises:
        TaskError: whatever ``make`` finds wrong, or an id that the model has no row for.
    """
    place = cache_folder() / "texts" / key_of([VERSION, *_versions(), _tokenizer(source), *decided])
    found = _read(place)
    if found is None:
        with contextlib.ExitStack() as stack:
            aside: Path | None = None
            with contextlib.suppress(OSError):  # a full or read-only disk: this run goes on without
                aside = stack.enter_context(folder_for(place))
                found = _read(place)  # another process may have made it while this one waited for it
            if found is None:
                found = _made(make)
                with contextlib.suppress(OSError):
                    if aside is not None:
                        _settle(aside, place, found)
                        found = _read(place, verify=False) or found
    check_ids(found.split, source)
    return found


def check_ids(split: Split, source: Any) -> None:
    """Refuses ids for which the model has no row: its tokenizer is another model's.

    Raises:
        TaskError: there are such ids.
    """
    text = getattr(source.config, "get_text_config", lambda: source.config)()  # transformers 4.40 has none
    rows = int(text.vocab_size)
    tokens = split.sequences.tokens
    highest = max(int(tokens.max(initial=0)), ~int(tokens.min(initial=0)))
    if highest >= rows:
        token = showable(str(source.tokenizer.convert_ids_to_tokens(highest))[:40])
        raise TaskError(
            f"{source.spec}: the tokenizer gives '{token}' the id {highest}, and the model has {rows} rows, from 0; is "
            "it another model's tokenizer?"
        )


def _made(make: Callable[[], Made]) -> Tokenized:
    sequences, labels, places, notes = make()
    return Tokenized(Split.of(sequences, torch.from_numpy(labels)), places, tuple(notes))


def _versions() -> list[str]:
    return [importlib.metadata.version(name) for name in ("transformers", "tokenizers")]


def _tokenizer(source: Any) -> Any:
    """What decides a tokenizer: its files' names and contents."""
    files = {file for pattern in _FILES for file in source.folder.glob(pattern) if file.is_file()}
    return [[file.name, content_of(file)] for file in sorted(files)]


def _read(place: Path, *, verify: bool = True) -> Tokenized | None:
    """What is kept there, if it is whole: it must have the fingerprint that it was kept with."""
    try:
        arrays = {name: np.load(place / f"{name}.npy", mmap_mode="r") for name in ARRAYS}
        labels, places = np.load(place / "labels.npy"), np.load(place / "places.npy")
        facts = json.loads((place / "split.json").read_text("utf-8"))
        made = Sequences(**arrays, outputs=facts["outputs"], padding=facts["padding"])
        split = Split(inputs=made, labels=torch.from_numpy(labels), fingerprint=facts["fingerprint"])
        if verify and Split.of(made, split.labels).fingerprint != split.fingerprint:
            return None
        return Tokenized(split, places, tuple(facts["notes"]))
    except (*DAMAGED, EOFError, TaskError):  # not there, cut off, or changed
        return None


def _settle(aside: Path, place: Path, found: Tokenized) -> None:
    """Completes a folder that holds a set, and renames it into place: a folder that is there is whole."""
    made = found.split.sequences
    for name, values in {**made.arrays(), "labels": found.split.labels.numpy(), "places": found.places}.items():
        save_array(aside / f"{name}.npy", values)
    facts = {
        "fingerprint": found.split.fingerprint,
        "notes": found.notes,
        "outputs": made.outputs,
        "padding": made.padding,
    }
    atomic.put(aside / "split.json", json.dumps(facts))
    atomic.sync_tree(aside)
    atomic.remove(place)
    atomic.take_place(aside, place)


def in_groups_of(found: Tokenized, groups: list[Any]) -> Split:
    """The samples, each in the group of its row."""
    return found.split.with_groups([groups[place] for place in found.places])
