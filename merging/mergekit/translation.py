"""From a configuration of mergekit to the merge.toml that does the same: models, strategy, options, partition."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from merging.mergekit.configuration import Configuration
from merging.mergekit.document import read
from merging.mergekit.models import Models, models_of
from merging.mergekit.options import Options
from merging.mergekit.reading import configuration
from merging.mergekit.templates import check_template
from merging.mergekit.values import Values


@dataclass(frozen=True, kw_only=True)
class Translation:
    """A configuration in this project's words.

    Attributes:
        file: the configuration.
        method: mergekit's name of the method.
        models: files and folders, absolute, and ids of the Hub.
        base: the base; none: there is none.
        run: the table [run] of the merge.toml.
        notes: sentences about what the file says without effect.
    """

    file: Path
    method: str
    models: tuple[str, ...]
    base: str | None
    run: Mapping[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def tables(self) -> dict[str, Any]:
        """The tables of the merge.toml."""
        pool = {"models": list(self.models), **({} if self.base is None else {"base": self.base})}
        return {"pool": pool, "run": dict(self.run)}


def translation(path: Path) -> Translation:
    """Reads a configuration, opens its models (of the Hub's, headers are enough), and says it in this project's words.

    Raises:
        MergingError: something in it is wrong or not supported, and where; or its models do not fit together.
    """
    found = configuration(read(path))
    models = models_of(found)
    check_template(found, models)
    values = Values(found, models)
    partition = {"partitioner": "custom"} if len(values.groups) > 1 else {}
    chosen: dict[str, Any] = {"strategy": Options(found, models, values).all()}
    if partition:
        chosen["partitioner"] = {"patterns": [f"{group.name}={group.pattern}" for group in values.groups]}
    dtype = {} if found.dtype is None else {"dtype": found.dtype}
    return Translation(
        file=path,
        method=found.name,
        models=models.sources,
        base=models.base,
        run={"strategy": found.method.strategy, **partition, **dtype, **models.vocabulary, "options": chosen},
        notes=tuple(_notes(found, models)),
    )


def _notes(found: Configuration, models: Models) -> list[str]:
    """Says what stands in the file and changes nothing."""
    known = found.method.parameters
    named = ["name changes nothing (it is for files of several merges)"] if "name" in found.document.value else []
    notes = named + [
        f"{each.said.place} changes nothing ({known[name].inert})" for name, each in found.settings if known[name].inert
    ]
    notes += [
        f"{each.said.place}: the filter '{text}' is in no tensor's name"
        for _, each in found.settings
        for text in sorted(each.filters)
        if not any(text in tensor for tensor in models.tensors)
    ]
    if found.method.base == "needed":
        notes += [
            f"{each.said.place} changes nothing: it is the base's"
            for part in found.slices
            for entry in part.entries
            if entry.model == found.base
            for each in entry.parameters.values()
        ]
    return notes
