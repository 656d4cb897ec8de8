"""A configuration of mergekit as a value: models, parameters where they are set, dtype, vocabulary."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from merging.mergekit.document import Document
from merging.mergekit.methods import Method
from merging.mergekit.reference import Reference
from merging.mergekit.setting import Setting


@dataclass(frozen=True)
class Entry:
    """A model in the file, with its own parameters.

    Attributes:
        model: which.
        parameters: its parameters by mergekit's names.
        said: the place in the file.
        layers: first layer and the one behind the last, of the entries of slices.
    """

    model: Reference
    parameters: Mapping[str, Setting]
    said: Document
    layers: tuple[int, int] | None = None


@dataclass(frozen=True)
class Slice:
    """Some of the layers of all models, or all of them.

    Attributes:
        entries: the models.
        parameters: what is set for these layers of all models.
        said: the place in the file.
    """

    entries: tuple[Entry, ...]
    parameters: Mapping[str, Setting]
    said: Document


@dataclass(frozen=True)
class Tokenizer:
    """The vocabulary of the result.

    Attributes:
        said: the place in the file.
        source: ``union``, ``base``, or a model.
        multiple: a number of which that of its rows is to be a multiple; none: any number.
    """

    said: Document
    source: str | Reference
    multiple: int | None = None


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A configuration of mergekit.

    Attributes:
        document: all of the file.
        name: the method's name.
        method: what it means here.
        slices: the models: one slice, or several, one after the other.
        base: the base model.
        module: what is set for the one module that the file names.
        parameters: what is set for the whole merge.
        dtype: dtype of the result; none: the models'.
        tokenizer: the vocabulary of the result; none: the models'.
        template: the place where the chat template is said; none: it is not.
    """

    document: Document
    name: str
    method: Method
    slices: tuple[Slice, ...]
    base: Reference | None
    module: Mapping[str, Setting]
    parameters: Mapping[str, Setting]
    dtype: str | None
    tokenizer: Tokenizer | None
    template: Document | None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The models of the file, each once, in its order."""
        return self.slices[0].entries

    def scopes(self, of: Slice, model: Reference | None) -> Iterator[Mapping[str, Setting]]:
        """The places where a parameter may be set, what counts most first.

        Args:
            of: the slice.
            model: the one whose parameter it is; none: the parameter is the whole merge's.
        """
        for entry in of.entries:
            if model is not None and entry.model == model:
                yield entry.parameters
        yield of.parameters
        yield self.module
        yield self.parameters

    @property
    def settings(self) -> Iterator[tuple[str, Setting]]:
        """All settings of the file, with their parameters' names."""
        yield from self.parameters.items()
        yield from self.module.items()
        for part in self.slices:
            yield from part.parameters.items()
            for entry in part.entries:
                yield from entry.parameters.items()
