"""One vocabulary for models that have several: which token has which row in the result, and where each model has it."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from blake3 import blake3
from numpy.typing import NDArray

from merging.errors import PoolError, unknown
from merging.storage import vocabulary
from merging.storage.dtypes import is_floating
from merging.storage.file_hashes import Stamp
from merging.storage.token_maps import FILES, first_difference, known_map, shown_token, token_map
from merging.storage.union import united
from merging.storage.vocabulary_rows import SIZE, check_reaches, rows_in, rows_of_vocabulary
from merging.values.recipe import Place, Vocabulary
from merging.values.wording import plural, some

if TYPE_CHECKING:
    from merging.storage.checkpoint import Checkpoint

UNION, BASE, FIRST = SOURCES = ("union", "base", "first")
LACKING, PADDING = -1, -2
"""Numbers that stand for a row's place where a model lacks its token, and where the row has none."""


class Alignment:
    """The vocabulary of a merge, and where each model has the rows of its tokens.

    Args:
        models: the models, in the order of their pool.
        base: what they were fine-tuned from, where known.
        wanted: the source of the vocabulary, and the number of which its rows are to be a multiple.

    Attributes:
        leader: the model whose tokens keep their ids.
        names: the tensors whose rows are the vocabulary.
        ids: token → id, in the result.
        rows: rows of the result's tensors, padding included.
        owner: the tokenizer whose files go along with the result.
        made: content of ``tokenizer.json``, where it is one that no model has.
        notes: sentences about what is done.

    Raises:
        PoolError: a model without a tokenizer, one that is damaged or does not fit its model, tokenizers that have no
            union, or an unknown source.
    """

    def __init__(self, models: Sequence[Checkpoint], base: Checkpoint | None, wanted: tuple[str, int | None]) -> None:
        self.models, self.base, (self.source, self.multiple) = tuple(models), base, wanted
        self.everybody = (*self.models, *([base] if base is not None else []))
        self.leader = self._lead()
        self.maps = {model: token_map(model) for model in self.everybody}
        self.names, how = rows_of_vocabulary(self.everybody)
        for model in self.everybody:
            check_reaches(model, self.names, self.maps[model].ids)
        self.owner, self.made = self.maps[self.leader], b""
        self.ids: Mapping[str, int] = self.owner.ids
        if self.source == UNION:
            self.ids, self.made = united(self.owner, [self.maps[m] for m in self.everybody if m is not self.leader])
        self.tokens = max(self.ids.values()) + 1
        self.rows = -(-self.tokens // (self.multiple or 1)) * (self.multiple or 1)
        self._check_numbers()
        self.notes = self._said(how)

    def _lead(self) -> Checkpoint:
        """The model whose tokens keep their ids."""
        if self.source == UNION:
            return self.base or self.models[0]
        if self.source == FIRST:
            return self.models[0]
        if self.source == BASE:
            if self.base is None:
                raise PoolError("`tokenizer_source` is base, but there is no base: give one with `base`, or say first")
            return self.base
        named = {model.name: model for model in self.everybody}
        if self.source not in named:
            raise unknown("`tokenizer_source`", self.source, (*SOURCES, *named), error=PoolError)
        return named[self.source]

    @functools.cached_property
    def changes(self) -> bool:
        """Whether it is another view: vocabularies or numbers of rows differ, or there is padding to add."""
        first = self.models[0]
        return any(
            self.maps[model].ids != self.ids
            or model.tensors[name][0] != first.tensors[name][0]
            or (self.multiple is not None and rows_in(model.tensors[name][0]) % self.multiple != 0)
            for model in self.everybody
            for name in self.names
        )

    def _check_numbers(self) -> None:
        """Refuses integers, of which there is no mean, where rows are lacking."""
        for model in self.everybody:
            whole = next((name for name in self.names if not is_floating(model.tensors[name][1])), None)
            if whole is not None and (self.places(model) < 0).any():
                raise PoolError(
                    f"{model.path}: '{whole}' holds integers ({model.tensors[whole][1]}), of which there is no mean "
                    "for tokens that it lacks; align models that are not quantised"
                )

    def places(self, model: Checkpoint) -> NDArray[np.int64]:
        """The row of each of the result's rows in a model's own tensors, shape ``(rows,)``.

        Where there is none: :data:`LACKING` of a token that it lacks, :data:`PADDING` of a row that has no token.
        """
        if model not in self._places:
            own = self.maps[model].ids
            found = np.full(self.rows, PADDING, dtype=np.int64)
            for token, number in self.ids.items():
                found[number] = own.get(token, LACKING)
            self._places[model] = found
        return self._places[model]

    @functools.cached_property
    def _places(self) -> dict[Checkpoint, NDArray[np.int64]]:
        return {}

    @functools.cached_property
    def digest(self) -> str:
        """A digest of what it is, for what is remembered of a model that is seen through it."""
        said = [self.source, self.rows, self.names, sorted(self.ids.items(), key=lambda item: item[1])]
        return blake3(json.dumps(said).encode("utf-8", "surrogatepass")).hexdigest()

    @functools.cached_property
    def stamps(self) -> tuple[Stamp, ...]:
        """Facts about the files of all models, and of their tokenizers: each may decide a row of the others."""
        files = dict.fromkeys(file for model in self.everybody for file in self.maps[model].files.values())
        return (*(stamp for model in self.everybody for stamp in model.stamps), *map(Stamp.of, files))

    @functools.cached_property
    def record(self) -> Vocabulary:
        """The facts from which it is made again, for recipes."""
        places = tuple(_place(model) for model in self.models)
        return Vocabulary(self.source, self.multiple, places, None if self.base is None else _place(self.base))

    @property
    def home(self) -> Checkpoint:
        """The model whose configuration goes along with the result."""
        return self.base or self.models[0]

    def others(self, lines: Iterable[str]) -> Iterator[str]:
        """Chooses from sentences about the files beside the models those that still hold: tokens are dealt with."""
        for line in lines:
            name, taken = line.split(": ")[0], line.rpartition("; the result takes ")[0]
            if name in vocabulary.FILES or line.startswith(f"config.json: {SIZE} is "):
                continue
            yield f"{taken}; the result takes {self.leader.name}'s" if name in FILES and taken else line

    def _said(self, how: str) -> tuple[str, ...]:
        """Sentences about the vocabulary, the models that lack some of it, and the rows that are dropped or added."""
        whose = f"that of {self.leader.name}" if self.source != UNION else f"the union, {self.leader.name}'s ids first"
        lines = [f"vocabulary: {whose}: {plural(len(self.ids), 'token', ',')} in {plural(self.rows, 'row', ',')}"]
        lacking = [(m.name, int((self.places(m) == LACKING).sum())) for m in self.everybody]
        short = [f"{name} {count:,}" for name, count in lacking if count]
        if short:
            base = "the base's, else " if self.base is not None else ""
            lines.append(f"tokens that models lack have {base}the mean of the others' rows: {some(short, 8)}")
        gone = [(m.name, sum(token not in self.ids for token in self.maps[m].ids)) for m in self.everybody]
        left = [f"{name} {count:,}" for name, count in gone if count]
        lines += [f"tokens that are left out: {some(left, 8)}"] if left else []
        spare = [(m.name, rows_in(m.tensors[self.names[0]][0]) - len(self.maps[m].ids)) for m in self.everybody]
        over = [f"{name} {count:,}" for name, count in spare if count > 0]
        lines += [f"rows that no token has are dropped: {some(over, 8)}"] if over else []
        padded = self.rows - len(self.ids)
        lines += (
            [f"{plural(padded, 'row', ',')} of the result without a token: the mean of the others"] if padded else []
        )
        return tuple([*lines, *([how] if how else [])])


def _place(model: Checkpoint) -> Place:
    base = "" if model.adapted is None else whereabouts(model.adapted.base)
    return Place(model.name, whereabouts(model), model.key, base)


def whereabouts(model: Checkpoint) -> str:
    """The place where a model is found again: an id of the Hub with the commit; else an absolute path; empty in memory.

    The path keeps links: a Hub cache's file has its name and suffix only there.
    """
    path: Path = model.path
    if model.in_memory or model.hub:
        return model.hub
    return str(path.absolute() if ".." not in path.parts else path.resolve())


def check_one_vocabulary(models: Sequence[Checkpoint]) -> None:
    """Refuses models in which one row of an embedding stands for two tokens, as their tokenizers say.

    Models without a tokenizer, or with one that cannot be read, say nothing; nor do those without such rows.

    Raises:
        PoolError: it names the first token that differs, and the way out.
    """
    told = [(model, known.ids) for model in models if (known := known_map(model)) is not None]
    first, ids = told[0] if told else (None, {})
    for other, own in told[1:]:
        found = first_difference(ids, own)
        if first is None or found is None:
            continue
        try:
            rows_of_vocabulary((first, other))
        except PoolError:
            return
        token, one, two = (str(each) if each is not None else "missing" for each in found)
        raise PoolError(
            f"token {shown_token(token)} is {two} in {other.path} and {one} in {first.path}: their vocabularies "
            "differ; add `tokenizer_source=union` (or base, first) to align their rows by token"
        )


def check_rows(first: Checkpoint, other: Checkpoint) -> None:
    """Refuses two models that differ in the number of their rows for tokens, and says the way out.

    Raises:
        PoolError: what differs is their vocabularies, or rows without a token.
    """
    names = [name for name, (shape, _) in first.tensors.items() if other.tensors.get(name, (shape,))[0] != shape]
    if not names or not all(known_map(model) for model in (first, other)):
        return
    try:
        rows, _ = rows_of_vocabulary((first, other))
    except PoolError:
        return
    if not set(names) <= set(rows):
        return
    check_one_vocabulary((first, other))
    counts = [rows_in(model.tensors[names[0]][0]) for model in (other, first)]
    raise PoolError(
        f"'{names[0]}' has {counts[0]} rows in {other.path} and {counts[1]} in {first.path}, for the same tokens; add "
        "`tokenizer_source=first` to leave out rows without a token"
    )
