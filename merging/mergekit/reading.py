"""From a file to a configuration, key by key: what is misspelt or not supported is refused before any work."""

from __future__ import annotations

from collections.abc import Iterator

from merging.errors import MergingError, unknown
from merging.mergekit.configuration import Configuration, Entry, Slice, Tokenizer
from merging.mergekit.document import Document
from merging.mergekit.methods import LATER, METHODS
from merging.mergekit.reference import reference
from merging.mergekit.setting import Setting, setting
from merging.storage.dtypes import SAFETENSORS, is_floating

DTYPES = tuple(name for name in SAFETENSORS.values() if is_floating(name))
SOURCES = ("models", "slices", "modules")
KEYS = ("merge_method", *SOURCES, "base_model", "parameters", "dtype", "out_dtype", "chat_template", "name")
PARAMETERS = frozenset(name for method in METHODS.values() for name in method.parameters)
TOKENIZERS = ("tokenizer_source", "tokenizer")
"""Keys that say whose vocabulary the result has: one of them."""


def configuration(document: Document) -> Configuration:
    """Checks all of a file, key by key.

    Raises:
        MergingError: names the first entry that is wrong or not supported.
    """
    document.mapping("a configuration of mergekit")
    document.check_keys((*KEYS, *TOKENIZERS), misplaced=dict.fromkeys(PARAMETERS, "belongs into 'parameters'"))
    name = _needed(document, "merge_method", "such as ties").text("the name of a method")
    if name in LATER:
        raise document["merge_method"].wrong(f"is '{name}', which is not supported: {LATER[name]}")
    if name not in METHODS:
        raise unknown(f"method {document.inside('merge_method')}:", name, METHODS, error=MergingError)
    method = METHODS[name]
    body = _body(document)
    base = document.get("base_model")
    found = Configuration(
        document=document,
        name=name,
        method=method,
        slices=tuple(_slices(body, name)),
        base=None if base is None else reference(base),
        module={} if body is document else _parameters(body, name),
        parameters=_parameters(document, name),
        dtype=_dtype(document),
        tokenizer=_tokenizer(document),
        template=document.get("chat_template"),
    )
    _check_models(found)
    return found


def _needed(said: Document, key: str, example: str) -> Document:
    found = said.get(key)
    if found is None:
        raise said.wrong(f"has no '{key}', {example}")
    return found


def _body(document: Document) -> Document:
    """The part of the file that lists models or slices: all of it, or the one module that it names.

    Raises:
        MergingError: there is none, or more than one.
    """
    there = [key for key in SOURCES if document.get(key) is not None]
    if len(there) != 1:
        raise document.wrong(f"has {' and '.join(there) or 'no models'}; it has to have 'models' or 'slices'")
    if there != ["modules"]:
        return document
    modules = document["modules"].mapping("a mapping of modules")
    if list(modules.value) != ["default"]:
        raise modules.wrong("is not supported but for 'default' alone: other modules by themselves come later")
    body = modules["default"].mapping("a mapping with 'models' or 'slices'")
    body.check_keys(("models", "slices", "parameters"))
    if (body.get("models") is None) == (body.get("slices") is None):
        raise body.wrong("has to have 'models' or 'slices', one of them")
    return body


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
    said.mapping("a mapping with 'model'").check_keys(
        ("model", "parameters", *(("layer_range",) if sliced else ())),
        misplaced=dict.fromkeys(PARAMETERS, "belongs into the model's 'parameters'"),
    )
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
            if key in KEYS:
                raise found[key].wrong("belongs to the file's top, not into 'parameters'; mergekit passes over it")
            elsewhere = sorted(other for other, method in METHODS.items() if key in method.parameters)
            if elsewhere:
                raise found[key].wrong(
                    f"is no parameter of '{name}', and mergekit passes over it in silence; delete it"
                )
            raise unknown(f"parameter of '{name}' {found.inside(key)}:", key, known, error=MergingError)
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
                raise unknown(f"{key} {document.inside(key)}:", name, DTYPES, error=MergingError)
            read.append(name)
    return read[0] if read else None


def _tokenizer(document: Document) -> Tokenizer | None:
    both = [found for key in TOKENIZERS if (found := document.get(key)) is not None]
    if len(both) > 1:
        raise both[1].wrong("stands beside 'tokenizer_source'; one of them says whose vocabulary the result has")
    if not both:
        return None
    said, multiple = both[0], None
    if said.path[-1] == "tokenizer":
        said.mapping("a mapping with 'source'").check_keys(
            ("source", "pad_to_multiple_of"), {"tokens": "is not supported: rows of single tokens come later"}
        )
        if (rows := said.get("pad_to_multiple_of")) is not None:
            if type(rows.value) is not int or rows.value < 1:
                raise rows.wrong(f"is '{rows.value}', not a whole number")
            multiple = rows.value
        if said.get("source") is None:
            return Tokenizer(said, "union", multiple)
        said = said["source"]
    return Tokenizer(said, said.value if said.value in ("base", "union") else reference(said), multiple)


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
        raise found.slices[0].said.wrong(f"names {len(counted)} models{besides}; '{found.name}' merges {wanted}")
