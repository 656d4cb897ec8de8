"""Texts, or pairs of texts, for a text model: a table, or a folder of ``save_to_disk``."""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from merging.data.form import COMMON, DataForm
from merging.errors import TaskError
from merging.plugins.registry import forms

if TYPE_CHECKING:
    from merging.data.classes import Labelling
    from merging.data.opened import Opened
    from merging.data.reader import Reader
    from merging.plugins.task import Split
    from merging.values.labels import Written

FOR_LANGUAGE = ("text", "prompt", "completion", "messages", "question", "choices", "answer")
"""Columns of what language models are scored on."""


@forms.register("texts")
@dataclass(frozen=True)
class Texts(DataForm):
    """A table of texts (column ``text``), or of pairs in two columns, and labels; read by the model's own tokenizer."""

    summary: ClassVar[str] = "a table, or a folder of save_to_disk, with texts or pairs of texts, for a text model"
    formula: ClassVar[str] = "sample i: the token ids of row i's text, padded to the longest, and its label"
    limits: ClassVar[str] = "Texts longer than the model takes are cut off."
    paper: ClassVar[str] = "Lhoest et al. 2021, https://arxiv.org/abs/2109.02846; https://jsonlines.org"
    written: ClassVar[str] = ".jsonl, .csv or .tsv, a folder of save_to_disk"
    suffixes: ClassVar[tuple[str, ...]] = (".csv", ".tsv", ".jsonl", ".ndjson", ".json")
    keys: ClassVar[tuple[str, ...]] = (*COMMON, "label", "text", "group")
    texts: ClassVar[bool | None] = True
    rank: ClassVar[int] = 1

    def reads(self, path: str) -> bool:
        """Whether the path is a table, or a folder of ``save_to_disk``."""
        from merging.data.saved import names_saved

        return super().reads(path) or names_saved(path)

    def open(self, reader: Reader) -> Opened:
        """Reads texts and labels; they are tokenized later."""
        import torch

        from merging.data import tables
        from merging.data.groups import in_groups
        from merging.data.reader import unlabelled, wanted
        from merging.data.saved import Saved
        from merging.data.text import COLUMN, takes_texts, text_columns, tokenized
        from merging.plugins.task import Split

        source, file, label = reader.source, Path(reader.path).expanduser(), reader.options.get("label")
        if not takes_texts(source):
            raise TaskError(f"{reader.path} holds texts, and the model takes none")
        named = text_columns(reader.path, reader.options.get("text"))
        labels: list[Written] = []
        declared: tuple[str, ...] | None = None
        groups: list[Any] | None = None
        if super().reads(reader.path):
            rows = tables.rows(file)
            if reader.labelled and label is None and set(rows[0]) <= set(FOR_LANGUAGE):
                raise TaskError(
                    f"{reader.path} has no column 'label', and the model classifies texts; texts without labels are "
                    "for causal language models (…ForCausalLM)"
                )
            columns = [tables.texts(file, rows, name) for name in named or (COLUMN,)]
            if reader.labelled:
                labels = tables.labels(file, tables.column(file, rows, label or "label"), reader.progress.say)
            groups = reader.groups(file, rows)
        else:
            data = Saved(
                str(file),
                "text",
                named,
                label,
                labelled=reader.labelled,
                group=reader.options.get("group"),
                say=reader.progress.say,
            )
            columns, labels, declared, groups = data.texts(), data.labels, data.names, data.groups

        def decode(found: Labelling | None) -> Split:
            if found is None:
                return Split.of(tokenized(reader.path, columns, source, reader.progress), unlabelled(len(columns[0])))
            keep, numbers = wanted(samples, found)
            chosen = [list(itertools.compress(column, keep)) for column in columns]
            ids = tokenized(reader.path, chosen, source, reader.progress)
            return Split.of(ids, torch.tensor(numbers), found.groups)

        samples, load = in_groups(reader.path, labels, groups, decode, first=reader.first_row)
        return reader.listed(declared, labels, load, spelled=declared is None)

    @staticmethod
    def tiny(folder: Path) -> str:
        """Nine texts of three classes."""
        from merging.data.examples import CLASSES
        from merging.storage import atomic

        rows = [f"a {CLASSES[number % 3]} of number {number},{CLASSES[number % 3]}" for number in range(9)]
        atomic.write(folder / "set.csv", "\n".join(["text,label", *rows]) + "\n")
        return str(folder / "set.csv")
