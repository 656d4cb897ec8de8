"""A configuration of mergekit, checked key by key: what is misspelt or not supported is refused before any work."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from merging.errors import MergingError, unknown
from merging.mergekit.document import Document
from merging.mergekit.methods import LATER, METHODS, Method
from merging.mergekit.reference import Reference, reference
from merging.mergekit.setting import Setting, setting
from merging.storage.dtypes import SAFETENSORS, is_floating

DTYPES = tuple(name for name in SAFETENSORS.values() if is_floating(name))
KEYS = ("merge_method", "models", "slices", "base_model", "parameters", "dtype", "out_dtype", "tokenizer_source")
REFUSED = {
    "modules": "is not supported: merges of a model's modules by themselves come later; write 'models'",
    "tokenizer": "is not supported yet; where all models have one vocabulary, 'tokenizer_source' chooses the tokenizer",
    "chat_template": "is not supported: the template of the first model goes along; change it in the result's folder",
}
"""Keys of mergekit's that are refused → why."""


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


@dataclass(frozen=True, kw_only=True)
class Configuration:
    """A configuration of mergekit.

    Attributes:
        document: all of the file.
        name: the method's name.
        method: what it means here.
        slices: the models: one slice, or several, one after the other.
        base: the base model.
        parameters: what is set for the whole merge.
        dtype: dtype of the result; none: the models'.
        tokenizer: ``base``, ``union``, a model, or none.
    """

    document: Document
    name: str
    method: Method
    slices: tuple[Slice, ...]
    base: Reference | None
    parameters: Mapping[str, Setting]
    dtype: str | None
    tokenizer: str | Reference | None

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
        yield self.parameters

    @property
    def settings(self) -> Iterator[tuple[str, Setting]]:
        """All settings of the file, with their parameters' names."""
        yield from self.parameters.items()
        for part in self.slices:
            yield from part.parameters.items()
            for entry in part.entries:
                yield from entry.parameters.items()


def configuration(document: Document) -> Configuration:
    """Checks all of a file, key by key.

    Raises:
        MergingError: names the first entry that is wrong or not supported.
    """
    document.mapping("a configuration of mergekit")
    document.check_keys(KEYS, REFUSED)
    name = _needed(document, "merge_method", "such as ties").text("the name of a method")
    if name in LATER:
        raise document["merge_method"].wrong(f"is '{name}', which is not supported: {LATER[name]}")
    if name not in METHODS:
        raise unknown(f"method at {document['merge_method'].where}:", name, METHODS, error=MergingError)
    method = METHODS[name]
    if (document.get("models") is None) == (document.get("slices") is None):
        raise document.wrong("has to have 'models' or 'slices', one of them")
    base = document.get("base_model")
    found = Configuration(
        document=document,
        name=name,
        method=method,
        slices=tuple(_slices(document, name)),
        base=None if base is None else reference(base),
        parameters=_parameters(document, name),
        dtype=_dtype(document),
        tokenizer=_tokenizer(document),
    )
    _check_models(found)
    return found


def _needed(said: Document, key: str, example: str) -> Document:
    found = said.get(key)
    if found is None:
        raise said.wrong(f"has no '{key}', {example}")
    return found


def _slices(document: Document, name: str) -> Iterator[Slice]:
    """The models: as one slice where the file lists models."""
    if document.get("models") is not None:
        said = document["models"].listed("models")
        yield Slice(tuple(_entry(each, name) for each in said), {}, said)
        return
    for each in document["slices"].listed("slices"):
        each.mapping("a slice with 'sources'").check_keys(
            ("sources", "parameters"),
            {
                "base_model": "is not supported: one base is the base of all layers",
                "residual_weight": "is not supported, and mergekit does nothing with it",
            },
        )
        sources = _needed(each, "sources", "its models").listed("models with their 'layer_range'")
        yield Slice(tuple(_entry(source, name, sliced=True) for source in sources), _parameters(each, name), each)


def _entry(said: Document, name: str, *, sliced: bool = False) -> Entry:
    said.mapping("a mapping with 'model'").check_keys(("model", "parameters", *(("layer_range",) if sliced else ())))
    model = reference(_needed(said, "model", "a folder or an id of the Hub"))
    layers = None
    if sliced:
        ends = _needed(said, "layer_range", "such as [0, 32]").listed("two numbers")
        if (
            len(ends.value) != 2
            or not all(type(end) is int for end in ends.value)
            or not 0 <= ends.value[0] < ends.value[1]
        ):
            raise ends.wrong("is not [FIRST, BEHIND THE LAST], such as [0, 32]")
        layers = (ends.value[0], ends.value[1])
    return Entry(model, _parameters(said, name, own=True), said, layers)


def _parameters(said: Document, name: str, *, own: bool = False) -> dict[str, Setting]:
    """The settings below a place's ``parameters``.

    Args:
        said: the file, a slice or a model.
        name: the method's.
        own: whether they are one model's: mergekit takes no others there, and passes over those of the whole merge.
    """
    found, known = said.get("parameters"), METHODS[name].parameters
    if found is None:
        return {}
    for key in found.mapping("a mapping of parameters").value:
        if key not in known:
            elsewhere = sorted(other for other, method in METHODS.items() if key in method.parameters)
            shown = found[key]
            if elsewhere:
                raise shown.wrong(f"is no parameter of '{name}', and mergekit passes over it in silence; delete it")
            raise unknown(f"parameter of '{name}' at {shown.where}:", key, known, error=MergingError)
        if own and not known[key].per_model:
            raise found[key].wrong(
                "belongs to the whole merge, not to a model: mergekit reads it in 'parameters' alone"
            )
    return {key: setting(found[key], known[key]) for key in found.value if found.value[key] is not None}


def _dtype(document: Document) -> str | None:
    """The dtype of the result: ``out_dtype``, or the one that mergekit computes in."""
    read = list[str]()
    for key in ("out_dtype", "dtype"):
        if (said := document.get(key)) is not None:
            name = said.text("a dtype").removeprefix("torch.")
            if name not in DTYPES:
                raise unknown(f"dtype at {said.where}:", name, DTYPES, error=MergingError)
            read.append(name)
    return read[0] if read else None


def _tokenizer(document: Document) -> str | Reference | None:
    said = document.get("tokenizer_source")
    if said is None or said.value in ("base", "union"):
        return None if said is None else str(said.value)
    return reference(said)


def _check_models(found: Configuration) -> None:
    """Refuses models that stand twice, slices of unlike models, and a base that is missing or too much."""
    document, first = found.document, [entry.model for entry in found.entries]
    for part in found.slices:
        models = [entry.model for entry in part.entries]
        for place, entry in enumerate(part.entries):
            if entry.model in models[:place]:
                raise entry.said.wrong(f"stands twice: '{entry.model}' is listed above")
        if models != first:
            raise part.said.wrong(
                "has other models than the first slice, or in another order: layers of several models, one after the "
                "other, come later"
            )
    if found.method.base in ("needed", "first") and found.base is None:
        raise document.wrong(f"has no 'base_model', and '{found.name}' needs one")
    counted = [model for model in first if found.method.base in ("counts", "first") or model != found.base]
    if found.method.base in ("counts", "first") and found.base is not None and found.base not in counted:
        counted.append(found.base)
    fewest, most = found.method.fewest, found.method.most
    if len(counted) < fewest or (most is not None and len(counted) > most):
        besides = " besides the base" if found.method.base not in ("counts", "first") and found.base is not None else ""
        wanted = f"{fewest}" if fewest == most else f"at least {fewest}"
        raise document["models" if "models" in document.value else "slices"].wrong(
            f"names {len(counted)} models{besides}; '{found.name}' merges {wanted}"
        )
